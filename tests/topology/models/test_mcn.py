"""MCN: the number of maps, that they commute with the group, and that they are independent."""

import pytest
import torch
from pydantic import ValidationError
from torch_geometric.data import Batch

from coset.topology import MCN, CellBatch, MCNLayer, MCNLinear, from_faces, from_simplices, separates, to_data
from coset.topology.data.torus import tori, torus
from coset.topology.models.mcn import PAIRS, MCNOptions, equivariant_maps, structure


@pytest.mark.parametrize(
    ("inputs", "outputs", "count"),
    [
        ((1,), (1,), 2), ((1, 0), (0, 1), 1), ((1, 1), (1, 0), 2), ((1, 1), (1, 1), 4), ((2,), (1,), 5),
        ((2,), (2,), 15), ((1, 1), (2, 0), 5), ((0, 2), (0, 1), 5),
    ],
)  # fmt: skip
def test_dimensions(inputs, outputs, count):
    assert equivariant_maps(inputs, outputs) == count
    sizes = [a + b + 1 for a, b in zip(inputs, outputs)]
    axes = [n for n, k in zip(sizes, inputs) for _ in range(k)]
    generator = torch.Generator().manual_seed(0)
    layer = MCNLinear(inputs, outputs, 1, 1, bias=False).double()
    images = []
    inputs_drawn = [torch.randn(*axes, 1, dtype=torch.double, generator=generator) for _ in range(count + 1)]
    for number in range(count):
        with torch.no_grad():
            layer.weight.zero_()
            layer.weight[number] = 1
            images.append(torch.cat([layer(x, sizes).flatten() for x in inputs_drawn]))
    assert torch.linalg.matrix_rank(torch.stack(images)) == count


@pytest.mark.parametrize(
    ("inputs", "outputs"), [((1, 1), (1, 1)), ((2, 0), (1, 1)), ((2, 1), (2, 0)), ((0, 0), (2, 1))]
)
def test_every_map_commutes_with_the_group(inputs, outputs):
    sizes = (4, 3)
    generator = torch.Generator().manual_seed(1)
    layer = MCNLinear(inputs, outputs, 2, 3).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(*(n for n, k in zip(sizes, inputs) for _ in range(k)), 2, dtype=torch.double, generator=generator)
    moves = [torch.randperm(n, generator=generator) for n in sizes]

    def moved(y, space):
        for axis, rank in enumerate(r for r, k in enumerate(space) for _ in range(k)):
            y = y.index_select(axis, moves[rank])
        return y

    assert torch.allclose(layer(moved(x, inputs), sizes), moved(layer(x, sizes), outputs), atol=1e-12)


def test_a_layer_reads_incidence_and_sees_what_is_incident():
    cells = CellBatch(to_data(torus(3, 3)))
    sizes = [index.total for index in cells.cells]
    h = structure(sizes, {(0, 1): cells.incidence(0, 1).index, (0, 2): cells.incidence(0, 2).index})
    assert h[(1, 1, 0)].sum() == 36
    assert h[(1, 0, 1)].sum() == 36
    out = MCNLayer(dict.fromkeys(h, 1), {(1, 0, 0): 4, (0, 1, 1): 2})(h, sizes)
    assert out[(1, 0, 0)].shape == (9, 4)
    assert out[(0, 1, 1)].shape == (18, 9, 2)
    sum(y.sum() for y in out.values()).backward()


def test_each_complex_of_a_batch_is_read_as_alone_also_one_without_faces():
    torch.manual_seed(0)
    model = MCN(3, width=4, layers=2, tuples=(*PAIRS, (2, 0, 0)), norm="batch").double().eval()
    complexes = [torus(3, 6), torus(3, 3), from_faces([(0, 1, 2)]), from_simplices([(0, 1), (1, 2)])]
    data = [to_data(complex_, ranks=3) for complex_ in complexes]
    with torch.no_grad():
        together = model(Batch.from_data_list(data))
        alone = torch.cat([model(one) for one in data])
    torch.testing.assert_close(together, alone)
    assert len(together.unique(dim=0)) == 4


def test_options_refuse_tuples_of_too_many_cells():
    with pytest.raises(ValidationError, match="a tuple holds 1 to 3 cells"):
        MCNOptions(tuples=[[2, 1, 1]])


def test_errors():
    with pytest.raises(ValueError, match="same ranks"):
        MCNLinear((1,), (1, 0), 1, 1)
    with pytest.raises(ValueError, match="too many maps"):
        MCNLinear((4,), (3,), 1, 1)
    with pytest.raises(ValueError, match=r"axes \[3, 2\]"):
        MCNLinear((1, 1), (1, 0), 1, 1)(torch.zeros(2, 3, 1), (3, 2))


def map_of(inputs, outputs, patterns):
    """The layer that adds up these maps, with these weights."""
    layer = MCNLinear(inputs, outputs, 1, 1).double()
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        for pattern, weight in patterns.items():
            layer.weight[layer.patterns.index(pattern)] = weight
    return layer


def test_four_layers_count_triangles_which_message_passing_cannot():
    """T(3,6) has six, two T(3,3) have twelve; to HOMP they are alike. Places are (outputs, inputs), rank by rank."""
    found = []
    for complex_ in (torus(3, 6), tori(((3, 3), (3, 3)))):
        cells = CellBatch(to_data(complex_))
        sizes = vertices, edges, _ = [index.total for index in cells.cells]
        h = structure(sizes, {(0, 1): cells.incidence(0, 1).index})[(1, 1, 0)].double()
        both = map_of((1, 1, 0), (2, 1, 0), {((0, 1, 0), (0, 0), ()): 1, ((0, 1, 1), (0, 0), ()): 1})
        h = (both(h, sizes) - 1).relu()  # both vertices in the edge
        adjacent = {((0, 1, 0, 1), (0,), ()): edges, ((0, 0, 0, 0), (0,), ()): -edges}  # but no vertex to itself
        h = map_of((2, 1, 0), (2, 0, 0), adjacent)(h, sizes).relu()
        sides = {((0, 1, 2, *side), (), ()): 1 for side in ((0, 1), (1, 2), (0, 2))}
        h = (map_of((2, 0, 0), (3, 0, 0), sides)(h, sizes) - 2).relu()
        count = map_of((3, 0, 0), (0, 0, 0), {((0, 1, 2), (), ()): vertices**3})(h, sizes)
        found.append(count.item() / 6)
    assert found == pytest.approx([6, 12])
    assert not separates(torus(3, 6), tori(((3, 3), (3, 3))))
