"""Find one's way: which recipes and systems there are. Answers at once: nothing heavy is imported."""

from typing import Annotated

import typer
from rich.table import Table

from coset.core.domains import System, domains
from coset.core.errors import CosetError
from coset.runs.terminal import console


def list_recipes(
    words: Annotated[
        list[str] | None, typer.Argument(help="Only recipes in whose name or description these are.")
    ] = None,
) -> None:
    """List the recipes.

    Example: coset list

    Example: coset list zinc
    """
    from coset.runs.listing import names

    table = Table("recipe", "what it runs", box=None)
    for name, description in names().items():
        if _has(f"{name} {description}", words):
            table.add_row(name, description)
    if not table.row_count:
        raise CosetError(f"no recipe has {' '.join(words or ())} in its name or description (coset list)")
    console.print(table)


def systems(
    words: Annotated[list[str] | None, typer.Argument(help="Only systems that these describe.")] = None,
) -> None:
    """List the published systems: their papers, and where their equations, recipes and pages are.

    Example: coset systems spectral
    """
    found = [system for domain in domains() for system in domain.systems if _has(_text(system), words)]
    if not found:
        raise CosetError(f"no system is described by {' '.join(words or ())} (coset systems)")
    for system in found:
        console.print(system.name, style="bold", highlight=False)
        place = f"{system.module.replace('.', '/')}.py"
        for label, value in (
            ("paper", system.paper), ("equations", place), ("recipes", f"coset list {system.recipes}"),
            ("page", f"docs/{system.page}.md"),
        ):  # fmt: skip
            console.print(f"  {label:9} {value}", highlight=False, markup=False, soft_wrap=True)


def show(recipe: str) -> None:
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


def _text(system: System) -> str:
    return f"{system.name} {system.paper} {system.words} {system.recipes} {system.module}"


def _has(text: str, words: list[str] | None) -> bool:
    return all(word.lower() in text.lower() for word in words or ())
