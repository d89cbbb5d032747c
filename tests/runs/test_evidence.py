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
