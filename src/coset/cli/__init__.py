"""The command line: parse, call one function, print. Built from what the domains register.

Nothing heavy is imported before a command needs it.
"""

import inspect
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_type_hints

import typer

from coset import CosetError, __version__
from coset.cli import data, find, runs, table
from coset.core.commands import COMMANDS
from coset.core.errors import not_installed
from coset.runs.signals import Caught, Stopped, stop_on_signals
from coset.runs.terminal import console, json_answer, problems

# Before PyTorch is imported: its OpenMP threads sleep between operations instead of spinning, which leaves the cores to
# the fused kernels that run in between (a third of their time on two cores).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Last digits of NumPy's and SciPy's linear algebra depend on how many threads share it; here it takes little time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

OWN: dict[str, Callable[..., None]] = {
    "list": find.list_recipes,
    "systems": find.systems,
    "show": find.show,
    "schema": find.schema,
    "run": runs.run,
    "sweep": runs.sweep,
    "predict": runs.predict,
    "verify": runs.verify,
    "report": runs.report,
    "bench": runs.bench,
    "runs": table.runs,
    "data list": data.list_data,
    "data get": data.get,
    "data where": data.where,
}
app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)


def _with_json(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option ``--json``: of its own, or one that gives what it prints as an object."""
    signature = inspect.signature(command)
    if "json" in signature.parameters:
        return command

    @wraps(command)
    def answering(*arguments: Any, json: bool = False, **options: Any) -> None:
        if not json:
            command(*arguments, **options)
            return
        with json_answer():
            command(*arguments, **options)

    kind = Annotated[bool, typer.Option("--json", help="Print JSON.")]
    option = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
    hints = get_type_hints(command, include_extras=True)
    plain = [part.replace(annotation=hints[name]) for name, part in signature.parameters.items()]
    answering.__signature__ = signature.replace(parameters=[*plain, option])  # type: ignore[attr-defined]
    answering.__annotations__ = {**hints, "json": kind}
    return answering


def inputs_of(command: Callable[..., None]) -> list[str]:
    """Parameters that are paths and must be given: of what is read, since what is written has a default."""
    given, hints = inspect.signature(command).parameters.items(), get_type_hints(command)
    return [name for name, part in given if part.default is part.empty and hints[name] in (Path, list[Path])]


def _with_inputs(command: Callable[..., None]) -> Callable[..., None]:
    """The command, of which every path that must be given is of something that is there: told before anything else."""
    inputs = inputs_of(command)
    if not inputs:
        return command

    @wraps(command)
    def checking(*arguments: Any, **options: Any) -> None:
        for name in inputs:
            paths = options[name] if isinstance(options[name], list) else [options[name]]
            for i, path in enumerate(paths):
                if not path.exists():
                    meant = i > 0 and path is paths[-1] and "output" in options
                    hint = "; where the result goes is told by --output" if meant else ""
                    raise CosetError(f"{path}: no such file or folder{hint}")
        command(*arguments, **options)

    return checking


def _build() -> None:
    """All commands, those of groups (``lora inspect``) in applications of their own."""
    groups: dict[str, typer.Typer] = {}
    commands: list[tuple[str, Callable[..., None]]] = [*OWN.items(), *COMMANDS.items()]
    for name, command in commands:
        group, _, inner = name.rpartition(" ")
        if group and group not in groups:
            groups[group] = typer.Typer(no_args_is_help=True, help=sys.modules[command.__module__].__doc__)
            app.add_typer(groups[group], name=group)
        (groups[group] if group else app).command(inner)(_with_json(_with_inputs(command)))


_build()


def _version(wanted: bool) -> bool:
    if wanted:
        console.print(f"coset {__version__}", highlight=False)
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Deep learning on data and networks with symmetry."""


INTERRUPTED = 130
"""Exit code after SIGINT."""


def main() -> None:
    """Entry point: one line and exit code 1 for a mistake, 2 for a mistyped command, 143 or 130 after a signal; a
    traceback with ``--debug``."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    caught = Caught()
    try:
        with stop_on_signals() as caught:
            code = app(arguments, prog_name="coset", standalone_mode=False)
            if code == INTERRUPTED:  # what Typer makes of an interrupt, without a word
                raise KeyboardInterrupt
            sys.exit(code)
    except Stopped as stop:
        _stopped(stop)
    except (typer.Abort, KeyboardInterrupt):
        _fail("stopped", INTERRUPTED)
    except Exception as error:
        if caught.stop is not None:  # and a library made an error of it
            _stopped(caught.stop)
        if debug:
            raise
        if hasattr(error, "format_message"):  # Typer's own: a missing argument, an unknown option
            context = getattr(error, "ctx", None)
            _fail(f"{error.format_message()} ({context.command_path if context else 'coset'} --help)", 2)
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("coset"):
            error = not_installed(error.name)
        if isinstance(error, CosetError) and "COSET_MISTAKE" in os.environ:
            from coset.runs.launch.processes import note_mistake

            note_mistake(str(error))  # whoever launched this process tells it, once for all of them
            sys.exit(1)
        known = isinstance(error, CosetError | ValueError | OSError)
        _fail(str(error) if known else f"{type(error).__name__}: {error} (--debug shows where)", 1)


def _stopped(stop: Stopped) -> NoReturn:
    problems.print(str(stop), highlight=False, soft_wrap=True)
    sys.exit(stop.exit_code)


def _fail(text: str, code: int) -> NoReturn:
    problems.print(f"error: {' '.join(text.split())}", highlight=False, soft_wrap=True)
    sys.exit(code)
