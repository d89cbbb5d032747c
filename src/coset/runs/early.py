"""What is wrong with a recipe, told before PyTorch is imported: unknown and missing keys, names, paths and columns.

``schemas/`` holds the schema of each kind of run as JSON Schema (``coset schema KIND``), made from the classes; a test
holds them to each other. What is refused here the classes refuse too, in the same words, seconds later; what passes
here they check in full.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from coset.core.errors import CosetError
from coset.core.outside import read_tree
from coset.runs.keys import Schema, Values, put_over

FOLDER = Path(__file__).with_name("schemas")
NO_TABLES = (".sdf", ".SDF")
"""Files without a header, which is not known before their records are read."""


def refuse_early(read: Values, given: Values, name: str) -> None:
    """Refuse what is wrong with a recipe and with what is put over it.

    Args:
        read: The recipe as it is in its file.
        given: What is put over it.
        name: Of the recipe, for messages.

    Raises:
        CosetError: A key or a name is unknown or missing; a file or folder is not there; a table lacks a column that is
            named.
    """
    file = FOLDER / f"{given.get('kind', read.get('kind'))}.json"
    if not file.is_file():
        return
    schema = Schema(_shipped(file))
    values = put_over(schema.kept(read, given), given)
    problems = list(dict.fromkeys(schema.problems(values)))
    if problems:
        raise CosetError(f"recipe {name}: {'; '.join(problems)}")
    for properties, inside in schema.objects(schema.root, values):
        _check_paths(properties, inside)
        _check_tables(properties, inside)


@cache
def _shipped(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_tree(file, dict[str, Any])
    return found


def _check_paths(properties: Values, values: Values) -> None:
    """Files and folders that must be there."""
    for key, node in properties.items():
        if "there" in node and isinstance(named := values.get(key), str):
            path = Path(named).expanduser().absolute()
            if not path.exists():
                raise CosetError(f"{path}: no such {node['there']}")


def _check_tables(properties: Values, values: Values) -> None:
    """Columns that are named, in tables whose header tells what they have."""
    from coset.core.outside import check_column, read_header, spelled  # tables take pandas

    columns: dict[str, list[str]] = {}
    for key, node in properties.items():
        named = values.get(key, node.get("default"))
        path = values.get(node.get("column_of", ""))
        if isinstance(path, str) and named and not isinstance(named, Mapping):
            file = Path(path).expanduser().absolute()
            if file.suffix in NO_TABLES or (file.suffix == ".gz" and Path(file.stem).suffix in NO_TABLES):
                continue
            if path not in columns:
                columns[path] = read_header(file)
            names = named if isinstance(named, list) else str(named).split(",")
            for name in names:
                check_column(columns[path], spelled(str(name).strip(), columns[path]), file)
