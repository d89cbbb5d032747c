"""Modules that have moved are still found where version 0.1 had them; the import says where they are now."""

import importlib
import sys
import warnings
from collections.abc import Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "coset.data_files": "coset.core.data_files",
    "coset.engines": "coset.runs.launch.jobs",
    "coset.errors": "coset.core.errors",
    "coset.graphs.collections": "coset.graphs.data.collections",
    "coset.graphs.datasets": "coset.graphs.data.datasets",
    "coset.graphs.molecules": "coset.graphs.data.molecules",
    "coset.graphs.product": "coset.graphs.models.product",
    "coset.graphs.shards": "coset.graphs.data.shards",
    "coset.graphs.spectra": "coset.graphs.encodings.spectra",
    "coset.motion.checkpoint": "coset.motion.models.checkpoint",
    "coset.motion.encoder": "coset.motion.models.trackster4d",
    "coset.motion.scenes": "coset.motion.data.scenes",
    "coset.motion.tracks": "coset.motion.data.tracks",
    "coset.privacy.images": "coset.privacy.data.images",
    "coset.recipes": "coset.runs.recipes",
    "coset.topology.torus": "coset.topology.data.torus",
    "coset.training": "coset.graphs.fitting",
    "coset.training.engine": "coset.graphs.fitting.engine",
    "coset.training.metrics": "coset.runs.metrics",
    "coset.training.tasks": "coset.graphs.fitting.tasks",
    "coset.weights.connectivity": "coset.weights.asymmetric.connectivity",
    "coset.weights.lora.adapters": "coset.weights.lora.data.adapters",
    "coset.weights.lora.factors": "coset.weights.lora.data.factors",
    "coset.weights.lora.zoo": "coset.weights.lora.data.zoo",
    "coset.weights.matching": "coset.weights.permutations.matching",
    "coset.weights.networks": "coset.weights.asymmetric.networks",
}
"""Paths that the documentation of version 0.1 showed, and where their modules are now."""


class _Alias(Loader):
    """Gives the module of another path."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(MOVED[spec.name])
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; only its spec, which Python has replaced by that of the old path, is set right."""
        module.__spec__ = self.spec


class MovedModules(MetaPathFinder):
    """Asked by Python before all others: for an old path it gives the module, and a :class:`DeprecationWarning`."""

    def find_spec(self, name: str, path: Iterable[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in MOVED:
            return None
        warnings.warn(f"{name} has moved to {MOVED[name]}", DeprecationWarning, stacklevel=2)
        return ModuleSpec(name, _Alias())


def install() -> None:
    """Let old paths be found; calling it again changes nothing."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
