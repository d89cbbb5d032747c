"""The commands of ``coset``, each registered where it is written; ``lora inspect`` is ``inspect`` of a group."""

from collections.abc import Callable, Iterator

from coset.core.domains import domains
from coset.core.registry import Registry


def _modules() -> Iterator[str]:
    for domain in domains():
        yield from domain.commands


COMMANDS: Registry[Callable[..., None]] = Registry("command", _modules)
"""By name. The modules that register them are imported at every start: what is heavy they import inside functions."""
