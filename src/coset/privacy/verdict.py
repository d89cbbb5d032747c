"""The first line of an audit, in plain words: what can be recovered, what cannot, and whether the audit can tell."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Final, Literal

from coset.privacy.scores import by_chance

LEAK: Final = "leak"
PROTECTED: Final = "information gone"
NOT_FOUND: Final = "not found"
CANNOT_TELL: Final = "cannot tell"
Kind = Literal["leak", "information gone", "not found", "cannot tell"]
POWER = 0.5
"""Share of the canaries that an attack must recover before finding nothing means something."""
SIGNIFICANT = 0.1
"""The largest p-value of a leak, and so the share of models that hold nothing of their data in which one is told."""
UNEXPECTED = 0.05
"""In place of it where the equations do not hold: an attack on them has then no reason to find anything."""


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
    held_out: tuple[int, int] = (0, 0),
) -> Verdict:
    """The verdict.

    Args:
        members: Training inputs.
        recovered: Of them, with a candidate of correlation 0.9 or more.
        p_value: How often chance recovers as many of them, by :func:`coset.privacy.scores.by_chance`.
        recoverable: Members whose ceiling without a prior is 0.9 or more; None if it was not computed.
        canaries: Recovered ones, and all.
        premise: Why the equations do not hold for this model; None if they do.
        held_out: Held-out inputs with such a candidate, and all.
    """
    control = "" if canaries is None else (
        f" Of {canaries[1]} canaries, trained on beside to see what the attack can find, it recovers "
        f"{canaries[0] or 'none'}."
    )  # fmt: skip
    level = SIGNIFICANT if premise is None else UNEXPECTED
    if recovered and p_value <= level:
        despite = "" if premise is None else (
            f" This was found although {premise}; of models that hold nothing of their data, up to 1 in "
            f"{1 / level:.0f} is told so."
        )  # fmt: skip
        return Verdict(
            LEAK,
            f"{recovered} of {members} training records can be recovered from this model's weights (chance alone "
            f"matches as many with probability {p_value:.2g}).{despite}{control}",
        )
    if recovered:
        besides = "" if premise is None else f" Besides, {premise}."
        return Verdict(
            CANNOT_TELL,
            f"For {recovered} of {members} training records the attack found a match (correlation 0.9 or more), but "
            f"this audit cannot tell that from chance: {_why_chance(members, recovered, held_out, level)}.{besides}"
            f"{control}",
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


def enough_held_out(members: int, recovered: int = 1, level: float = SIGNIFICANT) -> int:
    """The fewest held-out inputs, none of them matched, beside which so many recovered members are not chance.

    >>> enough_held_out(10), enough_held_out(10, 5)
    (90, 5)
    """
    return next(k for k in count() if by_chance(members, recovered, 0, k) <= level)


def _why_chance(members: int, recovered: int, held_out: tuple[int, int], level: float) -> str:
    matched, others = held_out
    if matched:
        return f"{matched} of {others} held-out records match as well"
    return f"{others} held-out records are too few, at least {enough_held_out(members, recovered, level)} are needed"
