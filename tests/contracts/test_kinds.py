"""What every kind of run promises: killed and started again by the same command it ends as undisturbed.

A kind enters by being registered; the short run that is tried here is its first of ``tests/golden/cases.yaml``.
"""

from functools import cache
from pathlib import Path

import pytest
import yaml

from coset.runs.recipes import kinds, load, names, show
from coset.runs.run import MEASURED_AGAIN, Run, execute
from coset.runs.sweep.studies import Series

CASES = yaml.safe_load((Path(__file__).parents[1] / "golden" / "cases.yaml").read_text())
TIMED = ("seconds", "about")
# What a sweep repeats: two of its runs, of which one is killed, are gone on with as well as five.
CURVES = {"": Series(), "random clusters": Series(changes=["model.coarsening=random"])}
FEWER = {"sweep": {"references": {}, "series": CURVES}}


class Killed(BaseException):
    """What a signal would be."""


def short_run(kind):
    """The first short run of a kind, and what of it does not repeat to the last digit."""
    for case in CASES.values():
        if yaml.safe_load(show(case["recipe"]))["kind"] == kind:
            recipe = load(case["recipe"], case["overrides"])
            return recipe.model_copy(update=FEWER.get(kind, {})), case.get("tolerances", {})
    pytest.fail(f"no case of tests/golden/cases.yaml is of kind {kind}")


def lasting(value, place=""):
    """All entries of metrics by their place, without what is measured of time and machine."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in MEASURED_AGAIN and not any(w in str(k) for w in TIMED)}
        return {p: e for k, v in kept.items() for p, e in lasting(v, f"{place}/{k}").items()}
    if isinstance(value, list | tuple):
        return {p: e for i, v in enumerate(value) for p, e in lasting(v, f"{place}/{i}").items()}
    return {place: value}


def assert_same(one, other, tolerances):
    """Equal to the digit, but for places where two runs of one seed are known to differ: they need only be there."""
    one, other = lasting(one), lasting(other)
    assert one.keys() == other.keys()
    for place, value in one.items():
        if not any(words in place for words in tolerances):
            assert other[place] == value, place


def counted(patch):
    """Counts how often a run says where it is, and ends it at the place that is asked for."""
    told: list[str] = []
    end: list[int] = []
    before = Run.at

    def at(self, place):
        before(self, place)
        told.append(place)
        if end and len(told) == end[0]:
            raise Killed

    patch.setattr(Run, "at", at)
    return told, end


@pytest.fixture
def places(monkeypatch):
    return counted(monkeypatch)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """kind -> folder, metrics and number of places of its short run, which is run once."""

    @cache
    def run(kind):
        folder = tmp_path_factory.mktemp(kind) / "whole"
        with pytest.MonkeyPatch.context() as patch:
            told, _ = counted(patch)
            return folder, execute(short_run(kind)[0], folder, quiet=True), len(told)

    return run


def shipped():
    """Kinds of which the package has recipes; sweeps of the command line are tested with their engine."""
    found = {yaml.safe_load(show(name))["kind"] for name in names()}
    assert found <= set(kinds())
    return sorted(found)


@pytest.mark.parametrize("kind", shipped())
def test_a_killed_run_ends_as_an_undisturbed_one(kind, tmp_path, undisturbed, places):
    told, end = places
    recipe, tolerances = short_run(kind)
    _, whole, steps = undisturbed(kind)
    assert steps >= 2, f"runs of kind {kind} never say where they are"
    ends = {(steps + 1) // 2} if kind in FEWER else {(steps + 1) // 2, steps}
    for place in sorted(ends):  # the chaos script kills at any place
        told.clear()
        end[:] = [place]
        with pytest.raises(Killed):
            execute(recipe, tmp_path / str(place), quiet=True)
        end.clear()
        folder = recipe.folder(tmp_path / str(place))
        assert not folder.finished()
        assert_same(execute(recipe, folder.path, quiet=True), whole, tolerances)
        assert folder.status()["state"] == "done"


@pytest.mark.parametrize("kind", shipped())
def test_a_finished_run_is_read_and_its_page_can_be_written_again(kind, undisturbed, places):
    told, _ = places
    recipe, tolerances = short_run(kind)
    folder, metrics, _ = undisturbed(kind)
    page = (folder / "report.html").stat().st_size
    assert_same(execute(recipe, folder, quiet=True), metrics, tolerances)
    assert not told
    assert recipe.report(folder).stat().st_size == pytest.approx(page, rel=0.2)
    columns, rows = recipe.summary(recipe.folder(folder).metrics())
    assert rows
    assert all(len(row) == len(columns) for row in rows)
