"""Data to train networks on: digits, MNIST, a small CIFAR-10, and a random graph with communities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, field_validator
from torch import Tensor

from coset.core.choices import OptionsRegistry
from coset.core.data_files import data_file
from coset.core.errors import CosetError, require
from coset.core.options import Options, listed_names
from coset.core.outside import read_arrays


@dataclass(frozen=True)
class Classification:
    """Inputs with classes, for training and for testing.

    Attributes:
        name: What it is.
        train: Inputs ``[rows, ...]`` and classes; for a graph all nodes, with class -1 where they are not for training.
        test: The same for testing.
        classes: How many.
        edge_index: Of a graph.
        notes: What a reader of the results should know.
    """

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: int
    edge_index: Int[Tensor, "2 edges"] | None = None
    notes: tuple[str, ...] = field(default=())


IGNORED = -1
"""The class of rows that do not count."""
Form = Literal["vectors", "images", "graph"]
"""Of inputs: ``[rows, features]``, ``[rows, channels, height, width]``, or features of the nodes of one graph."""
CLASSIFICATION_DATA = OptionsRegistry("data of classification")


class ClassificationData(Options):
    """Where data come from.

    Attributes:
        form: Of the inputs.
    """

    form: ClassVar[Form] = "vectors"

    name: str

    def load(self, seed: int) -> Classification:
        """The data.

        Raises:
            CosetError: They are not there, or of another form.
        """
        raise NotImplementedError


@CLASSIFICATION_DATA.add
class DigitsData(ClassificationData):
    """scikit-learn's digits, split 70/30."""

    name: Literal["digits"]

    def load(self, seed: int) -> Classification:
        return digits(seed)


class ImageData(ClassificationData):
    """Images from a file."""

    path: str | None = Field(None, description="the .npz, or the folder that holds it")
    rows: int | None = Field(None, ge=100, description="train on the first so many images only")


@CLASSIFICATION_DATA.add
class MNISTData(ImageData):
    """MNIST as vectors."""

    name: Literal["mnist"]

    def load(self, seed: int) -> Classification:
        return mnist(self.path, self.rows)


CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@CLASSIFICATION_DATA.add
class CIFARData(ImageData):
    """A small CIFAR-10."""

    form: ClassVar[Form] = "images"

    name: Literal["cifar10-small"]
    classes: list[str] = Field([], description="images of these alone, such as automobile,frog; of all ten by default")

    _names = field_validator("classes", mode="before")(listed_names)

    @field_validator("classes")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        if unknown := [name for name in value if name not in CIFAR]:
            raise ValueError(f"{unknown[0]} is none of {', '.join(CIFAR)}")
        if value and len(set(value)) < max(2, len(value)):
            raise ValueError("two or more different classes are needed")
        return value

    def load(self, seed: int) -> Classification:
        return small_cifar10(self.path, self.rows, self.classes)


@CLASSIFICATION_DATA.add
class CommunityData(ClassificationData):
    """A generated graph with communities."""

    form: ClassVar[Form] = "graph"

    name: Literal["communities"]
    nodes: int = Field(2000, ge=50)
    classes: int = Field(5, ge=2)
    features: int = Field(16, ge=1)
    degree: float = Field(10.0, gt=0)
    mixing: float = Field(0.35, ge=0, le=1)
    noise: float = Field(2.0, ge=0)

    def load(self, seed: int) -> Classification:
        return communities(
            self.nodes, self.classes, self.features, degree=self.degree, mixing=self.mixing, noise=self.noise, seed=seed
        )


def data_without_graph() -> list[str]:
    """Names of data; a graph belongs to its network, and is left out."""
    sources: Iterable[tuple[str, Any]] = CLASSIFICATION_DATA.items()
    return [name for name, source in sources if source.form != "graph"]


def named_data(name: str, seed: int = 0) -> Classification:
    """Data of a registered name, with all options as they are by default."""
    source: Any = CLASSIFICATION_DATA[name].model_validate({"name": name})
    return source.load(seed)


def digits(seed: int = 0) -> Classification:
    """scikit-learn's 1,797 images of 8 x 8, split 70/30, features standardised by the training part.

    Raises:
        CosetError: scikit-learn is not installed.
    """
    data = require("sklearn.datasets", "weights").load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    x = torch.tensor(data.data[order], dtype=torch.float32)
    y = torch.tensor(data.target[order], dtype=torch.long)
    cut = int(0.7 * len(y))
    x = (x - x[:cut].mean()) / x[:cut].std()
    return Classification("digits", (x[:cut], y[:cut]), (x[cut:], y[cut:]), 10)


