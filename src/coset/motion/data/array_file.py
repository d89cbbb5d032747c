"""An NPZ of somebody else's, array by array: shapes are checked, and what is not asked for is not read."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped

from coset.core.errors import CosetError
from coset.core.outside import ArrayArchive

NUMBERS = "biuf"


class ArrayFile:
    """An open NPZ of tracks."""

    def __init__(self, archive: ArrayArchive):
        self.path, self.names, self._archive = archive.path, archive.names, archive

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> np.ndarray:
        values = self._archive.read(name)
        if values.dtype.kind not in NUMBERS:
            raise CosetError(f"{self.path}: {name} has type {values.dtype}; numbers were expected")
        return values

    def text(self, name: str) -> str:
        """A word."""
        return str(self._archive.read(name))

    def number(self, name: str) -> float | None:
        """A number, also one in an array of its own; None if there is none of this name.

        Raises:
            CosetError: There are several, or none.
        """
        if name not in self.names:
            return None
        values = self[name]
        if values.size != 1:
            raise CosetError(f"{self.path}: {name} has shape {values.shape}; expected one number")
        return float(values.reshape(-1)[0])

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an array of any kind; it is not read."""
        return self._archive.shape(name)

    def get(self, name: str) -> np.ndarray | None:
        """The array, or None if there is none of this name."""
        return self[name] if name in self.names else None

    def places(self, name: str, expected: str, last: int = 2) -> Float[np.ndarray, "first second last"]:
        """An array of places in the plane or in space, an axis of batches in front taken away.

        Raises:
            CosetError: It has another shape, is empty, or holds no numbers.
        """
        values = self[name]
        inner = values[0] if values.ndim == 4 and values.shape[0] == 1 else values
        if inner.ndim != 3 or inner.shape[-1] != last or not inner.size:
            raise CosetError(f"{self.path}: {name} has shape {values.shape}; expected {expected}")
        if inner.dtype.kind not in "fiu":
            raise CosetError(f"{self.path}: {name} holds {inner.dtype}; expected numbers")
        return inner.astype(np.float64)

    def by_frame(
        self, name: str, shape: tuple[int, int], expected: tuple[int, ...] | None = None
    ) -> Shaped[np.ndarray, "first second"]:  # fmt: skip
        """A value for each point in each frame; axes of length 1 in front or behind are taken away.

        Raises:
            CosetError: It has another shape; the message names ``expected`` where that says more.
        """
        values = self[name]
        if values.shape not in (shape, (1, *shape), (*shape, 1), (1, *shape, 1)):
            raise CosetError(f"{self.path}: {name} has shape {values.shape}; expected {expected or shape}")
        return values.reshape(shape)

    def flags(
        self, name: str, shape: tuple[int, int], expected: tuple[int, ...] | None = None, unknown: bool = False
    ) -> Bool[np.ndarray, "first second"]:  # fmt: skip
        """As :meth:`by_frame`, of booleans, of 0 and 1 (or 255), or of probabilities; ``unknown`` where it holds NaN.

        Raises:
            CosetError: It has another shape, or holds other numbers: logits, or marks of its own.
        """
        values = self.by_frame(name, shape, expected)
        if values.dtype == bool:
            return values
        known = np.isfinite(values)
        told = values[known]
        if not (((told >= 0) & (told <= 1)).all() or np.isin(told, (0, 255)).all()):
            raise CosetError(
                f"{self.path}: {name} holds {told.min():g} to {told.max():g}; expected true and false, 0 and 1, or "
                "probabilities; of logits take the sigmoid"
            )
        return np.where(known, values > 0.5, unknown)
