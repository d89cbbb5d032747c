"""The page of an adapter as a browser shows it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from coset.weights.lora import LoraAdapter, LoraPair, inspect
from coset.weights.lora.pages import write_inspection
from in_browser import open_page

pytestmark = pytest.mark.browser


def test_an_adapter_shows_a_cell_a_layer(browser: Any, tmp_path: Path) -> None:
    names = [f"layer.{block}.{part}" for block in range(3) for part in ("query", "out.0")]
    pair = LoraPair(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0], [5.0]]))
    adapter = LoraAdapter(dict.fromkeys(names[:-1], pair), "style")
    open_page(browser, write_inspection(tmp_path / "page.html", inspect(adapter)))
    norms = browser.execute_script("return document.querySelector('.plot').data[0]")
    assert (norms["x"], norms["y"]) == (["0", "1", "2"], ["query", "out.0"])
    assert [[round(z, 3) if z else None for z in row] for row in norms["z"]] == [[15.811] * 3, [15.811, 15.811, None]]
    assert browser.execute_script("return document.querySelectorAll('.plot .heatmaplayer image').length") == 2
    assert browser.execute_script("return document.querySelectorAll('.plot .boxlayer .trace').length") == 1
    assert [entry["message"] for entry in browser.get_log("browser")] == []
