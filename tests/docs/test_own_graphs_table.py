"""The table of models and tasks in ``docs/own-graphs.md`` is what the registry says, and ``coset models`` prints it."""

import json
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "own-graphs.md"


def test_the_table_of_models_is_the_registrys(coset):
    code, out, _ = coset("models", "--json")
    assert code == 0
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    start = next(at for at, line in enumerate(lines) if line.startswith("| model | graphs"))
    table = [lines[start], *lines[start + 2 : start + 5]]
    (_, *columns), *rows = [[part.strip() for part in line.split("|")[1:-1]] for line in table]
    said = {name: dict(zip(columns, (cell == "yes" for cell in cells), strict=True))
            for names, *cells in rows for name in names.split(", ")}  # fmt: skip
    assert said == json.loads(out)
    code, out, _ = coset("models")
    assert code == 0
    assert "by neighbourhoods" in " ".join(out.split())
