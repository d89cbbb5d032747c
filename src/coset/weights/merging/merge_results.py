"""What a merge gave: what each head keeps, and the card that lies beside the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from coset.core.errors import CosetError, require
from coset.core.outside import lines_of, read_arrays, read_tensors
from coset.weights.merging import mlp_files
from coset.weights.merging.checkpoints import Checkpoint, is_finite, load_teacher
from coset.weights.merging.encoders import Inputs, check_together, count_samples
from coset.weights.merging.families import FAMILIES
from coset.weights.merging.merge_options import MergeFile
from coset.weights.merging.teachers import Originals, Teacher


def read_inputs(path: Path, folder: Path, tokens: int) -> tuple[Inputs, Tensor | None]:
    """Samples by name of the model's arguments, numbers as models take them, and their labels if the file has them.

    Raises:
        CosetError: The file cannot be read.
    """
    if path.suffix == ".txt":
        transformers = require("transformers", "weights")
        texts = [line for line in lines_of(path) if line.strip()]
        if not texts:
            raise CosetError(f"{path} holds no text")
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise CosetError(f"{folder} has no tokenizer for the texts of {path}: {error}") from error
        read = tokenizer(texts, padding="max_length", truncation=True, max_length=tokens, return_tensors="pt")
        return dict(read), None
    if path.suffix == ".npz":
        arrays = read_arrays(path)
        wrong = next((name for name, array in arrays.items() if array.dtype.kind not in "biuf"), None)
        if wrong is not None:
            raise CosetError(f"{path}: {wrong!r} has type {arrays[wrong].dtype}; numbers were expected")
        found = {name: torch.from_numpy(array) for name, array in arrays.items()}
    else:
        found = read_tensors(path)
    labels = found.pop("labels", None)
    if not found or not all(v.dim() for v in found.values()) or len({len(v) for v in found.values()}) > 1:
        raise CosetError(f"{path} must hold tensors such as pixel_values or input_ids with as many samples each")
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}, labels


def positions(checkpoint: Checkpoint) -> int | None:
    """How many tokens a model takes; RoBERTa's tables begin after its padding."""
    most = checkpoint.config.get("max_position_embeddings") or checkpoint.config.get("n_positions")
    padding = checkpoint.config.get("pad_token_id")
    shifted = checkpoint.config.get("model_type") in ("roberta", "xlm-roberta", "camembert")
    return None if most is None else int(most) - (int(padding if padding is not None else 1) + 1 if shifted else 0)


def tokens_of(merge: MergeFile, checkpoint: Checkpoint) -> int:
    """Where texts are cut for a model.

    Raises:
        CosetError: It has fewer positions than were asked for.
    """
    asked, most = merge.parameters.tokens, positions(checkpoint)
    if asked is not None and most is not None and asked > most:
        raise CosetError(f"parameters.tokens={asked}, but {checkpoint.folder} has {most} positions")
    return asked or min(64, most or 64)


def samples_that_fit(merge: MergeFile, opened: Sequence[Checkpoint]) -> None:
    """Whether all files of samples can be read and are such as their models take, and labels such as they give.

    Raises:
        CosetError: One is not; the message names it.
    """
    batches = []
    for m, checkpoint in zip(merge.models, opened, strict=True):
        for file in (m.inputs, m.test):
            if file is not None:
                inputs, labels = read_inputs(Path(file), Path(m.model), tokens_of(merge, checkpoint))
                _check_inputs(inputs, Path(file), checkpoint)
                _check_labels(labels, count_samples(inputs), Path(file), checkpoint)
                batches += [inputs] if file == m.inputs else []
    if merge.method.begin is not None:
        check_together(batches)


def _check_inputs(inputs: Inputs, file: Path, checkpoint: Checkpoint) -> None:
    named = inputs if isinstance(inputs, dict) else {}
    for name, value in named.items():
        if value.is_floating_point() and not is_finite(value):
            raise CosetError(f"{file}: {name} holds numbers that are not finite")
    if checkpoint.config.get("model_type") == "mlp":
        _check_rows(named, file, checkpoint)
    else:
        _check_arguments(named, file, checkpoint)
    if "input_ids" in named:
        _check_tokens(named["input_ids"], file, checkpoint)
    if "pixel_values" in named:
        _check_pictures(named["pixel_values"], file, checkpoint)


def _check_rows(named: dict[str, Tensor], file: Path, checkpoint: Checkpoint) -> None:
    """Of an MLP."""
    first = mlp_files.places(list(checkpoint.files))[0]
    width = checkpoint.shapes()[f"{first}.weight"][1]
    if len(named) > 1:
        raise CosetError(f"{file} holds {' and '.join(named)}: an MLP takes one tensor (beside labels)")
    ((name, value),) = named.items()
    if not value.is_floating_point():
        raise CosetError(f"{file}: {name} has type {_kind(value)}: an MLP takes floating-point numbers")
    if value.shape[1:] != (width,):
        raise CosetError(
            f"{file}: samples of {name} have shape {tuple(value.shape[1:])}, {checkpoint.folder} takes ({width},)"
        )


def _check_arguments(named: dict[str, Tensor], file: Path, checkpoint: Checkpoint) -> None:
    """Of a transformer whose family is known."""
    family = FAMILIES.get(str(checkpoint.config.get("model_type")))
    wanted = "input_ids" if family is None or family.patch is None else "pixel_values"
    if family is not None and wanted not in named:
        raise CosetError(f"{file} holds {' and '.join(named)}: {checkpoint.folder} takes {wanted}")


