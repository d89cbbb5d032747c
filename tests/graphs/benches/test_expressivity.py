"""The expressivity bench: exact counts on BREC, networks that reach them, and what it prints."""

import json
from dataclasses import replace

import networkx as nx
import pytest
import torch
from rich.console import Console
from torch import nn
from torch_geometric.transforms import Compose

from coset.core.errors import CosetError
from coset.graphs.benches.brec_protocol import PairVerdict
from coset.graphs.benches.expressivity import (
    REFINEMENTS,
    Score,
    main,
    model_table,
    relative_gap,
    score_network,
    score_refinement,
    score_table,
    set_norm_statistics,
)
from coset.graphs.benches.networks import BenchNetwork, bench_networks
from coset.graphs.data.collections import BREC_CATEGORIES, GraphPair, graph_from_adjacency, parse_graph6, read_brec
from coset.graphs.models.options import GraphModel

NETWORKS = bench_networks()

BREC_TABLE = {  # pairs separated: basic 60, regular 50, str 50, extension 100, cfi 100, 4vtx 20, dr 20
    "1-WL": (0, 0, 0, 0, 0, 0, 0),
    "SPD-WL": (16, 14, 0, 41, 12, 0, 0),
    "RD-WL": (60, 50, 0, 100, 26, 0, 0),
    "EPWL-A": (60, 50, 0, 100, 26, 0, 0),
    "EPWL-L": (60, 50, 0, 100, 26, 0, 0),
    "EPWL-N": (60, 50, 0, 100, 26, 0, 0),
    "unmarked uL,vL,vv": (0, 0, 0, 0, 0, 0, 0),
    "uL": (60, 50, 0, 100, 41, 0, 0),
    "uL,vv": (60, 50, 0, 100, 49, 0, 0),
    "uL,vG": (60, 50, 0, 100, 50, 0, 0),
    "uL,vL": (60, 50, 0, 100, 57, 0, 0),
    "uL,vL,vv": (60, 50, 0, 100, 57, 0, 0),
    "proportions uL,vL,vv": (60, 50, 0, 100, 57, 0, 0),
    "2-FWL": (60, 50, 0, 100, 60, 0, 0),
}


def pair(first: nx.Graph, second: nx.Graph, category: str = "basic", index: int = 0) -> GraphPair:
    return GraphPair(
        category, index, *(graph_from_adjacency(nx.to_numpy_array(g, dtype=bool)) for g in (first, second))
    )


HEXAGON = pair(nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)))
ROOK = GraphPair(
    "str", 1, parse_graph6("O?dbCaiTQsSgrKK{F`eEW"), parse_graph6("O?YSbAiTQsSgrKK{F`eEW")
)  # 4x4 rook's graph and Shrikhande graph


def test_relative_gap():
    gap = relative_gap(torch.tensor([[1.0, -4.0], [0, 0]]), torch.tensor([[1.0, -3.0], [0, 0]]))
    assert gap.tolist() == [0.25, 0]


@pytest.mark.parametrize("name", [name for name in NETWORKS if NETWORKS[name].bound])
def test_networks_on_the_two_smallest_examples(name):
    score = score_network(name, NETWORKS[name], [HEXAGON, ROOK], seed=1)
    assert score.separated == {"basic": int(name not in ("unmarked", "gin")), "str": int(name == "csgnn edges")}
    assert score.false_separations == 0


def test_false_separations_are_noticed():
    class FirstNode(nn.Module):
        """Not invariant: reads the degree of whichever node comes first."""

        def forward(self, batch):
            degree = torch.bincount(batch.edge_index[0], minlength=batch.num_nodes)
            return degree[batch.ptr[:-1]].double()[:, None]

    class Bench(BenchNetwork):
        def build(self, *_):
            return FirstNode()

        def transform(self):
            return Compose([])

    # A star's centre comes first, in a renumbered copy a leaf does.
    star, path = nx.star_graph(20), nx.path_graph(21)
    score = score_network("first node", Bench(GraphModel, None), [pair(path, star), pair(star, star)])
    assert score.separated == {"basic": 1}
    assert score.false_separations == 2


def test_norm_statistics_are_those_of_the_batch():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.3))
    x = torch.rand(50, 3)
    set_norm_statistics(network, x)
    out = network(x)
    assert not any(module.training for module in network.modules())
    assert network[1].momentum == 0.3
    torch.testing.assert_close(out.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.var(0), torch.ones(4), atol=1e-2, rtol=0)


