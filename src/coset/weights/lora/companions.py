"""What lies beside the weights of a model: what loaders read goes along with them, the rest stays and is told."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from coset.core.outside import inside, read_tree

_READ = (
    "*.json", "*.txt", "*.model", "*.jinja", "*.md", "*.tiktoken", "*.spm", "*.vocab", "*.bpe", "*.codes",
    "*.tokenizer", "LICENSE", "NOTICE",
)  # fmt: skip
"""Configurations, tokenizers, templates of chats, cards."""
_FOLDERS = ("additional_chat_templates", "speaker_embeddings")
"""Folders that processors of ``transformers`` read."""
_MODULES = "modules.json"
"""Of sentence-transformers: names the folders of what comes after the model, such as ``1_Pooling``."""
_CODE = "*.py"


@dataclass(frozen=True)
class Companions:
    """What is in the folder of a model beside its weights, without what is hidden.

    Attributes:
        taken: Files and folders that a loader reads.
        left: All others: code, weights in other forms, folders of these.
    """

    taken: list[Path]
    left: list[Path]

    @classmethod
    def of(cls, base: Path, weights: Collection[str]) -> Companions:
        """Those of a folder whose weights are in it, or below it, under these names.

        Raises:
            CosetError: A folder that it names is not in it.
        """
        folders = {base / name for name in _FOLDERS} | _modules(base)
        made = cls([], [])
        for path in sorted(base.iterdir()):
            if path.name.startswith(".") or path.name in weights:
                continue
            taken = path in folders if path.is_dir() else any(path.match(kind) for kind in _READ)
            (made.taken if taken else made.left).append(path)
        return made

    def copy(self, to: Path) -> None:
        """Write what is taken into another folder; of folders all but code."""
        for path in self.taken:
            if path.is_dir():
                shutil.copytree(path, to / path.name, ignore=shutil.ignore_patterns(_CODE))
            else:
                shutil.copy(path, to / path.name)


def _modules(base: Path) -> set[Path]:
    """Folders of the modules of a sentence-transformer; none of another model."""
    file = base / _MODULES
    listed = read_tree(file) if file.is_file() else None
    paths = [one.get("path") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return {base / inside(base, path, file).relative_to(base).parts[0] for path in paths if path}
