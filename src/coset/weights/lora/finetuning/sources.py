"""What collections of adapters can be made from: each source registers its options, and they open a maker.

A maker finetunes adapter ``number`` into a folder of its own. What it does follows from seed and number alone, so that
a collection does not depend on who made which part of it, in which order, or after how many interruptions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from coset.core.choices import OptionsRegistry
from coset.core.options import Options

BASE = "base"
"""Folder of a collection for what a source trains before all adapters."""
ADAPTER_SOURCES = OptionsRegistry("source of adapters")


class Maker(Protocol):
    """An opened source."""

    @property
    def base(self) -> dict[str, float]:
        """Scores of the untouched base model."""

    def make(self, number: int, place: Path) -> dict[str, Any]:
        """Finetune one adapter, save it as a PEFT folder, and return its labels."""


class AdapterSource(Options):
    """Options of one source.

    Attributes:
        together: How many adapters are made at once.
    """

    together: ClassVar[int] = 1

    name: str

    def open(self, folder: Path, seed: int) -> Maker:
        """Its maker, for a collection in a folder.

        Raises:
            CosetError: A model or data are not there.
        """
        raise NotImplementedError


def check_known(what: str, chosen: list[str], known: Collection[str]) -> list[str]:
    """The choice.

    Raises:
        ValueError: One of them is not known.
    """
    for name in chosen:
        if name not in known:
            raise ValueError(f"{what} {name!r} is unknown; choose from {', '.join(known)}")
    return chosen


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums over more threads round differently, and these tensors are too small to gain by them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
