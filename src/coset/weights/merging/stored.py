"""Networks whose parameters stay on disk: what a SuperNet of large teachers reads, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from coset.core.outside import tensor_file
from coset.weights.merging.encoders import Encoder
from coset.weights.merging.wiring import Wiring
from coset.weights.merging.writing import write_shards

SHARD = "50MB"


class StoredWeights(Mapping[str, Tensor]):
    """Tensors in safetensors files, each mapped when it is asked for and let go of with its last use.

    Files are opened anew each time: one that is held open keeps every page that was ever read.

    Args:
        files: Where each lies.
    """

    def __init__(self, files: Mapping[str, Path]):
        self.files = dict(files)

    def __getitem__(self, name: str) -> Tensor:
        with tensor_file(self.files[name]) as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


class StoredEncoder(Encoder):
    """The same network with its parameters in a folder, which is written here.

    Args:
        encoder: Whose; it is left alone, and need not be kept.
        folder: For its parameters alone; made if missing.
    """

    def __init__(self, encoder: Encoder, folder: Path):
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        values = encoder.weights()
        sizes = {name: value.numel() * value.element_size() for name, value in values.items()}
        self._weights = StoredWeights(write_shards(folder, values.items(), sizes, SHARD))
        self._shell = [encoder.shell(None).eval()]  # a list: not a submodule

    def weights(self) -> Mapping[str, Tensor]:
        return self._weights

    def forward(self, inputs: Any) -> Float[Tensor, "samples features"]:
        return functional_call(self._shell[0], dict(self._weights), (inputs,))

    def wiring(self) -> Wiring:
        return self._shell[0].wiring()

    def resized(self, width: int | None) -> Encoder:
        return self._shell[0].resized(width)

    def shell(self, width: int | None) -> Encoder:
        return self._shell[0].shell(width)
