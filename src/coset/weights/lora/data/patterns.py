"""Patterns of layers in adapters' configurations, matched in time that grows with pattern times name.

PEFT takes them for regular expressions and hands them to Python, where ``(a|a)*b`` doubles its time with each letter:
a stranger's file could hang a reader. Here a pattern becomes a set of states that are all followed at once (Thompson,
"Regular Expression Search Algorithm", CACM 1968). Known are letters, ``.``, ``[...]``, ``\\d \\w \\s`` and other
escapes, groups, ``|``, ``* + ? {m,n}``, ``^`` and ``$``; back references and looking around are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from coset.core.errors import CosetError

LONGEST, MOST_STATES, DEEPEST = 2000, 4000, 50
"""Letters of a pattern, states that it becomes, groups in one another."""
Test = Callable[[str], bool]
_CLASSES: dict[str, Test] = {
    "d": str.isdigit,
    "w": lambda c: c.isalnum() or c == "_",
    "s": str.isspace,
    "D": lambda c: not c.isdigit(),
    "W": lambda c: not (c.isalnum() or c == "_"),
    "S": lambda c: not c.isspace(),
}
_COUNTED = re.compile(r"\{(\d{1,4})(,(\d{0,4}))?\}")


def matches(pattern: str, layer: str) -> bool:
    """Whether PEFT's pattern names a layer: it matches the whole name, or all of it after a dot.

    Raises:
        CosetError: The pattern is not understood, or too large.
    """
    if len(pattern) > LONGEST:
        raise CosetError(f"a pattern of layers has {len(pattern):,} letters; at most {LONGEST:,} are read")
    if not set(pattern) & set("\\[](){}*+?|^$"):  # a plain name, in which a dot stands for any letter
        start = len(layer) - len(pattern)
        fits = start == 0 or (start > 0 and layer[start - 1] == ".")
        return fits and all(p in (".", c) for p, c in zip(pattern, layer[start:]))
    return _accepts(_compiled(pattern), layer)


@dataclass
class _Program:
    """Steps: a test of a letter, a choice between two places, ``start``, ``end``, or ``None`` where it has matched."""

    steps: list[Any] = field(default_factory=list)

    def add(self, step: Any) -> int:
        if len(self.steps) >= MOST_STATES:
            raise CosetError(f"a pattern of layers becomes more than {MOST_STATES:,} states")
        self.steps.append(step)
        return len(self.steps) - 1


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> _Program:
    reader = _Reader(pattern)
    tree = reader.choice(0)
    if reader.at < len(pattern):
        reader.fail("a bracket too many")
    anything = ("test", lambda c: c != "\n")
    before = ("maybe", ("all", [("any", anything), ("test", lambda c: c == ".")]))
    program = _Program()
    _emit(program, ("all", [before, tree, ("end",)]))
    program.add(None)
    return program


class _Reader:
    """A pattern as a tree."""

    def __init__(self, text: str):
        self.text, self.at = text, 0

    def fail(self, why: str) -> Any:
        raise CosetError(
            f"the pattern of layers {self.text[:60]!r} is not read: {why}; letters, . [] () | * + ? are understood"
        )

    def next(self) -> str:
        if self.at >= len(self.text):
            self.fail("it ends too early")
        self.at += 1
        return self.text[self.at - 1]

    def sees(self, letters: str) -> bool:
        return self.at < len(self.text) and self.text[self.at] in letters

    def choice(self, depth: int) -> Any:
        if depth > DEEPEST:
            self.fail("it is nested too deep")
        parts = [self.sequence(depth)]
        while self.sees("|"):
            self.at += 1
            parts.append(self.sequence(depth))
        return parts[0] if len(parts) == 1 else ("one", parts)

    def sequence(self, depth: int) -> Any:
        parts = []
        while self.at < len(self.text) and not self.sees("|)"):
            parts.append(self.repeated(self.atom(depth)))
        return ("all", parts)

    def repeated(self, atom: Any) -> Any:
        if self.sees("*"):
            atom = ("any", atom)
        elif self.sees("+"):
            atom = ("all", [atom, ("any", atom)])
        elif self.sees("?"):
            atom = ("maybe", atom)
        elif counted := _COUNTED.match(self.text, self.at):
            self.at += len(counted[0])
            least, most = int(counted[1]), int(counted[3]) if counted[3] else None
            most = most if counted[2] else least
            rest = [("any", atom)] if most is None else [("maybe", atom)] * (most - least)
            return ("all", [atom] * least + rest)
        else:
            return atom
        self.at += 1
        if self.sees("?+"):  # lazy or possessive: the same names match, but for possessive ones
            self.at += 1
        return atom

    def atom(self, depth: int) -> Any:
        letter = self.next()
        if letter == "(":
            if self.text.startswith("?:", self.at):
                self.at += 2
            elif self.sees("?"):
                self.fail("it looks around, or names a group")
            inner = self.choice(depth + 1)
            if not self.sees(")"):
                self.fail("a bracket is open")
            self.at += 1
            return inner
        if letter == "[":
            return ("test", self.letters())
        if letter in "*+?":
            self.fail(f"nothing stands before {letter}")
        if letter in "^$":
            return ("start",) if letter == "^" else ("end",)
        return ("test", self.escaped() if letter == "\\" else _dot if letter == "." else _is(letter))

    def escaped(self) -> Test:
        letter = self.next()
        if letter in _CLASSES:
            return _CLASSES[letter]
        if letter.isalnum():
            self.fail(f"\\{letter} is not known")
        return _is(letter)

    def letters(self) -> Test:
        """Between square brackets."""
        negated = self.sees("^")
        self.at += negated
        tests: list[Test] = []
        while not self.sees("]") or not tests:
            letter = self.next()
            if letter == "\\":
                tests.append(self.escaped())
            elif self.sees("-") and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                tests.append(_between(letter, self.next()))
            else:
                tests.append(_is(letter))
        self.at += 1
        return lambda c: any(test(c) for test in tests) != negated


def _dot(letter: str) -> bool:
    return letter != "\n"


def _is(wanted: str) -> Test:
    return lambda c: c == wanted


def _between(low: str, high: str) -> Test:
    return lambda c: low <= c <= high


def _emit(program: _Program, tree: Any) -> None:
    kind, *rest = tree
    if kind == "all":
        for part in rest[0]:
            _emit(program, part)
    elif kind == "one":
        ends = []
        for part in rest[0][:-1]:
            fork = program.add(None)
            _emit(program, part)
            ends.append(program.add(None))
            program.steps[fork] = ("fork", fork + 1, len(program.steps))
        _emit(program, rest[0][-1])
        for end in ends:
            program.steps[end] = ("fork", len(program.steps), len(program.steps))
    elif kind in ("maybe", "any"):
        fork = program.add(None)
        _emit(program, rest[0])
        if kind == "any":
            program.add(("fork", fork, fork))
        program.steps[fork] = ("fork", fork + 1, len(program.steps))
    else:
        program.add(tree)


def _accepts(program: _Program, text: str) -> bool:
    states = _reached(program, {0}, 0, len(text))
    for at, letter in enumerate(text, start=1):
        moved = {s + 1 for s in states if program.steps[s] is not None and program.steps[s][1](letter)}
        states = _reached(program, moved, at, len(text))
    return any(program.steps[state] is None for state in states)


def _reached(program: _Program, states: set[int], at: int, length: int) -> set[int]:
    """Places that wait for a letter, or have matched, from these on without one."""
    waiting, seen, found = list(states), set(states), set()
    while waiting:
        state = waiting.pop()
        step = program.steps[state]
        if step is None or step[0] == "test":
            found.add(state)
            continue
        if step[0] == "fork":
            onwards: tuple[int, ...] = step[1:]
        else:
            onwards = (state + 1,) if at == (0 if step[0] == "start" else length) else ()
        for onward in onwards:
            if onward not in seen:
                seen.add(onward)
                waiting.append(onward)
    return found
