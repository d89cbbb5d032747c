import json

import numpy as np
import pandas as pd
import pytest

from coset import CosetError
from coset.graphs import Learner
from coset.runs.recipes import load
from coset.topology import euler_characteristic
from coset.topology.files import read_complex, write_complex
from coset.topology.own_complexes import ComplexFiles, read_complexes
from coset.topology.surfaces import closed_surface

QUICK = ["model.width=8", "model.layers=1", "training.epochs=1", "training.batch_size=4"]
PARTS = "data.fractions=[0.5,0.25,0.25]"


@pytest.fixture
def surfaces(tmp_path):
    """Spheres as JSON, tori as meshes, with a table of what they are."""
    folder, rng = tmp_path / "surfaces", np.random.default_rng(0)
    folder.mkdir()
    rows = ["file,kind,euler"]
    for number in range(8):
        genus = number % 2
        made = closed_surface(genus, True, 16, 20, rng)
        if genus:
            faces = "".join(f"3 {' '.join(map(str, face))}\n" for face in made.cells[2])
            points = "".join(f"{x} {y} {z}\n" for x, y, z in rng.normal(size=(16, 3)))
            (folder / f"{number}.off").write_text(f"OFF\n16 {len(made.cells[2])} 0\n{points}{faces}")
        else:
            write_complex(folder / f"{number}.json", made)
        assert euler_characteristic(made) == 2 - 2 * genus
        rows.append(f"{number}.{'off' if genus else 'json'},{'torus' if genus else 'sphere'},{2 - 2 * genus}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("model", ["smcn", "homp"])
def test_from_a_folder_to_predictions(surfaces, tmp_path, model):
    changes = [f"data.path={surfaces}", "data.target=kind", "training.task=multiclass", "data.split=stratified"]
    recipe = load("complexes", [*changes, PARTS, f"model.name={model}", *QUICK])
    recipe.run(tmp_path / "run", quiet=True)
    frame = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert frame.set_index("id")["target"].to_dict() == {k: "torus" if k % 2 else "sphere" for k in range(8)}
    assert all(report.passed for report in recipe.verify(tmp_path / "run"))
    count, _ = recipe.predict(recipe.folder(tmp_path / "run"), surfaces, tmp_path / "new.csv", quiet=True)
    assert count == 8
    assert (pd.read_csv(tmp_path / "new.csv")["prediction"] == frame["prediction"]).all()
    recipe.predict(recipe.folder(tmp_path / "run"), surfaces / "1.off", tmp_path / "one.csv", quiet=True)
    assert pd.read_csv(tmp_path / "one.csv")["id"].tolist() == [1]


def test_features_of_vertices_and_edges_are_read(surfaces, tmp_path):
    for file in surfaces.glob("*.off"):
        write_complex(file.with_suffix(".json"), read_complex(str(file)))
        file.unlink()
    (surfaces / "labels.csv").write_text("complex,y\n" + "".join(f"{k},{k / 2}\n" for k in range(8)))
    for file in surfaces.glob("*.json"):
        said = json.loads(file.read_text())
        edges = len(said["cells"]["1"])
        said["features"] = {"0": [[k, 1.0] for k in range(16)], "1": [[k] for k in range(edges)]}
        file.write_text(json.dumps(said))
    table = ComplexFiles(path=str(surfaces), target="y", fractions=(0.5, 0.25, 0.25)).load(0, False)
    assert (table.node_features, table.edge_features) == (2, 1)
    assert table[0].x[3].tolist() == [3.0, 1.0]
    recipe = load("complexes", [f"data.path={surfaces}", "data.target=y", PARTS, *QUICK])
    assert np.isfinite(recipe.run(tmp_path / "run", quiet=True)["test"]["mae"])
    said["features"]["0"].pop()
    file.write_text(json.dumps(said))
    with pytest.raises(CosetError, match=rf"{file.name}: x has 15 rows, but the complex has 16 cells of rank 0"):
        read_complexes([file])


def test_labels_and_folds_mean_the_same_elsewhere(surfaces, tmp_path, monkeypatch):
    monkeypatch.chdir(surfaces.parent)
    recipe = load("complexes", [f"data.path={surfaces}", "data.labels=surfaces/labels.csv", "data.target=kind"])
    monkeypatch.chdir(tmp_path)
    assert recipe.data.labels == str(surfaces / "labels.csv")
    folds = ["data.split=kfold", "data.folds=4", "data.target=kind"]
    held = [load("complexes", [f"data.path={surfaces}", *folds, f"seed={k}"]).load().splits["test"] for k in range(4)]
    assert sorted(row for rows in held for row in rows.tolist()) == list(range(8))


def test_what_is_wrong_is_told(surfaces, tmp_path):
    def loaded(**options):
        return ComplexFiles(path=str(surfaces), **{"target": "kind", **options}).load(0, False)

    with pytest.raises(CosetError, match=r"labels.csv has no column 'sort'"):
        loaded(target="sort")
    (surfaces / "labels.csv").write_text("file,kind\n0,a\n")
    with pytest.raises(CosetError, match=r"labels.csv has no row for graph '1' \(7 are missing\)"):
        loaded()
    (surfaces / "labels.csv").unlink()
    with pytest.raises(CosetError, match=r"has no labels.csv"):
        loaded()
    (surfaces / "1.json").write_text("{}")
    with pytest.raises(CosetError, match="two complexes of the name '1'"):
        loaded()
    (tmp_path / "empty").mkdir()
    with pytest.raises(CosetError, match="holds no complexes"):
        ComplexFiles(path=str(tmp_path / "empty"), target="kind").load(0, False)


def test_complexes_in_python_are_learned_as_those_of_a_folder(surfaces, tmp_path):
    pytest.importorskip("toponetx")
    from coset.topology.data.adapters import to_toponetx

    rng = np.random.default_rng(0)
    given = [closed_surface(number % 2, True, 16, 20, rng) for number in range(8)]
    learner = Learner("smcn", lift="none", width=8, layers=1, epochs=1, batch_size=4, folder=tmp_path / "run")
    learner.fit(
        given, ["torus" if k % 2 else "sphere" for k in range(8)], split="stratified", fractions=(0.5, 0.25, 0.25)
    )
    assert learner.recipe.data.name == "complexes"
    assert (learner.predict_proba([to_toponetx(each) for each in given]) == learner.predict_proba(given)).all()
    assert learner.embed(surfaces).shape[0] == 8
