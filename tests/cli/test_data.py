"""``coset data list | get | where``, and what ``coset list`` says of recipes."""

import json

import pytest

from coset.core.data_sets import DATA_SETS


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """A machine without any data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COSET_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))


def test_data_sets_are_listed_with_licence_size_and_how_they_are_had(coset):
    out = coset("data", "list", "digits")[1]
    assert "CC BY-SA 3.0; 11.6 MB to download" in out
    assert "coset data get mnist" in out
    rows = {row["name"]: row for row in json.loads(coset("data", "list", "--json")[1])}
    assert set(rows) == set(DATA_SETS)
    assert rows["mnist"]["downloads"][0]["checksum"].startswith("md5:")
    assert rows["csv"]["state"] == "needs data.path=FILE.csv data.target=COLUMN"
    assert coset("data", "list", "nowhere")[2].startswith("error: no data set has nowhere")


def test_a_data_set_is_had_and_found_again(coset, tmp_path):
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / "subj.all").write_text("0 a gem .\n1 he runs .\n")
    code, out, _ = coset("data", "get", "subj", "--mirror", stick, "--quiet")
    assert (code, out.split()) == (0, ["subj:", str(tmp_path / "data" / "text" / "subj.tsv.gz")])
    assert "subj is there already" in coset("data", "get", "subj")[1]
    assert coset("data", "where", "subj")[1].strip() == str(tmp_path / "data" / "text" / "subj.tsv.gz")
    assert coset("data", "where")[1].strip() == str(tmp_path / "data")
    assert json.loads(coset("data", "where", "--json")[1])["looked_in"][0] == str(tmp_path / "data")
    assert "cannot be had: No such file" in coset("data", "get", "mr", "--mirror", stick, "--quiet")[2]
    assert "freesolv is there already" in coset("data", "get", "freesolv")[1]
    assert "error: csv is not downloaded: data.path" in coset("data", "get", "csv")[2]
    # By the name of a recipe: what it still lacks.
    assert "stsa.binary.train" in coset("data", "get", "fs-merge/sst2-subj", "--mirror", stick, "--quiet")[2]


def test_recipes_are_marked_grouped_and_filtered(coset):
    out = coset("list", "hiv")[1]
    assert out.splitlines()[0] == "Subgraphormer"
    assert "coset data get hiv" in out
    rows = json.loads(coset("list", "--json")[1])
    states = {row["recipe"]: row["state"] for row in rows}
    assert states["gin/freesolv"] == states["asymmetric/lmc-gnn"] == "ready"
    assert states["trackster4d/small"] == "coset data get motion-capture robot birds"
    ready = json.loads(coset("list", "--ready", "--json")[1])
    assert {row["state"] for row in ready} == {"ready"}
    assert 0 < len(ready) < len(rows)
