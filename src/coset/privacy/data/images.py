"""Small sets of labelled inputs to train on, with held-out ones of the same kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from coset.core.data_files import data_file
from coset.core.errors import CosetError, require
from coset.core.outside import read_arrays

VEHICLES = (0, 1, 8, 9)  # airplane, automobile, ship, truck


@dataclass(frozen=True)
class Images:
    """Inputs with the mean of the training inputs taken away.

    Attributes:
        train: Flattened.
        labels: -1 or 1.
        held_out: As many of each label.
        shape: Of one input, as a group acts on it.
        picture: Height and width (and channels before), if an input can be looked at.
        box: Least and largest entry there can be.
        notes: What a reader should know.
    """

    train: Float[Tensor, "n d"]
    labels: Float[Tensor, " n"]
    held_out: Float[Tensor, "k d"]
    shape: tuple[int, ...]
    picture: tuple[int, int] | None
    box: tuple[float, float] = (-1.0, 1.0)
    notes: tuple[str, ...] = ()


def digits(count: int, held_out: int, seed: int = 0) -> Images:
    """scikit-learn's digits of 8 x 8, odd against even.

    Raises:
        CosetError: scikit-learn is not installed, or has too few.
    """
    data = require("sklearn.datasets", "weights").load_digits()
    return _split(data.data / 16.0, np.where(data.target % 2 == 1, 1, -1), count, held_out, seed, (8, 8), (8, 8))


def cifar10_vehicles_animals(count: int, held_out: int, path: str | None = None, seed: int = 0) -> Images:
    """Vehicles against animals of a small CIFAR-10, as grey images of 16 x 16 (means of 2 x 2 pixels).

    Raises:
        CosetError: ``cifar10_small.npz`` is not found, lacks its arrays, or has too few images.
    """
    file, pixels, labels = _training_images("cifar10_small.npz", path)
    if pixels.shape[1:] != (32, 32, 3):
        raise CosetError(f"{file}: train_images has shape {pixels.shape}; expected (images, 32, 32, 3)")
    grey = pixels.astype(np.float64).mean(-1) / 255
    small = grey.reshape(len(grey), 16, 2, 16, 2).mean((2, 4)).reshape(len(grey), -1)
    return _split(small, np.where(np.isin(labels, VEHICLES), -1, 1), count, held_out, seed, (16, 16), (16, 16))


def mnist(count: int, held_out: int, path: str | None = None, seed: int = 0) -> Images:
    """MNIST, odd against even.

    Raises:
        CosetError: ``mnist.npz`` is not found, lacks its arrays, or has too few images.
    """
    file, pixels, labels = _training_images("mnist.npz", path)
    if pixels.shape[1:3] != (28, 28) or pixels.size != len(pixels) * 784:
        raise CosetError(f"{file}: train_images has shape {pixels.shape}; expected (images, 28, 28)")
    flat = pixels.reshape(len(pixels), -1)
    return _split(flat / 255.0, np.where(labels % 2 == 1, 1, -1), count, held_out, seed, (28, 28), (28, 28))


def _training_images(name: str, path: str | None) -> tuple[Path, np.ndarray, np.ndarray]:
    """A file, its pictures and their labels."""
    file = data_file(f"images/{name}", path)
    arrays = read_arrays(file, ["train_images", "train_labels"])
    return file, arrays["train_images"], arrays["train_labels"].reshape(-1)


def point_clouds(count: int, held_out: int, seed: int = 0, points: int = 6) -> Images:
    """Sets of points in the plane, on circles against on lines, with noise."""
    generator = np.random.default_rng(seed)
    total = 2 * (count + held_out)
    labels = np.where(np.arange(total) % 2 == 1, 1, -1)
    turn = generator.uniform(0, 2 * np.pi, (total, 1))
    angle = turn + np.linspace(0, 2 * np.pi, points, endpoint=False)
    circle = 0.6 * np.stack([np.cos(angle), np.sin(angle)], -1)
    along = np.linspace(-0.8, 0.8, points)[None, :, None]
    line = along * np.stack([np.cos(turn), np.sin(turn)], -1)
    clouds = np.where(labels[:, None, None] > 0, circle, line) + generator.normal(0, 0.08, (total, points, 2))
    order = generator.permuted(np.tile(np.arange(points), (total, 1)), axis=1)
    clouds = np.take_along_axis(clouds, order[:, :, None], 1)
    return _split(clouds.reshape(total, -1), labels, count, held_out, seed, (points, 2), None, centre=False)


def _split(
    x: np.ndarray, labels: np.ndarray, count: int, held_out: int, seed: int, shape: tuple[int, ...],
    picture: tuple[int, int] | None, centre: bool = True,
) -> Images:  # fmt: skip
    """Half of each label, in an order drawn from the seed."""
    if count % 2:
        raise CosetError(f"count={count}: an even number, half of each label")
    generator = np.random.default_rng(seed)
    parts = [generator.permutation(np.flatnonzero(labels == label)) for label in (-1, 1)]
    half, more = count // 2, held_out // 2
    if min(map(len, parts)) < half + more:
        raise CosetError(
            f"{min(map(len, parts))} inputs of one label; {half + more} are needed to train and to judge by"
        )
    rows = np.concatenate([part[:half] for part in parts])
    others = np.stack([part[half : half + more] for part in parts], 1).reshape(-1)
    mean = x[rows].mean(0) if centre else np.zeros(x.shape[1])
    train, held = torch.from_numpy(x[rows] - mean), torch.from_numpy(x[others] - mean)
    return Images(train.double(), torch.from_numpy(labels[rows]).double(), held.double(), shape, picture)
