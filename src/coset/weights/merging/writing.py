"""Checkpoint folders of ``transformers``, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coset.core.errors import CosetError, require
from coset.core.files import replacing, write_json
from coset.weights.merging import mlp_files
from coset.weights.merging.checkpoints import is_finite, quiet
from coset.weights.merging.encoders import Encoder, MLPEncoder
from coset.weights.merging.families import FAMILIES
from coset.weights.merging.transformer_encoders import TransformerEncoder, restored


def joint_config(config: dict[str, Any], names: Sequence[str], labels: Sequence[Sequence[str]]) -> dict[str, Any]:
    """A configuration whose classes are those of all heads, named ``task: class``."""
    joined = [f"{name}: {label}" for name, own in zip(names, labels, strict=True) for label in own]
    made = {k: v for k, v in config.items() if k not in ("num_labels", "problem_type")}
    return made | {
        "id2label": {str(i): label for i, label in enumerate(joined)},
        "label2id": {label: i for i, label in enumerate(joined)},
    }


def save_merged(
    folder: Path, encoder: Encoder, heads: dict[str, nn.Linear], labels: Sequence[Sequence[str]], *,
    dtype: torch.dtype, max_shard_size: str, keep: bool = False,
) -> None:  # fmt: skip
    """Write an ordinary checkpoint: one classifier over the classes of all heads, or the bare model with adapters.

    Without heads, what leads from merged features to each teacher's goes to ``heads.safetensors``; so do all heads
    where they are to be kept, beside the first, which the checkpoint has.

    Raises:
        CosetError: A parameter is not finite, as such or as ``dtype``.
    """
    if keep and labels[0]:
        last = "classifier" if not isinstance(encoder, MLPEncoder) else "head"
        parts = {
            task: {f"{last}.{n}": stored_as(v.detach(), dtype, f"{last}.{n}") for n, v in head.named_parameters()}
            for task, head in heads.items()
        }
        save_heads(folder, parts)
        heads, labels = dict(list(heads.items())[:1]), labels[:1]
    if isinstance(encoder, MLPEncoder):
        return _save_mlp(folder, encoder, heads, labels, dtype=dtype, max_shard_size=max_shard_size)
    transformers = require("transformers", "weights")
    assert isinstance(encoder, TransformerEncoder)
    model = restored(encoder.model)
    with quiet(transformers):
        if labels[0]:
            model = _headed(
                transformers, encoder, model, joint_config(model.config.to_dict(), list(heads), labels), heads
            )
        for name, value in model.named_parameters():
            stored_as(value.detach(), dtype, name)
        model.config.dtype = dtype
        model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    for file in folder.glob("*.safetensors"):  # the package makes them for their owner alone
        file.chmod(stat.S_IMODE((folder / "config.json").stat().st_mode))
    if not labels[0]:
        maps = {n: stored_as(h.weight.detach(), h.weight.dtype, n) for n, h in heads.items()}
        _save({n: v.contiguous() for n, v in maps.items()}, folder / "heads.safetensors")


def _headed(
    transformers: Any, encoder: TransformerEncoder, body: Any, config: dict[str, Any], heads: dict[str, nn.Linear]
) -> Any:
    """The model of the package with a classifier.

    Raises:
        CosetError: Its classifier has no place for a bias that a head has got.
    """
    family = FAMILIES[encoder.family]
    with torch.device("meta"):
        model = getattr(transformers, str(family.headed))(type(encoder.config).from_dict(config))
    setattr(model, model.base_model_prefix, body)
    joined = _joined(heads)
    if model.get_submodule(family.head).bias is None:
        if bool(joined.bias.any()):
            raise CosetError(f"the classifier of {family.headed} has no bias, which this method needs: choose another")
        joined.bias = None  # type: ignore[assignment]
    for place, module in ((family.head, joined), (family.top[0] if family.top else "", encoder.top)):
        if place and module is not None:
            where, _, last = place.rpartition(".")
            setattr(model.get_submodule(where), last, module)
    return model


def _save_mlp(
    folder: Path, encoder: MLPEncoder, heads: dict[str, nn.Linear], labels: Sequence[Sequence[str]], *,
    dtype: torch.dtype, max_shard_size: str,
) -> None:  # fmt: skip
    tensors = {n: stored_as(v, dtype, n) for n, v in mlp_files.tensors_of(encoder, _joined(heads)).items()}
    write_shards(folder, tensors.items(), {n: v.numel() * v.element_size() for n, v in tensors.items()}, max_shard_size)
    activation = next(n for n, a in mlp_files.ACTIVATIONS.items() if any(type(m) is a for m in encoder.layers))
    config = joint_config({"model_type": "mlp", "hidden_act": activation}, list(heads), labels)
    write_json(folder / "config.json", config)


def stored_as(value: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """In the type that is written.

    Raises:
        CosetError: It is not finite there.
    """
    made = value.to(dtype)
    if not is_finite(made):
        why = (
            "is not finite" if not bool(value.isfinite().all()) else f"is beyond {dtype}: dtype: bfloat16 has the range"
        )
        raise CosetError(f"the merged {name} {why}".replace("torch.", ""))
    return made


def save_heads(folder: Path, heads: Mapping[str, Mapping[str, Tensor]]) -> None:
    """The parameters of each task's head, named ``task.parameter``."""
    _save(
        {f"{task}.{name}": v.contiguous() for task, own in heads.items() for name, v in own.items()},
        folder / "heads.safetensors",
    )


