import re

import pytest

from coset import CosetError
from coset.runs.recipes import load, names, show

ZINC, CSV = "subgraphormer/zinc12k", ["data.path=mine.csv", "data.target=y"]


@pytest.mark.parametrize("name", [name for name in names() if name not in ("csv", "graphs", "complexes")])
def test_every_recipe_is_valid_described_and_commented(name):
    recipe = load(name)
    assert recipe.name == name
    assert recipe.description
    assert show(name).startswith("#")
    if recipe.kind == "graphs":
        assert name.split("/")[0] in (recipe.model.name, getattr(recipe.model, "norm", None))


def test_another_model_keeps_what_it_has_and_drops_what_it_has_not():
    recipe = load("csv", ["data.path=mine.csv", "data.target=a", "model.name=smcn"])
    assert (recipe.model.name, recipe.model.width, recipe.model.layers) == ("smcn", 48, 3)
    with pytest.raises(CosetError, match=r"unknown key model.linear=True"):
        load("csv", ["data.path=mine.csv", "data.target=a", "model.name=smcn", "model.linear=true"])


def test_own_graphs_need_a_path_alone():
    with pytest.raises(CosetError, match=r"data.path is missing: folder with edges.csv"):
        load("graphs")
    assert load("graphs", ["data.path=here"]).data.level == "auto"


def test_csv_is_valid_once_it_is_told_what_to_read():
    recipe = load("csv", ["data.path=mine.csv", "data.target=a, b", "data.split=scaffold"])
    assert recipe.data.target == ["a", "b"]
    assert recipe.data.path.startswith("/")


def test_the_recipes_that_there_should_be():
    assert set(names()) >= {
        "csv", "subgraphormer/freesolv", "subgraphormer/esol", "subgraphormer/esol-scaffold", "subgraphormer/zinc12k",
        "subgraphormer/hiv", "subgraphormer/zinc-paper", "gin/freesolv", "gin/esol", "gin/zinc12k", "gin/hiv",
        "gnn-sswl-plus/freesolv", "gnn-sswl-plus/esol", "gnn-sswl-plus/zinc12k", "gin/bace", "gnn-sswl-plus/bace",
        "subgraphormer/bace",
    }  # fmt: skip


def test_overrides_are_applied_and_settle_in_the_resolved_recipe(tmp_path):
    recipe = load(ZINC, ["model.width=48", "training.epochs=3", "seed=7", "trainer.devices=2"])
    assert (recipe.model.width, recipe.training.epochs, recipe.seed, recipe.trainer.devices) == (48, 3, 7, 2)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert load(str(tmp_path / "recipe.yaml")) == recipe


def test_a_recipe_of_ones_own(tmp_path):
    (tmp_path / "mine.yaml").write_text(show("gin/freesolv"))
    assert load(str(tmp_path / "mine.yaml")).model.name == "gin"


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("subgraphormer/fresolv", [], "no recipe 'subgraphormer/fresolv'; did you mean 'subgraphormer/freesolv'? (cos"),
        ("../../etc/passwd", [], "no recipe '../../etc/passwd'"),
        ("mine.yaml", [], "recipe file mine.yaml does not exist"),
        (ZINC, ["training.epoch=3"], "unknown key training.epoch=3; did you mean training.epochs?"),
        (ZINC, ["epochs=3"], "unknown key epochs=3; did you mean training.epochs?"),
        (
            "gin/esol",
            ["seeds=5"],
            "unknown key seeds=5; runs of several seeds are a sweep, and an ensemble to predict wi",
        ),
        (ZINC, ["model.widht=3"], "unknown key model.widht=3; did you mean model.width?"),
        (ZINC, ["trainer.device=2"], "unknown key trainer.device=2; did you mean trainer.devices?"),
        ("gin/esol", ["model.heads=2"], "unknown key model.heads=2"),
        (ZINC, ["data.split=random"], "unknown key data.split='random'"),
        (ZINC, ["training.epochs=many"], "training.epochs='many': Input should be a valid integer"),
        (ZINC, ["training.epochs=2.5"], "training.epochs=2.5: Input should be a valid integer"),
        (ZINC, ["training.epochs=0"], "training.epochs=0: Input should be greater than or equal to 1"),
        (ZINC, ["model.dropout=1.5"], "model.dropout=1.5: Input should be less than 1"),
        (ZINC, ["trainer.devices=0"], "trainer.devices=0: at least 1"),
        (ZINC, ["seed=-1"], "seed=-1: Input should be greater than or equal to 0"),
        (ZINC, ["training.schedule=cosin"], "training.schedule='cosin': Input should be 'constant', 'plateau' or 'cos"),
        (ZINC, ["training.schedule=cosin"], "; did you mean 'cosine'?"),
        (ZINC, ["model.name=gn"], "model.name='gn': choose from 'csgnn', 'epnn', 'gin', 'gnn-sswl-plus', "),
        (ZINC, ["model.relations=[uL,xx]"], "model.relations.1='xx': Input should be 'uL', 'vL', 'vv', 'uG' or 'vG'"),
        (ZINC, ["model=gin"], "model='gin': Input should be a valid dictionary"),
        (ZINC, ["model.width=8"], "model.positional_encoding=8 must be at least 0 and below the width 8"),
        (ZINC, ["model.heads=64"], "model.width=96 gives each relation 32 columns, fewer than 64 heads"),
        (ZINC, ["model.votes=5"], "model.votes=5 needs model.root_fraction below 1"),
        ("gin/esol", ["model.root_fraction=0.5"], "model.root_fraction=0.5: gin has no roots; leave it at 1"),
        (ZINC, ["training.monitor=auroc"], "training.monitor=auroc does not fit training.task=regression; choose rmse"),
        ("gin/esol", ["data.fractions=[0.9,0.2,0.1]"], "data.fractions=[0.9, 0.2, 0.1]: give three shares (train, val"),
        (
            "csv",
            [],
            "data.path is missing: CSV, Parquet or SDF file of molecules or reactions, e.g. data.path=...; data",
        ),
        ("csv", CSV[:1], "data.target is missing: column to predict, or several: a,b, e.g. data.target=..."),
        (
            "csv",
            [*CSV, "data.split=scafold"],
            "data.split='scafold': Input should be 'random', 'scaffold', 'column', 'time' or 'kfold'",
        ),
        ("csv", ["data.name=pyg"], "data.dataset is missing: ZINC, MoleculeNet/ESOL"),
        (ZINC, ["width"], "override 'width' must read key=value, e.g. training.epochs=20"),
        (ZINC, ["kind=graph"], "kind='graph' is unknown; choose from graphs, "),
        (ZINC, ["data.path=${nothing}"], "that can be read: Interpolation key 'nothing' not found"),
    ],
)
def test_mistakes_are_named_with_what_would_be_right(name, overrides, message):
    with pytest.raises(CosetError, match=re.escape(message)) as error:
        load(name, overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "just words", ""])
def test_files_that_are_no_recipes(tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(CosetError, match=r"mine\.yaml") as error:
        load(str(file))
    assert "\n" not in str(error.value)
