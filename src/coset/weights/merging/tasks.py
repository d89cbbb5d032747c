"""Tasks to merge over, and the teachers for them: small image and text classifications, trained here from seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from coset.core.data_files import data_file
from coset.core.errors import CosetError
from coset.core.outside import read_arrays
from coset.runs.fit import descend
from coset.weights.conversions import read_idx
from coset.weights.data_sets import FASHION_OF_DEBIAN
from coset.weights.merging.encoders import Encoder, Inputs, count_samples, take
from coset.weights.merging.teachers import Merged
from coset.weights.sentences import TEXTS, read_sentences, sentence_file

FASHION = Path(FASHION_OF_DEBIAN)
IMAGES = ("digits", "mnist", "fashion-mnist", "cifar10")
SYNTHETIC = ("order", "parity")
PAD, UNKNOWN, START, END = range(4)
"""Tokens with which every vocabulary begins."""


@dataclass(frozen=True)
class Task:
    """A classification task; labels begin at 0.

    Attributes:
        name: Of the task.
        train: Samples.
        train_labels: Their labels.
        test: Samples.
        test_labels: Their labels.
        classes: How many.
    """

    name: str
    train: Inputs
    train_labels: Int[Tensor, " train"]
    test: Inputs
    test_labels: Int[Tensor, " test"]
    classes: int


def image_task(data: str, classes: Sequence[int] | None = None, *, seed: int = 0, limit: int = 10000) -> Task:
    """Images of some classes of a data set, ``[samples, channels, height, width]`` between 0 and 1.

    Digits are those of scikit-learn, 70% for training; the others have their own split.

    Args:
        data: One of :data:`IMAGES`.
        classes: Which; all by default.
        seed: Of the split and the order.
        limit: Training samples at most, and a fifth of it for testing.

    Raises:
        CosetError: Unknown or missing data.
    """
    generator = torch.Generator().manual_seed(seed)
    (x, y), (x_test, y_test) = _read_images(data, generator)
    kept = list(classes) if classes is not None else sorted(set(y.tolist()))
    parts = []
    for images, labels, most in ((x, y, limit), (x_test, y_test, max(limit // 5, 500))):
        rows = torch.isin(labels, torch.tensor(kept)).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)][:most]
        places = torch.searchsorted(torch.tensor(sorted(kept)), labels[rows])
        parts.append((images[rows].float() / (16 if data == "digits" else 255), places))
    name = data if classes is None else f"{data}-{''.join(map(str, sorted(kept)))}"
    return Task(name, *parts[0], *parts[1], len(kept))


def _read_images(data: str, generator: torch.Generator) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    if data == "digits":
        from sklearn.datasets import load_digits

        found = load_digits()
        x, y = torch.from_numpy(found.images)[:, None], torch.from_numpy(found.target)
        order = torch.randperm(len(x), generator=generator)
        train, test = order.split([int(0.7 * len(x)), len(x) - int(0.7 * len(x))])
        return (x[train], y[train]), (x[test], y[test])
    if data == "fashion-mnist":
        return _read_idx("train"), _read_idx("t10k")
    if data not in IMAGES:
        raise CosetError(f"no images {data!r}; choose from {', '.join(IMAGES)}")
    file = "images/mnist.npz" if data == "mnist" else "images/cifar10_small.npz"
    arrays = read_arrays(data_file(file), ["train_images", "train_labels", "test_images", "test_labels"])
    parts = []
    for part in ("train", "test"):
        x = torch.from_numpy(arrays[f"{part}_images"])
        x = x[:, None] if x.dim() == 3 else x.movedim(-1, 1)
        parts.append((x, torch.from_numpy(arrays[f"{part}_labels"]).long().flatten()))
    return parts[0], parts[1]


def _read_idx(part: str) -> tuple[Tensor, Tensor]:
    """Pictures [count, 1, 28, 28] and labels of Fashion-MNIST, of Debian's package or of the data folder."""
    arrays = []
    for name, dimensions in ((f"{part}-images-idx3-ubyte.gz", 3), (f"{part}-labels-idx1-ubyte.gz", 1)):
        path = FASHION / name
        arrays.append(read_idx(path if path.is_file() else data_file(f"images/fashion-mnist/{name}"), dimensions))
    return torch.from_numpy(arrays[0])[:, None], torch.from_numpy(arrays[1]).long()


