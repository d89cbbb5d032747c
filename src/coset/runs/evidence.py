"""``coset bench evidence``: what the papers claim, and what came of it here; docs/evidence.md is made of it, too."""

import json as json_module
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from coset.core.errors import CosetError
from coset.core.options import Options
from coset.core.outside import read_tree
from coset.core.registry import nearest
from coset.runs.terminal import console

FILE = Path(__file__).parent / "static" / "evidence.yaml"
Verdict = Literal["reproduced", "partly", "refuted here", "not tested"]
HEAD = """# What the papers claim, and what came of it here

A row a claim of the ten abstracts. Every figure is from the page of its system, which has the protocol in full; where
ours is smaller than the published one (fewer molecules, epochs, seeds), the row says so, and a verdict is about that
protocol alone. *Reproduced*: the statement holds, figures within the spread or of the same order. *Partly*: some of it,
or a tie. *Refuted here*: a fair comparison of ours speaks against it. u: a published figure as we remember it, not
checked. *Difference*: what the claim is about minus its rival, seed by seed, with Student's 95 % interval; with three
seeds only large ones are beyond it. *Hours*: of one core, for all that the command trains. Both are there where the
rows that the command left are in `benchmarks/results`. `coset bench evidence` prints these rows.

"""
COLUMNS = (
    "system", "claim", "data and protocol of ours", "published", "ours", "difference", "verdict", "measured by",
    "hours",
)  # fmt: skip


class Pairs(Options):
    """The rows of a study in ``benchmarks/results`` that a difference is of.

    Attributes:
        study: Name of the file in ``graph_tables``.
        subject: The setting that the claim is about.
        rival: The setting that it is compared with.
    """

    study: str
    subject: str
    rival: str


class Row(Options):
    """A claim.

    Attributes:
        system: Whose claim it is.
        page: Of the documentation.
        claim: In our words.
        data: And protocol of ours, beside the published one where they differ.
        published: Figures of the paper.
        ours: Figures of ours.
        verdict: Of the two.
        why: The verdict.
        command: That measures it again.
        difference: Of ours and its rival in the first metric of ``ours``, paired by seeds, with its 95 % interval.
        hours: Of one core.
        pairs: The rows that both were made from; a test makes them again.
    """

    system: str
    page: str
    claim: str
    data: str
    published: str
    ours: str
    verdict: Verdict
    why: str
    command: str
    difference: str = "–"
    hours: float | None = None
    pairs: Pairs | None = None


def difference_of(subject: Sequence[float], rival: Sequence[float]) -> str:
    """Subject minus rival in pairs of runs: the mean, and Student's 95 % interval of it."""
    import numpy as np

    from coset.runs.comparison import half_of_interval

    differences = np.subtract(subject, rival)
    mean, half = float(differences.mean()), half_of_interval(differences)
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def rows() -> list[Row]:
    """All claims, by system."""
    return TypeAdapter(list[Row]).validate_python(read_tree(FILE))


def markdown(of: list[Row]) -> str:
    """The page of the documentation."""
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "| --- " * len(COLUMNS) + "|",
    ]
    before = ""
    for row in of:
        name = "" if row.system == before else f"[{row.system}]({row.page}.md)"
        verdict = f"**{row.verdict}**: {row.why}"
        hours = "–" if row.hours is None else f"{row.hours:g}"
        cells = [name, row.claim, row.data, row.published, row.ours, row.difference, verdict, f"`{row.command}`", hours]
        lines.append(f"| {' | '.join(cells)} |")
        before = row.system
    counts = Counter(row.verdict for row in of)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    total = sum(row.hours or 0 for row in of)
    told += f". Those with hours took {total:.1f} of one core" if total else ""
    return f"{HEAD}Of {len(of)} claims: {told}.\n\n" + "\n".join(lines) + "\n"


def main(json: bool = False, system: str = "all", form: str = "table") -> None:
    """Print the claims.

    Args:
        json: Print JSON instead.
        system: Of this system alone.
        form: ``table``, or ``markdown`` as the page of the documentation is.

    Raises:
        CosetError: There is no such system or form.
    """
    found = [row for row in rows() if system == "all" or row.system.lower() == system.lower()]
    if not found:
        names = sorted({row.system for row in rows()})
        near = nearest(system, names)
        raise CosetError(
            f"no claims of {system!r}" + (f"; did you mean {near!r}?" if near else f": {', '.join(names)}")
        )
    if form not in ("table", "markdown"):
        raise CosetError(f"form={form}: table or markdown")
    if json:
        console.print_json(json_module.dumps([row.model_dump() for row in found]))
    elif form == "markdown":
        print(markdown(found), end="")
    else:
        for row in found:
            console.print(f"{row.system}: {row.claim}", style="bold", highlight=False)
            told = {"published": row.published, "ours": row.ours}
            told |= {} if row.pairs is None else {"difference": row.difference}
            told["verdict"] = f"{row.verdict}: {row.why}"
            for label, value in {**told, "data": row.data, "command": row.command}.items():
                console.print(f"  {label:10} {value}", highlight=False, soft_wrap=True)
