"""Training: the task that Lightning runs, the engine around it, and the folder that a run leaves behind."""

from coset.training.tasks import GraphTask, Task

__all__ = ["GraphTask", "Task"]
