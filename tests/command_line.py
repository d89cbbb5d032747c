"""Words of a command line, parsed and not run; the examples of every command's help."""

import re

import typer

from coset import cli
from coset.core.commands import COMMANDS

COMMAND = typer.main.get_command(cli.app)
FUNCTIONS = {**cli.OWN, **dict(COMMANDS.items())}
"""Every command by name."""
EXAMPLE = re.compile(r"Example: (.*(?:\n(?!\s*\n).*)*)")


def example_lines(function):
    """Lines that a command's help gives to a shell."""
    return [" ".join(text.split()) for text in EXAMPLE.findall(function.__doc__ or "")]


def parsed(words):
    """The command that some words (without ``coset``) call, and its context: a mistake in them raises."""
    context, command = COMMAND.make_context("coset", list(words)), COMMAND
    while hasattr(command, "resolve_command"):
        rest = [*getattr(context, "_protected_args", []), *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return command, context
