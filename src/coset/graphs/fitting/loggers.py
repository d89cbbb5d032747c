"""Where metrics go while a run trains, beside its own ``history.csv``: Lightning's loggers."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from coset.core.errors import CosetError

LOGS = "logs"
"""Folder of a run for what loggers write."""


def _csv(folder: Path, name: str, start: int) -> Any:
    from pytorch_lightning.loggers import CSVLogger

    return CSVLogger(folder, name=LOGS, version=f"from-epoch-{start}" if start else "")  # it would begin its file anew


def _tensorboard(folder: Path, name: str, start: int) -> Any:
    from pytorch_lightning.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name=LOGS, version="")


def _wandb(folder: Path, name: str, start: int) -> Any:
    from pytorch_lightning.loggers import WandbLogger

    (folder / LOGS).mkdir(exist_ok=True)
    return WandbLogger(name=name, save_dir=folder / LOGS, project="coset")


def _mlflow(folder: Path, name: str, start: int) -> Any:
    """On the server of ``MLFLOW_TRACKING_URI``, else in a database in the run's folder (MLflow's plain files are no
    longer kept up)."""
    from pytorch_lightning.loggers import MLFlowLogger

    logs = (folder / LOGS).absolute()
    logs.mkdir(exist_ok=True)
    place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{logs / 'mlflow.db'}"
    kept = None if "MLFLOW_TRACKING_URI" in os.environ else (logs / "artifacts").as_uri()
    return MLFlowLogger(experiment_name="coset", run_name=name, tracking_uri=place, artifact_location=kept)


LOGGERS: dict[str, tuple[tuple[str, ...], Callable[[Path, str, int], Any]]] = {
    "csv": ((), _csv),
    "tensorboard": (("tensorboard", "tensorboardX"), _tensorboard),
    "wandb": (("wandb",), _wandb),
    "mlflow": (("mlflow",), _mlflow),
}
"""By name: packages of which one is needed, and what makes it for a run's folder and name, and its first epoch."""


def check_installed(name: str) -> None:
    """Refuse a logger whose package is missing.

    Raises:
        CosetError: It is; the message says what to install.
    """
    packages, _ = LOGGERS[name]
    if packages and not any(find_spec(package) for package in packages):
        raise CosetError(f"trainer.logger={name}: {packages[0]} is not installed: pip install {packages[0]}")


def make_logger(name: str | None, folder: Path, run: str, settings: dict[str, Any], start: int = 0) -> Any:
    """A logger of Lightning for a run; ``False``, which Lightning takes for none, without a name.

    Args:
        name: Of :data:`LOGGERS`.
        folder: Of the run.
        run: Its name.
        settings: Its recipe, logged as hyperparameters.
        start: The first epoch: above 0 where the run goes on.

    Raises:
        CosetError: Its package is missing.
    """
    if name is None:
        return False
    check_installed(name)
    logger = LOGGERS[name][1](folder, run, start)
    logger.log_hyperparams(settings)
    return logger
