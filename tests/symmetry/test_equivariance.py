"""Checks of equivariance: what holds passes, what is broken fails, and the model checked is left alone."""

import json
import math

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINConv, global_add_pool

from coset.core.errors import CosetError
from coset.symmetry import (
    Claim,
    CyclicShift,
    DihedralImage,
    NodePermutation,
    NodeRowPermutation,
    PairRowPermutation,
    Parts,
    PointPermutation,
    Rotation3,
    TrivialAction,
    check_equivariance,
    verify_claims,
)

POINTS = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0], [0.0, 1.0, -4.0], [2.0, 2.0, 2.0]])


class Isomorphism(nn.Module):
    """A small GIN; ``broken`` adds to each node its own number."""

    def __init__(self, level="graph", broken=False):
        super().__init__()
        self.conv = GINConv(nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))
        self.dropout = nn.Dropout(0.5)
        self.level, self.broken = level, broken

    def forward(self, data):
        x = data.x
        if self.broken:
            x = x + 0.01 * torch.arange(x.size(0), dtype=x.dtype)[:, None]
        x = self.dropout(self.conv(x, data.edge_index))
        if self.level == "graph":
            return global_add_pool(x, data.batch)
        if self.level == "node":
            return x
        graphs = [x[data.batch == g] for g in range(data.num_graphs)]
        return torch.cat([(g[:, None] - 2 * g[None]).flatten(0, 1) for g in graphs])

    def symmetry(self):
        outputs = {"graph": TrivialAction(), "node": NodeRowPermutation(), "pair": PairRowPermutation()}
        return (Claim(NodePermutation(), outputs[self.level], "numbering does not matter"),)


def batch():
    generator = torch.Generator().manual_seed(0)
    graphs = [
        Data(x=torch.randn(n, 2, generator=generator), edge_index=torch.tensor([[0, 1, 1], [1, 0, n - 1]]))
        for n in (3, 5, 4)
    ]
    return Batch.from_data_list(graphs)


def test_a_sum_is_invariant_and_the_first_entry_is_not():
    held = check_equivariance(lambda x: x.sum(0), POINTS, PointPermutation())
    assert held.passed
    assert held.max_relative_error < 1e-14
    broken = check_equivariance(lambda x: x[0], POINTS, PointPermutation())
    assert not broken.passed
    assert broken.max_absolute_error > 0.1


def test_the_error_is_the_largest_difference():
    # Reversing (1, 3) in the only way a shift by one can: f picks the first entry, off by 2 of at most 3.
    report = check_equivariance(lambda x: x[:1], torch.tensor([1.0, 3.0]), CyclicShift((0,)), trials=10)
    assert report.max_absolute_error == 2
    assert report.max_relative_error == pytest.approx(2 / 3)
    assert 0 < report.moved < 10


def test_an_equivariant_map_moves_with_its_input():
    f = lambda x: x - x.mean(0)  # noqa: E731
    assert check_equivariance(f, POINTS, PointPermutation(), PointPermutation()).passed
    assert check_equivariance(f, POINTS, Rotation3(True), Rotation3(True)).passed
    assert not check_equivariance(f, POINTS, PointPermutation(), TrivialAction()).passed
    assert not check_equivariance(torch.relu, POINTS, Rotation3(), Rotation3()).passed


def test_outputs_may_be_tuples_and_dicts():
    f = lambda x: {"centred": x - x.mean(0), "size": (x.norm(), x.abs().max())}  # noqa: E731
    parts = Parts({"centred": PointPermutation(), "size": TrivialAction()})
    assert check_equivariance(f, POINTS, PointPermutation(), parts).passed
    assert not check_equivariance(f, POINTS, PointPermutation()).passed


@pytest.mark.parametrize("level", ["graph", "node", "pair"])
def test_a_graph_network_keeps_its_claim(level):
    (report,) = verify_claims(Isomorphism(level), batch())
    assert report.passed, report
    assert report.statement == "numbering does not matter"
    assert report.moved > 0


@pytest.mark.parametrize("level", ["graph", "node", "pair"])
def test_a_network_that_breaks_its_claim_fails(level):
    (report,) = verify_claims(Isomorphism(level, broken=True), batch())
    assert not report.passed
    assert report.max_relative_error > 1e-6


def test_float32_rounds_where_float64_does_not():
    model = Isomorphism()
    (double,) = verify_claims(model, batch())
    (single,) = verify_claims(model, batch(), dtype=torch.float32, tolerance=1e-4)
    assert (double.dtype, single.dtype) == ("float64", "float32")
    assert double.max_relative_error < 1e-13 < single.max_relative_error < 1e-4
    assert single.passed
    (strict,) = verify_claims(Isomorphism(broken=True), batch(), dtype=torch.float32, tolerance=1e-4)
    assert not strict.passed


def test_model_data_and_random_numbers_are_left_alone():
    model, data = Isomorphism().train(), batch()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    x, drawn = data.x.clone(), torch.get_rng_state()
    verify_claims(model, data)
    assert model.training
    assert all(value.dtype == state[key].dtype and value.equal(state[key]) for key, value in model.state_dict().items())
    assert data.x.equal(x)
    assert torch.get_rng_state().equal(drawn)


