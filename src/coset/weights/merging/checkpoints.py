"""Checkpoint folders of ``transformers``: opened lazily, checked before work starts, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from coset.core.errors import CosetError, require
from coset.core.files import replacing, write_json
from coset.core.outside import inside, read_bytes, read_tree, tensor_file
from coset.weights.merging import mlp_files
from coset.weights.merging.encoders import Encoder, MLPEncoder
from coset.weights.merging.families import FAMILIES
from coset.weights.merging.teachers import Teacher
from coset.weights.merging.transformer_encoders import TransformerEncoder, restored

Heads = Literal["join", "average", "keep"]
KNOWN = (*(name for name in FAMILIES if " " not in name), "mlp")
MUST_AGREE = (
    "model_type", "num_hidden_layers", "hidden_act", "image_size", "patch_size", "num_channels", "vocab_size",
    "type_vocab_size", "max_position_embeddings", "projection_dim", "qkv_bias", "n_layer", "n_layers", "n_positions",
    "num_key_value_heads", "head_dim", "rope_theta", "rope_parameters", "rope_scaling", "sliding_window",
    "activation_function", "activation",
)  # fmt: skip
WIDTHS = (
    "hidden_size", "intermediate_size", "num_attention_heads", "n_embd", "n_inner", "n_head", "dim", "hidden_dim",
    "n_heads",
)  # fmt: skip
FLOATS = ("F64", "F32", "F16", "BF16")
FILES = ("model.safetensors", "pytorch_model.bin")
"""Alone, or in shards with an index."""
HEADS = ("classifier.", "pre_classifier.", "qa_outputs.", "score.")
"""Beginnings of parameters that belong to a task."""
LAST = ("classifier.out_proj", "classifier", "score", "qa_outputs")
"""Modules that give classes, in the order in which they are looked for."""


ANSWERS = {
    "ForSequenceClassification": "sequences", "ForImageClassification": "images", "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "spans",
}  # fmt: skip


class _Index(BaseModel):
    weight_map: dict[str, str]


class _Tokenizer(BaseModel):
    model: dict[str, Any] = {}


class Checkpoint:
    """A folder with ``config.json`` and safetensors, of which nothing is read before it is asked for.

    Without safetensors, ``pytorch_model.bin`` is read, of which nothing but tensors is unpickled.

    Args:
        folder: The folder.

    Raises:
        CosetError: It is missing, its config cannot be read, or a shard is missing or damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        if not folder.is_dir():
            raise CosetError(f"{folder} is not a folder{_instead_of_a_folder(folder)}")
        if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
            raise CosetError(
                f"{folder} is an adapter, not a model: put it into its base first (coset lora apply BASE {folder} "
                "OUTPUT)"
            )
        self.config: dict[str, Any] = read_tree(folder / "config.json", dict[str, Any])
        if self.config.get("quantization_config"):
            raise CosetError(
                f"{folder / 'config.json'} has quantization_config: quantised models cannot be merged, give float32, "
                "float16 or bfloat16"
            )
        self.files = self._find()

    def _find(self) -> dict[str, Path]:
        for kind in FILES:
            index, single = self.folder / f"{kind}.index.json", self.folder / kind
            if index.is_file():
                listed = read_tree(index, _Index).weight_map
                break
            if single.is_file():
                listed = dict.fromkeys(_names(single), single.name)
                break
        else:
            unread = ", but GGUF files, which are not read" if any(self.folder.glob("*.gguf")) else ""
            raise CosetError(
                f"{self.folder} holds no model.safetensors (nor an index of shards, nor pytorch_model.bin){unread}"
            )
        for shard in sorted(set(listed.values())):
            path = inside(self.folder, shard, index)
            if not path.is_file():
                raise CosetError(f"{self.folder}: shard {shard} is missing, which its index names")
            held = set(_names(path))
            lacking = sorted(n for n, file in listed.items() if file == shard and n not in held)
            if lacking:
                raise CosetError(f"{path} lacks {lacking[0]}, which the index says it holds")
        return {name: self.folder / file for name, file in listed.items()}

    def __getitem__(self, name: str) -> Tensor:
        """One tensor, read now.

        Raises:
            CosetError: It is not there, or holds numbers that are not finite.
        """
        if name not in self.files:
            raise CosetError(f"{self.folder} lacks {name}")
        with tensor_file(self.files[name]) as file:
            value = file.get_tensor(name)
        if value.is_floating_point() and not is_finite(value):
            raise CosetError(f"{self.files[name]}: {name} holds numbers that are not finite")
        return value

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all tensors, from the headers alone."""
        found: dict[str, tuple[int, ...]] = {}
        for path in sorted(set(self.files.values())):
            with tensor_file(path) as file:
                found |= {n: tuple(file.get_slice(n).get_shape()) for n, at in self.files.items() if at == path}
        return found

    def dtypes(self) -> dict[str, str]:
        """Of all tensors, as safetensors names them (``F32``, ``BF16``), from the headers alone."""
        found: dict[str, str] = {}
        for path in sorted(set(self.files.values())):
            with tensor_file(path) as file:
                found |= {n: file.get_slice(n).get_dtype() for n, at in self.files.items() if at == path}
        return found

    @property
    def classes(self) -> int:
        """Of its head; 0 without one."""
        return self.shapes()[self.head[0]][0] if self.head and self.head[0] in self.files else 0

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the weight and, if there is one, the bias that give its classes: of an MLP, its last layer."""
        if self.config.get("model_type") == "mlp":
            last = str(mlp_files.places(list(self.files))[-1])
        else:
            last = next((name for name in LAST if f"{name}.weight" in self.files), "classifier")
        return tuple(name for name in (f"{last}.weight", f"{last}.bias") if name in self.files)

    @property
    def of_task(self) -> tuple[str, ...]:
        """Names of all parameters of its head."""
        if self.config.get("model_type") == "mlp":
            return self.head
        return tuple(name for name in self.files if name.startswith(HEADS))

    @property
    def answers(self) -> str:
        """What its classes are of: ``sequences``, ``images``, ``tokens``, ``spans``, or nothing known."""
        kinds = [str(kind) for kind in self.config.get("architectures") or ()]
        return next((what for end, what in ANSWERS.items() if any(kind.endswith(end) for kind in kinds)), "")

    @property
    def has_heads(self) -> bool:
        """Whether it has attention."""
        return bool(self.config.get("num_attention_heads"))

    def labels(self) -> list[str]:
        """Names of its classes."""
        named = self.config.get("id2label") or {}
        return [str(named.get(str(i), f"LABEL_{i}")) for i in range(self.classes)]


