"""Every command: examples that parse, JSON, names completed in the shell; the table of runs."""

import inspect
import json
import shlex
import sys
from pathlib import Path

import pytest
import typer

from command_line import COMMAND, FUNCTIONS, example_lines, parsed
from coset.cli import OWN, inputs_of, main
from coset.cli.runs import recipes_like
from coset.core.commands import COMMANDS
from coset.core.files import named_after

OUTPUTS = {"run", "sweep", "predict", "report", "reconstruct", "audit", "connect", "lora merge", "merge", "export"}


def examples(function):
    for line in example_lines(function):
        for part in line.split("; "):
            words = shlex.split(part.rpartition(" | ")[2])
            words = words[: words.index(">")] if ">" in words else words
            if words and words[0] == "coset":
                yield words[1:]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_command_has_an_example_that_parses_and_an_option_for_json(name):
    given = list(examples(FUNCTIONS[name]))
    assert any(words[: len(name.split())] == name.split() for words in given), "no example calls it"
    for words in given:
        parsed(words)
    command, _ = parsed(next(words for words in given if words[: len(name.split())] == name.split()))
    assert any("--json" in option.opts for option in command.params)


def test_a_mistake_in_an_example_would_be_found():
    with pytest.raises(Exception, match="No such option"):
        parsed(["list", "--no-such"])


def test_what_a_command_prints_is_an_object_with_json(coset):
    assert "kind: graphs" in json.loads(coset("show", "gin/freesolv", "--json")[1])["said"]
    assert json.loads(coset("bench", "--json")[1])["bags"] == "coset.graphs.benches.bags:main"
    code, out, err = coset("show", "gin/nowhere", "--json")
    assert (code, out) == (1, "")
    assert err.startswith("error: no recipe")


def test_no_command_needs_to_be_told_where_to_write():
    assert set(FUNCTIONS) >= OUTPUTS
    for name, function in FUNCTIONS.items():
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name == "output" or (name, parameter.name) == ("export", "folder"):
                assert parameter.default is None, name


def test_what_is_there_already_is_not_written_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert named_after(Path("x/video.mp4"), "scene", Path("runs")) == Path("runs/video-scene")
    assert named_after(Path("adapters/"), "zoo") == Path("adapters-zoo")
    assert named_after(Path(), "map.html") == Path(f"{tmp_path.name.partition('.')[0]}-map.html")
    for wanted in ("new-predictions.csv", "new-predictions-2.csv", "new-predictions-3.csv"):
        assert named_after(Path("new.csv"), "predictions.csv") == Path(wanted)
        Path(wanted).touch()


def test_recipes_are_completed_and_outputs_named_after_their_data():
    assert recipes_like("lol/smiles") == ["lol/smiles", "lol/smiles-accuracy", "lol/smiles-zoo"]
    assert named_after(Path("x/new.csv.gz"), "predictions.csv").name == "new-predictions.csv"
    assert any("--install-completion" in option.opts for option in COMMAND.params)


@pytest.fixture
def three(tmp_path, make_run):
    """Runs of two recipes, one of them broken off."""
    for name, recipe, error in (("a", "gin/made-up", 0.5), ("b", "gin/made-up", 0.1), ("c", "csgnn/made-up", 0.3)):
        make_run(name, recipe=recipe, error=error)
    (tmp_path / "c" / "metrics.json").unlink()
    (tmp_path / "c" / "status.json").write_text(json.dumps({"state": "stopped", "at": "epoch 3"}))
    return tmp_path


def test_runs_are_a_table(coset, three):
    rows = json.loads(coset("runs", three, "--json")[1])
    assert [(row["run"], row["state"]) for row in rows] == [("a", "done"), ("b", "done"), ("c", "stopped")]
    assert rows[1]["test.rmse"] == pytest.approx(0.3)
    assert rows[0]["model.layers"] == 3
    assert [row["run"] for row in json.loads(coset("runs", three, "test.rmse<1", "--json")[1])] == ["b"]
    assert [row["run"] for row in json.loads(coset("runs", three, "state!=done", "--json")[1])] == ["c"]
    sorted_rows = json.loads(coset("runs", three, "--sort", "-test.rmse", "--json")[1])
    assert [row["run"] for row in sorted_rows] == ["a", "b", "c"]
    out = coset("runs", three, "--columns", "model.layers,test.mae", "--sort", "test.rmse")[1].splitlines()
    assert out[0].split() == ["run", "model.layers", "test.mae"]
    assert out[1].split()[:2] == ["b", "3"]


def test_mistakes_in_conditions_are_told(coset, three):
    assert coset("runs", three, "test.rsme<1")[2].strip() == "error: no run has 'test.rsme'; did you mean 'test.rmse'?"
    assert coset("runs", three, "test.rmse<low")[2].strip() == "error: 'test.rmse<low': 'low' is no number"
    assert coset("runs", three, "epnn")[2].strip() == f"error: no run below {three} meets epnn"
    assert "is no folder" in coset("runs", three / "nowhere")[2]


def test_the_page_of_runs_can_be_searched(coset, three):
    assert coset("runs", three, "--page", three / "runs.html")[0] == 0
    html = (three / "runs.html").read_text()
    assert "3 runs, 2 of them done." in html
    assert '<table class="sortable" data-search>' in html
    assert len(html) < 100_000


def test_what_a_command_tells_is_the_object(capsys):
    from coset.runs.terminal import console, json_answer, print_notes, print_table, tell

    with json_answer():
        tell(folder="runs/a", loss=float("nan"))
        print_table(["a", "b"], [["1", "2"]])
        print_notes(["a note"])
        console.print("written")
    assert json.loads(capsys.readouterr().out) == {
        "folder": "runs/a", "loss": None, "tables": [[{"a": "1", "b": "2"}]], "notes": ["a note"], "said": ["written"],
    }  # fmt: skip

    def fail():
        with json_answer():
            tell(passed=False)
            raise typer.Exit(1)

    with pytest.raises(typer.Exit):
        fail()
    assert json.loads(capsys.readouterr().out) == {"passed": False}


def test_wide_tables_tell_what_groups_of_rows_share_above_them(capsys, monkeypatch):
    from coset.runs import terminal

    columns = ["scenes", "method", *(f"number {i}" for i in range(6))]
    rows = [[group, f"some method of {i} parts", *["0.00123"] * 6] for group in ("unseen", "seen") for i in range(2)]
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(terminal, "console", terminal.Console())
    terminal.print_table(columns, rows)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line in ("unseen", "seen")] == ["unseen", "seen"]
    assert sum(line.count("0.00123") for line in lines) == 24  # no number is cut
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(terminal, "console", terminal.Console())
    terminal.print_table(columns, rows)
    assert capsys.readouterr().out.count("unseen") == 2


OPTIONS = {"audit": {"data"}, "connect": {"model"}}
"""Those that must be given by name."""
INPUTS = {name: names for name, command in [*OWN.items(), *COMMANDS.items()] if (names := inputs_of(command))}


@pytest.mark.parametrize("name", INPUTS)
def test_a_path_that_leads_nowhere_is_told_before_anything_else(name, tmp_path, monkeypatch, capsys):
    options = OPTIONS.get(name, set())
    given = [str(tmp_path / f"no-{part}") for part in INPUTS[name] if part not in options]
    named = [text for option in options for text in (f"--{option}", str(tmp_path))]
    monkeypatch.setattr(sys, "argv", ["coset", *name.split(), *given, *named])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert capsys.readouterr().err.split() == ["error:", f"{given[0]}:", "no", "such", "file", "or", "folder"]
