"""``coset merge``: checkpoint folders in, one checkpoint folder out, as a YAML file says."""

from __future__ import annotations

import copy
import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError, field_validator
from torch import Tensor
from yaml import YAMLError

from coset.core.errors import CosetError
from coset.core.files import write_json, write_text
from coset.runs.recipe import Options
from coset.weights.merging import averages, checkpoints, matched
from coset.weights.merging.averages import average
from coset.weights.merging.checkpoints import Checkpoint
from coset.weights.merging.diagnosis import Diagnosis, weight_cosine
from coset.weights.merging.encoders import Inputs
from coset.weights.merging.fitting import Fit, Progress, Targets, features_of, fit
from coset.weights.merging.merge_results import card, read_inputs, scores_of
from coset.weights.merging.methods import exactness
from coset.weights.merging.regression import regmean
from coset.weights.merging.stored import StoredEncoder
from coset.weights.merging.supernet import Distilled, FoldedSuperNet, Student, check_output_widths
from coset.weights.merging.teachers import Merged, Teacher, fold_heads
from coset.weights.merging.zipping import zipit

STREAMED = ("linear", "slerp", "task_arithmetic")
"""Methods that need one tensor of each model at a time."""
LARGE = 250_000_000
"""Bytes of a model in float32 from which FS-Merge leaves models on disk, unless it is told otherwise."""
STATE = "state.pt"
SIDE_FILES = (
    "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "preprocessor_config.json"
)  # fmt: skip


class ModelOptions(Options):
    """One model to merge."""

    model: str = Field(description="folder of a checkpoint")
    name: str | None = Field(None, description="of its task; that of the folder by default")
    inputs: str | None = Field(None, description="unlabelled samples: .safetensors, .npz, or .txt with a line a text")
    test: str | None = Field(None, description="samples to measure on, with a tensor `labels` if they are known")

    @property
    def task(self) -> str:
        return self.name or Path(self.model).name


