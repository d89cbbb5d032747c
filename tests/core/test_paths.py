"""Everywhere a path may be given as text."""

import importlib
import inspect
import re

import pytest

from coset.core.files import takes_paths
from coset.runs.recipes import load, load_run

PACKAGES = ["graphs", "topology", "privacy", "weights.asymmetric", "weights.lora", "weights.merging", "motion"]
FURTHER = ["motion.video", "motion.export", "motion.data.tracks", "runs.recipes", "runs.run"]


def refuses_text(function):
    """Whether an argument is annotated as a Path alone, and nothing makes one of a text."""
    annotations = [str(each.annotation) for each in inspect.signature(function).parameters.values()]
    only = [
        text for text in annotations if re.fullmatch(r"(<class ')?(pathlib\.)?(_local\.)?Path('>)?( \| None)?", text)
    ]
    return bool(only) and not hasattr(function, "takes_paths")


@pytest.mark.parametrize("package", PACKAGES + FURTHER)
def test_public_functions_take_text_for_paths(package):
    module = importlib.import_module(f"coset.{package}")
    public = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]  # fmt: skip
    functions = [getattr(module, name) for name in public if inspect.isfunction(getattr(module, name))]
    assert [function.__qualname__ for function in functions if refuses_text(function)] == []


def test_text_becomes_a_path_and_all_else_stays():
    from pathlib import Path

    @takes_paths
    def given(path: Path, other: Path | None = None, name: str = "", *rest: int):
        return path, other, name, rest

    assert given("a", "b", "c", 1) == (Path("a"), Path("b"), "c", (1,))
    assert given("a", other=None, name="x") == (Path("a"), None, "x", ())


def test_a_recipe_takes_text(small_csv, tmp_path):
    quick = ["model.name=gin", "model.width=8", "model.layers=1", "training.epochs=1", "training.batch_size=4"]
    recipe = load("csv", [f"data.path={small_csv}", "data.target=carbons", "data.fractions=[0.5,0.25,0.25]", *quick])
    run = str(tmp_path / "run")
    recipe.run(run, quiet=True)
    again = load_run(run)
    assert all(report.passed for report in again.verify(run))
    assert again.predict(again.folder(run), str(small_csv), str(tmp_path / "out.csv"), quiet=True)[0] == 12
    assert again.report(run).is_file()
