import pytest
import torch

from coset import CosetError
from coset.graphs.experiments import load_task
from coset.graphs.prediction import embeddings
from coset.runs.recipes import load

QUICK = ["model.name=gin", "model.width=16", "model.layers=2", "training.epochs=1", "training.batch_size=4"]
QUICK += ["data.fractions=[0.5,0.25,0.25]"]


@pytest.fixture
def trained(small_csv, tmp_path):
    load("csv", [f"data.path={small_csv}", "data.target=carbons", *QUICK]).run(tmp_path / "run", quiet=True)
    return tmp_path / "run"


def started(small_csv, trained, *changes, target="carbons"):
    recipe = load("csv", [f"data.path={small_csv}", f"data.target={target}", *QUICK, f"model.from={trained}", *changes])
    table = recipe.load()
    task = recipe.task(table)
    return recipe, table, task, recipe.start(task, table, recipe.model.starts_from)


def two_targets(small_csv):
    text = small_csv.read_text().splitlines()
    small_csv.write_text("\n".join([f"{text[0]},other", *(f"{row},{at}" for at, row in enumerate(text[1:]))]) + "\n")


def test_the_same_target_begins_with_the_predictions_of_the_source(small_csv, trained):
    recipe, table, task, note = started(small_csv, trained, "data.split_seed=5", "seed=3")
    source, theirs, _ = load_task(trained)
    graphs = recipe.encode(table.graphs)
    assert torch.equal(recipe.predictions(task, graphs), source.predictions(theirs, graphs))
    assert note.endswith("none is new")


def test_another_target_begins_with_the_embedding_of_the_source(small_csv, trained):
    two_targets(small_csv)
    recipe, table, task, note = started(small_csv, trained, "seed=3", target="other")
    source, theirs, _ = load_task(trained)
    assert torch.equal(embeddings(recipe, task, table), embeddings(source, theirs, table))
    assert "new: head.2" in note
    assert not torch.equal(task.model.head[2].weight, theirs.model.head[2].weight)
    both, table, task, _ = started(small_csv, trained, target="carbons,other")
    assert torch.equal(embeddings(both, task, table), embeddings(source, theirs, table))


def test_frozen_parts_stay_and_the_run_tells_where_it_started(small_csv, trained, tmp_path):
    two_targets(small_csv)
    changes = [f"data.path={small_csv}", "data.target=other", *QUICK, f"model.from={trained}", "training.freeze=body"]
    metrics = load("csv", changes).run(tmp_path / "tuned", quiet=True)
    assert any(note.startswith(f"started from {trained}: ") for note in metrics["notes"])
    before, after = (load_task(folder)[1].model.state_dict() for folder in (trained, tmp_path / "tuned"))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"head.2.weight", "head.2.bias"}  # statistics of batch norms included


def test_what_does_not_fit_is_refused(small_csv, trained, tmp_path):
    with pytest.raises(CosetError, match=r"no layer of that network has the shapes of this one"):
        started(small_csv, trained, "model.width=24")
    with pytest.raises(CosetError, match=r"nowhere holds no run"):
        started(small_csv, tmp_path / "nowhere")
    started(small_csv, trained)
    with pytest.raises(
        CosetError, match=r"training.freeze=heads: the network has no such part; it has .*head, or body"
    ):
        load("csv", [f"data.path={small_csv}", "data.target=carbons", *QUICK, "training.freeze=heads"]).run(
            tmp_path / "frozen", quiet=True
        )
