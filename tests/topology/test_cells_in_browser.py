"""Complexes in space as a browser shows them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coset.graphs.pages.run_report import write_report
from coset.topology.pages import cell_record, write_cells
from in_browser import open_page, requests

pytestmark = pytest.mark.browser


def cells_of(browser: Any, script: str) -> Any:
    return browser.execute_script(f"const plot = document.querySelector('.cells-plot'); return {script}")


@pytest.fixture
def cells_page(run_dir: Path) -> Path:
    """A square cut in two, its first triangle marked with four times the weight of the second, and a bare edge."""
    square = {"positions": [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "faces": [(0, 1, 2), (0, 2, 3)]}
    edges = [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3)]
    weights = np.array([[4.0, 0], [0, 1], [0, 0], [0, 0]])
    records = [
        cell_record(id='<b onclick="window.broken=1">', edges=edges, ranks=(0, 2), weights=weights, **square),
        cell_record(id="bare", positions=[[0, 0, 0], [1, 0, 0]], edges=[(0, 1)], faces=[], ranks=(0, 2),
                    weights=np.zeros((2, 0))),
    ]  # fmt: skip
    write_cells(run_dir, records)
    return write_report(run_dir)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_complex_stands_in_space_with_its_weights(browser: Any, cells_page: Path, width: int, scheme: str) -> None:
    from selenium.webdriver.support.ui import Select

    open_page(browser, cells_page, width, scheme)
    assert cells_of(browser, "plot.data.map((trace) => trace.type)") == [
        "mesh3d",
        "scatter3d",
        "scatter3d",
        "scatter3d",
    ]
    assert cells_of(browser, "plot.data[0].intensity") == [0.8, 0.2]
    assert cells_of(browser, "plot.querySelectorAll('canvas').length") > 0
    told = browser.find_element("css selector", "#cells-viewer .told")
    assert told.text == (
        "4 vertices, 5 edges, 2 faces. Of the prediction, these copies weigh most: face 0–1–2 80 %, face 0–2–3 20 %."
    )
    complexes, copies = (Select(s) for s in browser.find_elements("css selector", "#cells-viewer select"))
    assert [o.text for o in copies.options] == ["all copies", "face 0–1–2 marked: 80 %", "face 0–2–3 marked: 20 %"]
    copies.select_by_index(2)
    assert cells_of(browser, "plot.data[2].marker.color") == [0, 1, 0, 0]
    assert "In it, these vertices weigh most: vertex 1 100 %" in told.text
    complexes.select_by_index(1)
    assert told.text == "2 vertices, 1 edge, 0 faces."
    assert not copies._el.is_displayed()
    assert browser.execute_script("return window.broken") is None
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert requests(browser) == []


def test_clicking_a_diamond_marks_its_cell(browser: Any, cells_page: Path) -> None:
    open_page(browser, cells_page)
    click = "plot.emit('plotly_click', {points: [{data: {name: 'handles'}, customdata: 1}]})"
    cells_of(browser, click)
    told = browser.find_element("css selector", "#cells-viewer .told")
    assert told.text.startswith("The copy with face 0–2–3 marked weighs 20 %.")
    cells_of(browser, click)  # once more: all copies again
    assert told.text.startswith("4 vertices")
