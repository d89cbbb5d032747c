"""What varies in a sweep: lists of values, ranges to draw from, and seeds, as the command line writes them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from coset.core.errors import CosetError

if TYPE_CHECKING:  # an extra
    from optuna.trial import Trial as Asked

Settings = tuple[tuple[str, str], ...]
"""What is varied, and its value in one trial."""


class Range(NamedTuple):
    """Numbers to draw from: ``uniform(a,b)``, ``loguniform(a,b)``, or ``randint(a,b)`` without b, as in Ray Tune."""

    kind: str
    low: float
    high: float

    @classmethod
    def read(cls, text: str) -> Range | None:
        """A range, or ``None`` if the text is something else.

        Raises:
            ValueError: Its bounds are no numbers, or in the wrong order.
        """
        found = re.fullmatch(r"(uniform|loguniform|randint)\(([^,()]+),([^,()]+)\)", text.replace(" ", ""))
        if found is None:
            return None
        try:
            low, high = float(found[2]), float(found[3])
        except ValueError:
            raise ValueError(f"{text}: the bounds of a range are two numbers") from None
        if not low < high or (found[1] == "loguniform" and low <= 0) or (found[1] == "randint" and low % 1 + high % 1):
            raise ValueError(f"{text}: give the lower bound first, above 0 for loguniform, whole for randint")
        return cls(found[1], low, high)

    def draw(self, generator: np.random.Generator) -> str:
        """One number, to four significant digits."""
        if self.kind == "randint":
            return str(generator.integers(int(self.low), int(self.high)))
        if self.kind == "loguniform":
            return f"{math.exp(generator.uniform(math.log(self.low), math.log(self.high))):.4g}"
        return f"{generator.uniform(self.low, self.high):.4g}"

    def ask(self, trial: Asked, name: str) -> str:
        """A number that Optuna suggests, to four significant digits."""
        if self.kind == "randint":
            return str(trial.suggest_int(name, int(self.low), int(self.high) - 1))
        return f"{trial.suggest_float(name, self.low, self.high, log=self.kind == 'loguniform'):.4g}"

    def ends(self) -> list[str]:
        """The least number, to four significant digits."""
        return [f"{self.low:.4g}"]

    def __str__(self) -> str:
        return f"{self.kind}({self.low:g},{self.high:g})"


class Values(tuple[str, ...]):
    """A list to choose from."""

    def draw(self, generator: np.random.Generator) -> str:
        """One of them, all equally likely."""
        return str(generator.choice(self))

    def ask(self, trial: Asked, name: str) -> str:
        """One that Optuna suggests."""
        return str(trial.suggest_categorical(name, list(self)))

    def ends(self) -> list[str]:
        """All of them."""
        return list(self)


@dataclass(frozen=True)
class Space:
    """Changes to a recipe, some of them varied.

    Attributes:
        fixed: ``key=value`` of every trial.
        varied: Of each key what it can be.
    """

    fixed: tuple[str, ...]
    varied: dict[str, Range | Values]

    @classmethod
    def read(cls, changes: Sequence[str]) -> Space:
        """From ``key=value`` (fixed), ``key=a,b,c`` or ``key=loguniform(a,b)`` (varied).

        Raises:
            ValueError: One of them reads otherwise.
        """
        fixed: list[str] = []
        varied: dict[str, Range | Values] = {}
        for change in changes:
            key, mark, text = change.partition("=")
            if not mark or not key:
                raise ValueError(f"{change!r} must read key=value, or key=a,b,c to vary it")
            values = Range.read(text) or Values(split_values(text))
            if isinstance(values, Values) and len(values) == 1:
                fixed.append(change)
            else:
                varied[key] = values
        return cls(tuple(fixed), varied)

    def example(self) -> list[str]:
        """The changes of one trial."""
        return [*self.fixed, *(f"{key}={values.ends()[0]}" for key, values in self.varied.items())]

    def grid(self) -> list[Settings]:
        """All combinations.

        Raises:
            ValueError: There is a range, which has no end.
        """
        for key, values in self.varied.items():
            if isinstance(values, Range):
                raise ValueError(f"{key}={values} is a range: say with --samples how many settings to draw")
        return list(itertools.product(*([(key, v) for v in values.ends()] for key, values in self.varied.items())))

    def drawn(self, samples: int) -> list[Settings]:
        """Different settings at random, always the same for the same space; a larger draw begins with a smaller one.

        Raises:
            ValueError: There are not so many.
        """
        generator = np.random.default_rng(0)
        found: dict[Settings, None] = {}
        for _ in range(100 * samples):
            found.setdefault(tuple((key, values.draw(generator)) for key, values in self.varied.items()))
            if len(found) == samples:
                return list(found)
        raise ValueError(f"--samples {samples}: there are only {len(found)} different settings")

    def asked(self, trial: Asked) -> Settings:
        """What Optuna suggests for one of its trials."""
        return tuple((key, values.ask(trial, key)) for key, values in self.varied.items())

    def examples(self) -> Iterator[Settings]:
        """Settings in which every value, and the lower end of every range, comes once: those to check beforehand."""
        ends = {key: values.ends() for key, values in self.varied.items()}
        for number in range(max(map(len, ends.values()), default=1)):
            yield tuple((key, values[min(number, len(values) - 1)]) for key, values in ends.items())


def split_values(text: str) -> list[str]:
    """``a,b,c`` as three; commas within brackets or quotes do not part: ``[1,2],[3]`` are two.

    >>> split_values("32,64")
    ['32', '64']
    >>> split_values("[uL,vv],[uL]")
    ['[uL,vv]', '[uL]']
    """
    parts = re.findall(r"(?:\([^)]*\)|\[[^\]]*\]|\{[^}]*\}|\"[^\"]*\"|'[^']*'|[^,])+", text)
    return [part.strip() for part in parts] or [""]


def seeds_of(text: str) -> list[int]:
    """``5`` as the seeds 0 to 4, ``3,7`` as those two.

    >>> seeds_of("3"), seeds_of("3,7")
    ([0, 1, 2], [3, 7])

    Raises:
        CosetError: It says neither.
    """
    try:
        given = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise CosetError(f"--seeds {text}: give a number of seeds, or seeds as 0,1,2") from error
    if min(given) < (1 if len(given) == 1 else 0):
        raise CosetError(f"--seeds {text}: give a number of seeds, or seeds as 0,1,2")
    return list(range(given[0])) if len(given) == 1 else given
