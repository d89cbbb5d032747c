"""The page of several runs as a browser shows it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coset.runs.comparison import write_comparison
from in_browser import open_page, requests

pytestmark = pytest.mark.browser


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
