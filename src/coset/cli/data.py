"""Data sets by name: which there are, how they are had, where they lie."""

import json as json_module
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from coset.core.data_sets import DATA_SETS, DataSet
from coset.core.errors import CosetError
from coset.runs.terminal import Table, bars, console, print_notes

UNITS = ((1_000_000, "MB"), (1_000, "kB"))


def list_data(
    words: Annotated[
        list[str] | None, typer.Argument(help="Only data sets in whose name or description these are.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the data sets that recipes name: what each is, its licence, its size, and how it is had.

    Example: coset data list

    Example: coset data list molecules --json
    """
    found = [each for _, each in DATA_SETS.items() if _has(f"{each.name} {each.what} {each.licence}", words)]
    if not found:
        raise CosetError(f"no data set has {' '.join(words or ())} in its name or description (coset data list)")
    if json:
        typer.echo(json_module.dumps([_facts(each) for each in found], indent=2))
        return
    table = Table("data set", "what it is", box=None)
    table.add_column("state", min_width=5, no_wrap=True)
    for each in found:
        state = _facts(each)["state"]
        size = f"; {_size(each.size)} to download" if each.size else ""
        what = Text.assemble(each.what, "\n", (f"licence: {each.licence}{size}", "dim"))
        if state != "ready":
            what.append(f"\n{state}", "yellow")
        table.add_row(each.name, what, "ready" if state == "ready" else "")
    console.print(table)


def get(
    names: Annotated[list[str], typer.Argument(help="Data sets (coset data list), or recipes: all that they need.")],
    folder: Annotated[Path | None, typer.Option(help="Of data; by default where coset data where says.")] = None,
    mirror: Annotated[str | None, typer.Option(help="Folder or address that has the same files.")] = None,
    unverified: Annotated[bool, typer.Option("--unverified", help="Keep files of another checksum.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Download what is there too.")] = False,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Download data sets: checked against their checksums, converted, and written whole.

    Example: coset data get esol

    Example: coset data get mnist --mirror /media/stick/downloads
    """
    from coset.core.data_files import download_folder, need
    from coset.core.downloads import download

    wanted = [each for name in names for each in _named(name)]
    for each in wanted:
        missing = need(each)
        if missing.kind == "ready" and not again:
            console.print(f"{each.name} is there already", highlight=False)
            continue
        if not (each.downloads or each.fetch):
            raise CosetError(f"{each.name} is not downloaded: {each.how}")
        with bars(quiet) as bar:
            each_piece = partial(bar.advance, bar.add_task(each.name, total=each.size or None))
            written = download(each, folder or download_folder(), mirror, unverified, each_piece)
        print_notes([f"{each.name}: {each.note}"] if each.note else [])
        for path in written:
            console.print(f"{each.name}: {path}", highlight=False, soft_wrap=True)


def where(
    name: Annotated[str | None, typer.Argument(help="Of a data set: its files.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the folder that downloads go to; of a data set, where its files are.

    Example: coset data where

    Example: coset data where esol
    """
    from coset.core.data_files import data_file, data_folders, download_folder

    if name is None:
        downloads, looked = download_folder(), data_folders()
        found: Any = {"downloads": str(downloads), "looked_in": [str(folder) for folder in looked]}
        lines = [str(downloads)]
    else:
        known = DATA_SETS[name]
        lines = [str(data_file(file)) for file in known.files] or [known.folder or known.how]
        found = {"name": name, "places": lines}
    for line in [json_module.dumps(found, indent=2)] if json else lines:
        typer.echo(line)


def _named(name: str) -> list[DataSet]:
    """A data set; or those that a recipe still lacks."""
    from coset.core.data_files import need
    from coset.runs.data_needed import data_sets_of
    from coset.runs.listing import files

    if name not in DATA_SETS and name in files():
        found = [DATA_SETS[each] for each in data_sets_of(name)]
        return [each for each in found if need(each).kind == "get"]
    return [DATA_SETS[name]]


def _facts(each: DataSet) -> dict[str, Any]:
    from coset.core.data_files import need

    return {
        "name": each.name, "what": each.what, "licence": each.licence, "bytes": each.size or None, "how": each.how,
        "state": str(need(each)), "note": each.note or None,
        "files": [{"name": file} for file in each.files],
        "downloads": [{"url": d.url, "checksum": d.checksum or None, "bytes": d.size} for d in each.downloads],
    }  # fmt: skip


def _size(size: int) -> str:
    return next((f"{size / unit:.1f} {name}" for unit, name in UNITS if size >= unit), "")


def _has(text: str, words: list[str] | None) -> bool:
    return all(word.lower() in text.lower() for word in words or ())