def _instead_of_a_folder(path: Path) -> str:
    """What to give in its place."""
    if path.suffix.lower() == ".gguf":
        return ": GGUF files are not read, give the model as safetensors"
    if path.is_file():
        return ": give the folder that it lies in"
    model, _, adapter = str(path).rpartition("+")
    if model and Path(model).is_dir():
        return f": put the adapter into the model first (coset lora apply {model} {adapter} OUTPUT), and give OUTPUT"
    return (
        "" if path.exists() or len(path.parts) < 2 else ": models are read from disk; one of a hub is downloaded first"
    )


def is_finite(value: Tensor) -> bool:
    """Whether all numbers are: a sum of them is, unless one is not, or the sum is too large (which is looked into)."""
    wide = torch.float64 if value.dtype == torch.float64 else torch.float32
    return bool(value.sum(dtype=wide).isfinite()) or bool(value.isfinite().all())


def usual_heads(checkpoint: Checkpoint) -> Heads:
    """Classes of sequences, images and MLPs side by side, where the family is known; all else is averaged."""
    known = checkpoint.config.get("model_type") in KNOWN
    return "join" if known and checkpoint.answers not in ("tokens", "spans") else "average"


def check_fit(
    checkpoints: Sequence[Checkpoint], *, equal_widths: bool, wired: bool = True, heads: Heads = "join"
) -> list[str]:
    """Whether models can be merged, from configurations and headers; returns notes.

    Args:
        checkpoints: The models.
        equal_widths: Whether the method needs them.
        wired: Whether it has to know how the network is wired, and so its family.
        heads: Whether classes of heads will stand side by side, heads are merged as all else is, or each is kept.

    Raises:
        CosetError: They cannot; the message names the file, the key and both values.
    """
    first, notes = checkpoints[0], []
    if first.config.get("auto_map"):
        notes.append(
            f"{first.folder / 'config.json'} names code of its own (auto_map), which is neither run nor copied"
        )
    if wired and first.config.get("model_type") not in KNOWN:
        raise CosetError(
            f"{first.folder}: model_type={first.config.get('model_type')!r} cannot be merged by this method; known are "
            f"{', '.join(KNOWN)} (any with methods that go tensor by tensor, e.g. linear, slerp, ties)"
        )
    _check_heads(checkpoints, heads)
    with_head = [c for c in checkpoints if c.classes]
    if with_head and len(with_head) < len(checkpoints):
        lacking = next(c for c in checkpoints if not c.classes)
        raise CosetError(f"{lacking.folder} has no head, {with_head[0].folder} has one: give all with heads, or none")
    for other in checkpoints[1:]:
        for key in MUST_AGREE + (WIDTHS if equal_widths else ()):
            a, b = first.config.get(key), other.config.get(key)
            if a != b:
                more = " (this method needs equal widths; fs_merge does not)" if key in WIDTHS else ""
                raise CosetError(f"{other.folder}: {key}={b}, but {first.folder} has {key}={a}{more}")
        sizes = [
            c.config["hidden_size"] // c.config["num_attention_heads"] for c in (first, other) if wired and c.has_heads
        ]
        if len(set(sizes)) > 1:
            raise CosetError(f"{other.folder}: heads are {sizes[1]} wide, those of {first.folder} {sizes[0]}")
        _check_tensors(first, other, equal_widths, heads)
        _check_tokenizers(first, other)
        eps = [c.config.get("layer_norm_eps") for c in (first, other)]
        if eps[0] != eps[1]:
            notes.append(
                f"layer_norm_eps is {eps[0]} in {first.folder} and {eps[1]} in {other.folder}: the first is kept"
            )
    stored = [_stored_as(c) for c in checkpoints]
    if len(set(stored)) > 1:
        listed = ", ".join(f"{kind} in {c.folder}" for kind, c in zip(stored, checkpoints, strict=True))
        notes.append(f"numbers are stored as {listed}: they are merged in float32 and written as `dtype` says")
    return notes


