import json

import numpy as np
import pandas as pd
import pytest

from coset import CosetError
from coset.graphs import Learner
from coset.runs.recipes import load
from coset.topology import euler_characteristic
from coset.topology.data.adapters import toponetx_features
from coset.topology.files import read_complex, write_complex
from coset.topology.own_complexes import ComplexFiles, cell_names, complex_files, read_complexes
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


@pytest.mark.parametrize("model", ["smcn", "mcn"])
def test_from_a_folder_to_predictions(surfaces, tmp_path, model):
    changes = [f"data.path={surfaces}", "data.target=kind", "training.task=multiclass", "data.split=stratified"]
    recipe = load("complexes", [*changes, PARTS, f"model.name={model}", *QUICK])
    recipe.run(tmp_path / "run", quiet=True)
    frame = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert frame.set_index("id")["target_kind"].to_dict() == {k: "torus" if k % 2 else "sphere" for k in range(8)}
    assert all(report.passed for report in recipe.verify(tmp_path / "run"))
    count, _ = recipe.predict(recipe.folder(tmp_path / "run"), surfaces, tmp_path / "new.csv", quiet=True)
    assert count == 8
    assert (pd.read_csv(tmp_path / "new.csv")["prediction_kind"] == frame["prediction_kind"]).all()
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


def square_mesh(folder, name, faces, points="0 0 0\n1 0 0\n1 1 0\n0 1 0\n0 0 0\n"):
    (folder / name).write_text(f"OFF\n{len(points.splitlines())} {len(faces)} 0\n{points}" + "".join(
        f"{len(face)} {' '.join(map(str, face))}\n" for face in faces
    ))  # fmt: skip
    return folder / name


def test_meshes_are_repaired_on_request_and_told(tmp_path, coset):
    torn = square_mesh(tmp_path, "torn.off", [(0, 1, 2), (0, 2, 3), (2, 1, 4), (0, 4, 1), (3, 3, 2)])
    square_mesh(tmp_path, "whole.off", [(0, 1, 2), (0, 2, 3)])
    with pytest.raises(CosetError, match=r"torn.off: "):
        read_complexes([torn])
    (mended, whole), notes = read_complexes(complex_files(tmp_path), repair=True)
    assert mended.num_cells.tolist() == whole.num_cells.tolist() == [[4, 5, 2]]
    assert notes == (
        "1 meshes were repaired (data.repair=true; torn.off first): left out 2 faces without three different corners "
        "and 1 that were there before",
    )
    code, out, said = coset("data", "check", tmp_path)
    assert code == 0
    assert "complexes" in out
    assert "torn.off first" in " ".join((out + said).split())
    square_mesh(tmp_path, "torn.off", [(0, 0, 4)])
    with pytest.raises(CosetError, match=r"torn.off: no face is left after the repair"):
        read_complexes([torn], repair=True)


@pytest.mark.parametrize(("model", "rank"), [("homp", 0), ("smcn", 1), ("mcn", 2)])
def test_cells_of_a_rank_from_tables_to_predictions(surfaces, tmp_path, model, rank):
    graphs, _ = read_complexes(complex_files(surfaces))
    rows = ["mesh,cell,size,part"]
    for graph in graphs[:-1]:  # of the last nothing is known
        rows += [f"{graph.id},{' '.join(reversed(name.split()))},{len(name)},{'xy'[at % 2]}"
                 for at, name in enumerate(cell_names(graph, rank))]  # fmt: skip
    (surfaces / "cells.csv").write_text("\n".join(rows) + "\n")
    changes = [f"data.path={surfaces}", f"data.rank={rank}", "data.target=part", "training.task=multiclass", PARTS]
    recipe = load("complexes", [*changes, f"model.name={model}", *QUICK])
    recipe.run(tmp_path / "run", quiet=True)
    frame = pd.read_csv(tmp_path / "run" / "predictions.csv", dtype={"cell": str})
    assert list(frame)[:4] == ["id", "graph", "cell", "split"]
    assert len(frame) == sum(int(graph.num_cells[0, rank]) for graph in graphs)
    assert frame["target_part"].isna().sum() == int(graphs[-1].num_cells[0, rank])
    reports = recipe.verify(tmp_path / "run")
    assert all(report.passed for report in reports)
    assert f"S_n on rows of cells of rank {rank}" in str(reports[0])
    recipe.predict(recipe.folder(tmp_path / "run"), surfaces, tmp_path / "new.csv", quiet=True)
    assert (pd.read_csv(tmp_path / "new.csv")["prediction_part"] == frame["prediction_part"]).all()


