import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import Batch
from typer.testing import CliRunner

from coset import CosetError
from coset.cli import app
from coset.graphs.data.graph_table import GraphTable
from coset.graphs.experiments import load_task
from coset.graphs.models.subgraphormer import Subgraphormer
from coset.graphs.prediction import conformal_margins
from coset.runs.folder import RunFolder, run_folders
from coset.runs.recipes import load, load_run, verify
from coset.runs.results import RunResults

SMALL = ["model.width=12", "model.layers=1", "model.heads=2", "model.positional_encoding=2", "training.epochs=1"]
SMALL += ["training.batch_size=4", "data.fractions=[0.5,0.25,0.25]", "data.target=carbons"]


def predict_csv(run, data, output, **options):
    """As ``coset predict`` does."""
    recipe = load_run(run)
    return recipe.predict(recipe.folder(run), data, output, quiet=True, **options)


@pytest.fixture
def run(small_csv, tmp_path):
    load("csv", [f"data.path={small_csv}", *SMALL]).run(tmp_path / "run", quiet=True)
    return tmp_path / "run"


def test_predictions_stand_beside_the_columns_of_the_file(run, small_csv, tmp_path):
    count, notes = predict_csv(run, small_csv, tmp_path / "out.csv")
    ours, theirs = pd.read_csv(tmp_path / "out.csv"), pd.read_csv(run / "predictions.csv")
    assert (count, notes) == (12, ())
    assert list(ours) == ["smiles", "carbons", "prediction_carbons"]
    assert ours["prediction_carbons"].to_list() == pytest.approx(theirs["prediction_carbons"].to_list(), rel=1e-5)


def test_a_folder_whose_columns_have_no_names_is_read(run, small_csv, tmp_path):
    """As Coset 0.1 wrote them, where there was one target."""
    table = pd.read_csv(run / "predictions.csv")
    now = RunResults(run)
    margin = conformal_margins([run], GraphTable([], ("carbons",)), 0.5)
    old = table.rename(columns={"target_carbons": "target", "prediction_carbons": "prediction"})
    old.to_csv(run / "predictions.csv", index=False)
    assert list(RunResults(run).predictions) == list(now.predictions)
    assert conformal_margins([run], GraphTable([], ("carbons",)), 0.5) == margin


def test_data_of_the_training_is_not_needed(run, small_csv, tmp_path):
    new = small_csv.rename(tmp_path / "moved.csv")
    assert predict_csv(run, new, tmp_path / "out.csv")[0] == 12


def test_bad_rows_are_errors_or_skipped_and_counted(run, tmp_path):
    (tmp_path / "new.csv").write_text("name,SMILES\na,CCO\nb,not_a_molecule\n\nc,C.O\n")
    with pytest.raises(CosetError, match=r"new.csv, row 3: .*'not_a_molecule'.*--skip-bad-rows"):
        predict_csv(run, tmp_path / "new.csv", tmp_path / "out.csv", smiles="SMILES")
    assert not (tmp_path / "out.csv").exists()
    count, notes = predict_csv(run, tmp_path / "new.csv", tmp_path / "out.csv", smiles="SMILES", skip_bad_rows=True)
    assert (count, notes) == (2, ("skipped 1 unparsable row: 3",))
    assert pd.read_csv(tmp_path / "out.csv")["name"].to_list() == ["a", "c"]


def test_a_missing_column_is_named(run, tmp_path):
    (tmp_path / "new.csv").write_text("name,smile\na,CCO\n")
    with pytest.raises(CosetError, match=r"no column 'smiles': its columns are 'name', 'smile'; did you mean 'smile'"):
        predict_csv(run, tmp_path / "new.csv", tmp_path / "out.csv")
    (tmp_path / "new.csv").write_text("name,SMILES\na,CCO\n")
    assert predict_csv(run, tmp_path / "new.csv", tmp_path / "out.csv")[0] == 1


def test_an_existing_column_is_not_overwritten(run, tmp_path):
    (tmp_path / "new.csv").write_text("smiles,prediction_carbons\nCCO,1\n")
    with pytest.raises(CosetError, match="has a column 'prediction_carbons' already; rename it first"):
        predict_csv(run, tmp_path / "new.csv", tmp_path / "out.csv")


