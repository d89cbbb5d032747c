"""Downloads of images and sentences as their publishers have them."""

import gzip
import io
import struct
import tarfile

import numpy as np
import pytest

from coset import CosetError
from coset.weights import conversions
from coset.weights.sentences import read_sentences


def idx(path, values):
    shape = struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(struct.pack(">HBB", 0, 8, values.ndim) + shape + values.tobytes()))
    return path


def test_mnist(tmp_path):
    pictures = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    labels = np.array([7, 1], dtype=np.uint8)
    files = [idx(tmp_path / f"{k}.gz", values) for k, values in enumerate([pictures, labels, pictures[:1], labels[:1]])]
    ((name, content),) = conversions.mnist(files)
    found = np.load(io.BytesIO(content))
    assert name == "images/mnist.npz"
    assert np.array_equal(found["train_images"], pictures)
    assert (found["test_images"].shape, list(found["train_labels"])) == ((1, 28, 28), [7, 1])
    with pytest.raises(CosetError, match="it has 1 dimensions, not 3"):
        conversions.read_idx(files[1], 3)


def test_cifar10(tmp_path):
    records = np.zeros((10_000, conversions.RECORD), np.uint8)
    records[1, 0], records[1, 1:1025], records[1, 2049:] = 9, 200, 50
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz", compresslevel=1) as archive:
        for name in ("data_batch_1.bin", "test_batch.bin"):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = records.size
            archive.addfile(member, io.BytesIO(records.tobytes()))
    ((_, content),) = conversions.small_cifar10([tmp_path / "cifar.tar.gz"])
    found = np.load(io.BytesIO(content))
    assert (found["train_images"].shape, found["test_images"].shape) == ((5000, 32, 32, 3), (1000, 32, 32, 3))
    assert (found["train_labels"][1], list(found["train_images"][1, 0, 0])) == (9, [200, 0, 50])


def test_sentences(tmp_path):
    (tmp_path / "subj.all").write_bytes("0 a small gem . \n1 he loves caf\xe9s\n\n".encode("latin-1"))
    ((name, content),) = conversions.sentences([tmp_path / "subj.all"])
    file = tmp_path / "subj.tsv.gz"
    file.write_bytes(content)
    assert name == "text/subj.tsv.gz"
    assert read_sentences(file) == (["a small gem .", "he loves cafés"], [0, 1])
    (tmp_path / "mr.all").write_text("no label\n")
    with pytest.raises(CosetError, match="line 1: a label and a text were expected"):
        list(conversions.sentences([tmp_path / "mr.all"]))
