import json
import socket
import time

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import Chem
from torch_geometric.data import Data

from coset import CosetError
from coset.graphs import Learner
from coset.graphs.data.molecules import smiles_to_data
from coset.graphs.given import label_table
from coset.runs.recipes import load, load_run

SMILES = ["C", "CC", "CCC", "CCCC", "CO", "CCO", "CCCO", "CCCCO", "CN", "CCN", "CCCN", "CCCCN"]
QUICK = {"width": 16, "layers": 1, "epochs": 2, "batch_size": 4}
PARTS = (0.5, 0.25, 0.25)


def rings(count=12):
    return [nx.cycle_graph(4 + k % 3) if k % 2 else nx.path_graph(4 + k % 3) for k in range(count)]


def test_molecules_from_words_to_a_saved_folder(tmp_path):
    learner = Learner("gin", **QUICK).fit(SMILES, [text.count("C") / 2 for text in SMILES], fractions=PARTS)
    predicted = learner.predict(SMILES)
    assert predicted.shape == (12,)
    assert learner.embed(SMILES).shape == (12, 32)
    assert set(learner.metrics["test"]) >= {"rmse", "mae"}
    assert all(report.passed for report in learner.verify())
    assert "mae" in learner._repr_html_()
    assert learner.plot().data[0].name == "test"
    saved = learner.save(tmp_path / "kept")
    assert np.array_equal(Learner.load(saved).predict(SMILES), predicted)
    with pytest.raises(CosetError, match="is there already"):
        learner.save(saved)