class Parameters(Options):
    """What methods take; each uses what it knows."""

    weights: list[float] | None = Field(None, description="linear: one a model")
    t: float = Field(0.5, ge=0, le=1, description="slerp")
    scale: float = Field(1.0, description="task_arithmetic")
    alpha: float = Field(0.7, ge=0, le=1, description="regmean")
    rank: int = Field(12, ge=1)
    kind: Literal["diagonal", "low_rank", "diagonal_and_low_rank", "full", "heads"] = "diagonal_and_low_rank"
    init: Literal["first", "average", "align", "random"] = "first"
    width: int | None = Field(None, description="of the merged network")
    steps: int = Field(400, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = 1e-3
    batch_size: int | None = Field(32, ge=1)
    cross: float = Field(0.0, ge=0)
    tokens: int = Field(64, ge=2, description="texts are cut there")
    low_memory: bool | None = Field(
        None, description="fs_merge: models stay on disk, each layer is folded where it is used; by default if large"
    )


class MergeFile(Options):
    """A merge, settled and checked."""

    merge_method: Literal[
        "fs_merge", "linear", "slerp", "task_arithmetic", "regmean", "weight_matching", "activation_matching", "zipit",
        "distillation",
    ]  # fmt: skip
    models: list[ModelOptions] = Field(min_length=2)
    base_model: str | None = Field(None, description="task_arithmetic: where the models began")
    parameters: Parameters = Field(default_factory=lambda: Parameters.model_validate({}))
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    max_shard_size: str = "5GB"
    output: str = "merged"
    seed: int = Field(0, ge=0)

    @field_validator("models")
    @classmethod
    def _distinct(cls, value: list[ModelOptions]) -> list[ModelOptions]:
        names = [m.task for m in value]
        twice = [n for n in names if names.count(n) > 1]
        if twice:
            raise ValueError(f"two models are named {twice[0]!r}: give each a name")
        return value


def load(path: Path) -> MergeFile:
    """Read a merge file; folders and files in it are relative to where it lies.

    Raises:
        CosetError: It is missing, or says something that cannot be.
    """
    if not path.is_file():
        raise CosetError(f"merge file {path} does not exist")
    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        if not isinstance(values, dict):
            raise CosetError(f"{path} must hold keys and values")
        made = MergeFile.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise CosetError(f"{path}: {where}: {first['msg']}, not {first['input']!r}") from error
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise CosetError(f"{path} cannot be read: {error}") from error
    here = path.parent

    def place(name: str | None) -> str | None:
        return None if name is None else str(here / name)

    models = [
        m.model_copy(update={"model": place(m.model), "inputs": place(m.inputs), "test": place(m.test), "name": m.task})
        for m in made.models
    ]
    update = {"models": models, "output": place(made.output), "base_model": place(made.base_model)}
    return made.model_copy(update=update)


def check(merge: MergeFile) -> list[str]:
    """Everything that can be known before work starts, a line each; nothing is loaded but one tensor at a time.

    Raises:
        CosetError: The models do not fit together, a tensor is damaged or not finite, or samples are missing.
    """
    opened = _open(merge)
    notes = checkpoints.check_fit(opened, equal_widths=merge.merge_method != "fs_merge")
    lines = []
    for model, one in zip(merge.models, opened, strict=True):
        shapes = one.shapes()
        numbers = sum(_numel(s) for s in shapes.values())
        head = f", {one.classes} classes" if one.classes else ", no head"
        shards = len(set(one.files.values()))
        lines.append(f"{model.task}: {one.config['model_type']}, {numbers:,} numbers in {shards} files{head}")
    for i in range(len(opened)):
        for j in range(i + 1, len(opened)):
            names = [n for n in opened[i].files if n in opened[j].files]
            cosine = weight_cosine(names, opened[i], opened[j])
            lines.append(str(Diagnosis((merge.models[i].task, merge.models[j].task), cosine)))
    _needs(merge)
    lines += _memory(merge, opened)
    return lines + [f"note: {n}" for n in notes]


def run(merge: MergeFile, *, progress: Progress | None = None) -> dict[str, Any]:
    """Merge, and write the output whole or not at all; returns what is in its ``merge.json``.

    Training that was interrupted goes on where it was kept last, if the merge file is the same.

    Raises:
        CosetError: See :func:`check`; or the output exists already.
    """
    started, output = time.monotonic(), Path(merge.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CosetError(f"{output} exists already: choose another output")
    opened = _open(merge)
    notes = checkpoints.check_fit(opened, equal_widths=merge.merge_method != "fs_merge")
    _needs(merge)
    facts: dict[str, Any] = {"merge": merge.model_dump(mode="json"), "notes": notes}
    kept = output.with_name(f".{output.name}.training")
    with checkpoints.new_folder(output) as folder, _training_folder(kept):
        teachers = None
        if merge.merge_method in STREAMED:
            _write_streamed(merge, opened, folder)
        else:
            teachers, more = _write_merged(merge, opened, folder, kept, progress)
            facts |= more
        for name in SIDE_FILES:
            if (opened[0].folder / name).is_file():
                shutil.copy(opened[0].folder / name, folder / name)
        facts["seconds"] = round(time.monotonic() - started, 1)
        facts["peak_memory_mb"] = round(_peak_memory() / 1e6)
        if any(m.test or m.inputs for m in merge.models):
            facts["scores"] = scores_of(merge, opened, teachers, folder)
        write_json(folder / "merge.json", facts)
        write_text(folder / "README.md", card(merge, facts))
    shutil.rmtree(kept, ignore_errors=True)
    return facts


def _open(merge: MergeFile) -> list[Checkpoint]:
    return [Checkpoint(Path(m.model)) for m in merge.models]


def _needs(merge: MergeFile) -> None:
    if merge.merge_method == "slerp" and len(merge.models) != 2:
        raise CosetError(f"merge_method=slerp takes two models, not {len(merge.models)}")
    if merge.merge_method == "task_arithmetic" and merge.base_model is None:
        raise CosetError("merge_method=task_arithmetic needs base_model: the folder of the model that all began as")
    weights = merge.parameters.weights
    if weights is not None and len(weights) != len(merge.models):
        raise CosetError(f"parameters.weights holds {len(weights)} numbers for {len(merge.models)} models")
    for m in merge.models:
        if m.inputs is None and merge.merge_method not in (*STREAMED, "weight_matching"):
            raise CosetError(f"{m.task} has no inputs: merge_method={merge.merge_method} needs samples of every task")
        for file in (m.inputs, m.test):
            if file is not None and not Path(file).is_file():
                raise CosetError(f"{m.task}: {file} does not exist")


def _numel(shape: Sequence[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def _memory(merge: MergeFile, opened: Sequence[Checkpoint]) -> list[str]:
    size = max(_size(c) for c in opened) / 1e6
    if merge.merge_method in STREAMED:
        return [f"memory: one shard of {merge.max_shard_size} at a time"]
    count = 2 if _on_disk(merge, opened) else len(opened) + 2
    return [f"memory: about {count * size:,.0f} MB, {count} times one model, and activations"]


def _on_disk(merge: MergeFile, opened: Sequence[Checkpoint]) -> bool:
    """Whether models are read from disk layer by layer: as asked, or for large ones."""
    if merge.merge_method != "fs_merge":
        return False
    asked = merge.parameters.low_memory
    return asked if asked is not None else max(_size(c) for c in opened) > LARGE


def _size(checkpoint: Checkpoint) -> int:
    """Bytes in float32."""
    return 4 * sum(_numel(s) for s in checkpoint.shapes().values())


def _write_streamed(merge: MergeFile, opened: Sequence[Checkpoint], folder: Path) -> None:
    dtype = getattr(torch, merge.dtype)
    shapes, p = opened[0].shapes(), merge.parameters
    head = opened[0].head
    names = [n for n in shapes if n not in head]
    shared = [n for n in names if all(n in c.files for c in opened)]
    sizes = {n: _numel(shapes[n]) * dtype.itemsize for n in shared}
    if opened[0].classes:
        classes = sum(c.classes for c in opened)
        sizes |= {head[0]: classes * shapes[head[0]][1] * dtype.itemsize}
        sizes |= {head[1]: classes * dtype.itemsize}
    mix = _mixer(merge, opened, shared, p)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name in shared:
            yield name, mix(name).to(dtype)
        for name in head if opened[0].classes else ():
            yield name, torch.cat([c[name] for c in opened]).to(dtype)

    checkpoints.write_shards(folder, tensors(), sizes, merge.max_shard_size)
    labels = [c.labels() for c in opened]
    config = opened[0].config
    if opened[0].classes:
        config = checkpoints.joint_config(config, [m.task for m in merge.models], labels)
    write_json(folder / "config.json", config | {"dtype": merge.dtype})


def _mixer(
    merge: MergeFile, opened: Sequence[Checkpoint], names: Sequence[str], p: Parameters
) -> Callable[[str], Tensor]:
    if merge.merge_method == "linear":
        shares = p.weights or [1 / len(opened)] * len(opened)
        return lambda n: torch.stack([c[n].float() * s for c, s in zip(opened, shares, strict=True)]).sum(0)
    if merge.merge_method == "slerp":
        product, norms = 0.0, [0.0, 0.0]
        for name in names:
            a, b = (c[name].double().flatten() for c in opened)
            product, norms = product + float(a @ b), [norms[0] + float(a @ a), norms[1] + float(b @ b)]
        x, y = averages.slerp_coefficients(product, norms[0], norms[1], p.t)
        return lambda n: x * opened[0][n].float() + y * opened[1][n].float()
    base = Checkpoint(Path(str(merge.base_model)))

    def arithmetic(name: str) -> Tensor:
        begin = base[name].float()
        return begin + p.scale * torch.stack([c[name].float() - begin for c in opened]).sum(0)

    return arithmetic


def _write_merged(
    merge: MergeFile, opened: Sequence[Checkpoint], folder: Path, kept: Path, progress: Progress | None
) -> tuple[list[Teacher] | None, dict[str, Any]]:
    """Writes the checkpoint; returns the models, unless they are only read layer by layer, and facts."""
    p, facts = merge.parameters, dict[str, Any]()
    inputs = [read_inputs(Path(m.inputs), Path(m.model), p.tokens)[0] if m.inputs else None for m in merge.models]
    samples: list[Inputs] = [x for x in inputs if x is not None]
    teachers: list[Teacher] = []
    if not _on_disk(merge, opened) or p.init == "align":
        teachers = [checkpoints.load_teacher(c, m.task) for c, m in zip(opened, merge.models, strict=True)]
    if merge.merge_method in ("fs_merge", "distillation"):
        made, facts = _train(merge, opened, teachers, samples, kept, progress)
    elif merge.merge_method == "regmean":
        made = regmean(teachers, samples, p.alpha)
    elif merge.merge_method == "zipit":
        made = zipit(teachers, samples)
    else:
        given = samples if merge.merge_method == "activation_matching" else None
        made = matched.matched_average(teachers, given, seed=merge.seed)
    checkpoints.save_merged(
        folder, made.encoder, made.heads, [c.labels() for c in opened], dtype=getattr(torch, merge.dtype),
        max_shard_size=merge.max_shard_size,
    )  # fmt: skip
    return teachers or None, facts


def _train(
    merge: MergeFile, opened: Sequence[Checkpoint], teachers: list[Teacher], samples: list[Inputs], kept: Path,
    progress: Progress | None,
) -> tuple[Merged, dict[str, Any]]:  # fmt: skip
    p = merge.parameters
    state = _training_state(merge, kept)
    if p.init == "align":
        teachers = matched.align_teachers(teachers, samples)
    on_disk = _on_disk(merge, opened)
    if on_disk:
        teachers, targets = _stored(merge, opened, teachers, samples, kept)
    else:
        targets = Targets.of([t.encoder for t in teachers], samples, everywhere=p.cross > 0)
    encoders = [t.encoder for t in teachers]
    net: Distilled | FoldedSuperNet
    student: Student
    if merge.merge_method == "distillation":
        check_output_widths(encoders)
        begin = average(teachers).encoder if p.init in ("average", "align") else encoders[0]
        if p.init == "random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(merge.seed)
                begin = encoders[0].resized(None)
        net = student = Distilled(begin, [1.0] * len(teachers))
    else:
        init: Any = "average" if p.init == "align" else p.init
        net = FoldedSuperNet(encoders, width=p.width, kind=p.kind, rank=p.rank, init=init, seed=merge.seed)
        student = net.explicit("folded") if on_disk else net
    options = Fit(p.steps, p.learning_rate, p.weight_decay, p.batch_size, p.cross, merge.seed)
    losses = fit(student, targets, options, progress=progress, state=state, save_every=max(1, p.steps // 20))
    facts: dict[str, Any] = {
        "first_loss": losses[0], "last_loss": losses[-1], "learning_rate": p.learning_rate,
        "trained_numbers": sum(q.numel() for q in net.parameters() if q.requires_grad),
    }  # fmt: skip
    if isinstance(net, FoldedSuperNet):
        facts["difference_from_supernet"] = exactness(net, samples[0], student)
    encoder, projections = net.finished()
    return Merged(encoder.eval(), fold_heads(teachers, projections)), facts


@contextmanager
def _training_folder(kept: Path) -> Iterator[None]:
    """Where training is kept while it lasts: of a merge that fails or is stopped, no more than can be gone on from."""
    try:
        yield
    except BaseException:
        for models in kept.glob("model-*"):
            shutil.rmtree(models, ignore_errors=True)
        if not (kept / STATE).is_file():
            shutil.rmtree(kept, ignore_errors=True)
        raise


def _training_state(merge: MergeFile, kept: Path) -> Path:
    """File in which training is kept; an earlier one is gone unless it is of the very same merge."""
    kept.mkdir(parents=True, exist_ok=True)
    text = hashlib.sha256(json.dumps(merge.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
    mark, state = kept / "merge.sha256", kept / STATE
    if not mark.is_file() or mark.read_text(encoding="utf-8") != text:
        state.unlink(missing_ok=True)
    write_text(mark, text)
    return state


def _stored(
    merge: MergeFile, opened: Sequence[Checkpoint], loaded: Sequence[Teacher], samples: Sequence[Inputs], kept: Path
) -> tuple[list[Teacher], Targets]:
    """Models with their parameters on disk, and their features: one of them is in memory at a time."""
    teachers, columns = [], []
    for i, (checkpoint, model) in enumerate(zip(opened, merge.models, strict=True)):
        teacher = loaded[i] if loaded else checkpoints.load_teacher(checkpoint, model.task)
        columns.append(features_of(i, teacher.encoder, samples, everywhere=merge.parameters.cross > 0))
        encoder = StoredEncoder(teacher.encoder, kept / f"model-{i}")
        teachers.append(Teacher(teacher.name, encoder, copy.deepcopy(teacher.head)))
    return teachers, Targets.gathered(columns, samples)


def _peak_memory() -> int:
    """Bytes of this process since it began; where the system tells only of its parents as well, of the larger."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