def text_tasks(
    sources: Sequence[str], *, tokens: int = 24, vocabulary: int = 4000, folder: Path | None = None, seed: int = 0,
    limit: int = 8000,
) -> tuple[list[Task], list[str]]:  # fmt: skip
    """Sentences as word numbers, in one vocabulary for all tasks, and that vocabulary.

    Args:
        sources: Among :data:`TEXTS`, or synthetic: ``order`` (which of two markers comes first), ``parity`` (whether
            the number of markers is odd, at most three).
        tokens: Longer sentences are cut.
        vocabulary: Most frequent words that are kept.
        folder: Where texts are; searched for by default.
        seed: Of the split.
        limit: Training sentences at most, and a fifth of it for testing.
    """
    if all(s in SYNTHETIC for s in sources):
        return [_synthetic(s, tokens, vocabulary, seed, limit) for s in sources], []
    unknown = [s for s in sources if s not in TEXTS]
    if unknown:
        raise CosetError(f"no texts {unknown[0]!r}; choose from {', '.join(TEXTS)}")
    read = [_read_texts(s, folder, seed) for s in sources]
    counts: dict[str, int] = {}
    for sentences, _ in read:
        for sentence in sentences[: limit + limit // 5]:
            for word in sentence:
                counts[word] = counts.get(word, 0) + 1
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(counts, key=lambda w: (-counts[w], w))[: vocabulary - 4]]
    number = {word: n for n, word in enumerate(words)}
    tasks = []
    for source, (sentences, labels) in zip(sources, read, strict=True):
        ids = torch.tensor([_encode([number.get(w, UNKNOWN) for w in s], tokens) for s in sentences])
        test = min(limit // 5, len(ids) // 5)
        inputs = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
        y = torch.tensor(labels)
        train, held = slice(test, test + limit), slice(0, test)
        tasks.append(Task(source, take(inputs, train), y[train], take(inputs, held), y[held], TEXTS[source]))
    return tasks, words


def _read_texts(source: str, folder: Path | None, seed: int) -> tuple[list[list[str]], list[int]]:
    sentences, labels = read_sentences(sentence_file(source, folder))
    order = np.random.default_rng(seed).permutation(len(sentences))
    return [sentences[i].lower().split() for i in order], [labels[i] for i in order]


def _encode(numbers: list[int], tokens: int) -> list[int]:
    kept = [START, *numbers[: tokens - 2], END]
    return kept + [PAD] * (tokens - len(kept))


def _synthetic(source: str, tokens: int, vocabulary: int, seed: int, limit: int) -> Task:
    """Sentences of random words with markers 4 and 5 (``order``) or 6 (``parity``) among them."""
    generator = np.random.default_rng([seed, SYNTHETIC.index(source)])
    count = limit + limit // 5
    ids = generator.integers(8, vocabulary, (count, tokens))
    labels = generator.integers(0, 2, count)
    for row, label in enumerate(labels):
        places = np.sort(generator.permutation(np.arange(1, tokens - 1))[:4])
        if source == "order":
            ids[row, places[:2]] = (4, 5) if label else (5, 4)
        else:
            ids[row, places[: (1 if generator.random() < 0.5 else 3) if label else 2]] = 6
    ids[:, 0], ids[:, -1] = START, END
    x, y = torch.from_numpy(ids), torch.from_numpy(labels)
    inputs = {"input_ids": x, "attention_mask": torch.ones_like(x)}
    test = slice(limit, None)
    return Task(source, take(inputs, slice(0, limit)), y[:limit], take(inputs, test), y[test], 2)


def train_jointly(
    encoder: Encoder, tasks: Sequence[Task], *, steps: int, learning_rate: float, batch_size: int = 64, seed: int = 0,
    heads: Mapping[str, nn.Linear] | None = None,
) -> Merged:  # fmt: skip
    """Train one encoder on the labels of several tasks, a linear head each: what merging has to do without.

    ``heads`` are gone on with, if there are some.
    """
    wiring = encoder.wiring()
    generator = torch.Generator().manual_seed(seed)
    if heads is None:
        heads = {task.name: _new_head(wiring.widths[wiring.output], task.classes, generator) for task in tasks}
    trained_heads = {task.name: heads[task.name].requires_grad_(True) for task in tasks}
    trained = [*encoder.requires_grad_(True).parameters(), *(p for h in trained_heads.values() for p in h.parameters())]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=max(steps, 2))
    encoder.train()

    def loss(_: int) -> Tensor:
        total = torch.zeros(())
        for task in tasks:
            rows = torch.randint(count_samples(task.train), (batch_size // len(tasks),), generator=generator)
            logits = trained_heads[task.name](encoder(take(task.train, rows)))
            total = total + F.cross_entropy(logits, task.train_labels[rows]) / len(tasks)
        return total

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        descend(optimizer, loss, range(steps), schedule=schedule)
    encoder.eval().requires_grad_(False)
    return Merged(encoder, {name: head.requires_grad_(False) for name, head in trained_heads.items()})


def _new_head(width: int, classes: int, generator: torch.Generator) -> nn.Linear:
    head = nn.Linear(width, classes)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * width**-0.5)
        head.bias.zero_()
    return head