def test_an_embedding_followed_by_the_last_layer_is_the_prediction():
    learner = Learner("subgraphormer", heads=2, **QUICK).fit(SMILES, np.arange(12.0), fractions=PARTS)
    _, task, _ = learner._loaded()
    last = [module for module in task.model.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        again = last(torch.from_numpy(learner.embed(SMILES))) * task.scale + task.mean
    assert again.squeeze(1).numpy() == pytest.approx(learner.predict(SMILES), rel=1e-5)


def test_molecules_of_rdkit_and_truth_values():
    molecules = [Chem.MolFromSmiles(text) for text in SMILES]
    learner = Learner("gin", monitor="accuracy", **QUICK).fit(
        molecules, [k % 2 == 0 for k in range(12)], fractions=PARTS
    )
    assert learner.recipe.training.task == "classification"
    assert set(learner.predict(molecules)) <= {0, 1}
    assert learner.predict_proba(molecules).tolist() == learner.predict_proba(SMILES).tolist()
    with pytest.raises(CosetError, match="graph 1 is None, others are molecules of RDKit, which gives None for"):
        learner.predict([molecules[0], None])


def test_arrays_at_nodes_of_networkx_graphs():
    graphs = rings()
    for graph in graphs:
        nx.set_node_attributes(graph, {node: np.int64(degree) for node, degree in graph.degree}, "degree")
        nx.set_node_attributes(graph, {node: np.ones(2) for node in graph}, "place")
    learner = Learner("gin", **QUICK).fit(graphs, np.arange(12.0), fractions=PARTS)
    assert learner._loaded()[2].node_features == 1
    assert any("left out attributes" in note and "place" in note for note in learner.metrics["notes"])
    graphs[0].nodes[0]["place"] = object()
    with pytest.raises(CosetError, match="has an attribute of type object; give numbers, texts or truth values"):
        learner.predict(graphs)


def test_classes_of_networkx_graphs_by_name():
    graphs = rings()
    kinds = ["ring" if k % 2 else "chain" for k in range(12)]
    learner = Learner("gin", **QUICK).fit(graphs, kinds, split="stratified", fractions=PARTS)
    assert learner.recipe.training.task == "multiclass"
    assert set(learner.predict(graphs)) <= {"ring", "chain"}
    assert learner.predict_proba(graphs).sum(1) == pytest.approx(np.ones(12), rel=1e-5)
    assert learner.plot().data[0].type == "heatmap"
    named = learner.predict_frame(graphs)
    assert list(named) == ["id", "prediction_y", "probability_chain", "probability_ring"]
    assert named["prediction_y"].tolist() == learner.predict(graphs).tolist()


@pytest.mark.parametrize("given", ["inside", "beside"])
def test_pyg_graphs_with_targets_inside_or_beside(given):
    graphs = [smiles_to_data(text) for text in SMILES]
    graphs = [Data(x=g.x, edge_index=g.edge_index, edge_attr=g.edge_attr) for g in graphs]
    labels = np.array([int("O" in text) for text in SMILES])
    if given == "inside":
        for graph, label in zip(graphs, labels, strict=True):
            graph.y = torch.tensor([label])
    learner = Learner("epnn", **QUICK).fit(graphs, None if given == "inside" else labels, split="stratified",
                                           fractions=PARTS)  # fmt: skip
    assert learner.recipe.training.task == "classification"
    assert set(learner.predict(graphs)) <= {0, 1}
    assert learner.predict_proba(graphs).shape == (12, 2)


def test_the_folder_of_a_learner_is_that_of_a_run(tmp_path):
    Learner("gin", folder=tmp_path / "mine", **QUICK).fit(rings(), np.linspace(0, 1, 12), fractions=PARTS)
    recipe = load_run(tmp_path / "mine")
    assert all(report.passed for report in recipe.verify(tmp_path / "mine"))
    assert Learner.load(tmp_path / "mine").predict(rings()).shape == (12,)


def test_a_run_of_the_command_line_is_a_learner(small_csv, tmp_path):
    changes = [f"data.path={small_csv}", "data.target=carbons", "data.fractions=[0.5,0.25,0.25]", "model.name=gin"]
    recipe = load("csv", [*changes, "model.width=16", "model.layers=1", "training.epochs=1"])
    recipe.run(tmp_path / "run", quiet=True)
    assert Learner.load(str(tmp_path / "run")).predict(small_csv).shape == (12,)


def test_scikit_learn_takes_it():
    from sklearn.base import clone
    from sklearn.model_selection import GridSearchCV, cross_val_score

    y = np.array([text.count("C") / 2 for text in SMILES])
    learner = Learner("gin", task="regression", **{**QUICK, "epochs": 1})
    scores = cross_val_score(learner, SMILES, y, cv=2, params={"fractions": PARTS})
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()
    search = GridSearchCV(learner, {"width": [8]}, cv=2, refit=False).fit(SMILES, y, fractions=PARTS)
    assert search.best_params_ == {"width": 8}
    assert clone(learner.set_params(width=24)).get_params() == learner.get_params()
    assert learner.get_params()["width"] == 24


def test_score_is_that_of_scikit_learn():
    from sklearn.metrics import r2_score

    y = np.arange(12.0)
    learner = Learner("gin", **QUICK).fit(SMILES, y, fractions=PARTS)
    assert learner.score(SMILES, y) == pytest.approx(r2_score(y, learner.predict(SMILES)))
    kinds = np.arange(12) % 3
    learner = Learner("gin", **QUICK).fit(SMILES, kinds, fractions=PARTS)
    assert learner.predict(SMILES).dtype.kind == "i"
    assert learner.classes_.tolist() == [0, 1, 2]
    assert learner.score(SMILES, kinds) == pytest.approx((learner.predict(SMILES) == kinds).mean())
    with pytest.raises(CosetError, match="score: give y"):
        learner.score(SMILES)


@pytest.mark.parametrize(
    "labels", [[0.0, 1.0, 2.0], ["01", "02", "10"], [10000001, 10000002, 10000003], [" b ", "a\nb", "c"]],
    ids=["floats", "zeros", "digits", "spaces"],
)  # fmt: skip
def test_classes_come_back_as_they_were_given_and_are_scored_by_name(labels):
    y = np.array([labels[k % 3] for k in range(12)])
    learner = Learner("gin", task="multiclass", **{**QUICK, "epochs": 1}).fit(SMILES, y, fractions=PARTS)
    assert sorted(learner.classes_.tolist()) == sorted(labels)
    predicted = learner.predict(SMILES)
    assert set(predicted.tolist()) <= set(labels)
    assert learner.score(SMILES, predicted) == 1.0
    right = predicted == y
    assert learner.score(SMILES, y) == pytest.approx(right.mean())
    some = y.astype(object)
    some[:4] = None
    assert learner.score(SMILES, some) == pytest.approx(right[4:].mean())
    with pytest.raises(CosetError, match="score: all of y is missing"):
        learner.score(SMILES, [None] * 12)
    loaded = Learner.load(learner.run_folder)
    assert loaded.score(SMILES, y) == learner.score(SMILES, y)


def test_two_labels_of_one_name_are_refused():
    with pytest.raises(CosetError, match=r"y: the classes 'a' and ' a' are both called 'a'; rename one"):
        Learner("gin", **QUICK).fit(SMILES, ["a", " a", "b"] * 4, fractions=PARTS)


def test_a_data_frame_with_names_of_its_own():
    frame = pd.DataFrame({"SMILES": SMILES, "mass": np.arange(12.0), "charge": np.arange(12.0) % 5})
    learner = Learner("gin", **QUICK).fit(frame, target=["mass", "charge"], fractions=PARTS)
    assert learner.recipe.data.target == ["mass", "charge"]
    assert learner.predict(frame).shape == (12, 2)
    beside = Learner("gin", **QUICK).fit(frame[["SMILES"]], frame["mass"], fractions=PARTS)
    assert beside.recipe.data.target == ["mass"]
    assert label_table(torch.eye(2)).columns.tolist() == ["y0", "y1"]


def test_fitting_again_learns_anew():
    learner = Learner("gin", **QUICK).fit(SMILES, np.arange(12.0), fractions=PARTS)
    first, folder = learner.predict(SMILES), learner.run_folder
    again = learner.fit(SMILES, -np.arange(12.0), fractions=PARTS).predict(SMILES)
    assert learner.run_folder != folder
    assert not np.allclose(first, again)


def test_what_a_notebook_shows():
    learner = Learner("gin", **QUICK)
    assert "not trained" in learner._repr_html_()
    shown = learner.fit(SMILES, np.arange(12.0), fractions=PARTS)._repr_html_()
    assert shown.count("<circle") == 3  # the molecules of the test part
    assert "<table" in shown
    assert "<script" not in shown
    kinds = ["ring" if k % 2 else "chain" for k in range(12)]
    shown = Learner("gin", **QUICK).fit(rings(), kinds, split="stratified", fractions=PARTS)._repr_html_()
    assert shown.count("<rect") == 4


def test_a_folder_for_use_has_no_pickles_and_serves_everything(tmp_path, small_csv):
    from huggingface_hub import ModelCard

    learner = Learner("gin", **QUICK).fit(small_csv, target="carbons", fractions=PARTS)
    learner.save_pretrained(tmp_path / "use")
    assert sorted(file.name for file in (tmp_path / "use").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert str(tmp_path) not in (tmp_path / "use" / "config.json").read_text()
    loaded = Learner.from_pretrained(str(tmp_path / "use"))
    loaded.save_pretrained(tmp_path / "again")
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("use", "again")]
    assert configs[0]["data_identity"]
    assert configs[0] == configs[1]
    small_csv.rename(tmp_path / "moved.csv")
    assert np.array_equal(loaded.predict(SMILES), learner.predict(SMILES))
    assert loaded.metrics["test"] == learner.metrics["test"]
    assert all(report.passed for report in loaded.verify(SMILES))
    with pytest.raises(CosetError, match="holds no data; give some graphs"):
        loaded.verify()
    recipe = load_run(tmp_path / "use")
    count, _ = recipe.predict(recipe.folder(tmp_path / "use"), tmp_path / "moved.csv", tmp_path / "new.csv", quiet=True)
    assert count == 12
    card = ModelCard.load(tmp_path / "use" / "README.md")
    assert card.data.library_name == "coset"
    assert "rmse" in card.content
    again = Learner("gin", **{**QUICK, "epochs": 1, "from": tmp_path / "use"}).fit(
        SMILES, np.arange(12.0), fractions=PARTS
    )
    assert any(note.startswith("started from") for note in again.metrics["notes"])


@pytest.mark.parametrize("name", ["nobody/nothing-of-the-kind", "no/such/folder"])
def test_what_neither_a_folder_nor_the_hub_has_is_told_in_one_line(name):
    with pytest.raises(CosetError, match=f"{name} is no folder here, and no repository of that name came") as told:
        Learner.from_pretrained(name, local_files_only=True)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("listens", [False, True], ids=["nobody-there", "never-answers"])
def test_a_hub_out_of_reach_is_told_in_one_line_and_soon(monkeypatch, tmp_path, listens):
    from huggingface_hub import constants

    from coset.graphs import hub

    learner = Learner("gin", **QUICK).fit(SMILES, np.arange(12.0), fractions=PARTS)
    monkeypatch.setattr(hub, "REACHED", 0.5)
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        if listens:
            door.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{door.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(
            CosetError, match=r"me/rings was not uploaded: http://127.*; save_pretrained\(FOLDER\)"
        ) as told:
            learner.push_to_hub("me/rings")
        with pytest.raises(CosetError, match=r"me/rings is no folder here, .* came from the hub: http://127") as untold:
            Learner.from_pretrained("me/rings", cache_dir=tmp_path)
        assert time.monotonic() - started < 5  # huggingface_hub alone takes half a minute
    assert "\n" not in f"{told.value}{untold.value}"


def test_a_hub_that_refuses_an_upload_is_told_in_one_line(monkeypatch):
    from huggingface_hub import HfApi

    from coset.graphs import hub

    def refuse(*_, **__):
        raise PermissionError("401 Client Error\nhttps://huggingface.co/api/repos/create")

    learner = Learner("gin", **QUICK).fit(SMILES, np.arange(12.0), fractions=PARTS)
    monkeypatch.setattr(hub, "out_of_reach", lambda: None)
    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(CosetError, match=r"^me/rings was not uploaded: 401 Client Error$"):
        learner.push_to_hub("me/rings")


def test_a_folder_for_use_that_was_changed_is_refused(tmp_path, small_csv):
    from safetensors.torch import load_file, save_file

    Learner("gin", **QUICK).fit(small_csv, target="carbons", fractions=PARTS).save_pretrained(tmp_path / "use")
    weights = load_file(tmp_path / "use" / "model.safetensors")
    save_file({**weights, "scale": torch.ones(7)}, tmp_path / "use" / "model.safetensors")
    with pytest.raises(CosetError, match="does not fit its config: tensor scale"):
        Learner.from_pretrained(tmp_path / "use").predict(SMILES)
    config = (tmp_path / "use" / "config.json").read_text()
    (tmp_path / "use" / "config.json").write_text(config.replace('"gin"', '"gim"'))
    with pytest.raises(CosetError, match=r"config.json: model.name='gim'"):
        Learner.from_pretrained(tmp_path / "use")
    (tmp_path / "use" / "config.json").write_text("[]")
    with pytest.raises(CosetError, match="is not one of coset export"):
        load_run(tmp_path / "use")


def test_mistakes(tmp_path):
    with pytest.raises(CosetError, match="call fit first"):
        Learner("gin").predict(SMILES)
    with pytest.raises(CosetError, match="2 targets for 12 graphs"):
        Learner("gin").fit(SMILES, [1.0, 2.0])
    with pytest.raises(CosetError, match="there are no graphs"):
        Learner("gin").fit([], [])
    with pytest.raises(CosetError, match=r"unknown key model.widht"):
        Learner("gin", widht=3).fit(SMILES, [1.0] * 12)
    with pytest.raises(
        CosetError,
        match="graphs are int; give PyG Data, SMILES, molecules of RDKit, NetworkX graphs, complexes, a data",
    ):
        Learner("gin").fit([1, 2], [1.0, 2.0])
    learner = Learner("gin", **QUICK).fit(SMILES, np.arange(12.0), fractions=PARTS)
    with pytest.raises(CosetError, match="predicts values, not classes"):
        learner.predict_proba(SMILES)
