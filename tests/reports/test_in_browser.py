"""The pages as a browser shows them: no errors, no requests, plots drawn, and attention that answers a click."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from coset.reports import (
    Panel,
    Picture,
    Section,
    Table,
    cell_record,
    write_cells,
    write_comparison,
    write_report,
    write_sections,
)
from coset.weights.lora import LoraAdapter, LoraPair, inspect
from coset.weights.lora.pages import write_inspection

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def open_page(browser: Any, page: Path, width: int = 1280, scheme: str = "light") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    for log in ("browser", "performance"):
        browser.get_log(log)  # forget other pages
    browser.get(page.as_uri())


def requests(browser: Any) -> list[str]:
    """Addresses asked for since the page was opened, but for the page itself and data in it."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]


def attention_drawn(browser: Any, kind: str) -> list[str]:
    """Everything of a drawing that weights decide."""
    return browser.execute_script(
        "return [...document.querySelectorAll(`svg.${arguments[0]} .look, svg.${arguments[0]} .self,"
        " svg.${arguments[0]} .root-mark`)].map((e) => e.outerHTML)",
        kind,
    )


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_report_draws_everything_and_asks_for_nothing(browser: Any, run_dir: Path, width: int, scheme: str) -> None:
    open_page(browser, write_report(run_dir), width, scheme)
    traces = browser.execute_script(
        "return [...document.querySelectorAll('.plot')].map((p) => p.querySelectorAll('.trace').length)"
    )
    assert len(traces) == 5  # loss, mae, learning rate, predicted versus true, residuals
    assert all(count > 0 for count in traces)
    assert len(browser.find_elements("css selector", ".molecule svg path")) > 8
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return window.broken") is None  # what the nasty name would have set
    assert requests(browser) == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_clicking_an_atom_makes_it_the_root(browser: Any, run_dir: Path) -> None:
    open_page(browser, write_report(run_dir))
    before = {kind: attention_drawn(browser, kind) for kind in ("internal", "external")}
    atoms = browser.find_elements("css selector", "svg.internal .hit")
    assert len(atoms) == 13  # aspirin
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", atoms[4])
    atoms[4].click()
    assert atoms[4].get_attribute("aria-pressed") == "true"
    assert atoms[0].get_attribute("aria-pressed") == "false"
    for kind in ("internal", "external"):
        assert attention_drawn(browser, kind) != before[kind]
    told = [element.text for element in browser.find_elements("css selector", ".told")]
    # The pointer rests on the atom, so it is the looking one too: C5 of aspirin has three neighbours and itself.
    assert told[0].startswith("In the copy rooted at C5, C5 looks at ")
    assert told[0].count("25") == 4
    assert "its own copy" in told[1]


def test_keys_and_lists_do_what_the_pointer_does(browser: Any, run_dir: Path) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    open_page(browser, write_report(run_dir))
    molecule, layer, root, looking = browser.find_elements("css selector", "#attention-viewer select")
    assert [option.text for option in Select(layer).options] == ["1", "2", "mean"]
    Select(molecule).select_by_index(1)
    assert [option.text for option in Select(root).options] == ["C1", "C2", "O3"]
    browser.find_elements("css selector", "svg.external .hit")[2].send_keys(Keys.ENTER)
    assert Select(root).first_selected_option.text == "O3"
    Select(looking).select_by_visible_text("C2")
    browser.execute_script("document.activeElement.blur()")
    assert browser.find_element("css selector", ".told").text.startswith("In the copy rooted at O3, C2 looks at ")
    Select(molecule).select_by_index(2)  # methane: one atom
    assert len(browser.find_elements("css selector", "svg.internal .hit")) == 1
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_the_table_is_searched_and_sorted(browser: Any, run_dir: Path) -> None:
    open_page(browser, write_report(run_dir))

    def column(number: int) -> list[str]:
        return [
            cell.text for cell in browser.find_elements("css selector", f"#prediction-table td:nth-child({number})")
        ]

    assert len(column(1)) == 25
    browser.find_element("css selector", "#prediction-table input").send_keys("MOLECULE 1")
    assert len(column(1)) == 11  # 1, and 10 to 19
    header = browser.find_elements("css selector", "#prediction-table th button")[4]
    browser.execute_script("arguments[0].click(); arguments[0].click()", header)
    assert column(1)[0] == "molecule 19"
    assert browser.find_elements("css selector", "#prediction-table th")[4].get_attribute("aria-sort") == "descending"


