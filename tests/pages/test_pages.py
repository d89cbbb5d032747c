"""Every kind of page in Chromium, on a desk and on a telephone: whole, legible, and with controls that do something."""

import base64
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kinds import PAGES

from in_browser import open_page, requests

WRONG, IDLE = (Path(__file__).with_name(name).read_text() for name in ("wrong.js", "idle.js"))
MOST = 1_500_000
"""Bytes of a page."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of each kind that was asked for already."""
    return {}


def page_of(name: str, pages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if name not in pages:
        pages[name] = PAGES[name](tmp_path_factory.mktemp("page"))
    return pages[name]


def colours(browser: Any) -> int:
    """How many different ones are on the screen, in steps of 16."""
    from PIL import Image

    shown = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    picture = Image.open(io.BytesIO(base64.b64decode(shown))).convert("RGB").point(lambda value: value & 0xF0)
    return len(picture.getcolors(1 << 20) or ())


@pytest.mark.parametrize("name", PAGES)
def test_a_page_begins_with_its_verdict_and_is_small(
    name: str, pages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = page_of(name, pages, tmp_path_factory)
    text = page.read_text()
    assert page.stat().st_size < MOST
    (verdict,) = re.findall(r'<p class="verdict">(.+?)</p>', text)
    assert re.search(r"\d", verdict)
    assert text.index(verdict) < text.index("<main")


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wrong_with_how_a_page_looks(
    browser: Any, name: str, width: int, pages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    open_page(browser, page_of(name, pages, tmp_path_factory), width)
    assert browser.execute_script(WRONG) == []
    assert colours(browser) > 8
    assert requests(browser) == []
    if width > 400 and name != "a live run":
        assert browser.execute_async_script(IDLE) == []
    told = [entry["message"] for entry in browser.get_log("browser")]
    assert [text for text in told if "willReadFrequently" not in text] == []  # an advice of Chromium to Plotly


@pytest.mark.browser
def test_a_page_of_a_run_reads_itself_again_until_it_is_the_report(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    page = PAGES["a live run"](tmp_path)
    open_page(browser, page)
    assert browser.execute_script("return document.querySelectorAll('.drawn polyline').length") == 3
    assert "training now" in browser.title
    page.write_text(PAGES["a table of runs"](tmp_path).read_text())
    WebDriverWait(browser, 20).until(lambda _: "table of runs" in browser.title)
    browser.execute_script("window.stays = true")
    browser.implicitly_wait(0)
    browser.execute_async_script("setTimeout(arguments[0], 2500)")
    assert browser.execute_script("return window.stays") is True


@pytest.mark.browser
def test_what_is_wrong_is_found(browser: Any, tmp_path: Path) -> None:
    from coset.reports import Axis, Panel, Section, Table, figure, line, write_sections

    loud = figure(line([0, 1], [1e-3, 1.0]), y=Axis("R²", log=True))
    sections = [Section("Numbers", tables=[Table(["a"], [["b"]])], panels=[Panel("R²", loud), Panel("none", figure())])]
    page = write_sections(tmp_path / "page.html", "x" * 20, sections, verdict="")
    page.write_text(page.read_text().replace("<main", '<div style="width:2000px">wide</div><main'))
    open_page(browser, page, 400)
    browser.execute_script(
        "document.querySelector('.plot .ytick text').setAttribute('transform', 'translate(-500, 0)')"
    )
    found = " ".join(browser.execute_script(WRONG))
    for fault in ("wide in a window", "none: nothing is drawn", "logarithmic axis", "px outside", "no verdict"):
        assert fault in found
