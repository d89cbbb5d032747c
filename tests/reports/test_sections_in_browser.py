"""A page of sections as a browser shows it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coset.reports import Panel, Picture, Section, Table, figure, line, write_sections
from in_browser import open_page, requests

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_page_of_sections_shows_tables_plots_and_pictures(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    table = Table(
        ["method", "a rather long name of a column", "another one"], [["<b>a</b>", 0.25, 1e6], ["b", None, 3]]
    )
    plot = Panel("curve", figure(line([0, 1, 2], [1, 3, 2])))
    picture = Picture(np.full((20, 30, 3), 200, np.uint8), "a picture", scale=40)
    sections = [Section("Numbers", "text", tables=[table]), Section("Shown", panels=[plot], pictures=[picture])]
    open_page(browser, write_sections(tmp_path / "page.html", "a title", sections, command="coset list"), width, scheme)
    assert browser.execute_script("return document.querySelectorAll('.plot .trace').length") > 0
    assert browser.execute_script("return document.querySelector('.picture img').naturalWidth") == 30
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return document.querySelector('tbody td').textContent") == "<b>a</b>"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert requests(browser) == []
