"""An adapter put into its base model: W + s U V^T and all else that it holds, one shard of the base at a time."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import TypedDict

from coset.core.errors import CosetError, require
from coset.core.files import takes_paths, write_json
from coset.core.outside import inside, read_tree, tensor_file
from coset.weights.lora.companions import Companions
from coset.weights.lora.data.adapters import LoraAdapter, LoraPair
from coset.weights.lora.orientation import Shape, turned_squares
from coset.weights.lora.storing import stored_names
from coset.weights.state_files import check_one_model

_INDEX = "model.safetensors.index.json"
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@takes_paths
def apply(adapter: LoraAdapter, base: Path, output: Path, strength: float = 1.0) -> int:
    """Write the base model with the adapter in it; shards, types and all else that loaders read are the base's.

    Args:
        adapter: Of one network, its layers named as in the base.
        base: A folder of ``transformers`` or ``diffusers`` with safetensors, or one such file.
        output: A folder, or a file if the base is one; it must not exist.
        strength: What the update is multiplied with; 1 as trained.

    Where the base has one parameter for its embedding and its last map, and the adapter changes either, they are
    written as two, and the configuration says so.

    Returns:
        How many parameters changed.

    Raises:
        CosetError: The base lacks a layer, has other shapes, or is quantised; the adapter cannot be applied with
            another strength; what comes out is not finite; or there is something at ``output``.
    """
    if not math.isfinite(strength):
        raise CosetError(f"--strength {strength}: a finite number was expected; 1 is as trained")
    if strength != 1 and (adapter.saved or any(p.magnitude is not None for p in adapter.layers.values())):
        raise CosetError(f"{adapter.name}: --strength has no meaning for DoRA and for parameters trained in full")
    shards = _shards(base)
    held = {shard: _shapes_in(shard) for shard in shards}
    names = {name: shard for shard in shards for name in held[shard]}
    shapes = {name: shape for found in held.values() for name, shape in found.items()}
    tie = Tie.of(base, names)
    changes = _Changes(adapter, base, shapes if tie is None else {tie.head: shapes[tie.embedding]} | shapes, strength)
    tie = tie if tie is not None and tie.is_broken(changes) else None
    beside = _beside(base, shards)
    with new_output(output, base.is_dir()) as part:
        for shard in shards:
            _rewrite(shard, part / shard.relative_to(base) if base.is_dir() else part, changes, tie)
        beside.copy(part)
        if tie is not None:
            _untie(part, tie, str(names[tie.embedding].relative_to(base)))
    return len(changes)


@takes_paths
def left_behind(base: Path) -> list[str]:
    """What :func:`apply` does not copy from the folder of a base model: names of files and folders."""
    return [path.name for path in _beside(base, _shards(base)).left]


def _beside(base: Path, shards: list[Path]) -> Companions:
    """What goes along; with a base of one file nothing does."""
    if not base.is_dir():
        return Companions([], [])
    return Companions.of(base, {shard.relative_to(base).parts[0] for shard in shards})


class Shards(TypedDict):
    """What an index of shards says."""

    weight_map: dict[str, str]


@dataclass(frozen=True)
class Tie:
    """A language model's last map that is its embedding (``tie_word_embeddings``), and is not stored.

    Attributes:
        embedding: Its name.
        head: The name of the last map.
        kind: The model's class.
    """

    embedding: str
    head: str
    kind: str

    @classmethod
    def of(cls, base: Path, names: Mapping[str, Path]) -> Tie | None:
        """That of a folder; None if there is none, or the model has no such map."""
        if not (base / "config.json").is_file():
            return None
        config = read_tree(base / "config.json", dict[str, Any])
        kind = next(iter(config.get("architectures") or []), "")
        stored = any(name.endswith("lm_head.weight") for name in names)
        embedding = next((name for name in names if re.search(_EMBEDDINGS, name)), None)
        tied = config.get("tie_word_embeddings", not stored)
        if not tied or embedding is None or not isinstance(kind, str) or not re.search(_WITH_HEAD, kind):
            return None
        return cls(embedding, "lm_head.weight", kind)

    def is_broken(self, changes: _Changes) -> bool:
        """Whether an adapter changes either: then they are one parameter no more.

        Raises:
            CosetError: The model is of a class that knows no other way.
        """
        touched = next((name for name in (self.embedding, self.head) if name in changes), None)
        if touched is not None and not self.kind.endswith(("ForCausalLM", "LMHeadModel")):
            raise CosetError(
                f"{changes.adapter.name} changes {touched}, and {self.kind} has one parameter for its embedding and "
                "its last map (tie_word_embeddings) and knows no other way: keep the adapter apart"
            )
        return touched is not None


_EMBEDDINGS = r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|shared)\.weight$"
_WITH_HEAD = r"(ForCausalLM|LMHeadModel|ForConditionalGeneration|ForMaskedLM|ForPreTraining)$"


class _Changes:
    """What becomes of each parameter of the base.

    Args:
        adapter: The adapter.
        base: The base, a file or a folder.
        shapes: Of the parameters of the base.
        strength: What updates are multiplied with.

    Raises:
        CosetError: A parameter that the adapter changes is missing, or not to be told.
    """

    def __init__(self, adapter: LoraAdapter, base: Path, shapes: Mapping[str, Shape], strength: float):
        self.adapter, self.base, self.strength, self._shapes = adapter, base, strength, shapes
        self._changed: dict[str, str] = {}  # parameters of the base, and what the adapter calls them
        self.updates: dict[str, LoraPair] = {}
        self.biases: dict[str, Tensor] = {}
        inner = next((layer for layer in adapter.layers if ".base_layer." in layer), None)
        if inner is not None:
            raise CosetError(
                f"{adapter.name}: {inner} is of a torch.nn.MultiheadAttention, whose last map PEFT (0.21 and before) "
                "trains with its update added twice: what it stands for depends on the version that trained it; merge "
                "with that one"
            )
        for layer, pair in adapter.layers.items():
            if pair.kind == "expert":
                raise CosetError(
                    f"{adapter.name}: {layer} is of experts of one parameter, or of one that is no weight "
                    "(target_parameters): merge with PEFT"
                )
            self.updates[self._found(f"{layer}.weight")] = pair
            if pair.bias is not None:
                self.biases[self._found(f"{layer}.bias")] = pair.bias
        self.dense = {self._found(name): value for name, value in adapter.dense.items()}
        self.saved = {self._found(name): value for name, value in adapter.saved.items()}
        self._check_one_place()
        updates = {name: pair.shape for name, pair in self.updates.items() if pair.kind == "linear"}
        squares = [name for name, (n, m) in updates.items() if n == m and shapes[name] == (n, m)]
        self.turned = turned_squares(squares, shapes, updates, adapter.transposed)

    def _found(self, name: str) -> str:
        """The parameter of the base with this name, or the one whose name ends so (a model inside a model).

        Raises:
            CosetError: There is none, or several, or another name has led to it.
        """
        ends = _ending(name, self._shapes) or [self._stored[end] for end in _ending(name, self._stored)]
        if len(ends) != 1:
            what = f"several parameters that end so ({', '.join(ends[:3])})" if ends else "no such parameter"
            raise CosetError(f"{self.adapter.name} changes {name}; the base has {what}")
        other = self._changed.setdefault(ends[0], name)
        if other != name:
            raise CosetError(f"{self.adapter.name} changes {other} and {name}; the base has {ends[0]} alone for both")
        return ends[0]

    def _check_one_place(self) -> None:
        """A model inside a model has one place there.

        Raises:
            CosetError: Names lead to the base by other beginnings that are put before them, or taken off.
        """
        places: dict[str, str] = {}
        for end, name in self._changed.items():
            if end != name and end.endswith(f".{name}"):
                places.setdefault(f"with {end.removesuffix(name)} before it", name)
            elif end != name and name.endswith(f".{end}"):
                places.setdefault(f"without its {name.removesuffix(end)}", name)
        if len(places) > 1:
            (first, one), (second, other), *_ = places.items()
            raise CosetError(
                f"{self.adapter.name} changes {one}, which the base has {first}, and {other}, which it has {second}: "
                "another base?"
            )

    @cached_property
    def _stored(self) -> dict[str, str]:
        return stored_names(self.base, self._shapes)

    def __contains__(self, name: str) -> bool:
        return any(name in held for held in (self.updates, self.biases, self.dense, self.saved))

    def __len__(self) -> int:
        return len({*self.updates, *self.biases, *self.dense, *self.saved})

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """The parameter as it is afterwards, in the type that it has.

        Raises:
            CosetError: It is quantised, has another shape than its update, or is not finite afterwards.
        """
        if name not in self:
            return value
        if value.dtype not in _FLOATS:
            raise CosetError(
                f"{name} is stored as {value.dtype}: a quantised base model, to which nothing can be added"
            )
        made = value.double() if value.dtype == torch.float64 else value.float()
        if name in self.saved:
            made = _fitting(name, self.saved[name], made)
        if name in self.updates:
            made = updated(name, made, self.updates[name], self.strength, name in self.turned)
        for held in (self.biases, self.dense):
            if name in held:
                made = made + self.strength * _fitting(name, held[name], made)
        made = made.to(value.dtype)
        if not bool(made.isfinite().all()):
            there = f"too large for {value.dtype}" if bool(value.isfinite().all()) else "NaN or infinite in the base"
            raise CosetError(f"{name}: numbers that are {there}: nothing is written")
        return made


def updated(name: str, weight: Tensor, pair: LoraPair, strength: float, transposed: bool) -> Tensor:
    """W + s U V^T, or of a DoRA m (W + s U V^T) / ||W + s U V^T|| with norms of rows.

    Args:
        name: Of the parameter.
        weight: W.
        pair: The update.
        strength: What it is multiplied with.
        transposed: Whether a square W is stored as ``[in, out]``; of others the shape tells.

    Raises:
        CosetError: The update has another shape than W.
    """
    n, m = pair.shape
    delta = strength * pair.weight_update().to(weight)
    turned = weight.dim() == 2 and pair.kind == "linear" and tuple(weight.shape) == (m, n) and (n != m or transposed)
    if turned:
        delta = delta.mT
    if delta.shape != weight.shape:
        if pair.kind == "embedding" or weight.dim() < 2 or weight.numel() != delta.numel() or weight.size(0) != n:
            raise CosetError(
                f"{name} is {tuple(weight.shape)} in the base, its update {tuple(delta.shape)}: another base?"
            )
        delta = delta.reshape(weight.shape)
    made = weight + delta
    if pair.magnitude is None:
        return made
    turned = turned or pair.kind == "embedding"  # its magnitudes are of features, not of words
    rows = made.mT if turned else made
    norm = rows.flatten(1).norm(dim=1)
    scaled = rows * (pair.magnitude.to(rows) / norm).reshape(-1, *[1] * (rows.dim() - 1))
    return scaled.mT if turned else scaled


def _fitting(name: str, value: Tensor, like: Tensor) -> Tensor:
    if value.shape != like.shape:
        if re.search(_EMBEDDINGS, name) or name.endswith("lm_head.weight"):
            raise CosetError(
                f"{name} has {len(like)} words in the base, {len(value)} in the adapter: words were added before it "
                f"was trained; give a base with {len(value)} (resize_token_embeddings, save_pretrained)"
            )
        raise CosetError(
            f"{name} is {tuple(like.shape)} in the base, {tuple(value.shape)} in the adapter: another base?"
        )
    return value.to(like)


def _ending(name: str, names: Collection[str]) -> list[str]:
    """The name itself where it is there, else all that end with it, or that it ends with."""
    return [name] if name in names else [n for n in names if n.endswith(f".{name}") or name.endswith(f".{n}")]


def _shards(base: Path) -> list[Path]:
    if base.is_file():
        if base.suffix.lower() in (".bin", ".pt", ".pth"):
            raise CosetError(f"{base}: the base has to be safetensors, as what is written will be")
        return [base]
    index = next(
        iter([base / _INDEX] if (base / _INDEX).is_file() else sorted(base.glob("*.safetensors.index.json"))), None
    )
    if index is not None:
        listed: Mapping[str, str] = read_tree(index, Shards)["weight_map"]
        check_one_model(index.with_name(index.name.removesuffix(".index.json")), listed.values(), index)
        found = [inside(base, name, index) for name in dict.fromkeys(listed.values())]
    else:
        found = sorted(base.glob("*.safetensors"))
    if not found:
        raise CosetError(f"{base} holds no safetensors: the base has to be a folder of a model, or a file of it")
    lacking = next((path for path in found if not path.is_file()), None)
    if lacking is not None:
        raise CosetError(f"{lacking} is missing, which the index names")
    return found


def _shapes_in(path: Path) -> dict[str, Shape]:
    with tensor_file(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _rewrite(shard: Path, to: Path, changes: _Changes, tie: Tie | None) -> None:
    """One shard, its tensors read one by one; those that change are held in the type that they had."""
    with tensor_file(shard) as file:
        tensors = {name: changes(name, file.get_tensor(name)).contiguous() for name in file.keys()}  # noqa: SIM118
        if tie is not None and tie.embedding in tensors:
            tensors[tie.head] = changes(tie.head, file.get_tensor(tie.embedding)).contiguous().clone()
        metadata = file.metadata() or {"format": "pt"}
    to.parent.mkdir(parents=True, exist_ok=True)
    require("safetensors.torch", "weights").save_file(tensors, str(to), metadata=metadata)


def _untie(part: Path, tie: Tie, shard: str) -> None:
    """The configuration and the index know that embedding and last map are two, in this shard."""
    config = read_tree(part / "config.json", dict[str, Any])
    write_json(part / "config.json", config | {"tie_word_embeddings": False})
    for index in part.glob("*.safetensors.index.json"):
        listed = read_tree(index, dict[str, Any])
        write_json(index, listed | {"weight_map": listed["weight_map"] | {tie.head: shard}})


@contextmanager
def new_output(output: Path, folder: bool) -> Iterator[Path]:
    """A file or folder beside the output that takes its name when all is written.

    Raises:
        CosetError: There is something at ``output``, or it cannot be written.
    """
    if output.exists():
        raise CosetError(f"{output} exists already: choose another output")
    part = output.with_name(f".{output.name}.part-{os.getpid()}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            part.mkdir()
        yield part
        if output.exists():
            raise CosetError(f"{output} exists already: choose another output")
        os.replace(part, output)
    except OSError as error:
        raise CosetError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