def _stored_as(checkpoint: Checkpoint) -> str:
    """The one type of its matrices, or several joined."""
    shapes = checkpoint.shapes()
    kinds = {name: kind for name, kind in checkpoint.dtypes().items() if len(shapes[name]) > 1}
    for name, kind in kinds.items():
        if kind not in FLOATS and name in shapes and not name.endswith("position_ids"):
            raise CosetError(
                f"{checkpoint.files[name]}: {name} is stored as {kind}: quantised models cannot be merged, give "
                "float32, float16 or bfloat16"
            )
    return " and ".join(sorted({k for k in kinds.values() if k in FLOATS}))


def _check_heads(checkpoints: Sequence[Checkpoint], heads: Heads) -> None:
    """Whether classes can be put side by side, or are the same ones.

    Raises:
        CosetError: They cannot, or are not.
    """
    first = checkpoints[0]
    if heads == "join" and first.answers == "spans":
        raise CosetError(
            f"{first.folder} answers with spans, whose heads cannot stand side by side: heads: average | keep"
        )
    for other in checkpoints[1:] if heads == "average" and first.classes else ():
        a, b = first.labels(), other.labels()
        if a != b:
            raise CosetError(
                f"{other.folder}: its classes are {', '.join(b)}, those of {first.folder} {', '.join(a)}: heads of "
                "other classes have no average (heads: join, keep)"
            )


def _check_tensors(first: Checkpoint, other: Checkpoint, equal_widths: bool, heads: Heads) -> None:
    a, b = first.shapes(), other.shapes()
    apart = {*first.of_task, *other.of_task} if heads == "keep" else first.head if heads == "join" else ()
    ignored = {n for n in (*a, *b) if n in apart or (".pooler." in f".{n}" and first.config.get("model_type") == "vit")}
    for mine, theirs, who, whose in ((a, b, other, first), (b, a, first, other)):
        lacking = sorted(set(mine) - set(theirs) - ignored)
        if lacking:
            tied = (
                " (tie_word_embeddings: its last map is its embedding)" if who.config.get("tie_word_embeddings") else ""
            )
            more = tied if lacking[0].endswith(("lm_head.weight", "decoder.weight")) else ""
            raise CosetError(f"{who.folder} lacks {lacking[0]}, which {whose.folder} has{more}")
    for name in sorted(set(a) - ignored) if equal_widths else ():
        if a[name] != b[name]:
            raise CosetError(f"{other.folder}: {name} has shape {b[name]}, {first.folder} {a[name]}")


def _check_tokenizers(first: Checkpoint, other: Checkpoint) -> None:
    for name in ("vocab.txt", "tokenizer.json"):
        files = [c.folder / name for c in (first, other)]
        if all(f.is_file() for f in files):
            a, b = (_vocabulary(f) for f in files)
            if a != b:
                raise CosetError(
                    f"{files[1]} is another vocabulary than {files[0]}: the same number would mean other words; "
                    "train both with one tokenizer"
                )


def _vocabulary(path: Path) -> str:
    if path.suffix == ".json":
        vocabulary = read_tree(path, _Tokenizer).model.get("vocab")
        return hashlib.sha256(json.dumps(vocabulary, sort_keys=True).encode()).hexdigest()
    return hashlib.sha256(read_bytes(path)).hexdigest()