def test_a_checkpoint_of_another_recipe_is_refused(run, small_csv, tmp_path):
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("width: 12", "width: 15"))
    with pytest.raises(CosetError, match=r"checkpoint.ckpt belongs to another recipe: its model.width is 12, the reci"):
        predict_csv(run, small_csv, tmp_path / "out.csv")
    (run / "checkpoint.ckpt").unlink()
    with pytest.raises(CosetError, match=r"checkpoint.ckpt is missing: the run has not finished an epoch"):
        predict_csv(run, small_csv, tmp_path / "out.csv")


def test_runs_that_are_not_finished_say_so_and_failed_ones_are_refused(run, small_csv, tmp_path):
    folder = RunFolder(run)
    (run / "metrics.json").unlink()
    folder.write_status(state="running")
    for command in ("predict", "embed"):
        arguments = [command, str(run), str(small_csv), "--output", str(tmp_path / f"{command}.csv")]
        told = CliRunner().invoke(app, arguments)
        assert told.exit_code == 0, told.output
        said = "the run was stopped after 1 of 1 epochs; this is its best network until then"
        assert said in " ".join(told.stderr.split())
        folder.write_status(state="failed", why="the disk is full")
        (tmp_path / f"{command}.csv").unlink()
        told = CliRunner().invoke(app, arguments)
        assert told.exit_code == 1
        assert "the run failed (the disk is full); run it again before you use it" in str(told.exception)
        assert not (tmp_path / f"{command}.csv").exists()
        folder.write_status(state="stopped", why="")


def test_certificates_of_recipe_and_run(run, small_csv):
    recipe = run / "recipe.yaml"
    for target in (str(run), str(recipe)):
        (report,) = verify(target)
        assert report.passed
        assert report.moved


def test_a_broken_claim_is_found(run, monkeypatch):
    def first_node(self, x, graph, how):
        return x[: graph.roots.sizes.numel()]

    monkeypatch.setattr(Subgraphormer, "_readout", first_node)
    assert not verify(str(run))[0].passed


def test_one_line_for_a_model_without_claims(run, monkeypatch):
    monkeypatch.setattr(Subgraphormer, "symmetry", None)
    with pytest.raises(CosetError, match="Subgraphormer declares no symmetry"):
        verify(str(run))


def test_draws_of_noise_and_their_seed_are_chosen_at_prediction(small_csv, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "kind: graphs\n"
        f"data: {{name: csv, path: {small_csv}, target: carbons, fractions: [0.5, 0.25, 0.25]}}\n"
        "model: {name: gin, norm: granola, granola: {init: paper}, width: 8, layers: 1}\n"
        "training: {epochs: 1, batch_size: 4}\n"
    )
    load(str(tmp_path / "mine.yaml")).run(tmp_path / "run", quiet=True)

    def predicted(**how):
        predict_csv(tmp_path / "run", small_csv, tmp_path / "out.csv", **how)
        return pd.read_csv(tmp_path / "out.csv")["prediction_carbons"].to_list()

    assert predicted() == predicted()
    assert predicted(draws=3, seed=1) == predicted(draws=3, seed=1)
    assert len({tuple(predicted(draws=draws, seed=seed)) for draws, seed in ((1, 0), (1, 1), (2, 0))}) == 3


def test_a_spread_is_the_deviation_between_the_draws(small_csv, tmp_path):
    changes = [f"data.path={small_csv}", *SMALL, "model.root_fraction=0.5", "model.votes=3"]
    load("csv", changes).run(tmp_path / "run", quiet=True)
    predict_csv(tmp_path / "run", small_csv, tmp_path / "out.csv")
    found, kept = pd.read_csv(tmp_path / "out.csv"), pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert found["spread_carbons"].to_list() == pytest.approx(kept["spread_carbons"].to_list(), rel=1e-4)
    recipe, task, _ = load_task(tmp_path / "run")
    graphs = recipe.encode(recipe.load().graphs)
    draws = [
        recipe.model_copy(update={"model": recipe.model.model_copy(update={"votes": votes})}).predictions(task, graphs)
        for votes in (1, 2, 3)
    ]
    each = torch.stack([draws[0], 2 * draws[1] - draws[0], 3 * draws[2] - 2 * draws[1]])
    assert found["spread_carbons"].to_list() == pytest.approx(each.std(0).squeeze(1).tolist(), abs=1e-4)
    assert found["spread_carbons"].max() > 1e-3