def test_choosing_a_target_draws_its_plots(browser: Any, run_dir: Path, report_frame: Callable[[int], Any]) -> None:
    from selenium.webdriver.support.ui import Select

    frame = report_frame(20).rename(columns={"target": "target_a", "prediction": "prediction_a"})
    frame.assign(target_b=1.0, prediction_b=2.0).to_csv(run_dir / "predictions.csv", index=False)
    open_page(browser, write_report(run_dir))
    Select(browser.find_element("id", "target")).select_by_visible_text("b")
    shown = [part for part in browser.find_elements("css selector", ".by-target") if part.is_displayed()]
    assert [part.get_attribute("data-target") for part in shown] == ["1", "1"]
    assert len(shown[0].find_elements("css selector", ".plot .trace")) > 0
    assert browser.find_element("css selector", "#prediction-table caption").text == "Target: b"
    assert [entry["message"] for entry in browser.get_log("browser")] == []


@pytest.mark.parametrize("width", [1280, 400])
def test_comparison(browser: Any, make_run: Callable[..., Path], tmp_path: Path, width: int) -> None:
    runs = [make_run("a"), make_run("b", seed=1, error=0.7), make_run("c", recipe="gin/made-up", error=0.9)]
    open_page(browser, write_comparison(runs, tmp_path / "all.html"), width)
    traces = browser.execute_script(
        "return [...document.querySelectorAll('.plot')].map((p) => p.querySelectorAll('.trace').length)"
    )
    assert len(traces) == 5  # mae, rmse and r2 over seeds; loss and mae over epochs
    assert all(count > 0 for count in traces)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert requests(browser) == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_page_of_sections_shows_tables_plots_and_pictures(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    table = Table(
        ["method", "a rather long name of a column", "another one"], [["<b>a</b>", 0.25, 1e6], ["b", None, 3]]
    )
    plot = Panel("curve", go.Figure(go.Scatter(x=[0, 1, 2], y=[1, 3, 2])))
    picture = Picture(np.full((20, 30, 3), 200, np.uint8), "a picture", scale=40)
    sections = [Section("Numbers", "text", tables=[table]), Section("Shown", panels=[plot], pictures=[picture])]
    open_page(browser, write_sections(tmp_path / "page.html", "a title", sections, command="coset list"), width, scheme)
    assert browser.execute_script("return document.querySelectorAll('.plot .trace').length") > 0
    assert browser.execute_script("return document.querySelector('.picture img').naturalWidth") == 30
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return document.querySelector('tbody td').textContent") == "<b>a</b>"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert requests(browser) == []


def test_an_adapter_shows_a_cell_a_layer(browser: Any, tmp_path: Path) -> None:
    names = [f"layer.{block}.{part}" for block in range(3) for part in ("query", "out.0")]
    pair = LoraPair(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0], [5.0]]))
    adapter = LoraAdapter(dict.fromkeys(names[:-1], pair), "style")
    open_page(browser, write_inspection(tmp_path / "page.html", inspect(adapter)))
    norms = browser.execute_script("return document.querySelector('.plot').data[0]")
    assert (norms["x"], norms["y"]) == (["0", "1", "2"], ["layer.*.query", "layer.*.out.0"])
    assert [[round(z, 3) if z else None for z in row] for row in norms["z"]] == [[15.811] * 3, [15.811, 15.811, None]]
    assert browser.execute_script("return document.querySelectorAll('.plot .heatmaplayer image').length") == 2
    assert browser.execute_script("return document.querySelectorAll('.plot .boxlayer .trace').length") == 1
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def cells_of(browser: Any, script: str) -> Any:
    return browser.execute_script(f"const plot = document.querySelector('.cells-plot'); return {script}")


@pytest.fixture
def cells_page(run_dir: Path) -> Path:
    """A square cut in two, its first triangle marked with four times the weight of the second, and a bare edge."""
    square = {"positions": [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "faces": [(0, 1, 2), (0, 2, 3)]}
    edges = [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3)]
    weights = np.array([[4, 0], [0, 1], [0, 0], [0, 0]])
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
