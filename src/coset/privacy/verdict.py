"""The first line of an audit, in plain words: what can be recovered, what cannot, and whether the audit can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

LEAK: Final = "leak"
PROTECTED: Final = "information gone"
NOT_FOUND: Final = "not found"
CANNOT_TELL: Final = "cannot tell"
Kind = Literal["leak", "information gone", "not found", "cannot tell"]
POWER = 0.5
"""Share of the canaries that an attack must recover before finding nothing means something."""
SIGNIFICANT = 0.1


@dataclass(frozen=True)
class Verdict:
    """Attributes:
    kind: ``leak``, ``information gone``, ``not found`` or ``cannot tell``.
    text: A sentence or two for the owner of the model.
    """

    kind: Kind
    text: str


def judge(
    *,
    members: int,
    recovered: int,
    p_value: float,
    recoverable: int | None,
    canaries: tuple[int, int] | None,
    premise: str | None,
) -> Verdict:
    """The verdict.

    Args:
        members: Training inputs.
        recovered: Of them, with a candidate of correlation 0.9 or more.
        p_value: How often held-out inputs are matched as well.
        recoverable: Members whose ceiling without a prior is 0.9 or more; None if it was not computed.
        canaries: Recovered ones, and all.
        premise: Why the equations do not hold for this model; None if they do.
    """
    control = "" if canaries is None else (
        f" Of {canaries[1]} canaries, trained on beside to see what the attack can find, it recovers "
        f"{canaries[0] or 'none'}."
    )  # fmt: skip
    if recovered and p_value <= SIGNIFICANT:
        return Verdict(
            LEAK, f"{recovered} of {members} training records can be recovered from this model's weights.{control}"
        )
    if premise is not None:
        return Verdict(CANNOT_TELL, f"This audit cannot tell what the model gives away: {premise}.{control}")
    if recoverable == 0:
        return Verdict(
            PROTECTED,
            "No training record was recovered, and none can be from the weights alone: the information is gone for all "
            f"{members} (no record's ceiling without a prior reaches 0.9). What an attacker knows beforehand may add "
            f"to it.{control}",
        )
    if canaries is None or canaries[0] < POWER * canaries[1]:
        return Verdict(
            CANNOT_TELL,
            "This audit cannot tell what the model gives away: its attack recovers too few canaries in a network "
            f"of this form for a failure to mean anything.{control}",
        )
    left = "" if recoverable is None else f" The weights determine {recoverable} of them."
    return Verdict(
        NOT_FOUND,
        f"No training record was recovered ({members} looked for).{left}{control} A stronger attack may find more.",
    )