def test_the_spread_of_a_networks_own_noise(small_csv, tmp_path):
    changes = [f"data.path={small_csv}", "data.target=carbons", "data.fractions=[0.5,0.25,0.25]", "model.name=gin"]
    changes += ["model.norm=granola", "model.draws=3", "model.width=8", "model.layers=1", "training.epochs=1"]
    recipe = load("csv", [*changes, "training.batch_size=4"])
    recipe.run(tmp_path / "run", quiet=True)
    recipe, task, _ = load_task(tmp_path / "run")
    batch = Batch.from_data_list(recipe.encode(recipe.load().graphs))
    task.eval()
    with torch.no_grad():
        mean, each = task.with_draws(batch)
        assert torch.equal(mean, task(batch))
    spread = pd.read_csv(tmp_path / "run" / "predictions.csv")["spread_carbons"]
    assert spread.to_list() == pytest.approx(each.std(0).squeeze(1).tolist(), rel=1e-3)


def test_draws_without_anything_to_draw_are_refused(run, small_csv, tmp_path):
    with pytest.raises(CosetError, match="has neither noise nor sampled roots"):
        predict_csv(run, small_csv, tmp_path / "out.csv", draws=2)


def test_weights_or_predictions_that_are_not_finite_are_refused(run, small_csv, tmp_path, monkeypatch):
    unbounded = torch.tensor([[1.0]] * 11 + [[torch.inf]])
    monkeypatch.setattr("coset.graphs.experiments.predict_with_spread", lambda *_, **__: (unbounded, None))
    with pytest.raises(CosetError, match=r"predicts 1 values that are not finite \(row 13 first\)"):
        predict_csv(run, small_csv, tmp_path / "out.csv")
    whole = torch.load(run / "checkpoint.ckpt", weights_only=True)
    state = whole["state_dict"]
    name = next(name for name in state if name.endswith("weight"))
    torch.save(whole | {"state_dict": state | {name: torch.full_like(state[name], torch.nan)}}, run / "checkpoint.ckpt")
    with pytest.raises(CosetError, match=f"{name} holds numbers that are not finite"):
        predict_csv(run, small_csv, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_formulas_come_back_as_text(run, tmp_path):
    (tmp_path / "new.csv").write_text('smiles,name\nCCO,"=cmd|x"\n')
    predict_csv(run, tmp_path / "new.csv", tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["name"].to_list() == ["'=cmd|x"]


def test_cells_are_written_again_as_they_are(run, tmp_path):
    (tmp_path / "new.csv").write_text("id,smiles,note\nNA,CCO,null\nnan,CCC,\n")
    predict_csv(run, tmp_path / "new.csv", tmp_path / "out.csv")
    again = pd.read_csv(tmp_path / "out.csv", keep_default_na=False, dtype=str)
    assert again[["id", "note"]].to_numpy().tolist() == [["NA", "null"], ["nan", ""]]


def test_total_energies_keep_their_differences(tmp_path):
    smiles = ["C" * n for n in range(1, 13)]
    rows = "".join(f"{text},{-1e9 + 1e-3 * n}\n" for n, text in enumerate(smiles))
    (tmp_path / "energies.csv").write_text("smiles,carbons\n" + rows)
    made = load("csv", [f"data.path={tmp_path / 'energies.csv'}", *SMALL]).run(tmp_path / "run", quiet=True)
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert table["target_carbons"].nunique() == 12
    assert 0 < made["test"]["rmse"] < 1
    predict_csv(tmp_path / "run", tmp_path / "energies.csv", tmp_path / "out.csv")
    ours = pd.read_csv(tmp_path / "out.csv")["prediction_carbons"]
    assert ours.to_list() == pytest.approx(table["prediction_carbons"].to_list(), abs=1e-5)
    assert ours.nunique() > 1


def test_targets_beyond_float32_are_learned(tmp_path):
    rows = "".join(f"{'C' * n},{1e39 * n}\n" for n in range(1, 13))
    (tmp_path / "huge.csv").write_text("smiles,carbons\n" + rows)
    changes = ["model.name=gin", "model.width=8", "model.layers=1", "training.epochs=2", "training.early_stopping=2"]
    changes += ["data.fractions=[0.5,0.25,0.25]", "data.target=carbons", f"data.path={tmp_path / 'huge.csv'}"]
    made = load("csv", changes).run(tmp_path / "run", quiet=True)
    assert 1e37 < made["val"]["rmse"] < 1e41
    assert np.isfinite(pd.read_csv(tmp_path / "run" / "history.csv")["val_rmse"]).all()


def test_what_views_leave_is_removed_with_the_rest(small_csv, tmp_path):
    recipe = load("csv", [f"data.path={small_csv}", *SMALL])
    recipe.run(tmp_path / "run", quiet=True)
    folder = recipe.folder(tmp_path / "run")
    for name in ("cells.json", "attention.json"):
        (folder / name).write_text("[]")
    folder.clear()
    assert {path.name for path in folder.path.iterdir()} <= {".lock"}


def ensemble(small_csv, folder, seeds=(0, 1, 2), **changes):
    """Runs that share their split, as a sweep keeps them."""
    common = [f"data.path={small_csv}", "data.target=carbons", "data.fractions=[0.4,0.4,0.2]", "model.name=gin",
              "model.width=8", "model.layers=1", "training.epochs=1", "data.split_seed=0"]  # fmt: skip
    common += [f"{key}={value}" for key, value in changes.items()]
    for seed in seeds:
        load("csv", [*common, f"seed={seed}"]).run(folder / "runs" / f"seed-{seed}", quiet=True)
    return folder


def test_an_ensemble_is_the_mean_of_its_runs_with_their_spread_and_an_interval(small_csv, tmp_path):
    folder = ensemble(small_csv, tmp_path / "all")
    arguments = ["predict", str(folder), str(small_csv), "--output", str(tmp_path / "all.csv"), "--interval", "0.75"]
    out = CliRunner().invoke(app, arguments)
    assert out.exit_code == 0, out.output
    assert "12 predictions of 3 runs" in out.output
    each = []
    for seed in range(3):
        run = folder / "runs" / f"seed-{seed}"
        load_run(run).predict(RunFolder(run), small_csv, tmp_path / "one.csv", quiet=True)
        each.append(pd.read_csv(tmp_path / "one.csv")["prediction_carbons"].to_numpy())
    found = pd.read_csv(tmp_path / "all.csv")
    assert found["prediction_carbons"].to_numpy() == pytest.approx(np.mean(each, axis=0), rel=1e-5)
    assert found["spread_carbons"].to_numpy() == pytest.approx(np.std(each, axis=0, ddof=1), rel=1e-3, abs=1e-6)
    # Five validation rows: the ceil(6 * 0.75) = 5th smallest error, so that all of them are inside.
    rows = pd.read_csv(folder / "runs" / "seed-0" / "predictions.csv")
    held = (rows["split"] == "val").to_numpy()
    assert held.sum() == 5
    errors = (rows["target_carbons"] - found["prediction_carbons"]).abs()[held]
    margin = (found["high_carbons"] - found["low_carbons"]).to_numpy() / 2
    assert margin == pytest.approx(np.full(12, errors.max()), rel=1e-5)


def test_what_is_no_ensemble_or_has_no_interval_is_told(small_csv, tmp_path):
    folder = ensemble(small_csv, tmp_path / "all", seeds=(0, 1))

    def predicted(**options):
        runs = run_folders(folder)
        load_run(runs[0]).predict(RunFolder(runs[0]), small_csv, tmp_path / "out.csv", quiet=True, others=runs[1:],
                                  **options)  # fmt: skip

    with pytest.raises(CosetError, match="5 validation rows are too few; at least 9 are needed"):
        predicted(interval=0.9)
    with pytest.raises(CosetError, match="give a share between 0 and 1"):
        predicted(interval=90.0)
    ensemble(small_csv, folder, seeds=(2,), **{"model.width": 16})
    with pytest.raises(CosetError, match="differ in more than the seed: they are no ensemble"):
        predicted()
    (tmp_path / "none" / "runs").mkdir(parents=True)
    with pytest.raises(CosetError, match="a sweep without a finished run"):
        run_folders(tmp_path / "none")


def test_conformal_intervals_hold_what_they_promise(tmp_path):
    """Errors alike in validation and later: the share inside is on average at least what was asked, and little more."""
    rng, inside = np.random.default_rng(0), []
    (tmp_path / "recipe.yaml").write_text("training: {task: regression}\n")
    described = GraphTable([], ("y",))
    for _ in range(40):
        held = pd.DataFrame({"id": [str(k) for k in range(99)], "split": "val", "target": rng.normal(size=99)})
        held.assign(prediction=0.0).to_csv(tmp_path / "predictions.csv", index=False)
        (margin,) = conformal_margins([tmp_path], described, 0.9)
        inside.append(float((np.abs(rng.normal(size=4000)) <= margin).mean()))
    assert 0.89 < np.mean(inside) < 0.92
