"""Pages in a real browser: whole, quiet, readable, operable without a pointer, and safe."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cnnbench.analysis.reports.page import Facts, Folded, Gallery, Lines, Page, Picture, Plot, Table, Thumbnail
from cnnbench.analysis.reports.sections import Axis, Curve, Grid, Panel, Strip, Strips
from tests.conftest import latest
from tests.support import browser
from tests.support.interruption import rows_of
from tests.support.training import SHARED

HOSTILE = '<script>document.title = "taken"</script>'

pytestmark = pytest.mark.skipif(browser.installed() is None, reason="no browser is installed")


@pytest.fixture
def run(copy_of) -> Path:
    return copy_of(*latest((*SHARED, "report=true")))


@pytest.fixture(scope="module")
def window(tmp_path_factory) -> Iterator[browser.Page]:
    with browser.opened(tmp_path_factory.mktemp("profile")) as page:
        yield page


OFF_THEIR_LINES = """[...document.querySelectorAll(".strips")].flatMap(table => {
    const lines = [...table.querySelectorAll("tbody tr:first-child .tick")];
    return [...table.querySelectorAll(".axis .x")].filter((tick, place) => {
        const box = tick.getBoundingClientRect();
        return box.width && Math.abs(box.x + box.width / 2 - lines[place].getBoundingClientRect().x) > 1;
    }).map(tick => tick.innerText);
})"""


@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_a_page_without_errors_requests_or_overflow(width, run, window):
    page = run / "report.html"
    page.write_text(page.read_text(encoding="utf-8").replace("<li>", f"<li>{'long' * 100} "), encoding="utf-8")
    window.complaints.clear()
    window.requests.clear()
    window.open(page, width)
    assert window.complaints == []
    assert [address for address in window.requests if not address.startswith("data:")] == [page.as_uri()]
    assert window.run("document.documentElement.scrollWidth") <= width
    assert window.run("[...document.images].every(image => image.naturalWidth > 0)")
    assert window.run("document.querySelectorAll('svg').length") >= 2
    assert window.run("[...document.querySelectorAll('nav a')].every(one => document.querySelector(one.hash))")
    assert window.run(OFF_THEIR_LINES) == []
    assert window.run("""[...document.querySelectorAll(".panels:has(.low)")].every(panels =>
        new Set([...panels.querySelectorAll(".area")].map(area => area.getBoundingClientRect().x)).size == 1
    )"""), "they share the lower axis"
    window.run("document.querySelector('.area svg').scrollIntoView()")
    window.run("""{
        const svg = document.querySelector(".area svg"), box = svg.getBoundingClientRect();
        const at = {bubbles: true, clientX: box.x + box.width / 2, clientY: box.y + box.height / 2};
        svg.dispatchEvent(new PointerEvent("pointermove", at));
    }""")
    assert "epoch 2" in window.run("document.querySelector('.tip:not([hidden])').textContent")


def test_all_of_a_page_can_be_reached_and_read_without_a_pointer_or_a_picture(run, window):
    window.open(run / "report.html", 1200)

    def press(selector: str, key: str) -> None:
        window.run(f"document.querySelector('{selector}').focus()")
        for kind in ("keyDown", "keyUp"):
            window.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, text="\r" * (key == "Enter"))

    press(".area svg", "ArrowRight")
    press(".area svg", "ArrowRight")
    shown = window.run("document.querySelector('.area .tip:not([hidden])').textContent")
    values = [row["accuracy/val"] for row in rows_of(run) if row["row"] == "epoch"]
    assert shown.startswith(f"epoch 2\nvalidation: {values[1]:.4g}")
    press("th button", "Enter")
    assert window.run("document.querySelector('th').getAttribute('aria-sort')") == "ascending"
    assert window.run(
        "[...document.querySelectorAll('nav a, th button, .area > svg, .wide')].every(a => a.tabIndex >= 0)"
    )
    settings = (
        "[...document.querySelectorAll('details.table')].some(one => one.open && one.innerText.includes('epochs'))"
    )
    assert not window.run(settings)
    window.run("dispatchEvent(new Event('beforeprint'))")
    assert window.run(settings), "on paper nothing can be opened"
    window.run("dispatchEvent(new Event('afterprint'))")
    assert not window.run(settings)
    assert window.run("[...document.images].every(image => image.alt)")
    assert window.run("[...document.querySelectorAll('svg[role=img]')].every(svg => svg.getAttribute('aria-label'))")


CONTRASTS = """(() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const luminance = colours => {
        for (const colour of colours) {
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
        }
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(value => value / 255)
            .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const grounds = one => one ? [...grounds(one.parentElement), getComputedStyle(one).backgroundColor] : [];
    const contrast = (one, property) => {
        const ground = grounds(one), colour = getComputedStyle(one)[property];
        const [low, high] = [luminance(ground), luminance([...ground, colour])].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const has_text = one => [...one.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const all = [...document.querySelectorAll("body *:not(script)")].filter(has_text);
    const lines = [...document.querySelectorAll(".area :is(.s1, .s2, .s3, .s4):not(.band, .bars, .thin, .interval)")];
    return {
        ground: luminance(grounds(document.body)),
        text: all.map(one => [contrast(one, "color"), `${one.tagName}.${one.className} ${one.innerText}`.slice(0, 60)]),
        lines: lines.map(one => contrast(one, "stroke")),
    };
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_curves_stand_out_from_the_ground_in_light_and_in_dark(scheme, run, window, tmp_path):
    axis = Axis("x", 0, 1)
    panel = Panel(axis, axis, [Curve("s4 dotted", "M0 0 1 1", "one")], pins=[(0.5, 0.5, "1", "first")])
    shades = [("one", [(share, "9", "n = 3") for share in (0.0, 0.5, 1.0, -1.0)])]
    strip = Strip("one", "0.5", [(0.5, "", None)], 0.5, (0.1, 0.9), "marked", "best")
    sections = [
        Plot("pins", [panel], key=[("1", "first")]),
        Strips("rows", ("a", "b"), [strip], axis),
        *(Grid("shades", "", list("abcd"), shades, look=look) for look in ("", "mistakes")),
    ]
    texts, lines = [], []
    for page in (run / "report.html", Page("all", "", sections).write(tmp_path / "all")):
        window.open(page, 1200)
        window.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        found = window.run(CONTRASTS)
        window.ask("Emulation.setEmulatedMedia", features=[])
        assert (found["ground"] > 0.9) == (scheme == "light")
        assert (found["ground"] < 0.02) == (scheme == "dark")
        texts += found["text"]
        lines += found["lines"]
    assert len(texts) > 100
    assert [pair for pair in texts if pair[0] < 4.5] == []  # WCAG 2.2, 1.4.3: text
    assert len(lines) > 3
    assert min(lines) >= 3  # 1.4.11: graphics


def sorted_by(window: browser.Page, column: int) -> list[Any]:
    """Click the head of a column of the first table, and return its cells from top to bottom."""
    window.run(f"document.querySelectorAll('table')[0].querySelectorAll('th button')[{column}].click()")
    cells = f"[...document.querySelectorAll('table')[0].tBodies[0].rows].map(row => row.cells[{column}].innerText)"
    found: list[Any] = window.run(cells)
    return found


def test_a_table_is_sorted_by_a_click_and_what_is_missing_comes_last(window, tmp_path):
    table = pd.DataFrame({"name": ["b", "a", "c"], "value": [10.0, float("nan"), 9.0]})
    page = Page("sorted", "", [Table("one", table)]).write(tmp_path)
    window.open(page, 800)
    assert sorted_by(window, 0) == ["a", "b", "c"]
    assert sorted_by(window, 0) == ["c", "b", "a"]
    assert sorted_by(window, 1) == ["9.0000", "10.0000", ""]
    assert sorted_by(window, 1) == ["10.0000", "9.0000", ""]


def test_the_name_of_a_configuration_is_broken_before_its_value_not_within(window, tmp_path):
    numbers = "0.8065 [0.7958, 0.8172], n = 3"
    strips = [Strip(f"{number}. regularization=dropout", numbers) for number in range(2)]
    page = Page("names", "", [Strips("one", ("Configuration", "Mean"), strips, Axis("accuracy", 0, 1))]).write(tmp_path)
    window.open(page, 768)
    assert window.run("document.querySelector('.strips tbody th').innerText") == "0. regularization=dropout"
    lines = window.run("""[...document.querySelectorAll(".strips tbody th")].map(({childNodes}) => {
        const range = document.createRange();
        range.selectNodeContents(childNodes[childNodes.length - 1]);
        return range.getClientRects().length;
    })""")
    assert lines == [1, 1]


def test_hostile_text_is_shown_and_never_run(window, tmp_path):
    no_image = b"no image"
    long = "x" * 3000
    axis = Axis(HOSTILE, 0, 1)
    pins, words = [(0.5, 0.5, HOSTILE, HOSTILE)], [(1, 1, HOSTILE)]
    panel = Panel(axis, axis, [Curve("s1", "M0 0 1 1", HOSTILE)], HOSTILE, (0.5, HOSTILE), pins, words)
    strip = Strip(HOSTILE, HOSTILE, [(0.5, HOSTILE, None)], 0.5, (0.1, 2), "", long)
    sections = [
        Lines(HOSTILE, [HOSTILE, long]),
        Table(HOSTILE, pd.DataFrame({HOSTILE: [HOSTILE, long, 'a"b\n']}), note=HOSTILE),
        Plot(HOSTILE, [panel], [("s1", HOSTILE)], HOSTILE, HOSTILE, key=[("1", long)]),
        Strips(HOSTILE, (HOSTILE,) * 2, [strip], axis),
        Grid(HOSTILE, HOSTILE, [HOSTILE] * 6, [(long, [(0.5, HOSTILE, long)] * 6)], HOSTILE, "mistakes"),
        Folded(HOSTILE, HOSTILE),
        Facts(HOSTILE, {HOSTILE: HOSTILE}, [Thumbnail(no_image, [HOSTILE, long])]),
        Gallery(HOSTILE, [(HOSTILE, [Thumbnail(no_image, ['" onerror="document.title = 1'])])], HOSTILE),
        Picture('" onerror="document.title = 1', no_image),
    ]
    page = Page("safe", HOSTILE, sections, command=HOSTILE).write(tmp_path)
    window.complaints.clear()
    window.open(page, 390)
    assert window.run("document.title") == "safe"
    assert window.run("document.scripts.length") == 1
    assert window.run("document.querySelector('.summary').textContent") == HOSTILE
    assert window.run("document.documentElement.scrollWidth") <= 390
    assert not [text for text in window.complaints if "data:image" not in text]
