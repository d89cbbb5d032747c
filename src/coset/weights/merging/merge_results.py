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
from coset.weights.merging.checkpoints import Checkpoint, load_teacher
from coset.weights.merging.encoders import Inputs, count_samples
from coset.weights.merging.merge_options import MergeFile
from coset.weights.merging.teachers import Originals, Teacher


def read_inputs(path: Path, folder: Path, tokens: int) -> tuple[Inputs, Tensor | None]:
    """Samples by name of the model's arguments, and their labels if the file has them.

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
    if not found or len({len(v) for v in found.values()}) > 1:
        raise CosetError(f"{path} must hold tensors such as pixel_values or input_ids with as many samples each")
    return found, labels


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
        inputs, labels = read_inputs(Path(file), Path(m.model), merge.parameters.tokens)
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


def card(merge: MergeFile, facts: dict[str, Any]) -> str:
    lines = [f"# Merged: {', '.join(m.task for m in merge.models)}", "", f"Method: `{merge.merge_method}`.", ""]
    scores = facts.get("scores") or {}
    if scores:
        keys = list(dict.fromkeys(k for s in scores.values() for k in s))
        lines += [f"| task | {' | '.join(keys)} |", f"|{' --- |' * (len(keys) + 1)}"]
        lines += [f"| {n} | {' | '.join(f'{s[k]:.4g}' if k in s else '' for k in keys)} |" for n, s in scores.items()]
    lines += ["", "Classes of all tasks stand side by side in one classifier, named `task: class`.", "", "```yaml"]
    shown = OmegaConf.to_yaml(OmegaConf.create(merge.model_dump(mode="json", exclude_none=True)))
    return "\n".join([*lines, shown.rstrip(), "```", ""])


def summary(facts: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What each head keeps, to print."""
    scores = facts.get("scores") or {}
    keys = list(dict.fromkeys(k for s in scores.values() for k in s))

    def shown(score: dict[str, float], key: str) -> str:
        return "" if key not in score else f"{score[key]:.0f}" if key == "samples" else f"{score[key]:.3f}"

    rows = [[name, *(shown(score, k) for k in keys)] for name, score in scores.items()]
    return ["task", *(k.replace("_", " ") for k in keys)], rows
