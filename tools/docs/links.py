"""Links of a built site: internal ones and their anchors must lead somewhere, and nothing be fetched from elsewhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {("script", "src"), ("img", "src"), ("source", "srcset"), ("iframe", "src"), ("link", "href")}
"""Attributes whose address a browser asks for by itself: from elsewhere, they would need a network."""

NOT_FETCHED = {"canonical", "next", "prev"}
"""Kinds of `link` that only name a page."""


class Page(HTMLParser):
    """What one page names and offers."""

    def __init__(self, text: str) -> None:
        """`text`: its HTML."""
        super().__init__()
        self.anchors: set[str] = set()
        """What an address of the page may have behind '#'."""
        self.links: list[str] = []
        """All addresses in it."""
        self.fetched: list[str] = []
        """Those that a browser asks for by itself."""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the anchors and addresses of a tag."""
        given = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := given.get(name))}
        for name in ("href", "src", "srcset"):
            if (value := given.get(name)) and not (tag == "link" and given.get("rel") in NOT_FETCHED):
                self.links.append(value)
                self.fetched += [value] if (tag, name) in FETCHED else []


def broken_links(site: Path) -> list[str]:
    """What is wrong, as 'page: address': no file, no such anchor, or fetched from another host.

    The pages of the leaderboard are looked at for what they fetch and for their files; their script makes anchors.
    """
    files = sorted(site.rglob("*.html"))
    read = {file.resolve(): Page(file.read_text()) for file in files}
    wrong = []
    for file, page in read.items():
        name = str(file.relative_to(site.resolve()))
        wrong += [f"{name}: {link} is fetched from elsewhere" for link in page.fetched if urlsplit(link).netloc]
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or name == "404.html":
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            made = target in read and "leaderboard" in target.parts
            if not target.is_file():
                wrong.append(f"{name}: {link}")
            elif parts.fragment and target in read and not made and unquote(parts.fragment) not in read[target].anchors:
                wrong.append(f"{name}: {link} (no such anchor)")
    return wrong
