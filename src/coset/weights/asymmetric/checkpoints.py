"""Networks of one architecture from files of theirs, and their neurons brought into one order.

What :mod:`coset.weights.asymmetric.connectivity` measures between networks trained here it measures between any
two checkpoints: :func:`read_networks` stacks them, :func:`aligned` permutes the neurons of all but the first.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.weights.asymmetric.comparison import Matching, row
from coset.weights.asymmetric.connectivity import stacked
from coset.weights.asymmetric.ensembles import Ensemble, State, outputs
from coset.weights.permutations.channels import names_by_tensor
from coset.weights.permutations.groups import permutation_spec, permute
from coset.weights.permutations.matching import activation_matching, weight_matching
from coset.weights.state_files import load_state

CHECKED = 64  # rows on which a network must compute what it did before its neurons were permuted
TOLERANCE = 1e-3  # of the largest output; sums in another order change single precision by far less


def build_model(where: str) -> nn.Module:
    """What ``package.module:function`` or ``path/to/file.py:function`` makes: a network, from a call without arguments.

    The file is the user's own code and is run.

    Raises:
        CosetError: There is no such function, it fails, or it makes something else.
    """
    place, _, attribute = where.rpartition(":")
    if not place or not attribute:
        raise CosetError(f"--model {where}: give file.py:function or package.module:function that makes the network")
    try:
        module = _own_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise CosetError(f"--model {where}: {error}; from here a file is named with its .py") from error
    except CosetError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's file raises
        raise CosetError(f"--model {where}: {place} cannot be imported: {_said(error)}") from error
    build: Any = getattr(module, attribute, None)
    if build is None:
        raise CosetError(f"--model {where}: {place} has no {attribute}")
    try:
        model = copy.deepcopy(build) if isinstance(build, nn.Module) else build()
    except TypeError as error:
        raise CosetError(f"--model {where}: {attribute} must be callable without arguments: {error}") from error
    except (Exception, SystemExit) as error:
        raise CosetError(f"--model {where}: {attribute} fails: {_said(error)}") from error
    if not isinstance(model, nn.Module):
        raise CosetError(f"--model {where}: {attribute} made a {type(model).__name__}, not a torch.nn.Module")
    return model


def _said(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": ")


def read_networks(model: nn.Module, files: Sequence[Path]) -> Ensemble:
    """Checkpoints of one architecture, stacked.

    Prefixes that wrappers add to all names (``module.``, ``_orig_mod.``, ``model.``) are taken off.

    Args:
        model: Their architecture.
        files: Two or more; see :func:`coset.weights.state_files.load_state`.

    Raises:
        CosetError: A file cannot be read, holds numbers that are not finite, or belongs to another architecture; it is
            named.
    """
    if len(files) < 2:
        raise CosetError(f"give two networks or more, not {len(files)}")
    own = model.state_dict()
    names = set(own)
    states: list[State] = []
    for file in files:
        state = unwrapped(load_state(file), names)
        state = _tied(model, {name: _number(value, name, own.get(name), file) for name, value in state.items()}, file)
        try:
            stacked(model, [state])
        except CosetError as error:
            raise CosetError(str(error).replace("network 1", str(file), 1)) from error
        states.append(state)
    return Ensemble(model.float().eval(), stacked(model, states))


def _number(value: Tensor, name: str, own: Tensor | None, file: Path) -> Tensor:
    """In single precision if it is no counter; the network has ``own`` of that name."""
    if own is not None and own.is_floating_point() and not value.is_floating_point():
        raise CosetError(
            f"{file}: {name} is stored as {value.dtype}, the network computes with {own.dtype}: quantised weights "
            "cannot be mixed"
        )
    value = value.float() if value.is_floating_point() else value
    if not value.isfinite().all():
        raise CosetError(f"{file}: {name} is not finite")
    return value


def _tied(model: nn.Module, state: State, file: Path) -> State:
    """The state with every name of a tensor that the model has under several."""
    state, wanted = dict(state), set(model.state_dict())
    for names in names_by_tensor(model).values():
        given = [name for name in names if name in state]
        if not all(torch.equal(state[name], state[given[0]]) for name in given[1:]):
            raise CosetError(
                f"{file}: {' and '.join(given)} differ, which the model ties: they must be the same tensor"
            )
        if given:
            state |= {name: state[given[0]] for name in names if name in wanted}
    return state


def unwrapped(state: State, names: set[str]) -> State:
    """The state with its names shortened by leading parts that all share, as far as that makes them fit."""
    while state and not names & set(state) and all("." in name for name in state):
        if len({name.partition(".")[0] for name in state}) > 1:
            break
        state = {name.partition(".")[2]: value for name, value in state.items()}
    return state


def aligned(ensemble: Ensemble, how: Matching, inputs: Tensor, seed: int = 0) -> Ensemble:
    """The same networks, the neurons of all but the first matched to the first's.

    Args:
        ensemble: Standard networks.
        how: By weights, or by activations on ``inputs``.
        inputs: Of the data.
        seed: Of the order in which weight matching visits groups.

    Raises:
        CosetError: The architecture cannot be read, has no neurons that can be permuted, or was read wrongly: a network
            computes something else when its neurons are permuted.
    """
    whole = hasattr(ensemble.model, "edge_index")
    spec = permutation_spec(ensemble.model, (inputs if whole else inputs[:2],))
    if not len(spec):
        raise CosetError(f"{type(ensemble.model).__name__} has no neurons that can be permuted")
    first = row(ensemble.state, 0)
    states: list[State] = [first]
    for i in range(1, len(ensemble)):
        other = row(ensemble.state, i)
        if how == "weights":
            orders = weight_matching(spec, first, other, seed=seed)
        else:
            orders = activation_matching(spec, ensemble.model, first, other, inputs)
        states.append(permute(spec, other, orders))
        _check_unchanged(ensemble.model, other, states[-1], inputs if whole else inputs[:CHECKED], i + 1)
    return replace(ensemble, state={name: torch.stack([s[name] for s in states]) for name in first}, initial={})


def _check_unchanged(model: nn.Module, before: State, after: State, inputs: Tensor, number: int) -> None:
    with torch.no_grad():
        old, new = outputs(model, {name: torch.stack([before[name], after[name]]) for name in before}, inputs)
    change, largest = float((new - old).abs().max()), float(old.abs().max())
    if not change <= TOLERANCE * largest:
        raise CosetError(
            f"the outputs of network {number} change by {change:.3g} (the largest is {largest:.3g}) when its neurons "
            f"are permuted: the forward of {type(model).__name__} was read wrongly; --match none leaves them"
        )


def _own_file(path: Path) -> Any:
    if not path.is_file():
        raise CosetError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(f"_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise CosetError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # as if it were run from its own folder
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
