"""The trained protocol of the torus benchmark: T^2 by hand, many networks at once against one by one, going on."""

from functools import partial

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch

from coset.core.errors import CosetError
from coset.topology import HOMP, SMCN, CellBatch, MarkPairs, disjoint_copies, to_data
from coset.topology.benches.side_by_side import side_by_side
from coset.topology.benches.torus_protocol import hotelling, scores_one_by_one, scores_together, summarise, trained
from coset.topology.data.torus import tori

CONFIGURATIONS = (((3, 6),), ((3, 3), (3, 3)), ((3, 7),), ((4, 6),), ((3, 8),))
DATA = [MarkPairs((0, 2))(to_data(tori(configuration))) for configuration in CONFIGURATIONS]
KINDS = {
    "homp": partial(HOMP, 4, width=4, layers=2),
    "smcn": partial(SMCN, 4, ranks=(0, 2), width=4, layers=1, reduce="mean", readout="mean"),
}


def test_hotelling_by_hand():
    assert hotelling(torch.tensor([[1.0], [3.0]])) == pytest.approx(2, rel=1e-6)  # mean 2, variance 2
    assert hotelling(torch.full((32, 1), 0.01)) == pytest.approx(0.01**2 / 1e-7)
    assert hotelling(torch.zeros(32, 16)) == 0


def test_copies_are_a_batch_of_copies():
    copies, batch = disjoint_copies(DATA[0], 3), Batch.from_data_list([DATA[0]] * 3)
    for key in ("num_cells", "incidence_0_1", "incidence_0_2", "incidence_1_2", "distance_0_2"):
        assert torch.equal(copies[key], batch[key])
    joined = Batch.from_data_list([copies, DATA[1]])
    assert torch.equal(joined.incidence_1_2, Batch.from_data_list([DATA[0]] * 3 + [DATA[1]]).incidence_1_2)


@pytest.mark.parametrize("name", KINDS)
def test_networks_side_by_side_are_those_networks(name):
    torch.manual_seed(0)
    plain = [KINDS[name]().double() for _ in range(2)]
    both = side_by_side(plain[0], 2)
    stacked = dict(both.named_parameters())
    for key, weight in plain[1].named_parameters():
        stacked[key].data[1] = weight.data.reshape(stacked[key][1].shape)
    out = both(CellBatch(Batch.from_data_list([DATA[0], DATA[1], DATA[1], DATA[0]])))
    assert torch.allclose(out[:2], plain[0](Batch.from_data_list(DATA[:2])), atol=1e-12)
    assert torch.allclose(out[2:], plain[1](Batch.from_data_list([DATA[1], DATA[0]])), atol=1e-12)


def test_pairs_at_once_score_as_one_by_one():
    """One copy to train on in place of several, and several pairs at once: the same T^2, in float64."""
    size = {"copies": 8, "steps": 5}
    pairs = [(DATA[0], DATA[1]), (DATA[1], DATA[0])]
    make = lambda: KINDS["smcn"]().double()  # noqa: E731
    together = scores_together(make, pairs, 1, **size)
    for pair, scores in zip(pairs, together):
        expected = scores_one_by_one(make, pair, 1, **size)
        assert scores.apart == pytest.approx(expected.apart, rel=1e-6)
        assert scores.apart > 1000
        assert max(scores.same, expected.same) < 1e-12
    assert max(s.apart for s in scores_together(KINDS["homp"], pairs, 1, **size)) < 1e-3


def test_scores_are_written_as_they_come_and_not_computed_again(tmp_path):
    file, pairs = tmp_path / "scores.csv", [(0, 0, 1), (1, 3, 4)]  # 18 and 24 vertices: two groups
    first = trained(KINDS, DATA, pairs, [0], file)
    assert [len(next(first)) for _ in range(3)] == [0, 1, 2]
    first.close()
    tables = list(trained(KINDS, DATA, pairs, [0], file))
    assert [len(table) for table in tables] == [2, 3, 4]
    rows = summarise(tables[-1], list(KINDS), [0])
    assert [row["apart"] for row in rows] == [0, 2]
    assert [row["unreliable"] for row in rows] == [0, 0]
    file.write_text("network,seed\nhomp,0\n")
    with pytest.raises(CosetError, match="no table of torus scores: it needs the columns network, seed, pair"):
        next(trained(KINDS, DATA, pairs, [0], file))


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match="BatchNorm1d cannot run side by side"):
        side_by_side(nn.Sequential(nn.BatchNorm1d(3)), 2)
