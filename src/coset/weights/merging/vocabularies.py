"""What the numbers of tokens mean: the vocabulary, its merges and added tokens, from whichever files a folder has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from coset.core.errors import CosetError
from coset.core.outside import read_text, read_tree
from coset.weights.checksums import checksum

PACKED = ("*.model", "*.tiktoken", "*.spm", "*.codes", "*.tokenizer")
"""Vocabularies in formats that are compared byte by byte: SentencePiece's, tiktoken's, and those of few families."""


class _Added(BaseModel):
    id: int
    content: str


class _Tokenizer(BaseModel):
    model: dict[str, Any] = {}
    added_tokens: list[_Added] = []


class _Settings(BaseModel):
    added_tokens_decoder: dict[int, dict[str, Any]] = {}


@dataclass(frozen=True)
class Vocabulary:
    """Of one folder; what it does not hold is None or empty.

    Attributes:
        words: Numbers by word, or of a unigram model words and scores, and the file that holds them.
        merges: Of byte pairs, in their order, and the file.
        packed: SHA-256 of files by name, see :data:`PACKED`.
        added: Tokens that were added to the vocabulary, by number.
    """

    words: tuple[Any, Path] | None
    merges: tuple[list[str], Path] | None
    packed: dict[str, str]
    added: dict[int, str]

    @classmethod
    def of(cls, folder: Path) -> Vocabulary:
        """Read now.

        Raises:
            CosetError: A file cannot be read.
        """
        words = merges = None
        added: dict[int, str] = {}
        if (whole := folder / "tokenizer.json").is_file():
            tokenizer = read_tree(whole, _Tokenizer)
            words = (tokenizer.model["vocab"], whole) if tokenizer.model.get("vocab") else None
            pairs = tokenizer.model.get("merges")  # "a b", since tokenizers 0.20 ["a", "b"]
            merges = ([m if isinstance(m, str) else " ".join(m) for m in pairs], whole) if pairs else None
            added = {each.id: each.content for each in tokenizer.added_tokens}
        if words is None and (file := folder / "vocab.json").is_file():
            words = read_tree(file, dict[str, int]), file
        if words is None and (file := folder / "vocab.txt").is_file():
            lines = read_text(file).replace("\r\n", "\n").removesuffix("\n").split("\n")
            words = {word: number for number, word in enumerate(lines)}, file
        if merges is None and (file := folder / "merges.txt").is_file():
            merges = [m for m in read_text(file).split("\n") if m.strip() and not m.startswith("#version")], file
        packed = {file.name: checksum(file) for kind in PACKED for file in sorted(folder.glob(kind))}
        return cls(words, merges, packed, added | dict(_added_elsewhere(folder)))


def _added_elsewhere(folder: Path) -> Iterator[tuple[int, str]]:
    """Added tokens as the files beside ``tokenizer.json`` have them."""
    if (file := folder / "added_tokens.json").is_file():
        yield from ((number, word) for word, number in read_tree(file, dict[str, int]).items())
    if (file := folder / "tokenizer_config.json").is_file():
        for number, token in read_tree(file, _Settings).added_tokens_decoder.items():
            yield number, str(token.get("content"))


def check_same(first: Path, other: Path) -> list[str]:
    """Whether the same text is the same numbers in two folders, as far as both say; returns notes.

    Raises:
        CosetError: It is not; the message names both files.
    """
    a, b = Vocabulary.of(first), Vocabulary.of(other)
    for mine, theirs in ((a.words, b.words), (a.merges, b.merges)):
        if mine is not None and theirs is not None and mine[0] != theirs[0]:
            raise _another(theirs[1], mine[1])
    for name in a.packed.keys() & b.packed.keys():
        if a.packed[name] != b.packed[name]:
            raise _another(other / name, first / name)
    for number in sorted(a.added.keys() & b.added.keys()):
        if a.added[number] != b.added[number]:
            raise CosetError(
                f"{other}: token {number} is {b.added[number]!r}, but in {first} it is {a.added[number]!r}: the same "
                "number would mean other words; train both with one tokenizer"
            )
    lost = [word for number, word in sorted(b.added.items()) if number not in a.added and not _knows(a, word)]
    if lost and (a.words or a.packed):
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        return [f"{lost[0]!r}{more} of {other} are no tokens of {first}, whose tokenizer is kept"]
    return []


def _knows(vocabulary: Vocabulary, word: str) -> bool:
    words = None if vocabulary.words is None else vocabulary.words[0]
    return isinstance(words, dict) and word in words


def _another(theirs: Path, mine: Path) -> CosetError:
    return CosetError(
        f"{theirs} is another vocabulary than {mine}: the same number would mean other words; train both with one "
        "tokenizer"
    )
