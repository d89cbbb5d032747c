"""Drawings of complexes and what SMCN attends to, against leaving pairs out."""

import numpy as np
import pytest
import torch

from coset.topology import SMCN, Complex, closed_surface, from_faces, to_data
from coset.topology.data.torus import torus
from coset.topology.pictures import drawing, hop_layout, pair_relevance


def test_a_drawing_has_all_cells():
    drawn = drawing(to_data(torus(3, 4)))
    assert drawn.positions.shape == (12, 3)
    assert (len(drawn.edges), len(drawn.faces)) == (24, 12)
    edges = {frozenset(edge) for edge in drawn.edges}
    # Around every square along its edges, though incidence knows sets only.
    assert all(frozenset((face[i - 1], face[i])) in edges for face in drawn.faces for i in range(4))


def test_chords_and_sets_go_around_by_angle():
    places = np.array([(0.0, 0), (1, 1), (1, 0), (0, 1)])
    chords = from_faces([(0, 2, 1, 3), (0, 2, 1), (0, 1, 3)])
    face = drawing(to_data(chords), places).faces[0]
    assert {frozenset((face[i], face[i - 2])) for i in (0, 1)} == {frozenset((0, 1)), frozenset((2, 3))}
    assert drawing(to_data(Complex(3, {1: [(0, 1, 2)]}))).edges == [[]]


def test_layout_keeps_distances_of_a_path():
    place = hop_layout(4, [[0, 1], [1, 2], [2, 3]])
    assert np.allclose(np.linalg.norm(np.diff(place, axis=0), axis=1), 1)
    assert np.isfinite(hop_layout(3, [[0, 1]])).all()
    assert hop_layout(1, []).shape == (1, 3)


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("ranks", [(0, 1), (0, 2), (1, 2), (0, 0)])
def test_relevance_is_features_times_gradient(ranks, layers):
    torch.manual_seed(0)
    model, data = SMCN(1, width=6, ranks=ranks, layers=layers).train(), to_data(closed_surface(1))
    weights = pair_relevance(model, data)
    counts = data.num_cells[0]
    assert weights.shape == (counts[ranks[0]], counts[ranks[1]])
    assert (weights > 0).any()
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    # Taking a small part of one pair away changes the prediction by that part of its weight.
    model, part = model.double().eval(), 1e-6
    last = model.layers[-1] if layers else model.bag
    exact = pair_relevance(model, data)
    row = int(exact.argmax())
    before = model(data).item()

    def scaled(module, inputs, output):
        kept = torch.ones(len(output), 1, dtype=output.dtype)
        kept[row] = 1 - part
        return output * kept

    hook = last.register_forward_hook(scaled)
    change = abs(model(data).item() - before) / part
    hook.remove()
    assert change == pytest.approx(exact.reshape(-1)[row], rel=1e-3)


def test_nothing_to_mark_is_nothing_to_weigh():
    assert pair_relevance(SMCN(1, width=4), to_data(Complex(3, {1: [(0, 1)]}), ranks=3)).shape == (3, 0)
