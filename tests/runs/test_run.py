"""The template of a run, with a kind of its own that adds numbers."""

import json
import os
import signal
import sys
from typing import ClassVar, Literal

import pytest

from coset import CosetError
from coset.core import domains
from coset.core.domains import Domain
from coset.runs import run as template
from coset.runs.folder import LAST, RunFolder
from coset.runs.recipe import Recipe
from coset.runs.run import check_finite, execute
from coset.runs.signals import Stopped, stop_on_signals

DATA = {"numbers": [1.0, 2.0, 3.0]}


class SumRecipe(Recipe):
    """Adds the numbers up, one a piece of work."""

    leaves: ClassVar[tuple[str, ...]] = ("sum.txt",)
    may_change: ClassVar[frozenset[str]] = frozenset({"times"})
    done: ClassVar[list[str]] = []
    fail: ClassVar[dict[int, object]] = {}

    kind: Literal["sum"] = "sum"
    times: int = 1
    start: float = 0.0

    def prepare(self, run):
        if not DATA["numbers"]:
            raise CosetError("there are no numbers")
        return list(DATA["numbers"])

    def identity(self, prepared):
        return json.dumps(prepared)

    def work(self, run, prepared):
        total = self.start
        for i, number in enumerate(prepared):
            total += run.part(f"number {i}", lambda number=number, i=i: self._one(number, i))
        run.folder.write_text("sum.txt", str(total))
        run.notes.append("sums are exact")
        return {"sum": self.times * total, "test": {"error": 0.5}}

    def _one(self, number, i):
        if i in self.fail:
            raise self.fail[i]
        self.done.append(number)
        return number

    def page(self, folder, metrics):
        folder.write_text("report.html", f"{metrics['sum']}")
        return folder / "report.html"

    def summary(self, metrics):
        return ["sum"], [[str(metrics["sum"])]]


@pytest.fixture(autouse=True)
def _kind(monkeypatch):
    """``sum`` is a kind of run while a test lasts."""
    added = Domain("sums", "coset.runs", kinds={"sum": f"{__name__}:SumRecipe"})
    found = (*domains.domains(), added)
    monkeypatch.setattr("coset.runs.recipes.domains", lambda: found)
    SumRecipe.done.clear()
    SumRecipe.fail.clear()
    monkeypatch.setitem(DATA, "numbers", [1.0, 2.0, 3.0])


def recipe(**options):
    return SumRecipe(name="sums", **options)


def test_a_run_leaves_metrics_last_with_what_all_runs_say(tmp_path):
    metrics = execute(recipe(seed=3), tmp_path / "run", quiet=True)
    assert (metrics["sum"], metrics["recipe"], metrics["seed"]) == (6.0, "sums", 3)
    assert metrics["notes"] == ["sums are exact"]
    assert metrics["data_identity"] == "[1.0, 2.0, 3.0]"
    assert metrics["versions"]["coset"]
    folder = RunFolder(tmp_path / "run")
    assert folder.metrics() == json.loads(json.dumps(metrics))
    assert folder.status()["state"] == "done"
    names = {path.name for path in (tmp_path / "run").iterdir()} - {".lock"}
    assert names == {"recipe.yaml", "metrics.json", "status.json", "report.html", "sum.txt"}


def test_the_same_run_again_is_read_not_run(tmp_path):
    first = execute(recipe(), tmp_path, quiet=True)
    assert execute(recipe(description="said better"), tmp_path, quiet=True) == json.loads(json.dumps(first))
    assert SumRecipe.done == [1.0, 2.0, 3.0]
    execute(recipe(), tmp_path, quiet=True, restart=True)
    assert SumRecipe.done == [1.0, 2.0, 3.0] * 2


def test_a_run_that_failed_goes_on_where_it_was(tmp_path):
    SumRecipe.fail[2] = CosetError("the third number is bad")
    with pytest.raises(CosetError, match="the third number is bad"):
        execute(recipe(), tmp_path / "run", quiet=True)
    status = RunFolder(tmp_path / "run").status()
    assert (status["state"], status["at"], status["why"]) == ("failed", "number 2", "the third number is bad")
    SumRecipe.fail.clear()
    assert execute(recipe(), tmp_path / "run", quiet=True)["sum"] == 6.0
    assert SumRecipe.done == [1.0, 2.0, 3.0]


