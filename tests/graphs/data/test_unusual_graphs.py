"""Unusual graphs and what every graph model makes of them; the same table is in docs/subgraphormer.md.

==============  =====================================================================================================
disconnected    works: unreachable pairs have a mark of their own, eigenvectors are those of the whole matrix
single node     works
edgeless        works
repeated edges  read as one edge, with a warning, and the features of the first
self-loops      left out, with a warning
directed        one line that names the edge
no nodes        one line
==============  =====================================================================================================

"Read" means :func:`coset.graphs.data.validation.validate_graph`, which every reader of data calls.
"""

import networkx
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import Compose
from typer.testing import CliRunner

from coset.cli import app
from coset.core.errors import CosetError
from coset.graphs import CSGNN, EPNN, GRIT, GNNSSWLPlus, Subgraphormer, wl_compare
from coset.graphs.data.datasets import from_pyg
from coset.graphs.models.gin import GIN
from coset.graphs.transforms import Coarsen, Eigenspaces, ProductPositionalEncoding, ShortestPathDistances
from coset.symmetry import NodePermutation

SIZES = {"width": 24, "layers": 2}
MODELS = {
    "gin": (lambda: GIN(2, None, [3], **SIZES), []),
    "subgraphormer": (
        lambda: Subgraphormer(2, None, [3], positional_encoding=4, **SIZES),
        [ShortestPathDistances(), ProductPositionalEncoding(4)],
    ),
    "gnn-sswl-plus": (lambda: GNNSSWLPlus(2, None, [3], **SIZES), [ShortestPathDistances()]),
    "csgnn": (lambda: CSGNN(2, None, [3], **SIZES), [ShortestPathDistances(), Coarsen("components")]),
    "csgnn spectral": (lambda: CSGNN(2, None, [3], **SIZES), [ShortestPathDistances(), Coarsen("spectral", 2)]),
    "csgnn edges": (lambda: CSGNN(2, None, [3], **SIZES), [ShortestPathDistances(), Coarsen("edges")]),
    "epnn": (lambda: EPNN(2, None, [3], **SIZES), [Eigenspaces()]),
    "epnn laplacian": (lambda: EPNN(2, None, [3], **SIZES), [Eigenspaces("laplacian")]),
    "grit": (lambda: GRIT(2, None, [3], **SIZES), [Eigenspaces()]),
    "grit product": (lambda: GRIT(2, None, [3], encoder="product", **SIZES), [Eigenspaces()]),
}


def graph(edges, nodes, both=True):
    """Edges with the number of their position, modulo 3, as a feature."""
    listed = [pair for edge in edges for pair in ((edge, edge[::-1]) if both and edge[0] != edge[1] else (edge,))]
    index = torch.tensor(listed, dtype=torch.long).reshape(-1, 2).t().contiguous()
    features = [[k % 3] for k, edge in enumerate(edges) for _ in range(1 + (both and edge[0] != edge[1]))]
    return Data(
        edge_index=index,
        edge_attr=torch.tensor(features, dtype=torch.long).reshape(-1, 1),
        num_nodes=nodes,
        y=torch.zeros(1),
    )


PATH = graph([(0, 1), (1, 2)], 3)
WORKS = {
    "disconnected": graph([(0, 1), (1, 2), (3, 4), (5, 6), (5, 7), (6, 7)], 9),
    "single node": graph([], 1),
    "edgeless": graph([], 4),
}
REPAIRED = {
    "repeated edges": Data(
        edge_index=torch.tensor([[0, 1, 1, 2, 0, 1], [1, 0, 2, 1, 1, 0]]),
        edge_attr=torch.tensor([[0], [0], [1], [1], [2], [2]]), num_nodes=3, y=torch.zeros(1),
    ),
    "self-loops": Data(
        edge_index=torch.tensor([[0, 1, 1, 2, 1], [1, 0, 2, 1, 1]]),
        edge_attr=torch.tensor([[0], [0], [1], [1], [2]]), num_nodes=3, y=torch.zeros(1),
    ),
}  # fmt: skip
DIRECTED = graph([(0, 1), (1, 2)], 3, both=False)