def test_a_map_may_change_its_input_in_place():
    def careless(x):
        return x.relu_().sum(0)

    x = torch.tensor([-1.0, 2.0, -3.0])
    assert check_equivariance(careless, x, PointPermutation()).passed
    assert x.tolist() == [-1, 2, -3]


def test_methods_of_modules_are_copied_with_them():
    model = Isomorphism().train()
    report = check_equivariance(model.forward, batch(), NodePermutation())
    assert report.passed  # in training mode dropout would break it, in float32 the cast input would not fit
    assert model.training


def test_noise_inside_repeats():
    # The same noise for every evaluation: on a sum it changes nothing, on points by number it breaks the claim.
    assert check_equivariance(lambda x: x.sum(0) + torch.rand(3), POINTS, PointPermutation()).passed
    assert not check_equivariance(lambda x: (x * torch.rand(4, 1)).sum(0), POINTS, PointPermutation()).passed


def test_gradients_are_off_unless_the_map_turns_them_on():
    def force(x):
        with torch.enable_grad():
            x = x.requires_grad_()
            return torch.autograd.grad((x - x.mean(0)).norm(dim=1).pow(3).sum(), x)[0]

    assert check_equivariance(force, POINTS, Rotation3(), Rotation3()).passed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_fail(value):
    report = check_equivariance(lambda x: x.sum() * value, POINTS, PointPermutation())
    assert not report.passed
    assert math.isinf(report.max_absolute_error)
    assert "not finite" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["max_absolute_error"] is None


def test_a_change_of_shape_or_form_fails():
    report = check_equivariance(lambda x: x[x[:, 0].argmax() :], POINTS, PointPermutation(), trials=10)
    assert not report.passed
    assert "changes its shape" in report.detail
    report = check_equivariance(lambda x: {str(x[0, 0].item()): x.sum()}, POINTS, PointPermutation(), trials=10)
    assert "different parts" in report.detail


def test_a_later_good_trial_does_not_hide_a_bad_one():
    picky = lambda x: x.sum(0) + (x[0, 0] == 0) * 1.0  # noqa: E731
    assert not check_equivariance(picky, POINTS, PointPermutation(), trials=30).passed


def test_rounding_about_zero_is_no_failure_but_small_outputs_are_not_excused():
    centred = lambda x: (x - x.mean(0)).sum(0)  # noqa: E731
    x = torch.rand(7, 3, generator=torch.Generator().manual_seed(1))
    report = check_equivariance(centred, x, PointPermutation())
    assert report.passed, report
    assert not check_equivariance(lambda x: 1e-9 * x[0], POINTS, PointPermutation()).passed


def test_no_elements_moved_is_said():
    report = check_equivariance(lambda x: x[0], torch.ones(3), PointPermutation())
    assert report.passed
    assert report.moved == 0
    assert "0 of 5 elements moved the input" in str(report)


def test_whole_numbers_and_truth_values_are_compared():
    assert check_equivariance(lambda x: x.norm(dim=1).argsort(), POINTS, Rotation3()).passed
    assert not check_equivariance(lambda x: x > 0, POINTS, Rotation3()).passed
    assert not check_equivariance(torch.fft.fft, torch.arange(4), PointPermutation()).passed  # complex


def test_a_report_reads_in_one_line_and_as_json():
    report = check_equivariance(lambda x: x.mean(), torch.rand(3, 3), DihedralImage(), statement="turns do not matter")
    assert str(report).startswith("D_4 on images -> trivial: holds, relative error ")
    assert "\n" not in str(report)
    saved = json.loads(json.dumps(report.to_dict()))
    assert saved["passed"] is True
    assert saved["group"] == "D_4 on images"
    assert saved["statement"] == "turns do not matter"
    assert {"trials", "dtype", "max_absolute_error", "max_relative_error", "tolerance"} <= set(saved)


def test_repeats_with_its_seed():
    x = torch.arange(50.0)
    first, second, other = (
        check_equivariance(lambda x: x[0], x, PointPermutation(), trials=1, seed=seed) for seed in (0, 0, 1)
    )
    assert first == second
    assert first.max_absolute_error != other.max_absolute_error


def test_nothing_to_check_is_an_error():
    with pytest.raises(CosetError, match="Linear declares no symmetry"):
        verify_claims(nn.Linear(1, 1), torch.zeros(1))
    with pytest.raises(ValueError, match="trials=0"):
        check_equivariance(torch.sum, POINTS, PointPermutation(), trials=0)
    with pytest.raises(ValueError, match="no tensor to compare: it is a float"):
        check_equivariance(lambda x: 1.0, POINTS, PointPermutation())


def test_claims_can_be_given():
    claims = [Claim(PointPermutation(), PointPermutation()), Claim(PointPermutation(), TrivialAction())]
    held, broken = verify_claims(nn.Linear(3, 2), POINTS, claims=claims)
    assert held.passed
    assert not broken.passed


def test_a_claim_need_not_stand_in_a_tuple():
    model = nn.Linear(3, 2)
    model.symmetry = lambda: Claim(PointPermutation(), PointPermutation(), "rows move together")
    (report,) = verify_claims(model, POINTS)
    assert report.passed
    assert report.statement == "rows move together"
