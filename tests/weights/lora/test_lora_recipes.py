import json
import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch

from coset.core.errors import CosetError
from coset.runs.folder import RunFolder
from coset.runs.recipes import load, load_run, verify
from coset.weights.lora import LoraAdapter, LoraPair, gauge, load_lora, save_kohya, save_peft
from coset.weights.lora.collections import columns_of
from coset.weights.lora.data.factors import stack
from coset.weights.lora.data.writing import WRITERS
from coset.weights.lora.models.features import FeatureModel
from coset.weights.lora.models.fitting import score
from coset.weights.lora.models.registry import LORA_MODELS, ByGradients
from coset.weights.lora.neighbours import map_folder, search_folder

pytest.importorskip("sklearn")
QUICK = ["data.adapters=80", "data.other_ranks=[2]", "training.epochs=3", "models=[flat,glnet,kernel]"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tensors here are so small that a second thread only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def predict(folder, data, output, **options):
    """As ``coset predict`` does it."""
    recipe = load_run(folder)
    return recipe.predict(recipe.folder(folder), data, output, **options)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection") / "zoo"
    recipe = load("lol/digits-zoo", ["adapters=40"])
    recipe.run(folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def run(collection, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    overrides = ["training.epochs=3", "models=[glnet]", "training.fractions=[0.5,0.25,0.25]", f"data.path={collection}"]
    recipe = load("lol/minilm", overrides)
    recipe.run(folder, quiet=True)
    recipe.report(folder)
    return folder


@pytest.mark.parametrize("name", ["digits", "digits-accuracy"])
def test_a_recipe_runs_into_a_folder_and_repeats_itself(name, tmp_path):
    recipe = load(f"lol/{name}", QUICK)
    first, second = (recipe.run(tmp_path / n, quiet=True) for n in "ab")
    assert [first["models"][m]["test"] for m in first["models"]] == [
        second["models"][m]["test"] for m in second["models"]
    ]
    assert first["models"]["glnet"]["change under GL(r)"] < 1e-4
    assert first["models"]["flat"]["change under GL(r)"] > 1e-2
    assert "test at rank 2" in first["models"]["kernel"]
    page = recipe.report(tmp_path / "a").read_text(encoding="utf-8")
    assert "glnet" in page
    columns, rows = recipe.summary(first)
    assert all(len(row) == len(columns) for row in rows)


def test_a_saved_model_gives_the_predictions_of_the_run_for_any_factors(collection, run, tmp_path):
    written = pd.read_csv(run / "predictions.csv", dtype={"id": str}).set_index("id")
    number, notes = predict(run, collection / "adapters", tmp_path / "p.csv")
    found = pd.read_csv(tmp_path / "p.csv", dtype={"id": str}).set_index("id")
    assert (number, notes) == (40, ())
    gap = (found["prediction_trained_on_3"] - written.loc[found.index, "prediction_trained_on_3"]).abs().max()
    assert gap < 1e-5
    moved = gauge(load_lora(collection / "adapters" / "00003"), torch.Generator().manual_seed(0))
    save_peft(moved, tmp_path / "moved")
    predict(run, tmp_path / "moved", tmp_path / "q.csv")
    other = pd.read_csv(tmp_path / "q.csv")
    assert (
        abs(float(other["prediction_trained_on_3"].iloc[0]) - float(found.loc["00003", "prediction_trained_on_3"]))
        < 1e-4
    )


def test_an_adapter_whose_scale_nothing_tells_is_predicted_for_and_searched_on_demand_alone(collection, run, tmp_path):
    shutil.copytree(collection / "adapters" / "00003", tmp_path / "bare")
    (tmp_path / "bare" / "adapter_config.json").unlink()
    with pytest.raises(CosetError, match=r"the scale of \d+ layers is unknown .*\(--lossy goes on without\)"):
        predict(run, tmp_path / "bare", tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()
    number, notes = predict(run, tmp_path / "bare", tmp_path / "p.csv", lossy=True)
    assert number == 1
    assert re.match(r"bare: no adapter_config.json and no alpha: the scale of", notes[0])
    with pytest.raises(CosetError, match="--lossy goes on without"):
        search_folder(tmp_path / "bare", collection, 1)
    assert len(search_folder(tmp_path / "bare", collection, 1, lossy=True)) == 1
    with pytest.raises(CosetError, match="top=-1"):
        search_folder(tmp_path / "bare", collection, -1, lossy=True)
    with pytest.raises(CosetError, match=r"--lossy: the model of .* reads graphs"):
        load("gin/esol").predict(RunFolder(run), tmp_path / "bare", tmp_path / "p.csv", lossy=True)


def test_what_of_an_adapter_the_model_does_not_see_is_told(collection, run, tmp_path):
    layers = dict(load_lora(collection / "adapters" / "00003").layers)
    first = next(iter(layers))
    strange = {**layers, first: replace(layers[first], magnitude=torch.ones(len(layers[first].u)))}
    save_peft(LoraAdapter({**strange, "else.where": LoraPair(torch.ones(3, 1), torch.ones(3, 1))}), tmp_path / "in")
    assert predict(run, tmp_path / "in", tmp_path / "p.csv")[1] == (
        "in has 1 layers that the run never saw: left out (else.where, ...)",
        "the model does not see DoRA's magnitudes, which 1 of 1 adapters have",
    )


def test_whole_parameters_and_links_are_told_of_a_prediction(collection, run, tmp_path):
    found = load_lora(collection / "adapters" / "00003")
    save_peft(replace(found, saved={"head.weight": torch.ones(2, 3)}), tmp_path / "in" / "a")
    (tmp_path / "in" / "b").symlink_to("a")
    assert predict(run, tmp_path / "in", tmp_path / "p.csv") == (
        1,
        (
            "links to what has another path, too, are left out: b (is a)",
            "1 of 1 adapters hold whole parameters, too: they are left out",
        ),
    )


def test_predictions_that_are_not_finite_are_refused(collection, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "checkpoint.ckpt"
    saved = torch.load(file)
    state = {name: torch.full_like(value, torch.nan) for name, value in saved["state"].items()}
    torch.save({**saved, "state": state}, file)
    with pytest.raises(CosetError, match=r"00000: the prediction is not a finite number"):
        predict(tmp_path / "run", collection / "adapters", tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()


def test_a_kernel_is_saved_whole(tmp_path):
    recipe = load("lol/digits", [*QUICK, "models=[kernel]"])
    recipe.run(tmp_path, quiet=True)
    saved = recipe.best_model(recipe.folder(tmp_path))
    assert saved.name == "kernel"
    written = pd.read_csv(tmp_path / "predictions.csv")
    row = written[written["split"] == "train"].filter(like="prediction_")
    found = saved.units.restore("kernel", saved.model(saved.example).float())[0]
    assert (torch.tensor(row.to_numpy()).float() - found).abs().sum(1).min() < 1e-4


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(collection, same_after_a_kill, tmp_path):
    overrides = ["training.epochs=2", "models=[flat,glnet,kernel]", f"data.path={collection}"]
    same_after_a_kill(load("lol/minilm", [*overrides, "training.fractions=[0.5,0.25,0.25]"]))
    tables = [pd.read_csv(tmp_path / run / "predictions.csv") for run in ("whole", "after-1", "after-2")]
    for other in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], other)


def test_a_run_does_not_go_on_with_other_labels(collection, tmp_path, monkeypatch):
    table = pd.read_csv(collection / "labels.csv", dtype={"id": str})
    table.to_csv(tmp_path / "labels.csv", index=False)
    overrides = ["training.epochs=1", "models=[flat,glnet]", f"data.path={collection}"]
    overrides += [f"data.labels={tmp_path / 'labels.csv'}", "training.fractions=[0.5,0.25,0.25]"]
    recipe = load("lol/minilm", overrides)
    with monkeypatch.context() as patch:
        patch.setattr("coset.weights.lora.experiments.write_best", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            recipe.run(tmp_path / "run", quiet=True)
    table["trained_on_0"] = 1 - table["trained_on_0"]
    table.to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(CosetError, match=r"the data are not those that the run in .* began with"):
        recipe.run(tmp_path / "run", quiet=True)


def test_a_run_on_magnitudes_predicts_from_adapters(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for i in range(24):
        u, v = torch.randn(6, 2, generator=generator), torch.randn(5, 2, generator=generator)
        pair = LoraPair(u, v, magnitude=1 + torch.rand(6, generator=generator))
        save_peft(LoraAdapter({"x": pair}), tmp_path / "in" / f"{i:02d}")
    pd.DataFrame({"id": [f"{i:02d}" for i in range(24)], "y": range(24)}).to_csv(tmp_path / "labels.csv", index=False)
    overrides = [f"data={{name: zoo, path: {tmp_path / 'in'}, labels: {tmp_path / 'labels.csv'}, magnitudes: true}}"]
    overrides += ["training={task: regression, targets: [y], epochs: 2, fractions: [0.5, 0.25, 0.25]}"]
    recipe = load("lol/minilm", [*overrides, "models=[glnet]"])
    recipe.run(tmp_path / "run", quiet=True)
    predict(tmp_path / "run", tmp_path / "in", tmp_path / "p.csv")
    written, found = (pd.read_csv(f, dtype={"id": str}) for f in (tmp_path / "run/predictions.csv", tmp_path / "p.csv"))
    assert (written["prediction_y"] - found["prediction_y"]).abs().max() < 1e-3
    save_peft(LoraAdapter({"x": LoraPair(torch.ones(6, 2), torch.ones(5, 2))}), tmp_path / "plain")
    with pytest.raises(CosetError, match="has no DoRA magnitude"):
        predict(tmp_path / "run", tmp_path / "plain", tmp_path / "q.csv")


def test_a_model_that_somebody_registers_is_compared_like_all_others(tmp_path, monkeypatch):
    def norms(factors):
        return torch.cat([(u @ v.mT).flatten(-2).norm(dim=-1) for u, v in factors], 1)

    def make(setting):
        return FeatureModel(norms, setting.training, setting.sizes.hidden, setting.outputs, condition=10.0)

    monkeypatch.setitem(LORA_MODELS._things, "norms", ByGradients(make, any_rank=True))
    recipe = load("lol/digits", [*QUICK[:3], "models=[norms]"])
    found = recipe.run(tmp_path / "run", quiet=True)["models"]["norms"]
    assert found["change under GL(r)"] < 1e-4
    assert "test at rank 2" in found
    assert [report.passed for report in (*recipe.verify(), *recipe.verify(tmp_path / "run"))] == [True, True]


def test_certificates_of_a_run_and_of_a_recipe(run):
    assert [report.passed for report in verify(str(run))] == [True]
    assert json.loads((run / "certificate.json").read_text())[0]["passed"]
    reports = load("lol/digits", ["data.adapters=40", "models=[o_align,balanced,svd,dense,glnet]"]).verify()
    assert len(reports) == 5
    assert all(report.passed for report in reports)


def test_search_and_map_find_their_way(collection, tmp_path):
    moved = gauge(load_lora(collection / "adapters" / "00007"), torch.Generator().manual_seed(0))
    save_peft(moved, tmp_path / "moved")
    assert search_folder(tmp_path / "moved", collection, 1)[0].name.endswith("00007")
    page = map_folder(collection, tmp_path / "map.html", colour="accuracy")
    assert "00007" in page.read_text(encoding="utf-8")
    with pytest.raises(CosetError, match="no column 'nothing'"):
        map_folder(collection, tmp_path / "map.html", colour="nothing")


def test_where_nothing_can_be_written_one_is_told_how_to_go_on(collection, tmp_path, monkeypatch):
    shutil.copytree(collection / "adapters", tmp_path / "shared")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(CosetError, match=r"cannot write to .*shared itself: coset lora collect .*shared ZOO"):
        map_folder(tmp_path / "shared", tmp_path / "map.html")


def test_a_collection_grows_but_does_not_change_its_making(collection):
    with pytest.raises(CosetError, match="holds a run of another recipe: its seed is 0, here it is 5"):
        load("lol/digits-zoo", ["adapters=40", "seed=5"]).run(collection, quiet=True)


def test_mistakes_give_one_line(collection, run, tmp_path):
    with pytest.raises(CosetError, match="no label 'colour'"):
        load("lol/minilm", [f"data.path={collection}", "training.targets=[colour]"]).run(tmp_path / "x", quiet=True)
    with pytest.raises(CosetError, match="needs labels 0 and 1"):
        load("lol/minilm", [f"data.path={collection}", "training.targets=[accuracy]"]).run(tmp_path / "y", quiet=True)
    with pytest.raises(CosetError, match="'perceptron' is unknown"):
        load("lol/digits", ["models=[perceptron]"])
    pair = load_lora(collection / "adapters" / "00000").layers["layers.0"]
    save_peft(LoraAdapter({"else.where": pair}), tmp_path / "stranger")
    with pytest.raises(CosetError, match="none of the layers"):
        predict(run, tmp_path / "stranger", tmp_path / "p.csv")
    labels(tmp_path, "a,1")
    with pytest.raises(CosetError, match=r"labels.csv exists already and holds no predictions"):
        predict(run, collection / "adapters" / "00000", tmp_path / "labels.csv")
    assert (tmp_path / "labels.csv").read_text() == "id,acc\na,1\n"


def adapters(folder, *names, layers=("q",)):
    """Small PEFT folders, each of other updates."""
    for seed, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        pairs = {
            layer: LoraPair(torch.randn(6, 2, generator=generator), torch.randn(5, 2, generator=generator))
            for layer in layers
        }
        save_peft(LoraAdapter(pairs), folder / name)


def labels(folder, *rows, head="id,acc"):
    (folder / "labels.csv").write_text("\n".join([head, *rows]) + "\n")


def loaded(folder, targets=("acc",)):
    """A collection as a run reads it, with the numbers of its targets."""
    recipe = load("lol/minilm", [f"data.path={folder}"])
    data = recipe.data.load(0)
    return data, data.targets(columns_of(data.table, list(targets)))


def test_two_rows_for_one_adapter_are_refused_since_one_may_be_tested_on_and_the_other_learned(tmp_path):
    adapters(tmp_path, "s/a0", "s/a1")
    labels(tmp_path, "s/a0,1", "s/a1,2", "", "a1,9")
    with pytest.raises(CosetError, match=r"labels.csv has several rows for one adapter \(s/a1 in rows 3 and 5\)"):
        loaded(tmp_path)


def test_an_id_that_may_be_several_adapters_is_refused(tmp_path):
    adapters(tmp_path, "s1/a0", "s2/a0", "s2/a1")
    labels(tmp_path, "a0,1", "a1,2")
    with pytest.raises(CosetError, match=r"the id 'a0' may be s1/a0, s2/a0: give paths below"):
        loaded(tmp_path)
    with pytest.raises(CosetError, match=r"the id 'a0' may be s1/a0, s2/a0: give paths below"):
        map_folder(tmp_path, tmp_path / "map.html", colour="acc")
    labels(tmp_path, "s2/a0,1", "a1,2", "s1/a0,3")
    data, targets = loaded(tmp_path)
    assert (data.names, data.notes, targets.flatten().tolist()) == (["s2/a0", "a1", "s1/a0"], [], [1, 2, 3])
    wanted = stack([load_lora(tmp_path / "s2" / "a0")], data.layout)
    assert all(
        torch.equal(mine[:1], other) for pair, given in zip(data.factors, wanted) for mine, other in zip(pair, given)
    )


def test_rows_and_adapters_without_the_other_are_told(tmp_path):
    adapters(tmp_path, "a0", "a1", "a2")
    labels(tmp_path, "a0,1", "a1 ,2")
    recipe = load("lol/minilm", [f"data.path={tmp_path}"])
    notes = recipe.data.load(0).notes
    assert notes == [
        "rows of labels.csv without an adapter: 'a1 '",
        "adapters without a row in labels.csv, left out: a1, a2",
    ]
    assert recipe.remarks({"notes": notes})[0] == "note: rows of labels.csv without an adapter: 'a1 '"


def test_a_file_is_called_with_or_without_its_ending(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "ab":
        pair = LoraPair(torch.ones(6, 2), torch.ones(5, 2))
        save_kohya(LoraAdapter({"unet.conv_in": pair}), tmp_path / "in" / f"{name}.safetensors")
    labels(tmp_path / "in", "b,1", "a.safetensors,2")
    assert loaded(tmp_path / "in")[0].names == ["b", "a.safetensors"]


def test_a_run_on_files_of_two_tools_predicts_for_them(tmp_path):
    name, folder = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q", tmp_path / "in"
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        pair = LoraPair(torch.randn(6, 2, generator=generator), torch.randn(5, 2, generator=generator))
        WRITERS["kohya" if seed % 2 else "diffusers"](LoraAdapter({name: pair}), folder / f"a{seed}.safetensors")
    labels(folder, *(f"a{i},{i}" for i in range(12)))
    overrides = [f"data.path={folder}", "training.targets=[acc]", "training.task=regression", "models=[svd]"]
    load("lol/minilm", [*overrides, "training.epochs=1", "training.fractions=[0.5,0.25,0.25]"]).run(
        tmp_path / "run", quiet=True
    )
    assert predict(tmp_path / "run", folder, tmp_path / "p.csv") == (12, ())
    written, found = (pd.read_csv(f) for f in (tmp_path / "run" / "predictions.csv", tmp_path / "p.csv"))
    found["id"] = found["id"].str.removesuffix(".safetensors")
    both = written.merge(found, on="id", suffixes=("", "_again"))
    assert len(both) == 12
    assert (both["prediction_acc"] - both["prediction_acc_again"]).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("cell", "text"),
    [("good", "label acc of a1 is 'good'"), ("inf", "label acc of a1 is 'inf'"), ("", "missing in acc")],
)
def test_labels_that_are_no_numbers_are_named(cell, text, tmp_path):
    adapters(tmp_path, "a0", "a1")
    labels(tmp_path, "a0,1", f"a1,{cell}")
    with pytest.raises(CosetError, match=text):
        loaded(tmp_path)


def test_a_label_that_never_varies_and_shares_of_no_whole_are_refused(tmp_path):
    adapters(tmp_path, *(f"a{i}" for i in range(12)))
    labels(tmp_path, *(f"a{i},0.5" for i in range(12)))
    overrides = [f"data.path={tmp_path}", "training.targets=[acc]", "training.task=regression"]
    with pytest.raises(CosetError, match=r"label acc is 0.5 of all 6 training adapters: nothing to learn"):
        load("lol/minilm", [*overrides, "training.fractions=[0.5,0.25,0.25]"]).run(tmp_path / "run", quiet=True)
    with pytest.raises(CosetError, match="sum to 1"):
        load("lol/minilm", [*overrides, "training.fractions=[0.2,0.2,0.2]"])


def test_scores_by_hand():
    found = score("classification", torch.tensor([[1.0], [-1.0], [2.0]]), torch.tensor([[1.0], [0.0], [0.0]]))
    assert found == {"accuracy": pytest.approx(2 / 3), "auroc": pytest.approx(0.5)}
    found = score("regression", torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[1.0], [2.0], [3.0]]))
    assert found["r2"] == pytest.approx(0.5)
    assert found["tau"] == pytest.approx(1.0)
