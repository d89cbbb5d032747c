"""What every kind of run promises: killed and started again by the same command it ends as undisturbed.

A kind enters by being registered; the short run that is tried here is its first of ``tests/golden/cases.yaml``.
"""

from pathlib import Path

import pytest
import yaml

from coset.runs.recipes import kinds, load, show
from coset.runs.run import MEASURED_AGAIN, Run, execute

CASES = yaml.safe_load((Path(__file__).parents[1] / "golden" / "cases.yaml").read_text())
TIMED = ("seconds", "about")


class Killed(BaseException):
    """What a signal would be."""


def short_run(kind):
    """The first short run of a kind."""
    for case in CASES.values():
        if yaml.safe_load(show(case["recipe"]))["kind"] == kind:
            return load(case["recipe"], case["overrides"])
    pytest.fail(f"no case of tests/golden/cases.yaml is of kind {kind}")


def lasting(value):
    """Metrics without what is measured of time and machine."""
    if isinstance(value, dict):
        skipped = [key for key in value if key in MEASURED_AGAIN or any(word in str(key) for word in TIMED)]
        return {str(key): lasting(entry) for key, entry in value.items() if key not in skipped}
    if isinstance(value, list | tuple):
        return [lasting(entry) for entry in value]
    return value


@pytest.fixture
def places(monkeypatch):
    """Counts how often a run says where it is, and ends it at the place that is asked for."""
    told: list[str] = []
    end: list[int] = []
    before = Run.at

    def at(self, place):
        before(self, place)
        told.append(place)
        if end and len(told) == end[0]:
            raise Killed

    monkeypatch.setattr(Run, "at", at)
    return told, end


@pytest.mark.parametrize("kind", kinds())
def test_a_killed_run_ends_as_an_undisturbed_one(kind, tmp_path, places):
    told, end = places
    recipe = short_run(kind)
    whole = execute(recipe, tmp_path / "whole", quiet=True)
    steps = len(told)
    assert steps >= 2, f"runs of kind {kind} never say where they are"
    for place in sorted({2, (steps + 1) // 2, steps}):
        told.clear()
        end[:] = [place]
        with pytest.raises(Killed):
            execute(recipe, tmp_path / str(place), quiet=True)
        end.clear()
        folder = recipe.folder(tmp_path / str(place))
        assert not folder.finished()
        assert lasting(execute(recipe, folder.path, quiet=True)) == lasting(whole)
        assert folder.status()["state"] == "done"


@pytest.mark.parametrize("kind", kinds())
def test_a_finished_run_is_read_and_its_page_can_be_written_again(kind, tmp_path, places):
    told, _ = places
    recipe = short_run(kind)
    metrics = execute(recipe, tmp_path / "run", quiet=True)
    page = (tmp_path / "run" / "report.html").stat().st_size
    told.clear()
    assert lasting(execute(recipe, tmp_path / "run", quiet=True)) == lasting(metrics)
    assert not told
    assert recipe.report(tmp_path / "run").stat().st_size == pytest.approx(page, rel=0.2)
    columns, rows = recipe.summary(recipe.folder(tmp_path / "run").metrics())
    assert rows
    assert all(len(row) == len(columns) for row in rows)
