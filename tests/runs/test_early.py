"""Mistakes that are told before PyTorch is imported: in the words of the classes, and only those that they refuse."""

import json
import re
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from coset.core.errors import CosetError
from coset.runs import early, keys
from coset.runs.early import FOLDER, refuse_early
from coset.runs.keys import Schema, put_over
from coset.runs.recipes import check, json_schema, kinds, names, show

MISTAKES = [
    ("gin/freesolv", ["model.widht=3"]),
    ("gin/freesolv", ["data.path=x.csv"]),
    ("gin/freesolv", ["training.epoch=2", "model.layers=2"]),
    ("gin/freesolv", ["model.foo.bar=2", "trainin=3", "trainer.gpus=1"]),
    ("gin/freesolv", ["model.name=gim"]),
    ("gin/freesolv", ["model.name=epnn", "model.hidden=3"]),
    ("gin/freesolv", ["data.name=freesolf"]),
    ("csgnn/esol-bags", ["seed_s=1"]),
    ("trackster4d/tiny", ["training.stps=3"]),
    ("fs-merge/digits", ["stepps=3"]),
    ("csv", []),
    ("csv", ["data.path=x.csv", "training.epoch=3"]),
    ("complexes", ["data.path=x"]),
]


def words(text):
    """Names to choose from are sorted in one of them."""
    return sorted(re.split("[,;]? ", text))


def refusal(recipe, overrides):
    """What is said early, or ``None``."""
    read = OmegaConf.to_container(OmegaConf.create(show(recipe)))
    given = OmegaConf.to_container(OmegaConf.from_dotlist(overrides))
    try:
        refuse_early(read, given, recipe)
    except CosetError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", sorted(path.stem for path in FOLDER.glob("*.json")))
def test_what_is_shipped_is_what_the_classes_say(kind):
    """After a change of options: ``make schemas``."""
    assert json.loads((FOLDER / f"{kind}.json").read_text()) == json_schema(kind)


def test_every_kind_has_one():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(kinds())


@pytest.mark.parametrize(("recipe", "overrides"), MISTAKES)
def test_the_words_are_those_of_the_classes(recipe, overrides):
    schema = Schema(json.loads((FOLDER / f"{OmegaConf.create(show(recipe)).kind}.json").read_text()))
    read = OmegaConf.to_container(OmegaConf.create(show(recipe)))
    given = OmegaConf.to_container(OmegaConf.from_dotlist(overrides))
    with pytest.raises(CosetError) as late:
        check(put_over(schema.kept(read, given), given), recipe)
    assert words(refusal(recipe, overrides)) == words(str(late.value))


@pytest.mark.parametrize("recipe", sorted(names()))
def test_no_recipe_is_refused_but_for_what_it_must_be_told(recipe):
    told = refusal(recipe, [])
    assert told is None or ("data.path is missing" in told and "unknown" not in told)


def test_another_model_drops_the_options_of_the_one_before():
    assert refusal("subgraphormer/freesolv", ["model.name=gin"]) is None


def test_a_field_that_was_added_since_is_left_to_the_classes(monkeypatch):
    shipped = json.loads((FOLDER / "graphs.json").read_text())
    model = next(part for name, part in shipped["$defs"].items() if "width" in part["properties"] and "GIN" in name)
    del model["properties"]["width"]
    monkeypatch.setattr(early, "_shipped", lambda file: shipped)
    assert refusal("gin/freesolv", ["model.width=8"]) is None
    assert "model.widht" in refusal("gin/freesolv", ["model.widht=8"])


def test_what_another_distribution_may_have_added_is_left_to_the_classes(monkeypatch):
    monkeypatch.setattr(keys, "has_guests", lambda: True)
    assert refusal("gin/freesolv", ["model.name=gatedgcn"]) is None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.path={folder}/none.csv", "data.target=y"], "none.csv: no such file"),
        (["data.path={folder}/mine.csv", "data.target=z"], "no column 'z': its columns are 'smiles', 'y', 'name'"),
        (["data.path={folder}/mine.csv", "data.target=y,YY"], "no column 'YY'"),
        (["data.path={folder}/mine.csv", "data.target=y", "data.smiles=SMILE"], "did you mean 'smiles'?"),
        (["data.path={folder}/mine.csv", "data.target=y", "data.id=nme"], "did you mean 'name'?"),
    ],
)
def test_a_table_that_lacks_a_column(overrides, words, tmp_path):
    (tmp_path / "mine.csv").write_text("smiles,y,name\nCCO,1,a\n")
    told = refusal("csv", [override.format(folder=tmp_path) for override in overrides])
    assert words in told


@pytest.mark.parametrize(
    ("recipe", "words"), [("graphs", "nowhere: no such file or folder"), ("complexes", "nowhere: no such folder")]
)
def test_files_that_are_not_there(recipe, words, tmp_path):
    told = refusal(recipe, [f"data.path={tmp_path / 'nowhere'}", "data.target=y"])
    assert told is not None
    assert words in told
    tmp_path.joinpath("nowhere").mkdir()
    assert refusal(recipe, [f"data.path={tmp_path / 'nowhere'}", "data.target=y"]) is None


def test_pytorch_is_not_imported():
    code = (
        "import sys\nfrom coset.runs.recipes import load\n"
        "try: load('gin/freesolv', ['model.widht=3'])\n"
        "except Exception as error: print(type(error).__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["CosetError", "False"]