def _joined(heads: dict[str, nn.Linear]) -> nn.Linear:
    """One classifier over the classes of all heads."""
    weight = torch.cat([h.weight.detach() for h in heads.values()])
    joint = nn.Linear(weight.size(1), weight.size(0))
    joint.weight = nn.Parameter(weight)
    joint.bias = nn.Parameter(torch.cat([_bias(h) for h in heads.values()]))
    return joint


def _bias(head: nn.Linear) -> Tensor:
    return head.bias.detach() if head.bias is not None else torch.zeros(head.out_features)


def write_shards(
    folder: Path, tensors: Iterable[tuple[str, Tensor]], sizes: dict[str, int], max_shard_size: str
) -> dict[str, Path]:
    """Write tensors as they come, holding one shard at a time; returns where each lies.

    Args:
        folder: Where.
        tensors: Names and values.
        sizes: Bytes of each, so that the number of shards is known before the first is written.
        max_shard_size: Such as ``5GB``.
    """
    limit, used, shard_of = parse_size(max_shard_size), 0, {}
    number = 0
    for name, size in sizes.items():
        if used and used + size > limit:
            number, used = number + 1, 0
        shard_of[name], used = number, used + size
    single, count = number == 0, number + 1
    files = ["model.safetensors" if single else f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    held: dict[str, Tensor] = {}
    current = 0
    for name, value in tensors:
        if shard_of[name] != current:
            _save(held, folder / files[current])
            held, current = {}, shard_of[name]
        held[name] = value.contiguous()
    _save(held, folder / files[current])
    if not single:
        weight_map = {name: files[i] for name, i in shard_of.items()}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        write_json(folder / "model.safetensors.index.json", index)
    return {name: folder / files[i] for name, i in shard_of.items()}


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    with replacing(path) as part:
        save_file(tensors, part, metadata={"format": "pt"})


def parse_size(text: str) -> int:
    """Bytes of ``5GB``, ``200MB``, ``1KB`` (powers of 1000).

    Raises:
        CosetError: It reads otherwise.
    """
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if text.upper().endswith(unit) and text[:-2].strip().isdigit() and int(text[:-2]):
            return int(text[:-2]) * factor
    raise CosetError(f"max_shard_size={text!r} must read like 5GB or 200MB")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` that takes its name when all is written, and is removed if anything fails.

    Raises:
        CosetError: There is something at ``path`` already, or it cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CosetError(f"{path} exists already: choose another output")
    part = path.with_name(f".{path.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    except OSError as error:
        raise CosetError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield part
        if path.exists():
            path.rmdir()
        os.replace(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
