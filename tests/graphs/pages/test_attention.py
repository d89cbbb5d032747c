import json
from pathlib import Path

import numpy as np
import pytest

from coset.graphs.pages.attention import AttentionRecord, attention_record, write_attention
from coset.graphs.pages.molecules import skeleton

EDGES = np.array([[0, 1], [1, 0]])
PLACES = np.array([[0.0, 0.0], [1.0, 0.0]])


def test_two_nodes_by_hand() -> None:
    internal = np.array([[[0.25, 0.5, 0.5, 0.75], [0.1, 0.2, 0.8, 0.9]]])  # 0 -> 1, 1 -> 0, then the two loops
    record = attention_record(id="a", edge_index=EDGES, internal=internal, external=None, positions=PLACES)
    assert record.edges == [[0, 1], [1, 0], [0, 0], [1, 1]]
    assert record.bonds == [[0, 1, 1]]
    assert record.layers == [{"internal": [[250, 500, 500, 750], [100, 200, 800, 900]]}]
    assert record.importance == []


def test_without_loops_the_edges_stay_as_they_are() -> None:
    weights = np.ones((3, 2, 2))
    record = attention_record(id="a", edge_index=EDGES, internal=weights, external=weights, positions=PLACES)
    assert record.edges == [[0, 1], [1, 0]]
    assert len(record.layers) == 3
    assert set(record.layers[0]) == {"internal", "external"}


def test_a_record_survives_json(tmp_path: Path) -> None:
    record = attention_record(
        id="a", smiles="CO", edge_index=EDGES, internal=np.ones((1, 2, 2)), external=None,
        importance=np.array([0.5, -1.0]), **skeleton("CO"),
    )  # fmt: skip
    read = json.loads(write_attention(tmp_path, [record]).read_text())
    assert AttentionRecord.from_dict(read[0]) == record


def test_a_single_atom() -> None:
    record = attention_record(
        id="a", edge_index=np.zeros((2, 0), dtype=int), internal=np.ones((1, 1, 1)), external=None, **skeleton("C")
    )
    assert record.edges == [[0, 0]]


def test_skeleton_keeps_the_order_of_the_smiles() -> None:
    drawing = skeleton("[NH4+].OC=C")
    assert drawing["symbols"] == ["N+", "O", "C", "C"]
    assert drawing["bonds"] == [[1, 2, 1], [2, 3, 2]]
    assert drawing["positions"].shape == (4, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"internal": np.ones((1, 2, 3))},
            r"internal has shape \[1, 2, 3\]; expected \[layers, 2, 2 or with loops 4\]",
        ),
        ({"internal": -np.ones((1, 2, 2))}, "internal holds weights that are negative"),
        ({"internal": np.full((1, 2, 2), np.nan)}, "not finite"),
        ({"external": np.ones((1, 2, 4))}, "must have the same shape"),
        ({"positions": [0.0, 1.0]}, r"positions has shape \[2\]"),
        ({"symbols": ["C"]}, "symbols has 1 entries for 2"),
        ({"edge_index": [[0, 2], [2, 0]]}, "leaves the 2 atoms"),
        ({"importance": [1.0]}, "importance has 1 entries for 2"),
    ],
)
def test_wrong_sizes_name_the_argument(change: dict, message: str) -> None:
    right = {"id": "a", "edge_index": EDGES, "internal": np.ones((1, 2, 2)), "external": None, "positions": PLACES}
    with pytest.raises(ValueError, match=message):
        attention_record(**(right | change))
