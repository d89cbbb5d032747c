"""Recipes of kind ``merging``, from a shell to a page."""

import json

import pytest
import torch

from coset.core.errors import CosetError
from coset.runs.recipes import load
from coset.weights.merging.tasks import image_task, text_tasks

SHORT = [
    "seeds=1", "samples=[10]", "held_out=10", "steps=5", "teachers.steps=20", "learning_rates=[0.003]",
    "teachers.cache=null",
]  # fmt: skip


def test_a_run_leaves_metrics_and_a_page(tmp_path):
    recipe = load("fs-merge/digits", [*SHORT, "methods=[originals,average,zipit,distill_first,fs_first,fs_align]"])
    metrics = recipe.run(tmp_path, quiet=True)
    recipe.report(tmp_path)
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["methods"]["fs_first"]["10"]["trained"] == 5376
    assert metrics["methods"]["distill_first"]["10"]["trained"] == 12480
    assert max(r["difference"] for r in metrics["rows"] if r["difference"] is not None) < 1e-5
    page = (tmp_path / "report.html").read_text()
    assert "Error layer by layer" in page
    assert "fs_align" in page
    columns, rows = recipe.summary(metrics)
    assert all(len(row) == len(columns) for row in rows)


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(same_after_a_kill):
    options = [*SHORT[1:], "seeds=2", "methods=[originals,fs_first]"]
    whole = same_after_a_kill(load("fs-merge/digits", options), after=[1, 3])
    assert [(r["seed"], r["method"]) for r in whole["rows"]] == [
        (0, "originals"), (0, "fs_first"), (1, "originals"), (1, "fs_first"),
    ]  # fmt: skip


def test_dropout_follows_from_the_seed():
    recipe = load("fs-merge/markers", [*SHORT, "network.layers=1", "network.dropout=0.3", "methods=[distill_first]"])
    rows = []
    for before in (1, 2):
        torch.manual_seed(before)
        rows.append(recipe.measured("distill_first", *recipe.trained(0), 10, 0))
    assert rows[0]["losses"] == rows[1]["losses"]


def test_teachers_are_kept(tmp_path):
    recipe = load("fs-merge/digits", [*SHORT[:-1], f"teachers.cache={tmp_path}", "methods=[originals]"])
    first = recipe.trained(0)[1]
    assert len(list(tmp_path.iterdir())) == 2
    again = recipe.trained(0)[1]
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(a.encoder.state_dict()[n], v) for n, v in b.encoder.state_dict().items())


def test_transformers_are_merged_too(tmp_path):
    pytest.importorskip("transformers")
    vit = load("fs-merge/digits-vit", [*SHORT, "methods=[average,fs_first,zipit]", "network.layers=1"])
    assert vit.run(tmp_path, quiet=True)["methods"]["fs_first"]["10"]["trained"] > 0


@pytest.mark.parametrize("network", ["llama, groups: 2", "gpt2"])
def test_decoders_are_merged_too(network):
    pytest.importorskip("transformers")
    sizes = "width: 16, layers: 1, heads: 4, hidden: 24, tokens: 8, vocabulary: 20, dropout: 0.0"
    recipe = load("fs-merge/markers", [*SHORT, f"network={{name: {network}, {sizes}}}", "augmentation.made=20"])
    tasks, teachers = recipe.trained(0)
    for method in ("average", "activation_matching", "regmean", "distill_aligned_cross", "fs_first", "fs_align"):
        row = recipe.measured(method, tasks, teachers, 10, 0)
        assert set(row["tasks"]) == {"order", "parity"}
        assert row["difference"] is None or row["difference"] < 1e-4
    with pytest.raises(CosetError, match="width=18 is not a multiple of 2 heads"):
        load("fs-merge/markers", ["network={name: llama, width: 18}"])


def test_teachers_of_one_start_lie_in_one_basin():
    from coset.weights.merging.diagnosis import diagnose

    recipe = load(
        "fs-merge/digits", [*SHORT, "teachers.one_start=true", "teachers.steps=60", "teachers.extra_steps=10"]
    )
    tasks, teachers = recipe.trained(0)
    assert diagnose(teachers, [t.train[:20] for t in tasks])[0].same_basin


def test_wrong_recipes_are_refused():
    with pytest.raises(CosetError, match="method 'nonsense' is unknown"):
        load("fs-merge/digits", ["methods=[nonsense]"])
    with pytest.raises(CosetError, match=r"network\.name=mlp reads images, the task sst2 is made of texts"):
        load("fs-merge/digits", ["tasks=[{data: sst2},{data: subj}]"])
    with pytest.raises(CosetError, match=r"leave network\.other_sizes out"):
        load("fs-merge/digits", ["teachers.one_start=true", "network.other_sizes=[[64, 8]]"])
    with pytest.raises(CosetError, match="is unknown; choose from digits"):
        load("fs-merge/digits", ["tasks=[{data: none},{data: digits}]"])


def test_tasks():
    task = image_task("digits", [7, 5], seed=1)
    assert task.name == "digits-57"
    assert set(task.train_labels.tolist()) == {0, 1}
    tasks, _ = text_tasks(["order", "parity"], tokens=12, vocabulary=30, limit=200)
    for row, label in zip(tasks[0].train["input_ids"], tasks[0].train_labels, strict=True):
        assert (row.tolist().index(4) < row.tolist().index(5)) == bool(label)
    odd = (tasks[1].train["input_ids"] == 6).sum(1) % 2
    assert torch.equal(odd, tasks[1].train_labels)
