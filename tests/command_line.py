"""Words of a command line, parsed and not run."""

import typer

from coset import cli

COMMAND = typer.main.get_command(cli.app)


def parsed(words):
    """The command that some words (without ``coset``) call, and its context: a mistake in them raises."""
    context, command = COMMAND.make_context("coset", list(words)), COMMAND
    while hasattr(command, "resolve_command"):
        rest = [*getattr(context, "_protected_args", []), *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return command, context