def mnist(path: str | None = None, rows: int | None = None) -> Classification:
    """MNIST as vectors of 784, normalised (0.1307, 0.3081); 60,000 and 10,000 images.

    Args:
        path: ``mnist.npz``, or the folder that holds it.
        rows: Train on the first so many only.

    Raises:
        CosetError: The file is missing or has another form.
    """
    parts = _images("images/mnist.npz", path, rows)
    (x, y), (x_test, y_test) = ((((x / 255 - 0.1307) / 0.3081).flatten(1), y) for x, y in parts)
    notes = () if rows is None else (f"trained on the first {len(y)} images",)
    return Classification("MNIST", (x, y), (x_test, y_test), 10, notes=notes)


def small_cifar10(path: str | None = None, rows: int | None = None, classes: Sequence[str] = ()) -> Classification:
    """5,000 and 1,000 images of CIFAR-10, ``[3, 32, 32]``, each channel standardised.

    Args:
        path: ``cifar10_small.npz``, or the folder that holds it.
        rows: Train on the first so many only.
        classes: Of these classes alone, numbered in this order; of all ten without.

    Raises:
        CosetError: The file is missing or has another form.
    """
    (x, y), (x_test, y_test) = _images("images/cifar10_small.npz", path, None)
    if classes:
        (x, y), (x_test, y_test) = (_of_classes(*part, classes) for part in ((x, y), (x_test, y_test)))
    x, y = x[:rows], y[:rows]
    x, x_test = x.movedim(-1, 1).contiguous() / 255, x_test.movedim(-1, 1).contiguous() / 255
    mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    notes = (f"{len(y):,} training images of 50,000, JPEG-compressed once",)
    name, count = "CIFAR-10, small", len(classes) or len(CIFAR)
    return Classification(name, ((x - mean) / std, y), ((x_test - mean) / std, y_test), count, notes=notes)


def _of_classes(x: Tensor, y: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    number = torch.full((len(CIFAR),), -1)
    number[[CIFAR.index(name) for name in names]] = torch.arange(len(names))
    return x[number[y] >= 0], number[y][number[y] >= 0]


def communities(
    nodes: int = 2000, classes: int = 5, features: int = 16, *, degree: float = 10.0, mixing: float = 0.35,
    noise: float = 2.0, seed: int = 0,
) -> Classification:  # fmt: skip
    """A stochastic block model: communities to be told from a random graph and noisy features; half of it trained on.

    Args:
        nodes: How many.
        classes: Communities of equal chance.
        features: Of a node: the random centre of its community plus noise.
        degree: Mean number of neighbours.
        mixing: Chance that an edge joins two different communities.
        noise: Standard deviation of the features about the centre, whose entries have deviation 1.
        seed: Of graph, features and split.
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=nodes)
    members = [np.flatnonzero(y == c) for c in range(classes)]
    edges: set[tuple[int, int]] = set()
    while len(edges) < nodes * degree / 2:
        a = int(rng.integers(nodes))
        same = rng.random() >= mixing
        b = int(rng.choice(members[y[a]] if same else np.flatnonzero(y != y[a])))
        if a != b:
            edges.add((min(a, b), max(a, b)))
    index = torch.tensor(sorted(edges)).T
    x = rng.normal(size=(classes, features))[y] + noise * rng.normal(size=(nodes, features))
    labels = torch.from_numpy(y)
    training = torch.from_numpy(rng.random(nodes) < 0.5)
    inputs = torch.tensor(x, dtype=torch.float32)
    train, test = labels.masked_fill(~training, IGNORED), labels.masked_fill(training, IGNORED)
    both = torch.cat([index, index.flip(0)], 1)
    return Classification("communities", (inputs, train), (inputs, test), classes, both, ("a generated graph",))


def shift_and_flip(
    x: Float[Tensor, "batch channels h w"], generator: torch.Generator
) -> Float[Tensor, "batch channels h w"]:
    """Each image mirrored with chance 1/2 and moved by up to four pixels each way, zeros coming in."""
    count, _, height, width = x.shape
    mirrored = torch.rand(count, generator=generator) < 0.5
    x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-1), x)
    padded = torch.nn.functional.pad(x, (4, 4, 4, 4))
    down, right = torch.randint(9, (2, count, 1), generator=generator)
    rows = (down + torch.arange(height)).view(count, 1, height, 1)
    columns = (right + torch.arange(width)).view(count, 1, 1, width)
    channels = torch.arange(x.size(1)).view(1, -1, 1, 1)
    return padded[torch.arange(count).view(-1, 1, 1, 1), channels, rows, columns]


def _images(name: str, path: str | None, rows: int | None) -> list[tuple[Tensor, Tensor]]:
    file = data_file(name, path)
    arrays = read_arrays(file, ["train_images", "train_labels", "test_images", "test_labels"])
    parts = [(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "test")]
    for images, labels in parts:
        if images.dtype.kind not in "buif" or labels.dtype.kind not in "bui" or len(images) != labels.size:
            raise CosetError(f"{file}: images must be numbers, and labels as many whole numbers")
    tensors = [(torch.from_numpy(x).float(), torch.from_numpy(y).long()) for x, y in parts]
    (x, y), test = tensors
    return [(x[:rows], y[:rows]), test]
