"""In the tests every annotation of the source is checked at each call, by jaxtyping and beartype; in use none is.

An import hook decorates the functions and classes of ``coset`` while they are imported, so that no decorator stands in
the source and nothing is checked in use. ``COSET_NO_SHAPE_CHECKS=1`` leaves the checks away, to time things.
"""

import functools
import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from types import FunctionType

import jaxtyping
import numba
import pytest
import torch
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeCallHintViolation

CHECKER = "shape_checks.of_kinds"
of_kinds = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An ``int`` is a ``float`` too, as it is for type checkers (PEP 484)."""

UNCHECKED = (
    "coset.relations.kernels.simd",
    "coset.relations.gpu.places",
    "coset.relations.gpu.propagation",
    "coset.relations.gpu.attention",
)
"""Numba's intrinsics, and Triton's kernels: parameters are counted, and sources read, which a wrapper hides."""


class _Untouched:
    """Finds the modules of UNCHECKED the ordinary way, ahead of the hook."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, path, target) if name in UNCHECKED else None


def _computes(annotation: object) -> bool:
    """Whether a size in it is computed from the arguments, as ``Int[Tensor, "{self.graphs}"]``."""
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        return "{" in annotation.dim_str
    return any(_computes(part) for part in typing.get_args(annotation))


def _checked_once(function: FunctionType, jaxtyped: Callable) -> Callable | None:
    """What ``jaxtyped(function, typechecker=of_kinds)`` checks, at a third of its time.

    It would bind the arguments to names and check them twice, with and without what the function gives back. None if it
    must: sizes are computed from arguments, annotations name what is imported for type checkers alone, values come one
    by one.
    """
    try:
        function.__annotations__ = annotations = typing.get_type_hints(function, include_extras=True)
    except Exception:  # a name, or whatever an annotation says when it is read
        return None
    if any(map(_computes, annotations.values())) or inspect.isgeneratorfunction(function):
        return None
    checked = of_kinds(function)

    @functools.wraps(function)
    def call(*arguments, **options):
        if jaxtyping.config.jaxtyping_disable:
            return function(*arguments, **options)
        with jaxtyped("context"):
            try:
                return checked(*arguments, **options)
            except BeartypeCallHintViolation:
                jaxtyping.print_bindings()
                raise

    return call


def _of_what_stays(jaxtyped):
    """``jaxtyped`` that leaves functions within functions alone: they would be wrapped again at every call.

    Protocols become checkable at run time.
    """

    def choose(*arguments, **options):
        decorate = jaxtyped(*arguments, **options)

        def wrap(thing):
            if "<locals>" in getattr(thing, "__qualname__", ""):
                return thing
            if isinstance(thing, FunctionType) and (checked := _checked_once(thing, jaxtyped)):
                return checked
            return typing.runtime_checkable(thing) if getattr(thing, "_is_protocol", False) else decorate(thing)

        return wrap

    return choose


def _of_the_function_itself(njit):
    """``njit`` that compiles what is inside the hook's wrapper: compiled code calls no checks."""

    def compile_unwrapped(function=None, /, *signatures, **options):
        if callable(function):
            return njit(inspect.unwrap(function))
        return lambda function: njit(*signatures, **options)(inspect.unwrap(function))

    return compile_unwrapped


@contextmanager
def ill_typed() -> Iterator[None]:
    """Checks step aside inside the block: what does Coset itself say to a value of the wrong kind or shape?"""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def _of_symbols(trace):
    """``torch.fx`` sends symbols through a network, which are no tensors."""

    @functools.wraps(trace)
    def unchecked(*arguments, **options):
        with ill_typed():
            return trace(*arguments, **options)

    return unchecked


def _of_wrong_values(raises):
    """``pytest.raises`` in whose block wrong values get past the checks, to the errors that are expected of Coset.

    A command ends with ``SystemExit`` whatever was wrong, also if nothing was: there the checks stay.
    """

    @contextmanager
    def unchecked(*expected, **options):
        with ill_typed(), raises(*expected, **options) as info:
            yield info

    def choose(*expected, **options):
        calls_a_function = len(expected) > 1
        return (raises if calls_a_function or expected == (SystemExit,) else unchecked)(*expected, **options)

    return choose


def install() -> None:
    if os.environ.get("COSET_NO_SHAPE_CHECKS", "0") in ("", "0"):
        jaxtyping.jaxtyped = _of_what_stays(jaxtyping.jaxtyped)
        numba.njit = _of_the_function_itself(numba.njit)
        torch.fx.Tracer.trace = _of_symbols(torch.fx.Tracer.trace)
        pytest.raises = _of_wrong_values(pytest.raises)
        jaxtyping.install_import_hook("coset", CHECKER)
        sys.meta_path.insert(0, _Untouched)
