import json
from pathlib import Path

import numpy as np
import pytest

from coset import CosetError
from coset.graphs.pages.run_report import write_report
from coset.topology.pages import CellRecord, cell_record, write_cells

TRIANGLE = {"id": "a", "positions": np.eye(3), "edges": [(0, 1), (1, 2), (0, 2)], "faces": [(0, 1, 2)]}


def test_a_triangle_by_hand() -> None:
    record = cell_record(**TRIANGLE, ranks=(0, 2), weights=np.array([[0.5], [1.0], [0.25]]))
    assert record.weights == [[500], [1000], [250]]
    assert record.positions == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert record.faces == [[0, 1, 2]]


def test_without_a_model_there_are_no_weights() -> None:
    assert cell_record(**TRIANGLE).weights == []
    assert cell_record(**TRIANGLE, ranks=(0, 2), weights=np.zeros((3, 1))).weights == [[0], [0], [0]]


def test_a_record_survives_json(tmp_path: Path) -> None:
    record = cell_record(**TRIANGLE, ranks=(1, 2), weights=np.ones((3, 1)), symbols=["C", "N", "O"])
    read = json.loads(write_cells(tmp_path, [record]).read_text())
    assert CellRecord.from_dict(read[0]) == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((3, 2))}, r"positions has shape \[3, 2\]"),
        ({"positions": np.full((3, 3), np.nan)}, "expected finite"),
        ({"edges": [(0, 3)]}, r"cell \[0, 3\] leaves the 3 vertices"),
        ({"weights": np.ones((2, 1))}, "weights must be 3 rows of 1"),
        ({"weights": np.ones((3, 1)), "ranks": (0, 3)}, "two of 0, 1 and 2"),
        ({"weights": -np.ones((3, 1))}, "finite numbers from 0 on"),
        ({"weights": np.ones(3)}, "must be a matrix"),
        ({"symbols": ["C"]}, "symbols has 1 entries for 3"),
    ],
)
def test_wrong_sizes_name_the_argument(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cell_record(**{**TRIANGLE, "ranks": (0, 2), **change})


def test_the_page_has_a_section_of_cells_where_there_are_some(run_dir: Path) -> None:
    assert "cells-viewer" not in write_report(run_dir).read_text().split("</nav>")[1].split("<script")[0]
    write_cells(run_dir, [cell_record(**TRIANGLE, ranks=(0, 2), weights=np.ones((3, 1)))])
    assert '<div id="cells-viewer">' in write_report(run_dir).read_text()
    (run_dir / "cells.json").write_text('[{"id": "a"}]')
    with pytest.raises(CosetError, match=r"cells.json: record 0 is no complex"):
        write_report(run_dir)