def network(name):
    torch.manual_seed(0)
    return MODELS[name][0]().double().eval()


def dressed(name, data):
    (read,) = from_pyg([data], fractions=(1, 0, 0)).graphs
    return Compose(MODELS[name][1])(read.clone())


@pytest.mark.parametrize("kind", WORKS)
@pytest.mark.parametrize("name", MODELS)
def test_works(name, kind):
    """Finite, alone as in a batch, the same after renumbering, with finite gradients."""
    model, data = network(name), WORKS[kind]
    alone = model(Batch.from_data_list([dressed(name, data)]))
    together = model(Batch.from_data_list([dressed(name, PATH), dressed(name, data)]))
    torch.testing.assert_close(alone[0], together[1])
    if name != "csgnn spectral":  # clusters depend on how nodes are numbered
        action = NodePermutation()
        moved = action.apply(action.sample(data, torch.Generator().manual_seed(1)), data)
        torch.testing.assert_close(model(Batch.from_data_list([dressed(name, moved)])), alone)
    together.square().sum().backward()
    assert alone.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", REPAIRED)
@pytest.mark.parametrize("name", MODELS)
def test_is_read_as_the_simple_graph(name, kind):
    model = network(name)
    with pytest.warns(UserWarning, match="dropped"):
        found = dressed(name, REPAIRED[kind])
    torch.testing.assert_close(
        model(Batch.from_data_list([found])), model(Batch.from_data_list([dressed(name, PATH)])), rtol=0, atol=0
    )


def test_a_directed_edge_is_named():
    with pytest.raises(CosetError, match=r"^list-0: edge 0 -> 1 has no reverse") as caught:
        from_pyg([DIRECTED])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name, (_, steps) in MODELS.items() if steps])
def test_transforms_name_a_directed_edge_as_well(name):
    with pytest.raises(CosetError, match="0 -> 1 has no reverse"):
        Compose(MODELS[name][1])(DIRECTED.clone())


def test_graphs_without_any_edge_can_be_read():
    table = from_pyg([WORKS["single node"], WORKS["edgeless"]], fractions=(1, 0, 0))
    assert (len(table), table.edge_features) == (2, [1])


def test_a_graph_without_nodes():
    with pytest.raises(CosetError, match="at least one node"):
        from_pyg([graph([], 0)])


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (DIRECTED, True),
        (REPAIRED["repeated edges"], True),
        (REPAIRED["self-loops"], True),
        (networkx.MultiDiGraph([(0, 1), (1, 2), (0, 1), (2, 2)]), True),
        (WORKS["edgeless"], False),
        (WORKS["single node"], False),
        (WORKS["disconnected"], False),
    ],
)
def test_refinements_ignore_directions_loops_and_repeats(other, same):
    """Of :func:`wl_compare`: against the path of three nodes, every test is right."""
    assert {verdict.separated for verdict in wl_compare(PATH, other)} == {not same}


@pytest.mark.parametrize("graphs", [("@", "@"), ("D??", "D??")])  # one node; five nodes without edges
def test_refinements_of_graphs_without_edges(graphs):
    out = CliRunner().invoke(app, ["wl", *graphs])
    assert out.exit_code == 0
    assert " yes " not in out.output


MOLECULES = ["C", "O", "[Na+].[Cl-]", "CCO.O", "[He]", "C1CC1", "c1ccccc1", "CC#N"]


@pytest.mark.parametrize("name", ["gin", "subgraphormer", "gnn-sswl-plus", "csgnn", "epnn", "grit"])
def test_single_atoms_and_salts_from_a_csv(name, tmp_path):
    file = tmp_path / "molecules.csv"
    file.write_text("smiles,y\n" + "".join(f"{text},{k}\n" for k, text in enumerate(MOLECULES * 2)))
    data = ["data.name=csv", f"data.path={file}", "data.target=y"]
    small = ["model.width=24", "model.layers=1", "training.epochs=1", "--output", str(tmp_path / "run"), "--quiet"]
    out = CliRunner().invoke(app, ["run", f"{name}/freesolv", *data, *small])
    assert out.exit_code == 0, out.output
    assert (tmp_path / "run" / "metrics.json").is_file()
