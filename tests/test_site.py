"""The leaderboard's pages in a browser, opened from the file system: what a person sees, sorts, filters and reads."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from board import put, record
from playwright.sync_api import Browser, Page, sync_playwright

from leaderboard import build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; CI installs one (apt-get install chromium)")

NAMES = ("single-step GM", "BPTT", "full")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("board")
    for i, method in enumerate(NAMES):
        for seed in (0, 1):
            put(place / "runs", record(method, seed, (60.0 + 10 * i + seed, 62.0 + 10 * i)), pictures=True)
        put(place / "runs", record(method, 0, (50.0 + 15 * i,), reduced=False), folder=f"full{i}")
    put(place / "runs", record("full", 0, (97.0, 98.0), dataset="digits"))
    put(place / "runs", record("<b>bold</b>", name='"><script>document.title = "taken"</script>', cell={}))
    for bases in ("4", "16"):
        put(place / "runs", record(bases, name="bases", axis="bases", bases=bases))
    same = {"parameterization": {"is": "addressing"}}
    for made in ("AlexNet", "ConvNet"):
        put(place / "runs", record(made, name="transfer", axis="trained on", architecture={"is": made.lower()}, **same))
    assert build.main(["--records", str(place / "runs"), "--out", str(place / "site")]) == 0
    return place / "site"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, site: Path) -> Iterator[Page]:
    """A page whose console must stay without errors, and which may load nothing from a network."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    made = context.new_page()
    trouble: list[str] = []
    made.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    made.on("pageerror", lambda error: trouble.append(str(error)))
    made.on("request", lambda one: trouble.append(one.url) if not one.url.startswith(("file:", "data:")) else None)
    yield made
    context.close()
    assert trouble == []


def opened(page: Page, site: Path, name: str) -> Page:
    page.goto((site / name).as_uri())
    return page


def column(page: Page, title: str, part: str) -> list[str]:
    """What stands in a column of one part of the table, the rows that are shown alone."""
    titles = page.locator("#rows thead th").all_inner_texts()
    at = [one.split("\n")[0].strip(" ▲▼") for one in titles].index(title)
    rows = page.locator(f"#{part} tr.row:visible")
    return [rows.nth(i).locator("th, td").nth(at).inner_text().split("\n")[0] for i in range(rows.count())]


@pytest.mark.slow
def test_every_page_opens_without_an_error(page: Page, site: Path) -> None:
    for file in sorted(site.rglob("*.html")):
        opened(page, site, str(file.relative_to(site)))
        assert page.locator("h1").count() == 1 and page.title().endswith("Addressable-Memory Suite")


def test_the_front_page_leads_to_every_table(page: Page, site: Path) -> None:
    opened(page, site, "index.html")
    links = page.locator(".cards a")
    assert links.count() == 11
    links.first.click()
    assert page.locator("h1").inner_text().startswith("Table 3")


