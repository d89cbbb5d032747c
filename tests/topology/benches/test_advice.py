"""Which rank pair sees a difference: known pairs, and the command."""

import json

import pytest
from typer.testing import CliRunner

from coset.cli import app
from coset.topology import Complex, compare_complexes, write_complex
from coset.topology.benches.advice import invariants
from coset.topology.data.torus import klein_bottle, strip, torus


def test_a_twist_is_seen_from_vertices_not_from_squares():
    found = compare_complexes(strip(5), strip(5, twisted=True))
    assert found.differences == ["orientable", "surface"]
    verdicts = {v.network: v.separates for v in found.verdicts}
    assert verdicts["HOMP"] is False
    assert verdicts["SMCN(0, 1)"] is True
    assert verdicts["SMCN(0, 2)"] is verdicts["SMCN(1, 2)"] is False
    assert found.advice.startswith("use SMCN(0, 0): the fewest pairs (100) that see it, with 1 subcomplex layer;")
    assert "SMCN(0, 2)" in found.advice


def test_what_is_equal_is_told_apart_by_nothing():
    found = compare_complexes(torus(3, 4), torus(4, 3))
    assert found.differences == []
    assert found.equal
    assert found.advice == "they are one complex, with vertices in another order: no network tells them apart"


def test_message_passing_is_enough_where_counts_differ():
    assert compare_complexes(torus(3, 4), torus(3, 5)).advice.startswith("HOMP tells them apart")


def test_too_many_pairs_are_not_tried(monkeypatch):
    monkeypatch.setattr("coset.topology.benches.advice.LARGEST", 10)
    found = compare_complexes(torus(3, 4), klein_bottle(3, 4))
    assert {v.separates for v in found.verdicts[1:]} == {None}
    assert "not tried" in found.advice


def test_what_is_not_defined_is_none():
    hyper = invariants(Complex(3, {1: [(0, 1, 2)]}))
    assert hyper["Betti numbers"] is None
    assert hyper["components"] == 1
    assert invariants(Complex(1, {}))["Euler characteristic"] == 1


def test_complexes_without_edges_can_be_compared():
    assert compare_complexes(Complex(2, {}), Complex(3, {})).advice.startswith("HOMP tells them apart")


def run(*arguments: str):
    return CliRunner().invoke(app, ["wl", "--complex", *arguments])


def test_the_command(tmp_path):
    for name, complex_ in (("cylinder", strip(5)), ("moebius", strip(5, twisted=True))):
        write_complex(tmp_path / f"{name}.json", complex_)
    files = [str(tmp_path / f"{name}.json") for name in ("cylinder", "moebius")]
    told = run(*files)
    assert told.exit_code == 0
    assert "use SMCN(0, 0)" in told.stdout
    value = json.loads(run(*files, "--json").stdout)
    assert value["networks"][0] == {"network": "HOMP", "separates": False, "layers": None, "pairs": 0}
    assert [row["name"] for row in value["invariants"] if row["first"] != row["second"]] == ["orientable", "surface"]


@pytest.mark.parametrize("lift", ["ring", "clique", "ball", "mapper", "none"])
def test_graphs_are_lifted(lift):
    told = run("EhEG", "EJaG", "--lift", lift)
    assert told.exit_code == 0, told.output
