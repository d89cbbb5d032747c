"""Checkpoint folders of ``transformers``: opened lazily, their weights as what they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from coset.core.errors import CosetError, require
from coset.core.outside import inside, read_tree, tensor_file
from coset.weights.merging import mlp_files
from coset.weights.merging.families import FAMILIES
from coset.weights.merging.teachers import Teacher
from coset.weights.merging.transformer_encoders import TransformerEncoder
from coset.weights.merging.vocabularies import PACKED
from coset.weights.state_files import check_one_model

FILES = ("model.safetensors", "pytorch_model.bin")
"""Alone, or in shards with an index."""
HEADS = ("classifier.", "pre_classifier.", "qa_outputs.", "score.")
"""Beginnings of parameters that belong to a task."""
LAST = ("classifier.out_proj", "classifier", "score", "qa_outputs")
"""Modules that give classes, in the order in which they are looked for."""
SIDE_FILES = (
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.json", *PACKED, "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
    "generation_config.json", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
"""What goes with the weights into a merged folder; SentencePiece's vocabularies have many names."""
ANSWERS = {
    "ForSequenceClassification": "sequences", "ForImageClassification": "images", "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "spans",
}  # fmt: skip


class _Index(BaseModel):
    weight_map: dict[str, str]


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
                check_one_model(single, listed.values(), index)
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

    def side_files(self) -> list[Path]:
        """Those of :data:`SIDE_FILES` that are there."""
        return [file for kind in SIDE_FILES for file in sorted(self.folder.glob(kind)) if file.is_file()]

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
    with quiet(transformers):
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


def _names(path: Path) -> list[str]:
    with tensor_file(path) as file:
        return list(file.keys())


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
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