def test_rows_are_sorted_by_numbers_within_their_part(page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    heading = page.get_by_role("columnheader", name="here, test")
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    ascending = [column(page, "method", part) for part in ("full", "reduced")]
    assert ascending[0] == list(NAMES)
    assert [name.split(" reduced")[0] for name in ascending[1]] == ["single-step GM", "BPTT", "full", "full"]
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert column(page, "method", "full") == list(reversed(NAMES))
    # No reduced run came among the full ones, whatever its figure.
    assert page.locator("#full tr.row").count() == 3 and page.locator("#full .mark").count() == 0


def test_the_keyboard_alone_sorts(page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    page.get_by_role("columnheader", name="here, test").get_by_role("button").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert column(page, "method", "full") == list(reversed(NAMES))
    page.keyboard.press("Home")
    opened(page, site, "components.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"


@pytest.mark.parametrize(
    ("label", "value", "left"),
    [("Data set", "digits", 1), ("Method", "BPTT", None), ("Scale", "paper", 3), ("I/C", "1", None)],
)
def test_rows_are_filtered(label: str, value: str, left: int | None, page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    before = page.locator("tr.row:visible").count()
    page.get_by_role("combobox", name=label).select_option(value)
    shown = page.locator("tr.row:visible").count()
    assert 0 < shown < before and (left is None or shown == left)
    assert page.locator("#shown").inner_text() == f"{shown} row{'' if shown == 1 else 's'}"
    page.get_by_role("combobox", name=label).select_option("")
    assert page.locator("tr.row:visible").count() == before


def test_a_reduced_run_carries_its_mark_and_no_rank(page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    rows = page.locator("#reduced tr.row")
    assert rows.count() == 4
    for i in range(rows.count()):
        assert rows.nth(i).locator(".mark").inner_text() == "reduced" and rows.nth(i).locator(".mark").is_visible()
    assert set(column(page, "rank", "reduced")) == {"–"}
    assert column(page, "rank", "full") == ["3", "2", "1"]
    rows.first.get_by_role("link", name="seed 0").click()
    assert page.locator("h1 .mark").inner_text() == "reduced" and "200 of 50000" in page.inner_text("main")


def test_a_run_s_page_shows_its_pictures_curves_and_how_to_run_it_again(page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    page.locator("#reduced tr.row").first.get_by_role("link", name="seed 0").click()
    picture = page.locator(".pictures img")
    assert picture.count() == 1
    picture.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.pictures img').complete")
    assert picture.evaluate("image => image.naturalWidth") == 1 and picture.get_attribute("alt")
    curve = page.locator(".chart svg").first
    assert curve.get_attribute("aria-label") and curve.locator("polyline").get_attribute("points")
    again = page.get_by_text("python -m suite.run --gin").inner_text()
    assert (site / "runs" / again.split()[-1]).read_text().startswith("# single-step GM")
    page.get_by_text("Configuration with every default").click()
    assert page.get_by_text("# every default").is_visible()


def test_charts_and_the_matrix_are_drawn(page: Page, site: Path) -> None:
    opened(page, site, "bases.html")
    assert page.locator(".chart .dot").count() == 2
    opened(page, site, "transfer.html")
    assert page.locator(".matrix").count() == 3  # here, and the paper's two
    assert page.locator(".matrix caption .mark").count() == 1


def test_light_and_dark_follow_the_system_and_the_button(page: Page, site: Path) -> None:
    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page.emulate_media(color_scheme="light")
    opened(page, site, "components.html")
    light = ground()
    page.emulate_media(color_scheme="dark")
    dark = ground()
    assert light != dark
    button = page.get_by_role("button", name="Theme")
    button.click()
    assert "light" in button.inner_text() and ground() == light
    button.click()
    assert "dark" in button.inner_text() and ground() == dark
    opened(page, site, "index.html")
    assert ground() == dark  # it is remembered


def test_a_small_screen_scrolls_the_table_and_not_the_page(page: Page, site: Path) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    runs = [f"runs/{file.name}" for file in sorted((site / "runs").glob("*.html"))[:3]]
    for name in ("index.html", "components.html", "transfer.html", "others.html", "field.html", *runs):
        opened(page, site, name)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
    opened(page, site, "components.html")
    assert page.evaluate("(e => e.scrollWidth > e.clientWidth)(document.querySelector('.scroll'))")


def test_names_of_records_stay_text(page: Page, site: Path) -> None:
    opened(page, site, "others.html")
    assert page.title().startswith("Other runs")
    assert page.locator("#rows td", has_text="<script>document.title").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_on_their_ground(scheme: str, page: Page, site: Path) -> None:
    """Contrast of at least 4.5 (WCAG AA) for text, quiet text, links and marks."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    opened(page, site, "components.html")
    for selector in ("h1", "footer", "nav a", "tr.part p", "#reduced .mark", "#full small", "thead th"):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector


CONTRAST = """selector => {
  const light = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const element = document.querySelector(selector);
  let ground = element;
  while (ground && /rgba\\(.*, 0\\)/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
  const pair = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(light);
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""
