"""Whatever graphs somebody holds, every model learns what it can of them: the matrix of :mod:`own_data`.

``make quick`` runs the cells that have all pairs of a kind, a model and a task, CI every one.
"""

import pytest

import own_data
from coset.graphs.experiments import GraphRecipe

EVERY = own_data.cells()
CHOSEN = own_data.covering(EVERY)


def test_the_chosen_cells_have_all_pairs():
    assert set().union(*map(own_data.pairs_of, CHOSEN)) == set().union(*map(own_data.pairs_of, EVERY))
    assert len(CHOSEN) < len(EVERY) / 4
    assert {cell.kind for cell in EVERY} == set(own_data.KINDS)


CELLS = [pytest.param(cell, id="-".join(cell), marks=[] if cell in CHOSEN else pytest.mark.slow) for cell in EVERY]


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_is_learned_stopped_gone_on_with_predicted_and_verified(cell, tmp_path, monkeypatch):
    if (cell.model, cell.kind) != ("gin", "tables"):  # a third of the time, and the same for all
        monkeypatch.setattr(GraphRecipe, "page", lambda self, folder, metrics: folder / "report.html")
    own_data.run(cell, tmp_path)
