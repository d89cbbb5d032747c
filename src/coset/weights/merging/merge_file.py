"""``coset merge``: checkpoint folders in, one checkpoint folder out, as a YAML file says."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coset.core.errors import CosetError
from coset.core.files import claimed_output, json_text, make_folder, write_json, write_text
from coset.core.machine import memory_free
from coset.core.outside import read_text, read_tree
from coset.relations.kernels.threads import pytorch_threads
from coset.weights.checksums import checksum
from coset.weights.merging import checkpoints, compatibility, writing
from coset.weights.merging.augmentation import augmented
from coset.weights.merging.checkpoints import Checkpoint
from coset.weights.merging.compatibility import Heads, usual_heads
from coset.weights.merging.diagnosis import Diagnosis, weight_cosine
from coset.weights.merging.encoders import Inputs
from coset.weights.merging.fitting import Fit, Progress, Targets, features_of, fit
from coset.weights.merging.merge_options import MergeFile
from coset.weights.merging.merge_results import card, read_inputs, samples_that_fit, scores_of, tokens_of
from coset.weights.merging.merge_values import Setting, slice_of, values_by_name
from coset.weights.merging.methods import Begin, Mix, called
from coset.weights.merging.methods import Setting as Shared
from coset.weights.merging.mixing import PerTensor, Values
from coset.weights.merging.stacking import Stack, depth, moves
from coset.weights.merging.stored import StoredEncoder
from coset.weights.merging.supernet import FoldedSuperNet
from coset.weights.merging.teachers import Merged, Teacher, fold_heads
from coset.weights.merging.trained import aligned, exactness, supernet
from coset.weights.merging.writing import stored_as

LARGE = 250_000_000
"""Bytes of a model in float32 from which FS-Merge leaves models on disk, unless it is told otherwise."""
STATE = "state.pt"


@dataclass(frozen=True)
class _Job:
    """A merge at work.

    Attributes:
        merge: What is to be done.
        opened: The models.
        made_from: Checksums, see :func:`_made_from`.
        folder: To write to.
        kept: Folder of what training can go on from.
        progress: Told after each step of training.
    """

    merge: MergeFile
    opened: Sequence[Checkpoint]
    made_from: dict[str, str]
    folder: Path
    kept: Path
    progress: Progress | None


def check(merge: MergeFile) -> list[str]:
    """Everything that can be known before work starts, a line each; nothing is loaded but one tensor at a time.

    Raises:
        CosetError: The models do not fit together, a tensor is damaged or not finite, or samples are missing.
    """
    opened, base = _open(merge), _base(merge)
    notes = _fitting(merge, opened, base)
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
    for one in [*(opened if len(opened) == 1 else []), *([] if base is None else [base])]:
        for name in opened[0].files:  # which no cosine has looked at
            if name in one.files:
                one[name]
    _needs(merge)
    if moves(merge.layers, opened):
        _stack(merge, opened)
        lines.append(f"layers: {merge.layers[-1].last}, of {depth(opened[0])}")
    output = Path(merge.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())) and _finished(merge, output) is None:
        raise CosetError(f"{output} exists already: choose another output")
    writing.parse_size(merge.max_shard_size)
    _disk(merge, opened)
    samples_that_fit(merge, opened)
    lines += _memory(merge, opened)
    return lines + [f"note: {n}" for n in notes]


@pytorch_threads()
def run(merge: MergeFile, *, progress: Progress | None = None) -> dict[str, Any]:
    """Merge, and write the output whole or not at all; returns what is in its ``merge.json``.

    Training that was interrupted goes on where it was kept last, if the merge file and what it names are the same; a
    merge that is done is not done again, which a note says.

    Raises:
        CosetError: See :func:`check`; or the output exists already.
    """
    output = Path(merge.output)
    make_folder(output.parent)
    with claimed_output(output):
        return _finished(merge, output) or _run(merge, output, progress)


def _finished(merge: MergeFile, output: Path) -> dict[str, Any] | None:
    """What is in the ``merge.json`` of the very same merge that was done before, and a note that it was.

    Raises:
        CosetError: A model, its samples or a tokenizer are no longer what they were then.
    """
    if not (output / "merge.json").is_file():
        return None
    facts = read_tree(output / "merge.json", dict[str, Any])
    if json_text(facts.get("merge")) != json_text(merge.model_dump(mode="json")) or "made_from" not in facts:
        return None
    before, now = facts["made_from"], _made_from(merge, _open(merge))
    changed = next((file for file in {**now, **before} if now.get(file) != before.get(file)), None)
    if changed is not None:
        raise CosetError(f"{changed} has changed since {output} was merged: choose another output, or remove that one")
    return facts | {"notes": [*facts["notes"], "this merge was done before, of the same files: nothing was done"]}


def _made_from(merge: MergeFile, opened: Sequence[Checkpoint]) -> dict[str, str]:
    """The SHA-256 of each file that the result depends on, by its path."""
    base = _base(merge)
    folders = [*opened, *([] if base is None else [base])]
    files = [Path(file) for m in merge.models for file in (m.inputs, m.test) if file is not None]
    for one in folders:
        files += [one.folder / "config.json", *one.files.values(), *one.side_files()]
    return {str(file): checksum(file) for file in sorted(set(files))}


def _run(merge: MergeFile, output: Path, progress: Progress | None) -> dict[str, Any]:
    started = time.monotonic()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CosetError(f"{output} exists already: choose another output")
    opened, base = _open(merge), _base(merge)
    notes = _fitting(merge, opened, base)
    _needs(merge)
    _disk(merge, opened)
    samples_that_fit(merge, opened)
    made_from = _made_from(merge, opened)
    facts: dict[str, Any] = {"merge": merge.model_dump(mode="json"), "made_from": made_from, "notes": notes}
    kept = output.with_name(f".{output.name}.training")
    with writing.new_folder(output) as folder, _training_folder(kept):
        teachers, job = None, _Job(merge, opened, made_from, folder, kept, progress)
        if moves(merge.layers, opened):
            _write_stacked(job, _stack(merge, opened))
        elif merge.method.mix is not None:
            _write_streamed(job, merge.method.mix)
        else:
            teachers, more = _write_merged(job)
            facts |= more
        for file in opened[0].side_files():
            shutil.copy(file, folder / file.name)
        facts["seconds"] = round(time.monotonic() - started, 1)
        facts["peak_memory_mb"] = round(_peak_memory() / 1e6)
        if any(m.test or m.inputs for m in merge.models) and _heads(merge, opened) == "join":
            facts["scores"] = scores_of(merge, opened, teachers, folder)
        write_json(folder / "merge.json", facts)
        write_text(folder / "README.md", card(merge, facts, _heads(merge, opened) if opened[0].classes else None))
    shutil.rmtree(kept, ignore_errors=True)
    return facts


def _open(merge: MergeFile) -> list[Checkpoint]:
    return [Checkpoint(Path(m.model)) for m in merge.models]


def _base(merge: MergeFile) -> Checkpoint | None:
    """What the models began as, if the method looks at it."""
    used = merge.method.base or merge.method.base_optional
    return Checkpoint(Path(merge.base_model)) if used and merge.base_model is not None else None


def _fitting(merge: MergeFile, opened: Sequence[Checkpoint], base: Checkpoint | None) -> list[str]:
    method = merge.method
    wired = method.mix is None
    if wired and merge.heads == "average":
        raise CosetError(f"merge_method={merge.merge_method} gives each task its own head: heads: join | keep")
    notes = compatibility.check_fit(
        opened, equal_widths=not method.any_width, wired=wired, heads=_heads(merge, opened), base=base
    )
    if base is None and merge.base_model is not None:
        notes.append(f"merge_method={merge.merge_method} does not look at base_model, which is left unread")
    if merge.unused:
        notes.append(f"merge_method={merge.merge_method} does not look at {', '.join(merge.unused)}: without effect")
    return notes


def _heads(merge: MergeFile, opened: Sequence[Checkpoint]) -> Heads:
    """As asked for; else what is usual for the method and the models."""
    return merge.heads or ("join" if merge.method.mix is None else usual_heads(opened[0]))


def _needs(merge: MergeFile) -> None:
    method, name = merge.method, merge.merge_method
    for count, of in [(len(s.sources), " in a slice") for s in merge.layers] or [(len(merge.models), "")]:
        if method.models not in (None, count):
            raise CosetError(f"merge_method={name} takes {method.models} models{of}, not {count}")
        if count < (1 if merge.layers else method.least):
            raise CosetError(f"merge_method={name} takes {method.least} models at least, not {count}")
    if method.base and merge.base_model is None:
        raise CosetError(f"merge_method={name} needs base_model: the folder of the model that all began as")
    weights = merge.parameters.weights
    if weights is not None and len(weights) != len(merge.models):
        raise CosetError(f"parameters.weights holds {len(weights)} numbers for {len(merge.models)} models")
    if weights is not None and (
        merge.parameters.weight is not None or any("weight" in m.parameters for m in merge.models)
    ):
        raise CosetError("parameters.weights and weight are two names of the same numbers: give one")
    if merge.parameters.lam is not None and merge.parameters.scale is not None and "lam" in method.settings:
        raise CosetError("parameters.lambda and scale are two names of the same number here: give one")
    for m in merge.models:
        if m.inputs is None and method.samples:
            raise CosetError(f"{m.task} has no inputs: merge_method={name} needs samples of every task")
        for file in (m.inputs, m.test):
            if file is not None and not Path(file).is_file():
                raise CosetError(f"{m.task}: {file} does not exist")


def _disk(merge: MergeFile, opened: Sequence[Checkpoint]) -> None:
    """Whether there is room for the result.

    Raises:
        CosetError: There is not.
    """
    place = next(p for p in Path(merge.output).absolute().parents if p.is_dir())
    needed = _size(opened[0]) // 4 * getattr(torch, merge.dtype).itemsize
    free = shutil.disk_usage(place).free
    if needed > free:
        raise CosetError(f"{merge.output} needs {needed / 1e6:,.0f} MB; {place} has {free / 1e6:,.0f} MB left")


def _numel(shape: Sequence[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def _memory(merge: MergeFile, opened: Sequence[Checkpoint]) -> list[str]:
    size = max(_size(c) for c in opened) / 1e6
    if merge.method.mix is not None:
        return [f"memory: one shard of {merge.max_shard_size} at a time"]
    count = 2 if _on_disk(merge, opened) else len(opened) + 2
    lines = [f"memory: about {count * size:,.0f} MB, {count} times one model, and activations"]
    there = memory_free() / 1e6
    if 0 < there < count * size:
        lines.append(
            f"note: that is more than the {there:,.0f} MB that are free: parameters.low_memory, or a larger machine"
        )
    return lines


def _on_disk(merge: MergeFile, opened: Sequence[Checkpoint]) -> bool:
    """Whether models are read from disk layer by layer: as asked, or for large ones."""
    if merge.method.begin is not supernet:
        return False
    asked = merge.parameters.low_memory
    return asked if asked is not None else max(_size(c) for c in opened) > LARGE


def _size(checkpoint: Checkpoint) -> int:
    """Bytes in float32."""
    return 4 * sum(_numel(s) for s in checkpoint.shapes().values())


def _write_streamed(job: _Job, mix: Mix) -> None:
    """One tensor of each model at a time, one shard of the output."""
    merge, opened = job.merge, job.opened
    dtype = getattr(torch, merge.dtype)
    heads = _heads(merge, opened)
    shapes = opened[0].shapes()
    head: tuple[str, ...] = {"join": opened[0].head, "keep": opened[0].of_task, "average": ()}[heads]
    classes = sum(c.classes for c in opened) if heads == "join" else 0
    shared = [n for n in shapes if n not in head and all(n in c.files for c in opened)]
    sizes = {n: _numel(shapes[n]) * dtype.itemsize for n in shared}
    for name in head:  # of all models, or of the first
        sizes[name] = _numel((classes, *shapes[name][1:]) if classes else shapes[name]) * dtype.itemsize
    numbers = {name for name, kind in opened[0].dtypes().items() if kind.startswith(("F", "BF"))}
    merged = called(
        mix, opened, names=shared, base=_base(merge), seed=merge.seed, values=_values(merge, opened), **_plain(merge)
    )

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name in shared:
            # positions and other whole numbers are not merged
            yield name, stored_as(merged(name), dtype, name) if name in numbers else opened[0][name]
        for name in head:
            yield name, stored_as(torch.cat([c[name] for c in opened]) if classes else opened[0][name], dtype, name)

    writing.write_shards(job.folder, tensors(), sizes, merge.max_shard_size)
    config = opened[0].config
    if heads == "keep":
        kept = {m.task: c for m, c in zip(merge.models, opened, strict=True)}
        writing.save_heads(
            job.folder, {task: {n: stored_as(c[n], dtype, n) for n in c.of_task} for task, c in kept.items()}
        )
    if classes:
        config = writing.joint_config(config, [m.task for m in merge.models], [c.labels() for c in opened])
    write_json(job.folder / "config.json", config | {"dtype": merge.dtype})


def _stack(merge: MergeFile, opened: Sequence[Checkpoint]) -> Stack:
    """What slices that move layers ask for.

    Raises:
        CosetError: The method looks at more than a tensor of each model, or needs a base; see also :class:`Stack`.
    """
    name = merge.merge_method
    if not isinstance(merge.method, PerTensor):
        raise CosetError(f"merge_method={name}: slices that move layers go with methods that go tensor by tensor")
    if merge.base_model is not None:
        raise CosetError(
            f"merge_method={name}: layers of a base are not moved: slices have to be the same layers of all models, "
            "one after the other"
        )
    return Stack(opened, merge.layers)


def _write_stacked(job: _Job, stack: Stack) -> None:
    """The same for layers that are moved: a tensor of each source of its slice."""
    merge, opened = job.merge, job.opened
    dtype = getattr(torch, merge.dtype)
    assert isinstance(merge.method, PerTensor)
    mix, values = merge.method.mix, _values(merge, opened)
    assert mix is not None
    merged = [called(mix, stack.sources(one), seed=merge.seed, values=values) for one in stack.slices]
    shapes, kinds = {c.folder: c.shapes() for c in opened}, {c.folder: c.dtypes() for c in opened}

    def made(name: str) -> Tensor:
        first = stack.first(name)
        if not kinds[first.checkpoint.folder][first.name(name)].startswith(("F", "BF")):
            return first[name]
        return stored_as(merged[stack.slices.index(slice_of(name, stack.slices))](name), dtype, name)

    sizes = {}
    for name in stack.names:
        first = stack.first(name)
        sizes[name] = _numel(shapes[first.checkpoint.folder][first.name(name)]) * dtype.itemsize
    writing.write_shards(job.folder, ((name, made(name)) for name in stack.names), sizes, merge.max_shard_size)
    write_json(job.folder / "config.json", stack.config() | {"dtype": merge.dtype})


def _plain(merge: MergeFile) -> dict[str, float]:
    """Settings of methods that know no others than numbers.

    Raises:
        CosetError: One of them is a gradient or has filters.
    """
    t = merge.parameters.t
    if not isinstance(t, float | int):
        if not isinstance(merge.method, PerTensor):
            raise CosetError(f"merge_method={merge.merge_method} takes one number for t")
        return {}
    return {"t": float(t)}


def _values(merge: MergeFile, opened: Sequence[Checkpoint]) -> Callable[[str], Values]:
    p = merge.parameters
    shared: dict[str, Any] = {"lambda": p.scale if p.lam is None else p.lam, "t": p.t, "weight": p.weight}
    shared |= {"density": p.density, "gamma": p.gamma, "epsilon": p.epsilon, "normalize": p.normalize}
    shared |= {
        "rescale": p.rescale,
        "select_topk": p.select_topk,
        "max_iter": p.max_iter,
        "tol": p.tol,
        "scale": p.scale,
        "flatten": p.nuslerp_flatten,
        "row_wise": p.nuslerp_row_wise,
        "filter_wise": p.filter_wise,
    }
    own: list[dict[str, Setting]] = [dict(m.parameters) for m in merge.models]
    for model, weight in zip(own, p.weights or [], strict=False):
        model["weight"] = weight
    return values_by_name(own, shared, merge.layers, depth(opened[0]))


def _write_merged(job: _Job) -> tuple[list[Teacher] | None, dict[str, Any]]:
    """Writes the checkpoint; returns the models, unless they are only read layer by layer, and facts."""
    merge, p, facts = job.merge, job.merge.parameters, dict[str, Any]()
    inputs = [
        read_inputs(Path(m.inputs), Path(m.model), tokens_of(merge, c))[0] if m.inputs else None
        for m, c in zip(merge.models, job.opened, strict=True)
    ]
    given = [x for x in inputs if x is not None]
    samples = [augmented(x, p.augmentation, 1000 * merge.seed + n) for n, x in enumerate(given)]
    teachers: list[Teacher] = []
    if not _on_disk(merge, job.opened) or p.init == "align":
        teachers = [checkpoints.load_teacher(c, m.task) for c, m in zip(job.opened, merge.models, strict=True)]
    if merge.method.begin is not None:
        made, facts = _train(job, merge.method.begin, teachers, samples)
    else:
        assert merge.method.solve is not None
        made = called(merge.method.solve, teachers, inputs=samples, seed=merge.seed, **p.model_dump())
    writing.save_merged(
        job.folder, made.encoder, made.heads, [c.labels() for c in job.opened], dtype=getattr(torch, merge.dtype),
        max_shard_size=merge.max_shard_size, keep=_heads(merge, job.opened) == "keep",
    )  # fmt: skip
    return teachers or None, facts


def _train(
    job: _Job, begin: Begin, teachers: Sequence[Teacher], samples: list[Inputs]
) -> tuple[Merged, dict[str, Any]]:  # fmt: skip
    merge, p = job.merge, job.merge.parameters
    state = _training_state(job)
    teachers, init = aligned(teachers, samples, p.init)
    on_disk = _on_disk(merge, job.opened)
    if on_disk:
        teachers, targets = _stored(job, teachers, samples)
    else:
        targets = Targets.of([t.encoder for t in teachers], samples, everywhere=p.cross > 0)
    options = Fit(p.steps, p.learning_rate, p.weight_decay, p.batch_size, p.cross, merge.seed)
    net = begin(teachers, Shared(p.rank, p.kind, p.width, output=p.output, fit=options), init)
    student = net.explicit("folded") if on_disk and isinstance(net, FoldedSuperNet) else net
    losses = fit(student, targets, options, progress=job.progress, state=state, save_every=max(1, p.steps // 20))
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


def _training_state(job: _Job) -> Path:
    """File in which training is kept; an earlier one is gone unless it is of the very same merge of the same files."""
    job.kept.mkdir(parents=True, exist_ok=True)
    whole = json.dumps([job.merge.model_dump(mode="json"), job.made_from], sort_keys=True)
    text = hashlib.sha256(whole.encode()).hexdigest()
    mark, state = job.kept / "merge.sha256", job.kept / STATE
    if not mark.is_file() or read_text(mark) != text:
        state.unlink(missing_ok=True)
    write_text(mark, text)
    return state


def _stored(
    job: _Job, loaded: Sequence[Teacher], samples: Sequence[Inputs]
) -> tuple[list[Teacher], Targets]:  # fmt: skip
    """Models with their parameters on disk, and their features: one of them is in memory at a time."""
    teachers, columns = [], []
    for i, (checkpoint, model) in enumerate(zip(job.opened, job.merge.models, strict=True)):
        teacher = loaded[i] if loaded else checkpoints.load_teacher(checkpoint, model.task)
        columns.append(features_of(i, teacher.encoder, samples, everywhere=job.merge.parameters.cross > 0))
        encoder = StoredEncoder(teacher.encoder, job.kept / f"model-{i}")
        teachers.append(Teacher(teacher.name, encoder, copy.deepcopy(teacher.head)))
    return teachers, Targets.gathered(columns, samples)


def _peak_memory() -> int:
    """Bytes of this process since it began; where the system tells only of its parents as well, of the larger."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:  # Windows tells it in another way
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
