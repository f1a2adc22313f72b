import shutil

import numpy as np
import pytest

from triptych.bench import figure
from triptych.bench.report import write_report
from triptych.bench.sections import Command, Curves, Entry, Facts, Gallery, Heading, Picture, Series, Table, Text

pytestmark = pytest.mark.e2e

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra e2e)")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def page_url(tmp_path_factory):
    rng = np.random.default_rng(0)
    tiles = [
        Picture(
            figure.images(rng.integers(0, 256, (1, 1, 8, 8), dtype=np.uint8)), f"digit {i}", caption=f"{i}, taken for 3"
        )
        for i in range(12)
    ]
    steps = list(range(1, 200))
    columns = ["", "test error, %", "published", "gap / log 10", "a long header of a column", "peak memory, MB"]
    sections = [
        Heading("zhang2017.table1"),
        Text("A sentence. " * 30),
        Table(
            columns,
            [[Entry("a line with a long name"), *[Entry("1.00", "0.90–1.10", True)] * 5]] * 3,
            "Errors",
            "a note",
            "Scale smoke",
        ),
        Curves(
            [
                Series("one", steps, [0.9**step for step in steps]),
                Series("two", steps[::10], [0.8**step for step in steps[::10]]),
            ],
            "Gap",
            "iteration",
            "gap",
            log_y=True,
        ),
        Picture(figure.filters(rng.standard_normal((40, 1, 5, 5))), "40 filters", "Filters"),
        Gallery(tiles, "Wrong"),
        Command("triptych run zhang2017.table1 --scale laptop --seed 0 --out a/folder/with/a/long/name --data another"),
        Facts([("platform", "a-very-long-word-without-a-space-" * 4)]),
        Heading("Notes"),
    ]
    return write_report(
        sections, tmp_path_factory.mktemp("page"), title="A report with a title that is rather long"
    ).html.as_uri()


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium on the PATH")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, page_url):
    """Open the page at a width and in a colour scheme; give it with the requests and complaints it made."""
    contexts = []

    def open_page(width=1280, scheme="light", script=True):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=script
        )
        contexts.append(context)
        page, requests, complaints = context.new_page(), [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(page_url)
        return page, requests, complaints

    yield open_page
    for context in contexts:
        context.close()


def ink(page):
    """Count the opaque pixels of the canvas whose colour is no grey: those of the curves."""
    return page.evaluate(
        """() => {
        const canvas = document.querySelector("canvas"), draw = canvas.getContext("2d");
        const d = draw.getImageData(0, 0, canvas.width, canvas.height).data;
        let n = 0;
        for (let i = 0; i < d.length; i += 4)
          if (d[i + 3] > 200 && Math.max(d[i], d[i+1], d[i+2]) - Math.min(d[i], d[i+1], d[i+2]) > 40) n++;
        return n; }"""
    )


def ground(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_one_file_is_asked_for_and_nothing_complains(opened, page_url):
    page, requests, complaints = opened()
    page.wait_for_selector("canvas")
    page.wait_for_timeout(200)
    assert [url for url in requests if not url.startswith("data:")] == [page_url]
    assert complaints == []
    assert (
        page.evaluate("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
    )


def test_the_policy_stops_a_request(opened):
    page, _, _ = opened()
    broken = page.evaluate(
        """() => new Promise((done) => {
        document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
        setTimeout(() => done("nothing"), 5000);
        const image = new Image();
        image.src = "http://127.0.0.1:9/x.png"; })"""
    )
    assert broken == "img-src"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_curve_is_drawn(opened, scheme):
    page, _, _ = opened(scheme=scheme)
    page.wait_for_selector("canvas")
    assert ink(page) > 1000
    assert page.locator("img.still").is_hidden()
    page.locator(".u-legend .u-series th").nth(2).click()  # the legend hides the other curve
    page.wait_for_timeout(100)
    assert page.locator(".u-legend .u-off").count() == 1


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_the_page_is_no_wider_than_the_screen(opened, width):
    page, _, _ = opened(width)
    page.wait_for_selector("canvas")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(".box").first
    assert box.evaluate("e => e.scrollWidth > e.clientWidth") == (width < 1000)  # the table scrolls in its own box
    assert page.evaluate("document.querySelector('canvas').getBoundingClientRect().right") <= width


def test_the_chart_follows_the_width(opened):
    page, _, _ = opened(1280)
    page.wait_for_selector("canvas")
    page.set_viewport_size({"width": 360, "height": 800})
    for _ in range(50):  # the page's policy forbids the evaluation that wait_for_function needs
        right = page.evaluate("document.querySelector('canvas').getBoundingClientRect().right")
        if right <= 360:
            break
        page.wait_for_timeout(100)
    assert right <= 360
    assert page.locator("canvas").count() == 1


def test_dark_mode_changes_the_ground_and_keeps_the_text_legible(opened):
    def luminance(colour):
        parts = [int(part) / 255 for part in colour[4:-1].split(",")]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    grounds = []
    for scheme in ("light", "dark"):
        page, _, _ = opened(scheme=scheme)
        grounds.append(luminance(ground(page)))
        for place in ("body", ".caption", "a", ".eyebrow", ".made", "td.number", "dt"):
            ink_colour = luminance(
                page.evaluate("place => getComputedStyle(document.querySelector(place)).color", place)
            )
            high, low = max(ink_colour, grounds[-1]), min(ink_colour, grounds[-1])
            assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, place)
    assert grounds[0] > 0.9
    assert grounds[1] < 0.02
    page.emulate_media(color_scheme="light")
    assert luminance(ground(page)) > 0.9


def test_paper_and_readers_without_scripts_get_the_still_picture(opened):
    page, _, _ = opened(scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("img.still").is_visible()
    assert page.locator(".chart").is_hidden()
    assert ground(page) == "rgb(255, 255, 255)"
    page, _, _ = opened(script=False)
    assert page.locator("img.still").is_visible()
    assert page.locator(".chart").is_hidden()


def test_pictures_have_texts_and_headings_descend(opened):
    page, _, _ = opened()
    alts = page.eval_on_selector_all("img", "all => all.map(e => e.alt)")
    assert len(alts) == 14
    assert all(alt.strip() for alt in alts)
    assert page.eval_on_selector_all("img", "all => all.every(e => e.naturalWidth > 0)")
    assert page.locator("h1").count() == 1
    assert page.locator(".chart[role=img]").get_attribute("aria-label")
    assert page.locator("th[scope=row]").count() == 3
    assert page.evaluate("document.documentElement.lang") == "en"
