import math

import pytest
import torch
from torch import nn

from coset.training.tasks import GraphTask, metrics_of


def test_regression_metrics_by_hand():
    target = torch.tensor([[0.0], [2.0], [math.nan]])
    metrics = metrics_of("regression", torch.tensor([[1.0], [2.0], [9.0]]), target)
    assert metrics["mae"] == pytest.approx(0.5)
    assert metrics["rmse"] == pytest.approx(math.sqrt(0.5))
    assert metrics["r2"] == pytest.approx(0.5)


def test_a_target_without_both_labels_has_no_auroc():
    prediction, target = torch.tensor([[0.9, 0.2], [0.1, 0.8]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    metrics = metrics_of("classification", prediction, target)
    assert metrics["auroc"] == 1.0
    assert metrics["accuracy"] == pytest.approx(0.75)


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        return self.value.expand(len(batch.y), 1)


def test_predictions_are_in_the_units_of_the_target():
    task = GraphTask(Constant(), "regression", torch.tensor([[10.0], [30.0], [math.nan]]))
    batch = type("Batch", (), {"y": torch.tensor([[20.0]])})()
    assert task(batch).item() == pytest.approx(20.0)
    assert task.scale.item() == pytest.approx(10.0)
    assert task._loss(batch).item() == pytest.approx(0.0)
