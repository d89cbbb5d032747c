"""BREC's protocol on pairs whose verdict is known, and its statistic by hand."""

import json

import networkx
import pytest
import torch

from coset.core.errors import CosetError
from coset.graphs.benches import brec_protocol
from coset.graphs.benches.brec_protocol import (
    THRESHOLD,
    PairVerdict,
    Verdicts,
    hotelling,
    main,
    read_verdicts,
    train_on_pair,
)
from coset.graphs.benches.networks import bench_networks
from coset.graphs.data.collections import GraphPair, graph_from_adjacency, parse_graph6

TRIANGLES = networkx.disjoint_union(networkx.cycle_graph(3), networkx.cycle_graph(3))
HEXAGON = GraphPair(
    "basic", 0, *(graph_from_adjacency(networkx.to_numpy_array(g) > 0) for g in (networkx.cycle_graph(6), TRIANGLES))
)
ROOK = GraphPair("str", 1, parse_graph6("O?dbCaiTQsSgrKK{F`eEW"), parse_graph6("O?YSbAiTQsSgrKK{F`eEW"))


def test_the_statistic_by_hand():
    """Two channels with variances 1 and 4 and means 2 and 2, uncorrelated: 4 / 1 + 4 / 4."""
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    spread = signs * torch.tensor([0.75, 3.0], dtype=torch.float64).sqrt()  # unbiased variances 1 and 4
    assert hotelling(2 + spread) == pytest.approx(5)


def test_verdicts():
    assert PairVerdict("basic", 0, 100, 1).separated
    assert not PairVerdict("basic", 0, 70, 1).separated
    assert not PairVerdict("basic", 0, 100, 100).separated
    assert not PairVerdict("basic", 0, 100, 100).reliable


@pytest.mark.parametrize(
    ("name", "pair", "separated"), [("epnn", HEXAGON, True), ("epnn", ROOK, False), ("gin", HEXAGON, False)]
)
def test_pairs_with_a_known_verdict(name, pair, separated):
    verdict = train_on_pair(bench_networks()[name], pair, seed=0)
    assert verdict.separated == separated
    assert verdict.reliable
    assert (verdict.statistic > THRESHOLD) == separated


def test_the_bench_as_json(capsys, expressivity_data):
    main(json=True, category="basic", data=str(expressivity_data), every=60)
    (verdict,) = json.loads(capsys.readouterr().out)["epnn"]
    assert verdict["statistic"] > THRESHOLD > verdict["reliability"]


def test_mistakes():
    with pytest.raises(CosetError, match="no network"):
        main(networks="mlp")
    with pytest.raises(CosetError, match="at least 1"):
        main(every=0)


def test_a_bench_that_was_cut_off_goes_on(tmp_path, capsys, monkeypatch, expressivity_data):
    """A half-written line is taken out; what is in the file is not trained again."""
    file = tmp_path / "verdicts.jsonl"
    settings = {
        "json": True,
        "category": "basic",
        "data": str(expressivity_data),
        "networks": "gin",
        "every": 30,
        "out": str(file),
    }
    main(**settings)
    whole, lines = json.loads(capsys.readouterr().out), file.read_text().splitlines(keepends=True)
    assert len(lines) == 2
    file.write_text(lines[0] + lines[1][:20])
    main(**settings)
    again = json.loads(capsys.readouterr().out)
    assert [v["statistic"] for v in again["gin"]] == [v["statistic"] for v in whole["gin"]]
    assert len(read_verdicts(file)) == 2
    monkeypatch.setattr(brec_protocol, "train_on_pair", lambda *_: pytest.fail("trained again"))
    main(**settings)


def test_a_verdict_counts_for_its_seed_only(tmp_path):
    file = tmp_path / "verdicts.jsonl"
    first = Verdicts(file, seed=0).find("gin", HEXAGON)
    assert Verdicts(file, seed=0).known == {("gin", 0): first}
    assert Verdicts(file, seed=1).known == {}


@pytest.mark.parametrize("line", ["{}", "no json", '{"network": 1, "width": 1, "layers": 1, "seed": 1, "index": 0}'])
def test_a_file_of_something_else(line, tmp_path):
    file = tmp_path / "verdicts.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(CosetError, match="line 1: not a verdict"):
        main(networks="gin", out=str(file))
