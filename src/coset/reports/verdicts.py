"""The sentence that a page begins with: what came out, in plain words, made of the numbers."""

from __future__ import annotations

from coset.reports.scores import against_baseline, higher_is_better, label, score

LATE = 0.95
"""A best epoch after this share of all epochs says that training was stopped on its way."""
FEWEST = 5
"""Epochs; of fewer the last is nearly always the best."""


def standing(
    metric: str, value: float, split: str, *, rows: str = "", baseline: float | None = None, guess: str = "the mean"
) -> str:
    """``Test RMSE 0.862 on 113 molecules, 41% lower than always predicting the mean.``

    Args:
        metric: Its name in ``metrics.json``.
        value: What it is.
        split: Where.
        rows: How many of what, e.g. ``113 molecules``.
        baseline: What guessing gives.
        guess: What that always predicts.
    """
    on = f" on {rows}" if rows else ""
    compared, said = against_baseline(metric, value, baseline), ""
    if compared:
        amount, better = compared
        if amount.lstrip("+−").startswith(("0%", "0.000")):
            return f"{_capital(split)} {named(metric)} {score(value, metric)}{on}, as always predicting {guess}."
        than = f"{'above' if better else 'below'} that of" if higher_is_better(metric) else "than"
        said = f", {amount.lstrip('+−')} {than} always predicting {guess}"
    return f"{_capital(split)} {named(metric)} {score(value, metric)}{on}{said}."


def unfinished(best_epoch: int | None, epochs: int | None) -> str:
    """What is to be said where validation was best at the end; empty otherwise.

    Args:
        best_epoch: On validation, counted from 0.
        epochs: That were trained.
    """
    if best_epoch is None or epochs is None or epochs < FEWEST or best_epoch + 1 < LATE * epochs:
        return ""
    return "Validation was still getting better when training stopped: more epochs may help."


def sentences(*parts: str) -> str:
    """Those that say something, one after another."""
    return " ".join(part for part in parts if part)


def counted(count: int, what: str) -> str:
    """``1 adapter``, ``2 adapters``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def named(metric: str) -> str:
    """A metric within a sentence: ``RMSE``, ``accuracy``."""
    name = label(metric)
    return name.lower() if name[1:].islower() or " " in name else name


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
