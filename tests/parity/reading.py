"""One file of a parity folder: our weights, the inputs, and what the official code computed from both.

Keys of the ``.npz``: ``state/NAME`` (our state dict, official weights inside), ``input/...``, ``official/...``, and
``options``, lines ``key=value`` that name the family, our class and its arguments. Nothing is drawn at random.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

VARIABLE = "COSET_PARITY"
ROOT = Path(__file__).parents[2]
Model = TypeVar("Model", bound=nn.Module)


def parity_folder() -> Path | None:
    """``$COSET_PARITY``, or ``../shared/parity`` beside the repository; ``None`` if there is no such folder.

    Raises:
        NotADirectoryError: The variable names something else.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        folder = ROOT.parent / "shared" / "parity"
        return folder if folder.is_dir() else None
    if not Path(given).is_dir():
        raise NotADirectoryError(f"{VARIABLE}={given} is no folder")
    return Path(given)


class ParityFile:
    """The arrays of one file by name, and its options.

    Attributes:
        name: Of the file, without its ending.
        options: All lines ``key=value``.
        arguments: Those of our class: Python literals, or text.
        training: Whether the official network was in training mode.
        note: Where the numbers come from, and what was patched.
    """

    def __init__(self, path: Path):
        with np.load(path, allow_pickle=False) as file:
            self._arrays = {name: file[name] for name in file.files}
        self.name = path.stem
        self.options = dict(str(line).split("=", 1) for line in self._arrays.pop("options"))
        self.note = str(self._arrays.pop("note"))
        self.arguments = {key[4:]: literal(text) for key, text in self.options.items() if key.startswith("arg.")}
        self.training = self.options.get("mode") == "train"
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    @property
    def class_name(self) -> str:
        """Name of our class, without the module it lived in; empty for networks that are put together."""
        return self.options.get("class", "").rpartition(".")[2]

    def below(self, prefix: str) -> dict[str, Tensor]:
        """All arrays ``prefix/NAME``, by NAME."""
        start = prefix + "/"
        names = [name for name in self._arrays if name.startswith(start)]
        self._read.update(names)
        return {name.removeprefix(start): torch.from_numpy(self._arrays[name]) for name in names}

    def input(self, name: str) -> Tensor:
        return torch.from_numpy(self._arrays[f"input/{name}"])

    def text(self, name: str) -> list[str]:
        return [str(word) for word in self._arrays[f"input/{name}"]]

    def official(self, name: str) -> Tensor:
        self._read.add(f"official/{name}")
        return torch.from_numpy(self._arrays[f"official/{name}"])

    def unread(self) -> set[str]:
        """Official arrays that nobody has asked for: what was not compared."""
        return {name for name in self._arrays if name.startswith("official/")} - self._read

    def load(self, model: Model) -> Model:
        """The file's weights in our model, all of them and no others; in float64 and the file's mode."""
        model = model.double()
        model.load_state_dict(self.below("state"), strict=True)
        return model.train(self.training)


def literal(text: str) -> object:
    """The Python value that is written, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
