r"""Group actions: how an element is drawn, and how it moves a value.

An action of a group G on values X is a map (g, x) -> g x with g (h x) = (g h) x. A map f: X -> Y is equivariant if
f(g x) = g f(x), with G acting on Y too, and invariant if that second action is trivial. The same element g therefore
often passes through two actions: the one on inputs draws it, the one on outputs only applies it.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch


class Action(ABC):
    """A group acting on values of one kind.

    What an element looks like is the action's own business: a permutation, a matrix, a count of quarter turns.
    Elements with real entries are kept in float64 and cast to the value's dtype where they are applied; values are
    never changed in place.

    Attributes:
        name: The group and what it acts on, as it stands in reports.
    """

    name: str

    @abstractmethod
    def sample(self, value: Any, generator: torch.Generator) -> Any:
        """Draw an element that can act on ``value`` (and on others of its size)."""

    @abstractmethod
    def apply(self, element: Any, value: Any) -> Any:
        """The value moved by the element."""

    @abstractmethod
    def compose(self, g: Any, h: Any) -> Any:
        """The element g h: first h, then g."""

    @abstractmethod
    def inverse(self, g: Any) -> Any:
        """The element that undoes g."""

    def undo(self, element: Any, value: Any) -> Any:
        """The value moved by the inverse of the element."""
        return self.apply(self.inverse(element), value)

    def order(self, value: Any) -> int | None:
        """Number of elements of the group that acts on ``value``; ``None`` if they cannot be listed."""
        return None

    def elements(self, value: Any) -> Iterator[Any]:
        """All elements of the group that acts on ``value``.

        Raises:
            ValueError: There are infinitely many, or ``value`` does not tell them.
        """
        raise ValueError(f"{self.name}: no finite list of elements; draw some of them with samples=")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


class TrivialAction(Action):
    """Every element, of whatever group, leaves the value as it is: the action on the outputs of an invariant map."""

    name = "trivial"

    def sample(self, value: Any, generator: torch.Generator) -> None:
        return None

    def apply(self, element: Any, value: Any) -> Any:
        return value

    def compose(self, g: Any, h: Any) -> None:
        return None

    def inverse(self, g: Any) -> None:
        return None

    def order(self, value: Any) -> int:
        return 1

    def elements(self, value: Any) -> Iterator[None]:
        yield None


class Compose(Action):
    """Several actions on one value, one after the other; an element holds one element of each.

    The elements form a group, and :meth:`compose` and :meth:`inverse` go part by part, if the actions commute
    (rotating points and renumbering them, say). For actions that do not, such as quarter turns and shifts of an
    image, drawing, applying and undoing remain right, which is what equivariance checks and group averages need.

    Args:
        actions: At least one; the first acts first.
    """

    def __init__(self, *actions: Action, name: str | None = None):
        if not actions:
            raise ValueError("Compose needs at least one action")
        self.actions = actions
        self.name = name or " x ".join(action.name for action in actions)

    def sample(self, value: Any, generator: torch.Generator) -> tuple[Any, ...]:
        drawn = []
        for action in self.actions:
            drawn.append(action.sample(value, generator))
            value = action.apply(drawn[-1], value)
        return tuple(drawn)

    def apply(self, element: tuple[Any, ...], value: Any) -> Any:
        for action, part in zip(self.actions, element, strict=True):
            value = action.apply(part, value)
        return value

    def undo(self, element: tuple[Any, ...], value: Any) -> Any:
        for action, part in zip(reversed(self.actions), reversed(element), strict=True):
            value = action.undo(part, value)
        return value

    def compose(self, g: tuple[Any, ...], h: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(action.compose(a, b) for action, a, b in zip(self.actions, g, h, strict=True))

    def inverse(self, g: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(action.inverse(part) for action, part in zip(self.actions, g, strict=True))

    def order(self, value: Any) -> int | None:
        product = 1
        for action in self.actions:
            order = action.order(value)
            if order is None:
                return None
            product *= order
        return product

    def elements(self, value: Any) -> Iterator[tuple[Any, ...]]:
        return itertools.product(*(action.elements(value) for action in self.actions))


class Parts(Action):
    """One group acting on the parts of a tuple or dict, on each in its own way.

    The element is drawn by the action of one part, or comes from the action on the inputs::

        Claim(PointPermutation(), Parts({"points": PointPermutation(), "cameras": TrivialAction()}), "...")

    Args:
        actions: The action on each part, by key or by position. All must take the same kind of element.
        drawn_by: The part whose action draws, composes and inverts elements; the first that does not act trivially if
            left out.
    """

    def __init__(self, actions: Mapping[str, Action] | Sequence[Action], drawn_by: str | int | None = None):
        self.actions: dict[Any, Action] = dict(actions.items() if isinstance(actions, Mapping) else enumerate(actions))
        self.keyed = isinstance(actions, Mapping)
        if not self.actions:
            raise ValueError("Parts needs the action of at least one part")
        moving = [key for key, action in self.actions.items() if not isinstance(action, TrivialAction)]
        self.lead: Any = drawn_by if drawn_by is not None else (moving or list(self.actions))[0]
        self.name = ", ".join(f"{key}: {action.name}" for key, action in self.actions.items())

    def _checked(self, value: Any) -> Any:
        found = set(value) if isinstance(value, Mapping) else set(range(len(value)))
        if found != set(self.actions):
            raise ValueError(f"the value has the parts {sorted(found, key=str)}, the action {list(self.actions)}")
        return value

    def sample(self, value: Any, generator: torch.Generator) -> Any:
        return self.actions[self.lead].sample(self._checked(value)[self.lead], generator)

    def apply(self, element: Any, value: Any) -> Any:
        self._checked(value)
        moved = {key: action.apply(element, value[key]) for key, action in self.actions.items()}
        return moved if self.keyed else tuple(moved[position] for position in range(len(moved)))

    def compose(self, g: Any, h: Any) -> Any:
        return self.actions[self.lead].compose(g, h)

    def inverse(self, g: Any) -> Any:
        return self.actions[self.lead].inverse(g)

    def order(self, value: Any) -> int | None:
        return self.actions[self.lead].order(self._checked(value)[self.lead])

    def elements(self, value: Any) -> Iterator[Any]:
        return self.actions[self.lead].elements(self._checked(value)[self.lead])