def test_a_failure_before_anything_is_kept_leaves_nothing(tmp_path):
    DATA["numbers"] = []
    with pytest.raises(CosetError, match="there are no numbers"):
        execute(recipe(), tmp_path / "a" / "run", quiet=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_says_how_far_it_came_and_how_to_go_on(tmp_path, number, code):
    def struck(self, value, i):
        if i == 1:
            os.kill(os.getpid(), number)
        return value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SumRecipe, "_one", struck)
        with pytest.raises(Stopped) as stop, stop_on_signals():
            execute(recipe(), tmp_path / "run", quiet=True)
    assert stop.value.exit_code == code
    assert str(stop.value).endswith(f"at number 1; go on with: coset run --resume {tmp_path / 'run'}")
    assert RunFolder(tmp_path / "run").status()["state"] == "stopped"
    assert execute(recipe(), tmp_path / "run", quiet=True)["sum"] == 6.0
    assert SumRecipe.done == [2.0, 3.0]


@pytest.mark.parametrize("exits", [False, True])
def test_an_interrupt_of_a_script_stops_the_run_also_where_a_library_makes_an_exit_of_it(tmp_path, monkeypatch, exits):
    def interrupted(self, value, i):
        if i == 0:
            return value
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if exits:
                sys.exit(1)
            raise

    monkeypatch.setattr(SumRecipe, "_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(recipe(), tmp_path / "run", quiet=True)
    assert RunFolder(tmp_path / "run").status()["state"] == "stopped"
    with stop_on_signals(), pytest.raises(Stopped, match=r"^stopped by SIGINT at number 1; go on with: coset run"):
        execute(recipe(), tmp_path / "run", quiet=True)


def test_pieces_that_could_not_be_removed_go_when_the_run_is_read(tmp_path):
    execute(recipe(), tmp_path, quiet=True)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "number_0.pt").touch()
    assert execute(recipe(), tmp_path, quiet=True)["sum"] == 6.0
    assert not (tmp_path / "parts").exists()


def test_an_edited_recipe_of_a_finished_run_is_run_further(tmp_path):
    """``--resume`` reads the recipe from the folder: what it was finished with stands in the status."""
    execute(recipe(), tmp_path, quiet=True)
    file = tmp_path / "recipe.yaml"
    file.write_text(file.read_text().replace("times: 1", "times: 3"))
    assert execute(recipe(times=3), tmp_path, quiet=True)["sum"] == 18.0


def test_other_recipes_and_other_data_are_refused(tmp_path):
    SumRecipe.fail[1] = CosetError("bad")
    with pytest.raises(CosetError):
        execute(recipe(), tmp_path, quiet=True)
    SumRecipe.fail.clear()
    with pytest.raises(CosetError, match=r"another recipe: its start is 0.0, here it is 1.0; choose another folder"):
        execute(recipe(start=1.0), tmp_path, quiet=True)
    DATA["numbers"] = [1.0, 2.0, 4.0]
    with pytest.raises(CosetError, match=r"the data are not those that the run in .* began with"):
        execute(recipe(), tmp_path, quiet=True)


def test_what_may_change_lets_a_finished_run_go_on(tmp_path):
    execute(recipe(), tmp_path, quiet=True)
    assert execute(recipe(times=2), tmp_path, quiet=True)["sum"] == 12.0


def test_numbers_that_are_none_are_refused(tmp_path):
    with pytest.raises(CosetError, match="the run measured sum = nan: it has failed"):
        execute(recipe(start=float("nan")), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "metrics.json").exists()
    check_finite({"a": None, "b": [1, 2.0], "c": {"d": "text"}})
    with pytest.raises(CosetError, match=r"measured b\.1\.c = inf"):
        check_finite({"b": [1.0, {"c": float("inf")}]})


def test_seconds_of_earlier_attempts_count(tmp_path, monkeypatch):
    clock = iter([0.0, 10.0, 100.0, 107.0])
    SumRecipe.fail[1] = CosetError("bad")
    with monkeypatch.context() as patch:
        patch.setattr(template.time, "monotonic", lambda: next(clock))
        with pytest.raises(CosetError):
            execute(recipe(), tmp_path, quiet=True)
        SumRecipe.fail.clear()
        assert execute(recipe(), tmp_path, quiet=True)["seconds"] == 17.0


def test_a_checkpoint_keeps_the_folder(tmp_path):
    SumRecipe.fail[0] = CosetError("bad")
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    folder.begin(recipe().to_yaml())
    (folder / LAST).touch()
    with pytest.raises(CosetError):
        execute(recipe(), folder.path, quiet=True)
    assert folder.resumable()
