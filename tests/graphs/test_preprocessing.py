"""Shards from the command line, and a recipe that trains on them."""

import pandas as pd
import pytest
from typer.testing import CliRunner

from coset.cli import app
from coset.core.errors import CosetError
from coset.graphs.preprocessing import transform_of
from coset.graphs.transforms import ShortestPathDistances

pytest.importorskip("pyarrow")
RECIPE = "subgraphormer/freesolv"
SMALL = ["model.width=16", "model.layers=1", "model.heads=1", "training.epochs=1"]


def test_a_recipe_says_what_is_added():
    steps = transform_of("csv", ["model.max_distance=7", "model.positional_encoding=0"]).transforms
    assert [(type(step), step.max_distance) for step in steps] == [(ShortestPathDistances, 7)]
    with pytest.raises(CosetError, match="lol/digits is of kind lora"):
        transform_of("lol/digits")


def test_a_model_is_trained_on_shards_and_predicts_for_a_table(small_csv, tmp_path):
    def coset(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments), "--quiet"])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    shards, folder = tmp_path / "shards", tmp_path / "run"
    told = coset(
        "preprocess", small_csv, "--output", shards, "--target", "carbons", "--recipe", RECIPE, "--shard-rows", 5
    )
    assert "12 graphs in 3 shards" in " ".join(told.split())
    data = f"data={{name: shards, path: {shards}}}"
    coset("run", RECIPE, data, *SMALL, "--output", folder)
    rows = pd.read_csv(folder / "predictions.csv")
    assert rows["smiles"].tolist() == pd.read_csv(small_csv)["smiles"].tolist()
    assert rows["target_carbons"].tolist() == pd.read_csv(small_csv)["carbons"].tolist()
    assert set(rows["split"]) == {"train", "val", "test"}
    coset("predict", folder, small_csv, "--output", tmp_path / "out.csv")
    again = pd.read_csv(tmp_path / "out.csv")["prediction_carbons"]
    assert again.to_numpy() == pytest.approx(rows["prediction_carbons"].to_numpy(), abs=1e-5)
    other = CliRunner().invoke(
        app, ["run", RECIPE, data, *SMALL, "model.max_distance=9", "--output", str(tmp_path / "b")]
    )
    assert "needs Compose([ ShortestPathDistances(max_distance=9)" in str(other.exception)
    assert not (tmp_path / "b").exists()
