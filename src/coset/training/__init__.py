"""Training: the task that Lightning runs, and the engine around it.

:mod:`coset.training.tasks` has the task, :mod:`coset.training.engine` fits it and predicts with it,
:mod:`coset.training.metrics` measures. Nothing is imported here: Lightning takes seconds, and only graphs need it.
"""
