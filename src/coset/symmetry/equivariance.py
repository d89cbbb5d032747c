r"""How far a map is from respecting a group: max over drawn g of |f(g x) - g f(x)|, in float64.

In exact arithmetic an equivariant map has error zero; in float64 rounding leaves about 1e-13, while a broken symmetry
leaves something near 1e-2. The gap between the two is what a verdict rests on.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.symmetry.actions import Action, TrivialAction
from coset.symmetry.values import cast, tensors


@dataclass(frozen=True)
class Claim:
    """What a model says of itself: moving its inputs by ``input`` moves its outputs by ``output``.

    Attributes:
        input: Action on the inputs; it draws the elements.
        output: Action of the same elements on the outputs; :class:`TrivialAction` for an invariant model.
        statement: The claim in words, for certificates.
    """

    input: Action
    output: Action
    statement: str = ""


@dataclass(frozen=True)
class EquivarianceReport:
    """What a check measured.

    Attributes:
        group: Name of the action on the inputs.
        output: Name of the action on the outputs.
        trials: Number of elements drawn.
        moved: How many of them changed the input at all; 0 makes the verdict an empty one.
        dtype: Floating-point type of the measurement, e.g. ``"float64"``.
        max_absolute_error: Largest |f(g x) - g f(x)|; infinite if an output was not finite or changed its shape.
        max_relative_error: The same over the largest magnitude in that output tensor.
        tolerance: Largest relative error that passes.
        passed: The verdict.
        statement: The claim in words, if one was checked.
        detail: Why a check failed other than by size of error.
    """

    group: str
    output: str
    trials: int
    moved: int
    dtype: str
    max_absolute_error: float
    max_relative_error: float
    tolerance: float
    passed: bool
    statement: str = ""
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: infinite errors become ``None``."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in dataclasses.asdict(self).items()
        }

    def __str__(self) -> str:
        verdict = "holds" if self.passed else "BROKEN"
        reason = f"; {self.detail}" if self.detail else ""
        return (
            f"{self.group} -> {self.output}: {verdict}, relative error {self.max_relative_error:.1e} "
            f"(at most {self.tolerance:.0e}), absolute {self.max_absolute_error:.1e}, "
            f"{self.moved} of {self.trials} elements moved the input, {self.dtype}{reason}"
        )


def check_equivariance(
    f: Callable[[Any], Any],
    x: Any,
    action_in: Action,
    action_out: Action | None = None,
    *,
    trials: int = 5,
    seed: int = 0,
    tolerance: float = 1e-8,
    dtype: torch.dtype = torch.float64,
    statement: str = "",
) -> EquivarianceReport:
    """Compare f(g x) with g f(x) for random g.

    A module (or a method of one) is copied, put in evaluation mode and cast to ``dtype``; the original is left alone.
    Any other callable is taken as it is and must accept ``dtype``. Gradients are off: a map that differentiates
    inside turns them on itself. Every evaluation starts from the same state of PyTorch's random numbers, so that
    noise drawn inside repeats.

    A pass needs, for every output tensor, an error of at most ``tolerance`` times its largest magnitude; differences
    below 100 units of rounding (2e-14 in float64) count as zero, so that an output that is exactly 0 in theory does
    not fail.

    Args:
        f: The map, of one argument.
        x: The input: a tensor, PyG data, or a tuple, list or dict of these. It is copied.
        action_in: Draws the elements and moves the input.
        action_out: Moves the output (tensor, tuple or dict); invariance if left out.
        trials: Number of elements.
        seed: Of the elements, and of noise inside f.
        tolerance: Largest relative error that passes. In float32 something like 1e-4 is right.
        dtype: Floating-point type of the measurement.
        statement: Carried into the report.

    Raises:
        ValueError: No trials, or an action that cannot act on the input or output given.
    """
    if trials < 1:
        raise ValueError(f"trials={trials}: a check needs at least one")
    action_out = action_out or TrivialAction()
    evaluate = _evaluator(f, dtype, seed)
    x = cast(x, dtype)
    generator = torch.Generator().manual_seed(seed)
    reference = evaluate(x)
    absolute, relative, passed, moved, detail = 0.0, 0.0, True, 0, ""
    for _ in range(trials):
        element = action_in.sample(x, generator)
        moved_x = action_in.apply(element, x)
        moved += not _same(moved_x, x)
        found = _compare(evaluate(moved_x), action_out.apply(element, reference), tolerance, dtype)
        absolute, relative = max(absolute, found.absolute), max(relative, found.relative)
        passed, detail = passed and found.passed, detail or found.detail
    kind = str(dtype).removeprefix("torch.")
    names = (action_in.name, action_out.name)
    return EquivarianceReport(*names, trials, moved, kind, absolute, relative, tolerance, passed, statement, detail)


def verify_claims(
    model: nn.Module,
    x: Any,
    *,
    claims: Iterable[Claim] | Claim | None = None,
    trials: int = 5,
    seed: int = 0,
    tolerance: float = 1e-8,
    dtype: torch.dtype = torch.float64,
) -> list[EquivarianceReport]:
    """Check all claims of a model, by ``model.symmetry()``, or those given (one alone, too), on one input.

    The model and its training state stay as they are (:func:`check_equivariance`).

    Raises:
        CosetError: The model claims nothing.
    """
    if claims is None:
        declared = getattr(model, "symmetry", None)
        if not callable(declared):
            raise CosetError(
                f"{type(model).__name__} declares no symmetry: its method symmetry() should return a tuple of Claim"
            )
        claims = declared()
    claims = (claims,) if isinstance(claims, Claim) else claims
    return [
        check_equivariance(
            model,
            x,
            claim.input,
            claim.output,
            trials=trials,
            seed=seed,
            tolerance=tolerance,
            dtype=dtype,
            statement=claim.statement,
        )
        for claim in claims
    ]


@dataclass(frozen=True)
class _Difference:
    absolute: float
    relative: float
    passed: bool
    detail: str = ""


def _evaluator(f: Callable[[Any], Any], dtype: torch.dtype, seed: int) -> Callable[[Any], Any]:
    """f on copies of values, without gradients, from one state of the random numbers; modules copied and cast too."""
    owner = f.__self__ if isinstance(f, types.MethodType) else f
    if isinstance(owner, nn.Module):
        twin = copy.deepcopy(owner).eval().to(dtype)
        f = types.MethodType(f.__func__, twin) if isinstance(f, types.MethodType) else twin

    def evaluate(x: Any) -> Any:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cast(f(cast(x, dtype)), dtype)

    return evaluate


def _compare(left: Any, right: Any, tolerance: float, dtype: torch.dtype) -> _Difference:
    pairs, broken = list(tensors(left)), _Difference(math.inf, math.inf, False)
    others = list(tensors(right))
    if [name for name, _ in pairs] != [name for name, _ in others]:
        return dataclasses.replace(broken, detail="the output is made of different parts")
    if not pairs:
        raise ValueError(f"the output holds no tensor to compare: it is a {type(left).__name__}")
    absolute, relative, passed = 0.0, 0.0, True
    noise = 100 * torch.finfo(dtype).eps
    for (name, a), (_, b) in zip(pairs, others, strict=True):
        what = f"output {name}".rstrip()
        if a.shape != b.shape:
            shapes = f"{tuple(a.shape)} against {tuple(b.shape)}"
            return dataclasses.replace(broken, detail=f"{what} changes its shape: {shapes}")
        if not (a.isfinite().all() and b.isfinite().all()):
            return dataclasses.replace(broken, detail=f"{what} is not finite")
        if a.numel() == 0:
            continue
        a, b = (t.to(torch.complex128 if t.is_complex() else torch.float64) for t in (a, b))
        error, size = float((a - b).abs().max()), float(torch.maximum(a.abs(), b.abs()).max())
        share = error / size if size else 0.0
        absolute, relative = max(absolute, error), max(relative, share)
        passed = passed and (share <= tolerance or error <= noise)
    return _Difference(absolute, relative, passed)


def _same(left: Any, right: Any) -> bool:
    """Whether two values hold equal tensors, NaN (a missing target, padding) equal to NaN."""
    pairs = zip(tensors(left), tensors(right), strict=True)
    return all(_equal(a, b) for (_, a), (_, b) in pairs)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