def load_teacher(checkpoint: Checkpoint, name: str) -> Teacher:
    """The model of a folder with its head (an identity if it has none), in float32.

    Raises:
        CosetError: A tensor is missing or not finite, or the folder cannot be loaded.
    """
    family = checkpoint.config["model_type"]
    if family == "mlp":
        tensors = {tensor: checkpoint[tensor] for tensor in checkpoint.files}
        encoder, head = mlp_files.build(tensors, checkpoint.config.get("hidden_act", "relu"))
        return Teacher(name, encoder.eval(), head)
    transformers = require("transformers", "weights")
    for tensor in checkpoint.files:
        checkpoint[tensor]
    if family == "clip_vision_model" and not any("visual_projection" in name for name in checkpoint.files):
        family = "clip_vision_model without projection"
    known = FAMILIES[family]
    headed = bool(checkpoint.classes and known.headed)
    if checkpoint.classes and not headed:
        raise CosetError(f"{checkpoint.folder} has a head; of {family} models without heads are merged by this method")
    options = {} if headed else dict(known.made)
    if family in ("bert", "roberta") and not headed:
        options["add_pooling_layer"] = any("pooler.dense" in name for name in checkpoint.files)
    model = _loaded(transformers, checkpoint, str(known.headed if headed else known.model), options)
    if not headed:
        body = TransformerEncoder(model)
        body.eval().requires_grad_(False)
        width = body.wiring().widths[body.wiring().output]
        head = nn.Linear(width, width, bias=False)
        head.weight = nn.Parameter(torch.eye(width), requires_grad=False)
        return Teacher(name, body, head)
    top = model.get_submodule(known.top[0]) if known.top else None
    body = TransformerEncoder(getattr(model, model.base_model_prefix), top)
    body.eval().requires_grad_(False)
    return Teacher(name, body, model.get_submodule(known.head).requires_grad_(False))


def _loaded(transformers: Any, checkpoint: Checkpoint, kind: str, options: dict[str, Any]) -> Any:
    """A model of the package with every parameter of the file.

    Raises:
        CosetError: It lacks one, or holds one that the model has not: whoever merged it would lose that.
    """
    with _quiet(transformers):
        try:
            model, facts = getattr(transformers, kind).from_pretrained(
                checkpoint.folder,
                dtype=torch.float32,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
                **options,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CosetError(f"{checkpoint.folder} cannot be loaded: {error}") from error
    missing = sorted(facts["missing_keys"])
    if missing:
        raise CosetError(f"{checkpoint.folder} lacks {missing[0]}")
    other = sorted(name for name in facts["unexpected_keys"] if not _of_no_use(name))
    if other:
        raise CosetError(
            f"{checkpoint.folder} holds {other[0]}, which {kind} has not: this method would lose it (those that go "
            "tensor by tensor keep it, e.g. linear, slerp, ties)"
        )
    return model


def _of_no_use(name: str) -> bool:
    """Buffers of earlier releases, and poolers that no classifier reads."""
    return (
        name.endswith(("position_ids", "rotary_emb.inv_freq", "attn.bias", "masked_bias")) or ".pooler." in f".{name}"
    )


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
    """
    if keep and labels[0]:
        last = "classifier" if not isinstance(encoder, MLPEncoder) else "head"
        parts = {
            task: {f"{last}.{n}": v.detach().to(dtype).contiguous() for n, v in head.named_parameters()}
            for task, head in heads.items()
        }
        save_heads(folder, parts)
        heads, labels = dict(list(heads.items())[:1]), labels[:1]
    if isinstance(encoder, MLPEncoder):
        return _save_mlp(folder, encoder, heads, labels, dtype=dtype, max_shard_size=max_shard_size)
    transformers = require("transformers", "weights")
    assert isinstance(encoder, TransformerEncoder)
    model = restored(encoder.model)
    with _quiet(transformers):
        if labels[0]:
            model = _headed(
                transformers, encoder, model, joint_config(model.config.to_dict(), list(heads), labels), heads
            )
        model.config.dtype = dtype
        model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    for file in folder.glob("*.safetensors"):  # the package makes them for their owner alone
        file.chmod(stat.S_IMODE((folder / "config.json").stat().st_mode))
    if not labels[0]:
        _save({n: h.weight.detach().contiguous() for n, h in heads.items()}, folder / "heads.safetensors")


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
    tensors = {n: v.to(dtype) for n, v in mlp_files.tensors_of(encoder, _joined(heads)).items()}
    write_shards(folder, tensors.items(), {n: v.numel() * v.element_size() for n, v in tensors.items()}, max_shard_size)
    activation = next(n for n, a in mlp_files.ACTIVATIONS.items() if any(type(m) is a for m in encoder.layers))
    config = joint_config({"model_type": "mlp", "hidden_act": activation}, list(heads), labels)
    write_json(folder / "config.json", config)


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


def _names(path: Path) -> list[str]:
    with tensor_file(path) as file:
        return list(file.keys())


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the package's own progress bars and warnings about names of weights."""
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