def test_rounding_of_constant_channels_is_not_blown_up():
    depth = [layer for _ in range(8) for layer in (nn.Linear(4, 4), nn.BatchNorm1d(4))]
    network = nn.Sequential(*depth).double()
    x = torch.ones(50, 4, dtype=torch.float64) + 1e-15 * torch.randn(50, 4, dtype=torch.float64)
    set_norm_statistics(network, x)
    out = network(x)
    assert (out - out[0]).abs().max() < 1e-13


@pytest.mark.parametrize("name", REFINEMENTS)
def test_small_categories(name, expressivity_data):
    pairs = read_brec(expressivity_data, ["basic", "regular", "4vtx"])
    basic, regular, *_, four, _ = BREC_TABLE[name]
    assert score_refinement(name, REFINEMENTS[name], pairs).separated == {
        "basic": basic,
        "regular": regular,
        "4vtx": four,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", REFINEMENTS)
def test_published_table(name, expressivity_data):
    score = score_refinement(name, REFINEMENTS[name], read_brec(expressivity_data))
    assert tuple(score.separated.values()) == BREC_TABLE[name]
    if name == "uL,vL,vv":  # rounds to go with the distance marking
        assert (score.rounds["basic"], score.rounds["regular"], score.rounds["extension"], score.rounds["cfi"]) == (
            1,
            2,
            4,
            7,
        )


@pytest.mark.slow
def test_untrained_subgraphormer_reaches_the_bound(expressivity_data):
    pairs = read_brec(expressivity_data, ["basic", "regular", "str", "extension", "dr"])
    score = score_network("subgraphormer", NETWORKS["subgraphormer"], pairs)
    assert score.separated == {"basic": 60, "regular": 50, "str": 0, "extension": 100, "dr": 0}
    assert score.false_separations == 0


def test_a_whole_table_fits_a_terminal(capsys):
    pairs = [replace(HEXAGON, category=category, index=numbers[0]) for category, numbers in BREC_CATEGORIES.items()]
    counts = dict.fromkeys(BREC_CATEGORIES, 100)
    exact = [Score(name, counts, 400, 100.0, rounds=counts) for name in REFINEMENTS]
    tried = [Score(name, counts, 400, 100.0, seed=0, false_separations=100) for name in NETWORKS]
    for scores in (exact, tried):
        Console(width=80).print(score_table(scores, pairs))
        printed = capsys.readouterr().out
        assert "\u2026" not in printed
        assert all(word in printed for word in (*BREC_CATEGORIES, *(score.name for score in scores)))


def test_every_model_has_a_line_with_bound_untrained_and_trained(capsys):
    """Worst seed untrained; trained on one of two pairs; no bound, no line left out."""
    pairs = [HEXAGON, replace(HEXAGON, index=1)]
    exact = [Score(name, {"basic": 2}, 2, 1.0, rounds={"basic": 1}) for name in REFINEMENTS]
    tried = [Score("gin", {"basic": k}, k, 1.0, seed=k, false_separations=0) for k in (1, 0)]
    trained = {
        "gin": [PairVerdict("basic", 0, 100.0, 1.0)],
        "granola": [PairVerdict("basic", k, 9, 80) for k in (0, 1)],
    }
    Console(width=132).print(model_table(exact, tried, trained, pairs))
    first = max(map(len, NETWORKS))
    lines = {line[: first + 1].strip(): line.split() for line in capsys.readouterr().out.splitlines()}
    assert set(NETWORKS) <= set(lines)
    assert lines["gin"][1:] == ["1-WL", "2/0/1", "of", "1", "0"]
    assert lines["granola"][1:] == ["nothing", "-/-/0", "2"]
    assert lines["csgnn edges"][2:] == ["sets:", "edges", "-/-/-", "-"]  # its bound was not asked for


def test_main_prints_a_table_or_json(capsys, expressivity_data):
    main(category="regular", data=str(expressivity_data), networks="subgraphormer", seeds=1)
    table = capsys.readouterr().out
    assert "colour refinement (exact)" in table
    assert "subgraphormer" in table
    main(json=True, category="regular", data=str(expressivity_data), networks="none")
    result = json.loads(capsys.readouterr().out)
    assert result["pairs"] == {"regular": 50}
    assert {score["name"]: score["total"] for score in result["refinements"]} == {
        name: counts[1] for name, counts in BREC_TABLE.items()
    }
    assert result["networks"] == []


def test_main_refuses_what_does_not_exist(tmp_path):
    with pytest.raises(CosetError, match="no network 'gat'; did you mean 'grit'"):
        main(networks="gat")
    with pytest.raises(CosetError, match="seeds=0"):
        main(seeds=0)
    with pytest.raises(CosetError, match="no category 'crc'"):
        main(category="crc")
    with pytest.raises(CosetError, match=r"basic.npy is not found"):
        main(category="basic", data=str(tmp_path))
