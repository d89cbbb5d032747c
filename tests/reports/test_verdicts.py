"""What a page says first."""

import ast
from pathlib import Path

import pytest

import coset
from coset.reports.verdicts import counted, sentences, standing, unfinished


def test_a_metric_is_set_beside_guessing():
    said = standing("rmse", 0.5, "test", rows="113 molecules", baseline=1.0)
    assert said == "Test RMSE 0.5000 on 113 molecules, 50% lower than always predicting the mean."
    assert standing("auroc", 0.75, "val", baseline=0.5, guess="the prior") == (
        "Val AUROC 0.750, 0.250 above that of always predicting the prior."
    )
    assert standing("mae", 1.0, "test", baseline=1.001) == "Test MAE 1, as always predicting the mean."
    assert standing("mae", 2.0, "test") == "Test MAE 2."
    assert (counted(1, "adapter"), counted(1200, "adapter")) == ("1 adapter", "1,200 adapters")


@pytest.mark.parametrize(("best", "epochs", "said"), [(19, 20, True), (18, 20, True), (17, 20, False), (0, 1, False)])
def test_a_best_epoch_at_the_end_is_told(best, epochs, said):
    assert ("more epochs may help" in unfinished(best, epochs)) is said
    assert unfinished(None, epochs) == ""
    assert sentences("a.", "", "b.") == "a. b."


def test_every_page_begins_with_a_verdict():
    """Every call of ``write_sections`` in the package gives one."""
    root, calls = Path(coset.__file__).parent, 0
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "write_sections":
                calls += 1
                assert "verdict" in {keyword.arg for keyword in node.keywords}, f"{file}:{node.lineno}"
    assert calls > 15
