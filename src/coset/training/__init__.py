"""Training: the task that Lightning runs, the engine around it, and the folder that a run leaves behind."""

from coset.training.engine import Fit, fit, predict
from coset.training.metrics import Task, metrics_of
from coset.training.tasks import GraphTask

__all__ = ["Fit", "GraphTask", "Task", "fit", "metrics_of", "predict"]
