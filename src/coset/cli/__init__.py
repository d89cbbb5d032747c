"""The command line: parse, call one function, print. Nothing heavy is imported before a command needs it."""

import os
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from coset import CosetError, __version__
from coset.cli import recipes as runs
from coset.graphs import commands as graphs
from coset.motion import commands as motion
from coset.runs.terminal import console, problems
from coset.weights import commands as networks
from coset.weights.lora import commands as lora

# Before PyTorch is imported: its OpenMP threads sleep between operations instead of spinning, which leaves the cores to
# the fused kernels that run in between (a third of their time on two cores).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

COMMANDS: dict[str, Callable[..., None]] = {
    "list": runs.list_recipes,
    "show": runs.show,
    "run": runs.run,
    "sweep": runs.sweep,
    "preprocess": graphs.preprocess,
    "predict": runs.predict,
    "verify": runs.verify,
    "report": runs.report,
    "track": motion.track,
    "reconstruct": motion.reconstruct,
    "audit": networks.audit,
    "bench": graphs.bench,
    "connect": networks.connect,
    "wl": graphs.wl,
    "merge": networks.merge,
}
LORA_COMMANDS: dict[str, Callable[..., None]] = {
    "inspect": lora.inspect_adapter,
    "convert": lora.convert,
    "collect": lora.collect,
    "zoo": lora.make_zoo,
    "search": lora.search,
    "duplicates": lora.find_duplicates,
    "map": lora.draw_map,
}
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
adapters = typer.Typer(no_args_is_help=True, help=lora.__doc__)
for group, commands in ((app, COMMANDS), (adapters, LORA_COMMANDS)):
    for name, command in commands.items():
        group.command(name)(command)
app.add_typer(adapters, name="lora")


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"coset {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Deep learning on data and networks with symmetry."""


def main() -> None:
    """Entry point: one line and exit code 1 for a mistake, 2 for a mistyped command; a traceback with ``--debug``."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        sys.exit(app(arguments, prog_name="coset", standalone_mode=False))
    except (typer.Abort, KeyboardInterrupt):
        _fail("stopped", 130)
    except Exception as error:
        if debug:
            raise
        if hasattr(error, "format_message"):  # Typer's own: a missing argument, an unknown option
            context = getattr(error, "ctx", None)
            _fail(f"{error.format_message()} ({context.command_path if context else 'coset'} --help)", 2)
        if isinstance(error, CosetError) and "COSET_MISTAKE" in os.environ:
            from coset.runs.launch.processes import note_mistake

            note_mistake(str(error))  # whoever launched this process tells it, once for all of them
            sys.exit(1)
        known = isinstance(error, CosetError | ValueError | OSError)
        _fail(str(error) if known else f"{type(error).__name__}: {error} (--debug shows where)", 1)


def _fail(text: str, code: int) -> NoReturn:
    problems.print(f"error: {' '.join(text.split())}", highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)
