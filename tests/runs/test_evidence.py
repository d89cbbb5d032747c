"""The claims of the papers: the page is made of the rows, and what they name is there."""

import json
from collections import Counter
from pathlib import Path

import pytest

from coset.core.domains import domains
from coset.runs import evidence
from coset.runs.listing import names

ROOT = Path(__file__).parents[2]
ROWS = evidence.rows()


def test_the_page_is_made_of_the_rows():
    """After a change: ``coset bench evidence form=markdown > docs/evidence.md``."""
    assert (ROOT / "docs" / "evidence.md").read_text() == evidence.markdown(ROWS)


def test_every_system_has_its_claims():
    systems = {system.page for domain in domains() for system in domain.systems}
    assert systems <= {row.page for row in ROWS}
    assert min(Counter(row.page for row in ROWS).values()) >= 2


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.claim)
def test_commands_and_pages_are_there(row):
    assert (ROOT / "docs" / f"{row.page}.md").is_file()
    words = row.command.split()
    if words[0] == "python":
        assert (ROOT / words[1]).is_file()
    elif words[1] == "bench":
        assert words[2] in {bench for domain in domains() for bench in domain.benches}
    else:
        named = [word for word in words[2:] if "/" in word]
        assert named
        assert set(named) <= set(names())


@pytest.mark.parametrize("row", [row for row in ROWS if row.pairs], ids=lambda row: row.claim)
def test_differences_and_hours_are_those_of_the_rows_that_runs_left(row):
    file = ROOT / "benchmarks" / "results" / "graph_tables" / f"{row.pairs.study}.jsonl"
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    settings = {cell["setting"] for cell in kept}
    assert {row.pairs.subject, row.pairs.rival} <= settings
    by_seed = {(cell["setting"], cell["seed"]): cell.get("test", cell["val"]) for cell in kept}
    seeds = sorted({seed for setting, seed in by_seed if setting == row.pairs.subject})
    values = [[by_seed[setting, seed] for seed in seeds] for setting in (row.pairs.subject, row.pairs.rival)]
    assert row.difference == evidence.difference_of(*values)
    hours = sum(cell["cpu_s"] * len(cell["curve"]) for cell in kept) / 3600
    assert row.hours == pytest.approx(hours, abs=0.051)
    assert row.pairs.study in row.command


def test_a_difference_is_that_of_hand():
    """Of 1, 2, 3: mean 2, deviation 1, and Student's 4.3027 of two degrees of freedom over the root of 3."""
    assert evidence.difference_of([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == "+2.000 (-0.484 to +4.484)"


def test_it_is_printed(coset):
    code, out, _ = coset("bench", "evidence", "system=epnn")
    assert code == 0
    assert "Subgraphormer" not in out
    assert "message passing" in out
    code, out, _ = coset("bench", "evidence", "--json")
    assert len(json.loads(out)) == len(ROWS)
    code, _, told = coset("bench", "evidence", "system=EPN")
    assert code == 1
    assert "did you mean 'EPNN'?" in told
