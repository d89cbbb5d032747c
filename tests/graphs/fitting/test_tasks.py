import math

import pytest
import torch
from tiny_graphs import tiny_graphs, tiny_task
from torch import nn
from torch_geometric.data import Batch

from coset import CosetError
from coset.graphs.fitting.tasks import GraphTask


class Constant(nn.Module):
    def __init__(self, outputs=1, value=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.full((outputs,), value))

    def forward(self, batch):
        return self.value.expand(len(batch.y), -1)


def batch_of(*rows):
    return Batch(y=torch.tensor(rows))


def test_predictions_are_in_the_units_of_the_target():
    task = GraphTask(Constant(), "regression", torch.tensor([[10.0], [30.0], [math.nan]]))
    assert task(batch_of([20.0])).item() == pytest.approx(20.0)
    assert task.scale.item() == pytest.approx(10.0)
    assert task.loss_of(batch_of([20.0])).item() == pytest.approx(0.0)


def test_each_target_has_its_own_scale():
    task = GraphTask(Constant(2), "regression", torch.tensor([[10.0, -1.0], [30.0, 1.0], [math.nan, 0.0]]))
    assert task.mean.tolist() == [20.0, 0.0]
    assert task.scale.tolist() == pytest.approx([10.0, math.sqrt(2 / 3)])
    assert {"mean", "scale"} <= set(task.state_dict())


@pytest.mark.parametrize("targets", [[[7.3], [7.3], [7.3]], [[math.nan], [math.nan]]])
def test_a_target_without_spread_is_not_divided_by_zero(targets):
    task = GraphTask(Constant(), "regression", torch.tensor(targets))
    assert task.scale.item() == 1.0
    assert task(batch_of([0.0])).isfinite().all()


def test_missing_labels_do_not_count():
    task = GraphTask(Constant(2), "regression", torch.tensor([[0.0, 0.0], [2.0, 4.0]]), loss="mse")
    # Standardised: ((3 - 1) / 1)^2 and ((2 - 2) / 2)^2 of the known ones; mean over two.
    assert task.loss_of(batch_of([3.0, math.nan], [math.nan, 2.0])).item() == pytest.approx(2.0)


@pytest.mark.parametrize(("outputs", "shape"), [(2, r"\[2, 2\]"), (None, r"\[2\]")])
def test_outputs_of_another_shape_are_refused(outputs, shape):
    network = Constant(outputs or 1)
    if outputs is None:
        network.forward = lambda batch: network.value.expand(len(batch.y))
    task = GraphTask(network, "regression", torch.tensor([[0.0], [1.0]]))
    with pytest.raises(CosetError, match=rf"Constant gives {shape} .* should be \[2, 1\]"):
        task.loss_of(batch_of([0.0], [1.0]))


def test_a_batch_without_labels_has_loss_zero_and_gradients():
    task = GraphTask(Constant(), "regression", torch.tensor([[0.0], [1.0]]))
    loss = task.loss_of(batch_of([math.nan]))
    loss.backward()
    assert loss.item() == 0
    assert task.model.value.grad.item() == 0


def test_cross_entropy_by_hand():
    task = GraphTask(Constant(value=math.log(3.0)), "classification", torch.tensor([[0.0], [1.0]]))
    assert task(batch_of([1.0])).item() == pytest.approx(0.75)
    expected = -(math.log(0.75) + math.log(0.25)) / 2
    assert task.loss_of(batch_of([1.0], [0.0], [math.nan])).item() == pytest.approx(expected)


def test_labels_must_be_zero_or_one():
    with pytest.raises(CosetError, match="a label is 2, but classification needs 0 or 1"):
        GraphTask(Constant(), "classification", torch.tensor([[0.0], [2.0], [math.nan]]))


@pytest.mark.parametrize(("decay", "kind"), [(0.0, torch.optim.Adam), (0.1, torch.optim.AdamW)])
def test_weight_decay_chooses_the_optimiser(decay, kind):
    task = GraphTask(Constant(), "regression", torch.zeros(2, 1), weight_decay=decay)
    assert type(task.configure_optimizers()) is kind


def test_schedules():
    task = GraphTask(Constant(), "regression", torch.zeros(2, 1), schedule="plateau", patience=1, learning_rate=0.8)
    task.watched = [1.0, 2.0, 3.0]
    assert task.learning_rate_at(3) == pytest.approx(0.4)
    task.schedule, task.warmup = "cosine", 1
    assert task.learning_rate_at(0) == pytest.approx(0.4)
    task.schedule = "constant"
    assert task.learning_rate_at(9) == pytest.approx(0.8)


@pytest.mark.parametrize("loss", ["l1", "mse"])
def test_gradients_are_finite(loss):
    graphs = tiny_graphs(6, targets=2, missing=0.3)
    task = tiny_task(graphs, loss=loss)
    task.loss_of(Batch.from_data_list(graphs)).backward()
    assert all(p.grad.isfinite().all() for p in task.parameters())


@pytest.mark.parametrize("weights", ["none", "balanced"])
@pytest.mark.parametrize(
    ("kind", "targets", "classes"),
    [
        ("regression", [[0.5], [1.5], [2.0]], ()),
        ("classification", [[0.0], [1.0], [1.0]], ()),
        ("link", [[0.0], [1.0], [1.0]], ()),
        ("multiclass", [[0.0], [1.0], [2.0]], ("a", "b", "c")),
    ],
)
def test_losses_and_predictions_live_where_the_batch_lives(kind, targets, classes, weights):
    """As on a GPU: with another default device, a tensor that is made without a device would not fit the others."""
    if kind == "regression" and weights == "balanced":
        pytest.skip("weighs labels")
    task = GraphTask(Constant(len(classes) or 1), kind, torch.tensor(targets), classes=classes, class_weights=weights)
    batch = batch_of(*targets, [math.nan])
    with torch.device("meta"):
        loss, found = task.loss_of(batch), task(batch)
        loss.backward()
    assert loss.isfinite()
    assert found.isfinite().all()