def _check_tokens(ids: Tensor, file: Path, checkpoint: Checkpoint) -> None:
    config, most = checkpoint.config, positions(checkpoint)
    if ids.is_floating_point() or ids.dim() != 2:
        raise CosetError(
            f"{file}: input_ids has shape {tuple(ids.shape)} and type {_kind(ids)}: whole numbers, samples by tokens, "
            "were expected"
        )
    if most is not None and ids.size(1) > most:
        raise CosetError(f"{file} has {ids.size(1)} tokens a sample, {checkpoint.folder} {most} positions")
    if ids.numel() and (int(ids.max()) >= int(config.get("vocab_size", 1 << 62)) or int(ids.min()) < 0):
        raise CosetError(
            f"{file} has the token {int(ids.max())}, {checkpoint.folder} a vocabulary of {config.get('vocab_size')}"
        )


def _check_pictures(pixels: Tensor, file: Path, checkpoint: Checkpoint) -> None:
    side = checkpoint.config.get("image_size")
    if not pixels.is_floating_point():
        raise CosetError(
            f"{file}: pixel_values has type {_kind(pixels)}: pictures as the model's image processor gives them, in "
            "floating-point numbers, were expected"
        )
    if isinstance(side, int):
        wanted = (int(checkpoint.config.get("num_channels", 3)), side, side)
        if tuple(pixels.shape[1:]) != wanted:
            raise CosetError(f"{file} has pictures of {tuple(pixels.shape[1:])}, {checkpoint.folder} takes {wanted}")


def _check_labels(labels: Tensor | None, samples: int, file: Path, checkpoint: Checkpoint) -> None:
    """Of one class a sample; tags and spans are not measured on."""
    classes = checkpoint.classes
    if labels is None or not classes or checkpoint.answers in ("tokens", "spans"):
        return
    if labels.is_floating_point() or labels.shape != (samples,):
        raise CosetError(
            f"{file}: labels has shape {tuple(labels.shape)} and type {_kind(labels)}: {samples} whole numbers, one a "
            "sample, were expected"
        )
    if samples and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise CosetError(
            f"{file}: labels go from {int(labels.min())} to {int(labels.max())}, classes of {checkpoint.folder} from 0 "
            f"to {classes - 1}"
        )


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def scores_of(
    merge: MergeFile, opened: Sequence[Checkpoint], teachers: list[Teacher] | None, folder: Path
) -> dict[str, dict[str, float]]:
    """What each head keeps: how often it agrees with its teacher, and accuracies where labels are known."""
    if not opened[0].classes:
        return {}
    asked: dict[str, tuple[slice, Inputs, Tensor | None, Tensor]] = {}
    start = 0
    for i, (m, c) in enumerate(zip(merge.models, opened, strict=True)):
        rows = slice(start, start + c.classes)
        start += c.classes
        file = m.test or m.inputs
        if file is None:
            continue
        inputs, labels = read_inputs(Path(file), Path(m.model), tokens_of(merge, c))
        labels = None if labels is None else labels.long()  # a byte could not be moved to the joint classes
        teacher = teachers[i] if teachers else load_teacher(c, m.task)
        asked[m.task] = rows, inputs, labels, Originals([teacher]).logits(inputs)[m.task].argmax(1)
        del teacher  # before the next is loaded
    one = load_teacher(Checkpoint(folder), "merged")
    found = {}
    for task, (rows, inputs, labels, own) in asked.items():
        logits = Originals([one]).logits(inputs)["merged"]
        score = {"samples": float(count_samples(inputs)), "agreement": _share(logits[:, rows].argmax(1) == own)}
        if labels is not None:
            score["accuracy"] = _share(logits[:, rows].argmax(1) == labels)
            score["joint_accuracy"] = _share(logits.argmax(1) == labels + rows.start)
            score["teacher_accuracy"] = _share(own == labels)
        found[task] = score
    return found


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def card(merge: MergeFile, facts: dict[str, Any], heads: str | None) -> str:
    """A model card, its head as hubs read it: base models, their relation, library, tags."""
    about = {
        "library_name": "transformers", "base_model": [m.model for m in merge.models], "base_model_relation": "merge",
        "tags": ["merge", merge.merge_method],
    }  # fmt: skip
    lines = ["---", OmegaConf.to_yaml(OmegaConf.create(about)).rstrip(), "---", ""]
    lines += [f"# Merged: {', '.join(m.task for m in merge.models)}", "", f"Method: `{merge.merge_method}`.", ""]
    scores = facts.get("scores") or {}
    if scores:
        keys = list(dict.fromkeys(k for s in scores.values() for k in s))
        lines += [f"| task | {' | '.join(keys)} |", f"|{' --- |' * (len(keys) + 1)}"]
        lines += [f"| {n} | {' | '.join(f'{s[k]:.4g}' if k in s else '' for k in keys)} |" for n, s in scores.items()]
    lines += ["", *([_SAID_OF_HEADS[heads], ""] if heads else []), "```yaml"]
    shown = OmegaConf.to_yaml(OmegaConf.create(merge.model_dump(mode="json", exclude_none=True)))
    return "\n".join([*lines, shown.rstrip(), "```", ""])


_SAID_OF_HEADS = {
    "join": "Classes of all tasks stand side by side in one classifier, named `task: class`.",
    "average": "Heads are merged as all else is.",
    "keep": "The head is that of the first task; `heads.safetensors` holds all, as `task.parameter`.",
}


def summary(facts: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What each head keeps, to print."""
    scores = facts.get("scores") or {}
    keys = list(dict.fromkeys(k for s in scores.values() for k in s))

    def shown(score: dict[str, float], key: str) -> str:
        return "" if key not in score else f"{score[key]:.0f}" if key == "samples" else f"{score[key]:.3f}"

    rows = [[name, *(shown(score, k) for k in keys)] for name, score in scores.items()]
    return ["task", *(k.replace("_", " ") for k in keys)], rows
