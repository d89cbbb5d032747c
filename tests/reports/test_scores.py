import numpy as np
import pytest
from torch import from_numpy, tensor
from torchmetrics.functional.classification import binary_auroc

from coset.core.metrics import METRICS
from coset.reports.scores import (
    against_baseline,
    duration,
    higher_is_better,
    measure,
    number,
    roc_curve,
    score,
)
from coset.runs.metrics import metrics_of


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.0428, "2.043"), (0.01234, "0.0123"), (386900, "386 900"), (-12.678, "−12.68"), (1e-9, "1.00e−09"),
     (0.0, "0"), (float("nan"), "–"), (None, "–"), ("<b>", "–"), (123456.7, "123457")],
)  # fmt: skip
def test_numbers_read_well(value: object, text: str) -> None:
    assert number(value) == text


def test_bounded_scores_are_never_scientific() -> None:
    assert score(-6.7e-16, "r2") == "0.000"
    assert score(0.81234, "auroc") == "0.812"
    assert score(1e-9, "rmse") == "1.00e−09"


def test_durations() -> None:
    assert [duration(s) for s in (21.64, 75, 7260)] == ["21.6 s", "1 min 15 s", "2 h 01 min"]


def test_errors_compare_as_a_ratio_and_scores_as_a_difference() -> None:
    assert against_baseline("rmse", 1.0, 4.0) == ("75% lower", True)
    assert against_baseline("rmse", 5.0, 4.0) == ("25% higher", False)
    assert against_baseline("auroc", 0.8, 0.5) == ("+0.300", True)
    assert against_baseline("r2", -0.1, 0.0) == ("−0.100", False)
    assert against_baseline("rmse", 1.0, None) is None
    assert against_baseline("rmse", 1.0, 0.0) is None


def test_every_score_that_runs_have_is_better_high() -> None:
    for metric, way in ((name, way) for metrics in METRICS.values() for name, way in metrics.items()):
        assert higher_is_better(metric) == (way == "max")
    assert against_baseline("macro_f1", 1.0, 0.2) == ("+0.800", True)
    assert against_baseline("hits@10", 0.1, 0.2) == ("−0.100", False)
    assert against_baseline("cross_entropy", 0.5, 1.0) == ("50% lower", True)
    assert score(0.66667, "macro_f1") == "0.667"


def test_the_page_measures_values_as_runs_do() -> None:
    generator = np.random.default_rng(0)
    target, predicted = 1e-6 * generator.normal(size=(2, 10))
    of_run = metrics_of("regression", from_numpy(predicted[:, None]), from_numpy(target[:, None]))
    assert measure(target, predicted, False) == pytest.approx(of_run, rel=1e-12, abs=0)


def test_roc_by_hand() -> None:
    false, true = roc_curve(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.5, 0.5, 0.1]))
    assert false.tolist() == [0, 0, 0.5, 1]
    assert true.tolist() == [0, 0.5, 1, 1]


def test_area_agrees_with_torchmetrics() -> None:
    generator = np.random.default_rng(0)
    target = (generator.random(200) < 0.3).astype(float)
    predicted = np.round(generator.random(200), 1)  # many ties
    expected = float(binary_auroc(tensor(predicted), tensor(target).long()))
    assert measure(target, predicted, True)["auroc"] == pytest.approx(expected, abs=1e-6)


def test_measures_of_little() -> None:
    assert measure(np.zeros(0), np.zeros(0), False) == {}
    assert measure(np.ones(3), np.ones(3), True) == {"accuracy": 1.0}
    assert measure(np.ones(2), np.array([1.0, 3.0]), False) == {"rmse": pytest.approx(2**0.5), "mae": 1.0}
