"""Which checkpoints can be merged with which: everything that would fail later is found before work starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from coset.core.errors import CosetError, require
from coset.weights.merging import vocabularies
from coset.weights.merging.checkpoints import Checkpoint, quiet
from coset.weights.merging.families import FAMILIES

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
EPSILON = re.compile("norm.*eps")
"""Of norms, as each family calls it: ``layer_norm_eps``, ``layer_norm_epsilon``, ``rms_norm_eps``, ``norm_epsilon``."""
FLOATS = ("F64", "F32", "F16", "BF16")


def usual_heads(checkpoint: Checkpoint) -> Heads:
    """Classes of sequences, images and MLPs side by side, where the family is known; all else is averaged."""
    known = checkpoint.config.get("model_type") in KNOWN
    return "join" if known and checkpoint.answers not in ("tokens", "spans") else "average"


def check_fit(
    checkpoints: Sequence[Checkpoint], *, equal_widths: bool, wired: bool = True, heads: Heads = "join",
    base: Checkpoint | None = None,
) -> list[str]:  # fmt: skip
    """Whether models can be merged, from configurations and headers; returns notes.

    Args:
        checkpoints: The models.
        equal_widths: Whether the method needs them.
        wired: Whether it has to know how the network is wired, and so its family.
        heads: Whether classes of heads will stand side by side, heads are merged as all else is, or each is kept.
        base: What the models began as, if the method looks at it.

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
    for other in [*checkpoints[1:], *([] if base is None else [base])]:
        notes += _check_settings(first, other, equal_widths)
        sizes = [
            c.config["hidden_size"] // c.config["num_attention_heads"] for c in (first, other) if wired and c.has_heads
        ]
        if len(set(sizes)) > 1:
            raise CosetError(f"{other.folder}: heads are {sizes[1]} wide, those of {first.folder} {sizes[0]}")
        if other is not base:
            _check_tensors(first, other, equal_widths, heads)
        notes += vocabularies.check_same(first.folder, other.folder)
    if base is not None:
        _check_base(checkpoints, base, heads)
        checkpoints = [*checkpoints, base]
    stored = [_stored_as(c) for c in checkpoints]
    if len(set(stored)) > 1:
        listed = ", ".join(f"{kind} in {c.folder}" for kind, c in zip(stored, checkpoints, strict=True))
        notes.append(f"numbers are stored as {listed}: they are merged in float32 and written as `dtype` says")
    return notes


def _check_settings(first: Checkpoint, other: Checkpoint, equal_widths: bool) -> list[str]:
    """Whether configurations mean networks of one form; returns notes.

    Raises:
        CosetError: They do not.
    """
    keys = MUST_AGREE + (WIDTHS if equal_widths else ())
    a, b = first.config, other.config
    if a.get("model_type") == b.get("model_type") and any(a.get(key) != b.get(key) for key in keys):
        a, b = _filled(a), _filled(b)
    for key in keys:
        told = key == "rope_parameters" or first.config.get(key) != other.config.get(key)
        if told and a.get(key) != b.get(key):
            more = " (this method needs equal widths; fs_merge does not)" if key in WIDTHS else ""
            raise CosetError(f"{other.folder}: {key}={b.get(key)}, but {first.folder} has {key}={a.get(key)}{more}")
    return [
        f"{key} is {a.get(key)} in {first.folder} and {b.get(key)} in {other.folder}: the first is kept"
        for key in sorted({*a, *b})
        if EPSILON.search(key) and a.get(key) != b.get(key)
    ]


def _filled(config: dict[str, Any]) -> dict[str, Any]:
    """As this release of ``transformers`` reads it: defaults filled in, settings of other releases renamed.

    Without the package, or of a kind that it does not know, as it is.
    """
    try:
        transformers = require("transformers", "weights")
        with quiet(transformers):
            read = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(dict(config)).to_dict()
    except Exception:  # no such kind, or settings that it refuses in a way of its own
        return config
    rotary = read.get("rope_parameters")
    if isinstance(rotary, dict) and "rope_type" in rotary:
        rotary.pop("type", None)  # the same by its name of before
    return read


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


def _check_base(checkpoints: Sequence[Checkpoint], base: Checkpoint, heads: Heads) -> None:
    """Whether the base has all that is merged; heads that are not merged it need not have, and it may have more."""
    first, there = checkpoints[0], base.shapes()
    apart = {"join": first.head, "keep": first.of_task, "average": ()}[heads]
    for name, shape in first.shapes().items():
        if name in apart or not all(name in c.files for c in checkpoints):
            continue
        if name not in there:
            raise CosetError(f"{base.folder} lacks {name}, which {first.folder} has")
        if there[name] != shape:
            raise CosetError(f"{base.folder}: {name} has shape {there[name]}, {first.folder} {shape}")


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
