"""Find one's way: which recipes and systems there are. Answers at once: nothing heavy is imported."""

import json as json_module
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from coset.cli.runs import recipes_like
from coset.core.domains import System, domains
from coset.core.errors import CosetError
from coset.runs.terminal import console


def list_recipes(
    words: Annotated[
        list[str] | None, typer.Argument(help="Only recipes in whose name, system or description these are.")
    ] = None,
    ready: Annotated[bool, typer.Option("--ready", help="Only those that can run now.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the recipes by system, each with what it still needs on this machine.

    Example: coset list

    Example: coset list zinc --ready
    """
    from coset.runs.data_needed import READY, data_sets_of, in_words, needs_of
    from coset.runs.listing import names, system_of

    groups: dict[str, list[dict[str, Any]]] = {}
    for name, description in names().items():
        system = system_of(name)
        needs = needs_of(name) if _has(f"{name} {description} {system}", words) else []
        if needs and (not ready or needs == [READY]):
            facts = {"recipe": name, "what": description, "data": data_sets_of(name), "state": in_words(needs)}
            groups.setdefault(system, []).append(facts)
    groups = dict(sorted(groups.items(), key=lambda group: ": " in group[0]))  # what no system claims comes last
    if not groups:
        raise CosetError(f"no recipe has {' '.join(words or ())} in its name or description (coset list)")
    if json:
        rows = [{"system": system, **row} for system, found in groups.items() for row in found]
        typer.echo(json_module.dumps(rows, indent=2))
        return
    _print_recipes(groups)


def systems(
    words: Annotated[list[str] | None, typer.Argument(help="Only systems that these describe.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the published systems: their papers, and where their equations, recipes and pages are.

    Example: coset systems spectral
    """
    found = [system for domain in domains() for system in domain.systems if _has(_text(system), words)]
    if not found:
        raise CosetError(f"no system is described by {' '.join(words or ())} (coset systems)")
    if json:
        typer.echo(json_module.dumps([asdict(system) for system in found], indent=2, ensure_ascii=False))
        return
    for system in found:
        console.print(system.name, style="bold", highlight=False)
        place = f"{system.module.replace('.', '/')}.py"
        for label, value in (
            ("paper", system.paper), ("equations", place), ("recipes", f"coset list {system.recipes}"),
            ("page", f"docs/{system.page}.md"),
        ):  # fmt: skip
            console.print(f"  {label:9} {value}", highlight=False, soft_wrap=True)


def show(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe.", autocompletion=recipes_like)],
) -> None:
    """Print a recipe, ready to be copied and changed.

    Example: coset show subgraphormer/freesolv > mine.yaml; coset run mine.yaml
    """
    from coset.runs import listing

    typer.echo(listing.show(recipe))


def schema(kind: Annotated[str, typer.Argument(help="Kind of run, as `kind:` says in its recipes.")]) -> None:
    """Print the keys of a kind's recipes as JSON Schema: with it editors complete and check them.

    Example: coset schema graphs > graphs.schema.json

    A recipe that begins with `# yaml-language-server: $schema=graphs.schema.json` is then checked as one types.
    """
    import json

    from coset.runs.recipes import json_schema

    typer.echo(json.dumps(json_schema(kind), indent=1, ensure_ascii=False))


def _print_recipes(groups: dict[str, list[dict[str, Any]]]) -> None:
    width = max(len(row["recipe"]) for found in groups.values() for row in found)
    for number, (system, found) in enumerate(groups.items()):
        console.print(("\n" if number else "") + system, style="bold", highlight=False)
        table = Table(box=None, expand=True, show_header=False)
        table.add_column(min_width=width, no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(width=5)
        for row in found:
            is_ready = row["state"] == "ready"
            what = Text(row["what"]) if is_ready else Text.assemble(row["what"], "\n", (row["state"], "yellow"))
            table.add_row(row["recipe"], what, "ready" if is_ready else "")
        console.print(table)


def _text(system: System) -> str:
    return f"{system.name} {system.paper} {system.words} {system.recipes} {system.module}"


def _has(text: str, words: list[str] | None) -> bool:
    return all(word.lower() in text.lower() for word in words or ())
