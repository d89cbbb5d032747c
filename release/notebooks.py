"""Notebooks of the scripts in examples/systems: ``python release/notebooks.py`` writes examples/notebooks again.

A cell begins at ``# %%``; ``# %% [markdown]`` is text. Notebooks hold no outputs: a test runs the scripts, and another
holds the notebooks to them.
"""

import json
import re
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def notebook_of(script: str) -> str:
    """The text of a notebook (nbformat 4.5) with the cells of a script."""
    _, *parts = CELL.split(script)
    cells = []
    for number, (kind, text) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        lines = text.strip("\n").split("\n")
        if kind:
            lines = [line.removeprefix("#").removeprefix(" ") for line in lines]
        source = [f"{line}\n" for line in lines[:-1]] + lines[-1:]
        cell = {"cell_type": "markdown" if kind else "code", "id": f"cell-{number}", "metadata": {}, "source": source}
        cells.append(cell if kind else {**cell, "execution_count": None, "outputs": []})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    folder = EXAMPLES / "notebooks"
    folder.mkdir(exist_ok=True)
    for script in sorted((EXAMPLES / "systems").glob("*.py")):
        (folder / f"{script.stem}.ipynb").write_text(notebook_of(script.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
