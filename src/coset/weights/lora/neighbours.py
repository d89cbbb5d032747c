"""Nearest adapters, duplicates and a map of a collection, by the angle between updates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from coset.core.errors import CosetError
from coset.weights.lora.collections import opened
from coset.weights.lora.data.adapters import LoraAdapter, LoraPair
from coset.weights.lora.data.factors import Factors, count, stack
from coset.weights.lora.data.naming import canonical, module_name, native, place_of
from coset.weights.lora.data.reading import load_lora
from coset.weights.lora.data.releases import NAMED
from coset.weights.lora.data.writing import check_whole
from coset.weights.lora.data.zoo import LoraZoo
from coset.weights.lora.labels import TABLE, read_labels
from coset.weights.lora.models.kernel import cosines, squared_norms


@dataclass(frozen=True)
class Neighbour:
    """An adapter of the collection and the cosine of its angle to the one asked for."""

    name: str
    cosine: float


def search(query: Factors, collection: Factors, names: tuple[str, ...], top: int = 10) -> list[list[Neighbour]]:
    """For each query the adapters with the largest cosine, best first."""
    found = cosines(query, collection)
    best = found.topk(min(top, len(names)), dim=1)
    return [
        [Neighbour(names[int(i)], float(c)) for c, i in zip(row_values, row_places, strict=True)]
        for row_values, row_places in zip(best.values, best.indices, strict=True)
    ]


def duplicates(collection: Factors, names: tuple[str, ...], threshold: float = 0.99) -> list[tuple[str, str, float]]:
    """Pairs with a cosine of at least ``threshold``, the most alike first; factors may differ by any element of GL(r).

    Raises:
        CosetError: The threshold is no cosine.
    """
    if not 0 < threshold <= 1:
        raise CosetError(f"threshold={threshold}: a cosine above 0 and at most 1 was expected")
    found = cosines(collection, collection).triu(diagonal=1)
    pairs = (found >= threshold - 1e-6).nonzero()
    rows = [(names[int(i)], names[int(j)], float(found[i, j])) for i, j in pairs]
    return sorted(rows, key=lambda row: -row[2])


def map_of(collection: Factors, dimensions: int = 2) -> Float[Tensor, "adapters dimensions"]:
    """Coordinates by kernel principal components of the cosines.

    Raises:
        CosetError: There are fewer adapters than dimensions.
    """
    if count(collection) <= dimensions:
        raise CosetError(f"a map in {dimensions} dimensions needs more than {dimensions} adapters")
    kernel = cosines(collection, collection)
    centred = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    values, vectors = torch.linalg.eigh(centred)
    picked = torch.argsort(values, descending=True)[:dimensions]
    return vectors[:, picked] * values[picked].clamp(min=0).sqrt()


def gathered(folder: Path, skip_bad: bool = False) -> LoraZoo:
    """A collection, or a folder of adapters, whoever wrote them: a layer that one lacks is a zero update there.

    Raises:
        CosetError: An adapter cannot be used.
    """
    return opened(folder, "union", skip_bad)


def about_cosines(zoo: LoraZoo) -> list[str]:
    """Notes on a collection, and on what of it no cosine looks at."""
    unseen = ["DoRA's magnitudes are not compared: a cosine is of the products of factors alone"]
    return [*zoo.notes, *(unseen if zoo.magnitude_groups else [])]


def search_folder(adapter: Path, zoo: LoraZoo | Path, top: int = 10, lossy: bool = False) -> list[Neighbour]:
    """The adapters of a collection, or of a folder of adapters, that are most like this one.

    Args:
        adapter: The one asked for.
        zoo: The collection, or the folder.
        top: How many.
        lossy: Take an adapter whose file holds more than its factors, or does not tell its scale.

    Raises:
        CosetError: They have no layer in common, the adapter is more than its factors, or none is asked for.
    """
    zoo = zoo if isinstance(zoo, LoraZoo) else gathered(Path(zoo))
    return nearest(asked(adapter, zoo, lossy), zoo, top)


def asked(adapter: Path, zoo: LoraZoo, lossy: bool = False) -> LoraAdapter:
    """An adapter that is looked for, its layers under the names of the collection.

    Raises:
        CosetError: It has none of the collection's layers, or is more than its factors.
    """
    found = load_lora(adapter)
    if not lossy:
        check_whole(found)
    if zoo.renamed:
        found = canonical(found)
    found = in_names_of(zoo.layout.names, found)
    if not set(found.layers) & set(zoo.layout.names):
        raise CosetError(f"{adapter} has none of the layers of {zoo.folder} ({zoo.layout.names[0]}, ...)")
    return found


def nearest(query: LoraAdapter, zoo: LoraZoo, top: int = 10) -> list[Neighbour]:
    """The adapters of a collection with the largest cosine, best first.

    A layer of the query that no adapter of the collection has is orthogonal to all of them, and in its norm. Where the
    collection keeps common layers alone, they are all that is compared.

    Raises:
        CosetError: None is asked for.
    """
    if top < 1:
        raise CosetError(f"top={top}: how many neighbours are wanted is 1 at least")
    factors = stack([query], zoo.layout)
    found = search(factors, zoo.factors(), zoo.names, top)[0]
    if zoo.is_cut or not outside(query, zoo):
        return found
    share = float(squared_norms(factors)[0].sqrt()) / max(query.norm(), 1e-300)
    return [replace(one, cosine=share * one.cosine) for one in found]


def outside(query: LoraAdapter, zoo: LoraZoo) -> list[str]:
    """Layers of an adapter that the collection does not hold."""
    known = set(zoo.layout.names)
    return [layer for layer in query.layers if layer not in known]


def in_names_of(names: Iterable[str], adapter: LoraAdapter) -> LoraAdapter:
    """The adapter with its layers under these names, where they are names of the same modules by another tool.

    Layers that are several modules for one tool and one matrix for the other are cut or joined.
    """
    names = list(names)
    if set(adapter.layers) & set(names):
        return adapter
    known = {module_name(name) or name: name for name in names}
    found = {known.get(module_name(layer) or layer, layer): pair for layer, pair in adapter.layers.items()}
    if set(found) & set(names):
        return replace(adapter, layers=found)
    try:
        modules = canonical(adapter)
    except CosetError:
        return replace(adapter, layers=found)
    if set(modules.layers) & set(names):
        return modules
    paths = {place_of(name).path: name for name in names}
    tried = [
        {paths.get(path, path): pair for path, pair in _joined(modules, model).items()}
        for model in (modules.models, *((one,) for one in NAMED))
    ]
    best = max(tried, key=lambda layers: len(set(layers) & set(names)))
    return replace(adapter, layers=best or found)


def _joined(modules: LoraAdapter, models: tuple[str, ...]) -> Mapping[str, LoraPair]:
    """Layers by the names of a model's first release; none where they have none."""
    try:
        return native(replace(modules, models=models)).layers
    except CosetError:
        return {}


def map_folder(
    collection: Path, output: Path, labels: Path | None = None, colour: str | None = None, skip_bad: bool = False
) -> Path:
    """Write the map of a collection, coloured by a label."""
    from coset.weights.lora.pages import write_map

    zoo, colours = gathered(collection, skip_bad), None
    notes = about_cosines(zoo)
    file = labels or collection / TABLE
    if colour is not None:
        if not file.is_file():
            raise CosetError(f"no table of labels {file} (--labels FILE)")
        found = read_labels(file, zoo.names, collection)
        if colour not in found.table:
            raise CosetError(f"{file} has no column {colour!r}; it has {', '.join(map(str, found.table.columns))}")
        colours = found.table[colour].set_axis(found.places).reindex(range(len(zoo.names)))
        notes += found.notes
    places = map_of(zoo.factors()).numpy()
    return write_map(output, list(zoo.names), places, colours, f"Map of {collection.name}", notes)
