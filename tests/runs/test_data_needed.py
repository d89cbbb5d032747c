"""Every recipe has a way to its data, and every data file that is read belongs to a data set."""

import re
from pathlib import Path

import pytest

import coset
from coset.core.data_sets import DATA_SETS
from coset.runs.data_needed import data_sets_of, in_words, named_by, needs_of
from coset.runs.listing import files, system_of


@pytest.mark.parametrize("recipe", sorted(files()))
def test_a_recipe_has_a_way_to_its_data(recipe):
    found = data_sets_of(recipe)
    assert found, "no data set"
    for name in found:
        known = DATA_SETS[name]
        ways = [known.generated, known.downloads, known.fetch, known.distribution, known.otherwise]
        assert any(ways), f"{name} has no way"
        assert known.what
        assert known.licence
        assert not known.downloads or known.make or len(known.files) == len(known.downloads)
    assert in_words(needs_of(recipe))


def test_data_sets_of_recipes_are_those_that_they_name(monkeypatch, tmp_path):
    assert data_sets_of("gin/esol") == ["esol"]
    assert data_sets_of("smcn/betti2-compared") == ["ring-property", "esol"]
    assert data_sets_of("lol/smiles-zoo") == ["rxnfp", "esol", "bace", "tox21", "hiv"]
    assert data_sets_of("fs-merge/cifar-halves") == ["cifar10-small"]
    assert data_sets_of("reconstruction/cifar-vehicles-animals") == ["cifar10-small"]
    assert named_by({"kind": "of nobody"}) == []
    assert system_of("grit/esol") == "Graphs: your own data, and networks to compare with"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COSET_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert in_words(needs_of("fs-merge/sst2-subj")) == "coset data get sst2 subj"
    assert in_words(needs_of("asymmetric/lmc-gnn")) == "ready"


def test_every_data_file_that_code_reads_belongs_to_a_data_set():
    text = "\n".join(file.read_text() for file in Path(coset.__path__[0]).rglob("*.py"))
    asked = re.findall(r"data_file\(\s*(f?)\"([^\"]+/[^\"]+)\"", text)
    assert len(asked) > 10
    known = [name for _, each in DATA_SETS.items() for name in each.files]
    for _, name in asked:
        pattern = re.sub(r"\\\{[^}]*\\\}", ".+", re.escape(name))
        assert any(re.fullmatch(pattern, each) for each in known) or name in NOT_DOWNLOADED, name


NOT_DOWNLOADED = {
    "expressivity/sr25.g6", "expressivity/exp.g6.tsv.gz", "expressivity/counting_{split}.g6.gz"
}  # fmt: skip
"""Of benches alone, that no recipe needs."""
