import math

import pytest
import torch

from coset.runs.metrics import METRICS, direction, metrics_of


def test_regression_metrics_by_hand():
    target = torch.tensor([[0.0], [2.0], [math.nan]])
    metrics = metrics_of("regression", torch.tensor([[1.0], [2.0], [9.0]]), target)
    assert metrics == pytest.approx({"mae": 0.5, "rmse": math.sqrt(0.5), "r2": 0.5})


def test_regression_metrics_are_averaged_over_targets():
    target = torch.tensor([[0.0, 10.0], [2.0, 10.0]])
    metrics = metrics_of("regression", torch.tensor([[1.0, 14.0], [2.0, 10.0]]), target)
    assert metrics["mae"] == pytest.approx((0.5 + 2.0) / 2)
    assert metrics["r2"] == pytest.approx(0.5)  # of the first target alone: the second is constant


@pytest.mark.parametrize(("unit", "zero"), [(1e-3, 0.0), (1e-6, 0.0), (1e-9, 0.0), (1e6, 0.0), (1.0, 1e6), (1.0, 1e9)])
def test_r2_depends_on_neither_unit_nor_zero(unit, zero):
    generator = torch.Generator().manual_seed(0)
    target, prediction = (torch.randn(10, 1, generator=generator).double() for _ in range(2))
    expected = metrics_of("regression", prediction, target)["r2"]
    assert expected == pytest.approx(1 - float(((prediction - target) ** 2).mean() / target.var(correction=0)))
    found = metrics_of("regression", zero + unit * prediction, zero + unit * target)["r2"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_r2_needs_two_different_values():
    constant = torch.full((10, 1), 0.1).double()  # whose mean in floating point is another number
    assert set(metrics_of("regression", constant + 1, constant)) == {"rmse", "mae"}
    assert metrics_of("regression", constant.expand(10, 2) + 1, torch.zeros(10, 2)).keys() == {"rmse", "mae"}


def test_classification_metrics_by_hand():
    prediction, target = torch.tensor([[0.9], [0.6], [0.4], [0.1]]), torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    metrics = metrics_of("classification", prediction, target)
    assert metrics["auroc"] == pytest.approx(3 / 4)  # of four pairs (positive, negative) one is in the wrong order
    assert metrics["ap"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert metrics["accuracy"] == pytest.approx(0.5)


def test_a_target_without_both_labels_has_no_auroc():
    prediction, target = torch.tensor([[0.9, 0.2], [0.1, 0.8]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    metrics = metrics_of("classification", prediction, target)
    assert metrics["auroc"] == 1.0
    assert metrics["accuracy"] == pytest.approx(0.75)
    assert set(metrics_of("classification", prediction[:, 1:], target[:, 1:])) == {"accuracy"}


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_nothing_known_gives_no_metric(task):
    assert metrics_of(task, torch.zeros(2, 1), torch.full((2, 1), math.nan)) == {}


def test_every_metric_has_a_direction():
    assert {name: direction(name) for metrics in METRICS.values() for name in metrics} == {
        "rmse": "min", "mae": "min", "r2": "max", "auroc": "max", "ap": "max", "accuracy": "max",
        "macro_f1": "max", "macro_auroc": "max", "cross_entropy": "min", "mrr": "max", "hits@10": "max",
        "hits@50": "max",
    }  # fmt: skip


def test_several_classes_by_hand():
    """Rows of classes 0, 0, 1 and one unknown; the second is taken for class 2."""
    p = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.1, 0.8, 0.1], [1.0, 0.0, 0.0]])
    found = metrics_of("multiclass", p, torch.tensor([[0.0], [0.0], [1.0], [math.nan]]))
    # F1: class 0 has one hit of two true and one predicted, 2/3; class 1 has 1; class 2 is predicted once, 0.
    expected = {"accuracy": 2 / 3, "macro_f1": (2 / 3 + 1 + 0) / 3, "macro_auroc": 1.0}
    expected["cross_entropy"] = -(math.log(0.5) + math.log(0.25) + math.log(0.8)) / 3
    assert found == pytest.approx(expected)


def test_classes_of_one_kind_alone_have_no_area():
    found = metrics_of("multiclass", torch.tensor([[0.5, 0.5], [0.9, 0.1]]), torch.zeros(2, 1))
    assert "macro_auroc" not in found
    assert found["accuracy"] == 1.0