def test_what_is_wrong_with_cells_is_told(surfaces):
    def read(rows, **options):
        (surfaces / "cells.csv").write_text("graph,cell,y\n" + rows)
        return ComplexFiles(path=str(surfaces), target="y", rank=1, **options).load(0, False)

    with pytest.raises(CosetError, match=r"surfaces has no cells.csv: a table with a row a cell"):
        ComplexFiles(path=str(surfaces), target="y", rank=1).load(0, False)
    with pytest.raises(CosetError, match=r"cells.csv, row 2: there is no complex '9'"):
        read("9,0 1,3\n")
    with pytest.raises(CosetError, match=r"cells.csv, row 2: 0 has no cells '0 0 1' of rank 1"):
        read("0,0 0 1,3\n")
    edge = cell_names(read_complexes([surfaces / "0.json"])[0][0], 1)[0]
    with pytest.raises(CosetError, match=r"cells.csv, row 3: the cell is there twice"):
        read(f"0,{edge},3\n0,{' '.join(reversed(edge.split()))},4\n")


def test_complexes_without_labelled_cells_take_no_place_in_a_split(surfaces):
    graphs, _ = read_complexes(complex_files(surfaces)[:4])
    rows = "".join(f"{graph.id},{cell_names(graph, 1)[0]},{at}\n" for at, graph in enumerate(graphs))
    (surfaces / "cells.csv").write_text("graph,cell,y\n" + rows)
    for seed in range(5):
        table = ComplexFiles(path=str(surfaces), target="y", rank=1, fractions=(0.5, 0.25, 0.25)).load(seed, False)
        assert {name: len(part) for name, part in table.splits.items()} == {"train": 2, "val": 1, "test": 1}


def test_a_mesh_that_a_repair_would_read_is_refused_with_the_way_to_it(tmp_path):
    flat = "OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n3 1 1 2\n"
    (tmp_path / "a.off").write_text(flat)
    with pytest.raises(CosetError, match=r"lists a vertex twice \(data.repair=true leaves such faces out\)"):
        read_complexes([tmp_path / "a.off"])
    (tmp_path / "a.off").write_text(flat.replace("1 1 2", "1 1 9"))
    with pytest.raises(CosetError, match=r"a face names vertex 9, but vertices are 0 to 2$"):
        read_complexes([tmp_path / "a.off"])


def test_numbers_that_toponetx_complexes_carry_are_features(tmp_path):
    tnx = pytest.importorskip("toponetx")
    complex_ = tnx.CellComplex()
    for vertex in range(4):
        complex_.add_node(vertex, height=vertex / 2, name=f"v{vertex}")
    for number, edge in enumerate([(0, 1), (1, 2), (2, 3), (3, 0)]):
        complex_.add_edge(*edge, length=number + 1.0)
    complex_.add_cell([0, 1, 2, 3], rank=2, area=2.5)
    assert {rank: (names, rows.tolist()) for rank, (names, rows) in toponetx_features(complex_).items()} == {
        0: (["height"], [[0.0], [0.5], [1.0], [1.5]]),
        1: (["length"], [[complex_.edges[edge]["length"]] for edge in complex_.edges]),
        2: (["area"], [[2.5]]),
    }
    tnx.write_atomlist(complex_, str(tmp_path / "square.atomlist"))
    ((square,), _) = read_complexes([tmp_path / "square.atomlist"])
    assert square.x.flatten().tolist() == [0.0, 0.5, 1.0, 1.5]
    assert square.x_2.tolist() == [[2.5]]
    simplices = tnx.SimplicialComplex()
    simplices.add_simplex(["a", "b", "c"], area=1.0)
    simplices.add_simplex(["a"], weight=4)
    assert toponetx_features(simplices)[2][1].tolist() == [[1.0]]
    assert 0 not in toponetx_features(simplices)  # of b and c nothing is known
