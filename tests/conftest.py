"""Settings that all tests share."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as on the command line: see coset.cli

import pytest
import torch
from hypothesis import settings

import shape_checks
from precisions import PRECISIONS

shape_checks.install()  # before anything of Coset is imported
pytest_plugins = ["costs", "in_browser", "made_up_runs"]

settings.register_profile("coset", deadline=None)
settings.load_profile("coset")
torch.set_warn_always(True)  # warnings are errors: of the test that causes them, not of the first one
side_by_side = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, min(2, os.cpu_count() or 1) // side_by_side))


@pytest.fixture(params=PRECISIONS, ids=lambda options: str(options["dtype"]).removeprefix("torch."))
def precision(request) -> dict[str, object]:
    """Options of a check of symmetry: one run of the test in float64, one in float32."""
    return dict(request.param)


@pytest.fixture
def small_csv(tmp_path: Path) -> Path:
    """Twelve molecules with a made-up target: the number of carbon atoms."""
    smiles = ["C", "CC", "CCC", "CCO", "c1ccccc1", "CC(C)C", "CCN", "C1CC1", "CCCC", "CO", "CCCCC", "CC(=O)O"]
    file = tmp_path / "small.csv"
    rows = [f"{s},{s.upper().count('C')}" for s in smiles]
    file.write_text("smiles,carbons\n" + "\n".join(rows) + "\n")
    return file


@pytest.fixture
def coset(monkeypatch, capsys):
    """The command line, in this process: arguments -> (exit code, standard output, standard error)."""
    from coset import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["coset", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capsys.readouterr()

    return call


def pytest_collection_modifyitems(items):
    """Ray warns of its own parts, from many threads and processes: its tests show warnings, and do not fail by them."""
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.filterwarnings("default"))
