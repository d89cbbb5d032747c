"""The page of a run as a browser shows it, with attention that answers a click."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coset.graphs.pages.run_report import write_report
from in_browser import open_page, requests

pytestmark = pytest.mark.browser


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
def test_atoms_are_legible_and_no_control_is_idle(browser: Any, run_dir: Path, width: int) -> None:
    from selenium.webdriver.support.ui import Select

    open_page(browser, write_report(run_dir), width)
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('.view .symbol, .view .ordinal')].map((text) =>"
        " parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a)"
    )
    assert min(sizes) > 9
    shown = [box for box in browser.find_elements("css selector", "#attention-viewer select") if box.is_displayed()]
    assert all(len(box.find_elements("css selector", "option")) > 1 for box in shown)
    check = browser.find_element("css selector", "#attention-viewer .check")
    assert check.is_displayed()
    Select(browser.find_element("css selector", "#attention-viewer select")).select_by_index(2)
    assert not check.is_displayed()  # methane has nothing to tint by
