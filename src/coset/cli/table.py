"""A table of all runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from coset.core.errors import CosetError
from coset.runs.terminal import Table, console


def runs(
    folder: Annotated[Path, typer.Argument(help="That holds runs, at any depth.")] = Path("runs"),
    where: Annotated[
        list[str] | None, typer.Argument(help="Words, or key=value, key<number: only runs that meet all.")
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Which, e.g. recipe,model.width,test.rmse")] = None,
    sort: Annotated[str | None, typer.Option(help="By which column; -test.auroc: the largest first.")] = None,
    page: Annotated[Path | None, typer.Option(help="HTML page to write: a table to sort and search.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: all columns.")] = False,
) -> None:
    """List runs with their states, settings and results.

    Example: coset runs

    Example: coset runs runs state=done "test.rmse<1.2" --columns recipe,model.width,test.rmse --sort test.rmse

    Example: coset runs runs gin --page runs.html
    """
    from coset.core.files import claimed_output, json_text
    from coset.runs.table import chosen, columns_of, runs_below

    rows = runs_below(folder)
    found = chosen(rows, where or (), sort)
    if not found:
        raise CosetError(f"no run below {folder}" + (f" meets {' '.join(where)}" if where else ""))
    shown = columns_of(rows if columns else found, [name.strip() for name in (columns or "").split(",") if name])
    if page is not None:
        with claimed_output(page):
            _write_page(page, folder, shown, found)
    if json:
        typer.echo(json_text(found, indent=2))
        return
    table = Table(*shown, box=None)
    for row in found:
        table.add_row(*(_text(row.get(name)) for name in shown))
    console.print(table)
    if page is not None:
        console.print(f"{page}", highlight=False)


def _write_page(path: Path, folder: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    from coset.reports import Section, write_sections
    from coset.reports import Table as TableOfPage

    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    done = sum(row["state"] == "done" for row in rows)
    section = Section("Runs", "Click a heading to sort.", [TableOfPage(columns, cells, searchable=True)])
    verdict = f"{len(rows)} runs, {done} of them done."
    write_sections(path, f"Runs of {folder.resolve().name}", [section], kind="table of runs", verdict=verdict)


def _cell(value: Any) -> str | float | int | None:
    return str(value) if isinstance(value, bool) or not isinstance(value, str | int | float | None) else value


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
