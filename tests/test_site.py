"""The leaderboard's pages in a browser, opened from the file system: what a person sees, sorts, filters and reads."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from board import put, record
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from leaderboard import build
from leaderboard.pages import PAGES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; CI installs one (apt-get install chromium)")

NAMES = ("single-step GM", "BPTT", "full")


def timed(made: dict[str, Any], seconds: float) -> dict[str, Any]:
    made["cost"]["distillation_seconds"] = seconds
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("board")
    for i, method in enumerate(NAMES):
        for seed in (0, 1):
            made = record(method, seed, (60.0 + 10 * i + seed, 62.0 + 10 * i))
            put(place / "runs", timed(made, 10.0 * (i + 1)), pictures=True)
        put(place / "runs", timed(record(method, 0, (50.0 + 15 * i,), reduced=False), 100.0), folder=f"full{i}")
    put(place / "runs", record("full", 0, (97.0, 98.0), dataset="digits"), pictures=True)
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


def column(page: Page, key: str, part: str) -> list[str]:
    """What stands in a column of the full or the reduced parts, the rows that are shown alone, controls left out."""
    at = page.locator("#rows thead th").evaluate_all("(all, key) => all.findIndex(one => one.dataset.key === key)", key)
    rows = page.locator(f"#rows tbody.{part} tr.row:not(.control):visible")
    return [rows.nth(i).locator("> *").nth(at).inner_text().split("\n")[0] for i in range(rows.count())]


def methods(page: Page, part: str) -> list[str]:
    rows = page.locator(f"#rows tbody.{part} tr.row:not(.control):visible")
    return [str(rows.nth(i).get_attribute("data-method")) for i in range(rows.count())]


def heading(page: Page, key: str) -> Locator:
    return page.locator(f"#rows thead th[data-key={key}]")


@pytest.mark.slow
def test_every_page_opens_without_an_error(page: Page, site: Path) -> None:
    for file in sorted(site.rglob("*.html")):
        opened(page, site, str(file.relative_to(site)))
        assert page.locator("h1").count() == 1 and page.title().endswith("Addressable-Memory Suite")


def test_the_front_page_leads_to_every_table(page: Page, site: Path) -> None:
    opened(page, site, "index.html")
    links = page.locator(".cards a")
    assert links.count() == len(PAGES) + 1  # and the speedrun
    links.first.click()
    assert page.locator("h1").inner_text().startswith("Table 3")


def test_the_front_page_shows_the_best_of_each_data_set_beside_its_controls(page: Page, site: Path) -> None:
    opened(page, site, "index.html")
    assert page.locator(".field > h2").all_inner_texts() == ["Fashion-MNIST", "digits"]
    card = page.locator("#fashion_mnist .best-of")
    bars = card.locator("svg rect.amount")
    assert [str(one).split()[-1] for one in bars.evaluate_all("all => all.map(one => one.className.baseVal)")] == [
        "memory", "memory", "memory", "random", "whole"
    ]  # fmt: skip
    names = card.locator("svg .name").all_text_contents()
    assert names == ["full (best)", "BPTT", "single-step GM", "random real images", "full data"]
    widths = bars.evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
    assert widths[4] > widths[0] > widths[1] > widths[3] > widths[2] > 0  # 90, 80, 65, 51 and 50 percent
    # Without colour: memories, random images and all data are not filled alike.
    fills = bars.evaluate_all("all => all.map(one => getComputedStyle(one).fill)")
    assert len(set(fills)) == 3 and "url" in fills[3] and fills[4] == "none"
    assert card.locator("svg path.whisker").count() >= 1
    assert card.locator("svg").get_attribute("aria-label") and "80.0" in card.locator(".chart ul").inner_text()
    assert "better" in card.locator(".behind").inner_text() or "no interval" in card.locator(".behind").inner_text()
    card.locator("p a").click()
    row = page.locator("tr:target")
    assert row.get_attribute("data-method") == "full" and row.locator(".mark.good").is_visible()
    assert row.locator("xpath=following-sibling::tr[1]").is_visible()  # what is linked to is unfolded


def test_the_front_page_shows_accuracy_against_storage_and_time(page: Page, site: Path) -> None:
    opened(page, site, "index.html")
    plots = page.locator("#fashion_mnist .plots > .chart")
    assert plots.count() == 2
    for kind in ("full", "reduced", "printed"):
        assert (plots.nth(0).locator(f".mark-{kind}").count() > 0) and (
            (plots.nth(1).locator(f".mark-{kind}").count() > 0) == (kind != "printed")  # nobody prints seconds
        )
    assert (
        plots.nth(0).locator(".mark-printed path").count() and not plots.nth(0).locator(".mark-printed circle").count()
    )
    assert plots.nth(0).locator("path.front").count() == 2 and plots.nth(1).locator("path.front").count() == 1
    plots.nth(1).get_by_text("The best at each cost").click()
    best = plots.nth(1).locator("li").first
    assert best.is_visible() and best.inner_text().startswith("single-step GM (cpu, 200 of 50,000 iterations): 61.2 ")


def test_the_front_page_shows_what_the_best_recalls_and_the_speedrun(page: Page, site: Path) -> None:
    opened(page, site, "index.html")
    picture = page.locator("#digits .recalled img")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#digits .recalled img').complete")
    assert picture.evaluate("image => image.naturalWidth") == 1 and picture.get_attribute("alt")
    rows = page.locator("#records tbody tr")
    assert rows.count() == 9 and "no record yet" in rows.nth(5).inner_text()


def test_a_table_has_seven_columns_and_fits_the_window(page: Page, site: Path) -> None:
    page.set_viewport_size({"width": 1400, "height": 900})
    for file in (*sorted(site.glob("*.html")), *sorted(site.glob("runs/*.html"))[:4]):
        opened(page, site, str(file.relative_to(site)))
        for table in page.locator("table:visible").all():
            if "matrix" not in str(table.get_attribute("class")):
                assert table.locator("thead th").count() <= 7, file.name
            assert table.evaluate("one => one.getBoundingClientRect().right <= window.innerWidth"), file.name
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), file.name


def test_the_first_click_puts_the_best_first_in_every_part(page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    accuracy = heading(page, "accuracy")
    accuracy.get_by_role("button").click()
    assert accuracy.get_attribute("aria-sort") == "descending"
    assert methods(page, "full") == list(reversed(NAMES))
    first = page.locator("#rows tbody.reduced").first.locator("tr.row")
    assert [first.nth(i).get_attribute("data-method") for i in range(first.count())] == [
        "full data", "full", "BPTT", "single-step GM", "random real images"
    ]  # fmt: skip
    accuracy.get_by_role("button").click()
    assert accuracy.get_attribute("aria-sort") == "ascending" and methods(page, "full") == list(NAMES)
    # No reduced run came among the full ones, whatever its figure.
    assert page.locator("#rows tbody.full tr.row:not(.control)").count() == 3
    cost = heading(page, "cost").get_by_role("button")
    cost.click()
    assert heading(page, "cost").get_attribute("aria-sort") == "ascending"  # the cheapest is the best
    for row in page.locator("#rows tr.row").all():
        assert "more" in str(row.evaluate("one => one.nextElementSibling.className"))


def test_the_best_of_a_part_is_marked(page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    marked = page.locator("#rows tr.row:has(.mark.good)")
    assert marked.count() == page.locator("#rows tbody").count() == 3
    assert {str(one.get_attribute("data-method")) for one in marked.all()} == {"full"}


def differences(page: Page, part: int = 0) -> dict[str, str]:
    """By method of a part, what stands under 'difference'."""
    at = int(heading(page, "difference").evaluate("one => one.cellIndex"))
    rows = page.locator("#rows tbody").nth(part).locator("tr.row").all()
    return {str(row.get_attribute("data-method")): row.locator("> *").nth(at).inner_text() for row in rows}


def test_any_two_lines_are_compared(page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    built = differences(page, 1)
    assert built["full"].startswith("0\n") and built["BPTT"] == "-10.0 ± 0.0\nworse, 2 shared seeds"
    # The script says the same of the same pair as the build did.
    page.get_by_role("combobox", name="Difference to").select_option("control:full data")
    page.get_by_role("combobox", name="Difference to").select_option("")
    assert differences(page, 1) == built
    page.get_by_role("combobox", name="Difference to").select_option("control:random real images")
    found = differences(page, 1)
    assert found["single-step GM"] == "+10.2 ± 3.2\nbetter, 2 shared seeds" and found["random real images"].startswith(
        "0"
    )
    picked = page.locator("#rows tbody").nth(1).get_by_role("button", name="compare all with BPTT")
    picked.click()
    found = differences(page, 1)
    assert found["BPTT"].startswith("0\n") and found["full"] == "+10.0 ± 0.0\nbetter, 2 shared seeds"
    assert found["random real images"].endswith("worse, 2 shared seeds")
    assert differences(page, 0)["full"].startswith("+") and "judged otherwise" not in differences(page, 0)["full"]
    assert "to BPTT (Fashion-MNIST, 1 I/C), in points" in heading(page, "difference").inner_text()
    page.get_by_role("combobox", name="Difference to").select_option("printed")
    assert differences(page, 1)["full"] == "-7.2\nprinted: no interval"


def test_what_is_chosen_is_in_the_address(page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    page.get_by_role("combobox", name="Method").select_option("BPTT")
    page.get_by_role("combobox", name="Scale").select_option("cpu")
    heading(page, "difference").get_by_role("button").click()
    page.locator("#rows tbody.reduced").first.get_by_role("button", name="compare all with BPTT").click()
    address, seen = page.url, page.inner_text("#rows")
    assert "method=BPTT" in address and "sort=difference" in address and "to=row-" in address
    page.goto("about:blank")
    page.goto(address)
    assert page.inner_text("#rows") == seen and page.locator("#shown").inner_text() == "1 row"
    assert heading(page, "difference").get_attribute("aria-sort") == "descending"
    assert "BPTT" in page.locator("#reference option:checked").inner_text()
    page.get_by_role("combobox", name="Method").select_option("")
    assert "method=" not in page.url
    page.goto(address.split("?")[0] + "?sort=unheard&to=row-nothing&dataset=%3Cscript%3E&order=up")
    assert page.locator("#rows tr.row:visible").count() == page.locator("#rows tr.row").count()


def test_lines_unfold_by_mouse_and_by_keyboard(page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    assert page.locator("#rows tr.more").count() == page.locator("#rows tr.row").count()
    part = page.locator("#rows tbody.reduced").first
    more = part.locator("tr.more")
    assert not more.first.is_visible()
    button = part.locator("tr.row").first.get_by_role("button", name="details")
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    assert more.first.is_visible() and button.get_attribute("aria-expanded") == "true"
    shown = more.first.inner_text()
    assert all(word in shown for word in ("standard deviation of evaluation networks", "A Processor", "2", "printed"))
    button.focus()
    page.keyboard.press("Enter")
    assert not more.first.is_visible()
    page.keyboard.press("Tab")  # to the next button of the line
    page.keyboard.press("Space")
    assert page.locator("#rows tr.reference").count() == 1 and "to=row-" in page.url


def test_printed_figures_of_what_nobody_ran_fold_away_and_their_sources_are_links(page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    assert not page.locator("#printed").is_visible()
    page.locator("details.printed summary").click()
    assert page.locator("#printed").is_visible()
    page.get_by_role("combobox", name="Data set").select_option("cifar10")
    rows = page.locator("#printed tr.row:visible")
    assert rows.count() > 0 and page.locator("#rows tr.row:visible").count() == 0
    rows.first.get_by_role("link").click()
    assert page.url.endswith("index.html#source-S") and page.locator("li:target").is_visible()
    opened(page, site, "field.html")
    assert page.locator("#printed").is_visible()  # there is nothing else on it


def test_tables_and_records_are_downloaded(browser: Browser, site: Path) -> None:
    """From a server, as they are published: of what lies on the reader's own disk, browsers show JSON."""
    context = browser.new_context()
    page = context.new_page()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        page.goto(f"http://127.0.0.1:{server.server_port}/components.html")
        for kind in ("CSV", "JSON"):
            with page.expect_download(timeout=20_000) as download:
                page.get_by_role("link", name=kind).click()
            name = download.value.suggested_filename
            assert Path(download.value.path()).read_bytes() == (site / name).read_bytes() and "components." in name
        page.locator("#rows tr.row").first.get_by_role("button", name="details").click()
        page.get_by_role("link", name="seed 0").first.click()
        with page.expect_download(timeout=20_000) as download:
            page.get_by_role("link", name="the record (JSON)").click()
        assert json.loads(Path(download.value.path()).read_text())["name"] == "ablation_components"
    finally:
        context.close()
        server.shutdown()
        server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that prints nothing."""

    def log_message(self, *_: object) -> None:
        pass


def test_without_a_script_everything_is_there(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1400, "height": 900})
    page = context.new_page()
    opened(page, site, "components.html")
    assert page.locator("#rows tr.more").first.is_visible() and not page.locator(".filters").is_visible()
    assert "worse, 2 shared seeds" in page.inner_text("#rows") and page.get_by_role("link", name="seed 1").count() > 1
    context.close()


def test_the_keyboard_alone_sorts(page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    heading(page, "accuracy").get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert methods(page, "full") == list(reversed(NAMES))
    page.keyboard.press("Home")
    opened(page, site, "components.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"


@pytest.mark.parametrize(
    ("label", "value", "left"),
    [("Data set", "digits", 3), ("Method", "BPTT", None), ("Scale", "paper", 5), ("I/C", "1", None)],
)
def test_rows_are_filtered(label: str, value: str, left: int | None, page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    page.locator("details.printed summary").click()
    before = page.locator("tr.row:visible").count()
    page.get_by_role("combobox", name=label).select_option(value)
    shown = page.locator("tr.row:visible").count()
    assert 0 < shown < before and (left is None or page.locator("#rows tr.row:visible").count() == left)
    assert page.locator("#shown").inner_text() == f"{shown} row{'' if shown == 1 else 's'}"
    page.get_by_role("combobox", name=label).select_option("")
    assert page.locator("tr.row:visible").count() == before


def test_reduced_runs_carry_their_mark_and_no_rank(page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    parts = page.locator("#rows tbody.reduced")
    assert parts.count() == 2
    for part in parts.all():
        assert part.locator("tr.part .mark").inner_text() == "reduced" and part.locator("tr.part .mark").is_visible()
        assert "rank" not in str(part.text_content())
    assert not page.locator("#rows tbody.full tr.part .mark").count()
    for button in page.get_by_role("button", name="details of full", exact=True).all():
        button.click()
    assert "rank among full runs that were judged alike\n1" in page.locator("#rows tbody.full").inner_text()
    parts.first.locator("tr.more").get_by_role("link", name="seed 0").last.click()
    assert page.locator("h1 .mark").inner_text() == "reduced" and "200 of 50000" in page.inner_text("main")


def test_a_run_s_page_shows_its_pictures_curves_and_how_to_run_it_again(page: Page, site: Path) -> None:
    opened(page, site, "components.html")
    page.locator("#rows tbody.reduced").first.get_by_role("button", name="details").first.click()
    page.locator("#rows tbody.reduced").first.get_by_role("link", name="seed 0").first.click()
    assert page.locator("h1").inner_text().startswith("Fashion-MNIST, 1 I/C, single-step GM, seed 0")
    page.get_by_role("link", name="seed 1").click()
    page.get_by_role("link", name="Its row in the table").click()
    assert page.locator("tr:target").get_attribute("data-method") == "single-step GM"
    page.locator("tr:target + tr").get_by_role("link", name="seed 0").click()
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
    row = page.locator("#rows tr.row").first
    for i in (0, 1):  # the method and its accuracy
        assert row.locator("> *").nth(i).evaluate(SEEN), i
    page.locator(".scroll").first.evaluate("one => one.scrollLeft = 300")
    assert row.locator("> *").nth(0).evaluate(SEEN)  # it stays


@pytest.mark.parametrize("width", [400, 1400])
def test_words_in_pictures_can_be_read_and_stay_inside(width: int, page: Page, site: Path) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for name in ("index.html", "bases.html", f"runs/{min(file.name for file in (site / 'runs').glob('*.html'))}"):
        opened(page, site, name)
        sizes = page.locator(".chart text").evaluate_all(SIZES)
        assert sizes and min(sizes) >= 10, (name, min(sizes))
        assert page.locator(".chart text").evaluate_all(OUTSIDE) == [], name


def test_names_of_records_stay_text(page: Page, site: Path) -> None:
    opened(page, site, "others.html")
    assert page.title().startswith("Other runs")
    assert page.locator("#rows th", has_text="<b>bold</b>").first.is_visible()
    page.get_by_role("button", name="details of <b>bold</b>").click()
    page.get_by_role("link", name="seed 0").first.click()
    assert "<script>document.title" in page.inner_text("main") and page.title().startswith("Fashion-MNIST")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_on_their_ground(scheme: str, page: Page, site: Path) -> None:
    """Contrast of at least 4.5 (WCAG AA) for text, quiet text, links and marks."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    opened(page, site, "components.html")
    for selector in (
        "h1",
        "footer",
        "nav a",
        ".downloads",
        "tbody.reduced .mark",
        "td small",
        "thead th",
        ".mark.good",
        ".unfold",
    ):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector


SEEN = "one => (box => box.left >= 0 && box.right <= window.innerWidth)(one.getBoundingClientRect())"

SIZES = """all => all.map(one => parseFloat(getComputedStyle(one).fontSize) * one.getScreenCTM().a)"""

OUTSIDE = """all => all.filter(one => {
  const [box, picture] = [one, one.ownerSVGElement].map(element => element.getBoundingClientRect());
  return box.left < picture.left - 1 || box.right > picture.right + 1;
}).map(one => one.textContent)"""

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
