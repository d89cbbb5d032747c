"""One large model on many processes of a Ray cluster, started by Ray Train."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from coset.core.errors import CosetError, require
from coset.core.files import make_folder
from coset.runs.launch.jobs import ray_running
from coset.runs.launch.processes import (
    MISTAKE,
    ON_RAY,
    mistake_was_made,
    note_mistake,
    raise_mistake,
)

_CARRIED = ("COSET_DATA", "OMP_WAIT_POLICY")  # environment variables that workers on other machines need too


def launch(
    function: Callable[..., Any], arguments: tuple[Any, ...], folder: Path, workers: int, retries: int = 2
) -> None:
    """Call a function in every one of several processes, which can train together.

    Args:
        function: Of a module; process 0 leaves its results in files.
        arguments: For the function.
        folder: That all processes see. Ray keeps its notes beside it, in ``.<its name>.ray``, and they are removed.
        workers: Processes, each with one core, or one GPU if there are any.
        retries: How often all are started again after one has died.

    Raises:
        CosetError: One of the processes raised it, or they failed more often than that.
    """
    if workers < 1:
        raise CosetError(f"workers={workers} must be at least 1")
    require("ray.train", "ray")
    notes = folder.absolute().with_name(f".{folder.absolute().name}.ray")
    shutil.rmtree(notes, ignore_errors=True)  # a killed driver's
    make_folder(notes)
    carried = {name: os.environ[name] for name in _CARRIED if name in os.environ}
    told = {
        "function": function, "arguments": arguments, "place": os.getcwd(),
        "environment": {**carried, ON_RAY: "1", MISTAKE: str(notes / "mistake.txt")},
    }  # fmt: skip
    try:
        with ray_running(workers):
            _fit(told, notes, workers, retries)
        raise_mistake(notes / "mistake.txt")
    finally:
        shutil.rmtree(notes, ignore_errors=True)


def _fit(told: dict[str, Any], notes: Path, workers: int, retries: int) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    trainer = TorchTrainer(
        _work,
        train_loop_config=told,
        torch_config=TorchConfig(backend="nccl" if torch.cuda.is_available() else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=torch.cuda.is_available()),
        run_config=RunConfig(name="run", storage_path=str(notes), failure_config=FailureConfig(max_failures=retries)),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        last = str(error).strip().splitlines()[-1]
        raise CosetError(f"training on Ray failed, {retries + 1} times: {last}") from error


def _work(told: dict[str, Any]) -> None:
    """The body of every process."""
    from ray.train import get_context

    context = get_context()
    place = {"RANK": context.get_world_rank(), "WORLD_SIZE": context.get_world_size(),
             "LOCAL_WORLD_SIZE": context.get_local_world_size()}  # fmt: skip
    os.environ |= {name: str(value) for name, value in place.items()} | told["environment"]
    if Path(told["place"]).is_dir():
        os.chdir(told["place"])
    if mistake_was_made():
        return
    try:
        told["function"](*told["arguments"])
    except CosetError as error:
        note_mistake(str(error))
        raise
