"""Downloads turned into the files that recipes on images and sentences read."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from coset.core.errors import CosetError
from coset.core.outside import read_bytes, refusing
from coset.weights.data_sets import SENTENCE_FILES

RECORD = 1 + 3 * 32 * 32
"""Bytes of a picture of CIFAR-10: its label, then its red, green and blue values."""
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def mnist(received: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """One archive of the four files of MNIST."""
    train, train_labels, test, test_labels = (read_idx(path, d) for path, d in zip(received, (3, 1, 3, 1)))
    yield (
        "images/mnist.npz",
        _archive(train_images=train, train_labels=train_labels, test_images=test, test_labels=test_labels),
    )


def read_idx(path: Path, expected: int) -> UInt8[np.ndarray, "*shape"]:
    """The bytes of an IDX file of so many dimensions, packed or not.

    Raises:
        CosetError: It is none.
    """
    content = read_bytes(path)
    with refusing(path, "IDX file of bytes"):
        kind, dimensions = struct.unpack_from(">HBB", content)[1:]
        if kind != 8:
            raise ValueError(f"its values are of type {kind}, not bytes")
        if dimensions != expected:
            raise ValueError(f"it has {dimensions} dimensions, not {expected}")
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        return np.frombuffer(content, np.uint8, offset=4 * (dimensions + 1)).reshape(shape).copy()


def small_cifar10(received: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """The first 5,000 pictures of CIFAR-10 to train on, the first 1,000 to test on."""
    with refusing(received[0], "archive of CIFAR-10"), tarfile.open(received[0]) as archive:
        train = _pictures(archive, "cifar-10-batches-bin/data_batch_1.bin", 5000)
        test = _pictures(archive, "cifar-10-batches-bin/test_batch.bin", 1000)
    yield "images/cifar10_small.npz", _archive(
        train_images=train[0], train_labels=train[1], test_images=test[0], test_labels=test[1],
        classes=np.array(CIFAR_CLASSES),
    )  # fmt: skip


def _pictures(archive: tarfile.TarFile, member: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    file = archive.extractfile(member)
    if file is None:
        raise CosetError(f"{member} is no file")
    rows = np.frombuffer(file.read(count * RECORD), np.uint8).reshape(count, RECORD)
    return rows[:, 1:].reshape(count, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]


def sentences(received: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """A table of label and text of lines ``label text``."""
    path = received[0]
    content = read_bytes(path)
    try:
        text = content.decode()
    except UnicodeDecodeError:  # some of these files are in Latin-1
        text = content.decode("latin-1")
    rows = ["label\ttext"]
    for number, line in enumerate(text.split("\n"), 1):
        label, _, words = line.strip().partition(" ")
        if label and not (label.isascii() and label.isdigit() and words):
            raise CosetError(f"{path.name}, line {number}: a label and a text were expected")
        if label:
            rows.append(f"{label}\t{' '.join(words.split())}")
    yield f"text/{SENTENCE_FILES[path.name][1]}.tsv.gz", gzip.compress("\n".join([*rows, ""]).encode(), mtime=0)


def _archive(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()
