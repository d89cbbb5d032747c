"""Downloads turned into the files that recipes read."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from coset.core.errors import CosetError
from coset.core.outside import read_table, read_text, refusing
from coset.graphs.data.molecules import parse_smiles, zinc_target
from coset.graphs.data_sets import TU_ARCHIVES

LARGEST = 1 << 28
"""Bytes of one file in an archive."""


def bace(received: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """SMILES, class and pIC50 out of MoleculeNet's table of descriptors."""
    table = read_table(received[0])
    try:
        chosen = table[["mol", "Class", "pIC50"]]
    except KeyError as error:
        raise CosetError(f"{received[0]} is not MoleculeNet's table of BACE: {error}") from error
    chosen = chosen.rename(columns={"mol": "smiles", "Class": "class"})
    yield "molecules/bace.csv", chosen.to_csv(index=False).encode()


def zinc12k(received: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """The benchmark's molecules: lines of ZINC-250k that its indices name, with their penalised logP; and all others.

    Args:
        received: Molecules of train, val and test, and the three indices.
    """
    texts, others = [read_text(path) for path in received], list[str]()
    for name, molecules, index in zip(("train", "val", "test"), texts[:3], texts[3:], strict=True):
        lines = [line.split()[0] for line in molecules.splitlines() if line.strip()]
        try:
            places = [int(place) for place in index.replace(",", " ").split()]
            chosen = [lines[place] for place in places]
        except (ValueError, IndexError) as error:
            raise CosetError(f"the index of {name} does not fit its molecules: {error}") from error
        rows = [f"{smiles},{zinc_target(parse_smiles(smiles)):.6f},1" for smiles in chosen]
        content = "\n".join(["smiles,penalized_logp,benchmark", *rows, ""])
        yield f"molecules/zinc12k_{name}.csv", content.encode()
        held_out = set() if name == "train" else set(places)
        others += [line for place, line in enumerate(lines) if place not in held_out]
    yield "molecules/zinc250k_rest.txt.gz", gzip.compress("\n".join([*others, ""]).encode(), mtime=0)


def tu(received: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """A data set of the TU collection in the text form of "How powerful are GNNs?".

    Raises:
        CosetError: The archive lacks a file of the set, or its files do not fit each other.
    """
    theirs = received[0].stem
    with refusing(received[0], "archive of a TU data set"), zipfile.ZipFile(received[0]) as archive:
        tables = {part: _numbers(archive, theirs, part) for part in ("A", "graph_indicator", "graph_labels")}
        members = {Path(name).name for name in archive.namelist()}
        has_tags = f"{theirs}_node_labels.txt" in members
        tags = _numbers(archive, theirs, "node_labels") if has_tags else []
        text = _as_text(tables, tags)
    yield f"graphs/{TU_ARCHIVES[theirs][1]}.txt.gz", gzip.compress(text.encode(), mtime=0)


def _as_text(tables: dict[str, list[list[int]]], tags: list[list[int]]) -> str:
    graph_of = [row[0] for row in tables["graph_indicator"]]
    first: dict[int, int] = {}
    for node, graph in enumerate(graph_of):
        first.setdefault(graph, node)
    neighbours: list[list[int]] = [[] for _ in graph_of]
    for a, b in dict.fromkeys((a, b) for a, b in tables["A"] if a != b):
        if graph_of[a - 1] != graph_of[b - 1]:
            raise ValueError(f"an edge joins graphs {graph_of[a - 1]} and {graph_of[b - 1]}")
        neighbours[a - 1].append(b - 1 - first[graph_of[a - 1]])
    sizes, node = Counter(graph_of), 0
    lines = [str(len(tables["graph_labels"]))]
    for graph, (label,) in enumerate(tables["graph_labels"], 1):
        lines.append(f"{sizes[graph]} {label}")
        for _ in range(sizes[graph]):
            tag = tags[node][0] if tags else 0
            lines.append(" ".join(map(str, [tag, len(neighbours[node]), *sorted(neighbours[node])])))
            node += 1
    return "\n".join([*lines, ""])


def _numbers(archive: zipfile.ZipFile, name: str, part: str) -> list[list[int]]:
    """Rows of whole numbers of ``<name>/<name>_<part>.txt``."""
    member = archive.getinfo(f"{name}/{name}_{part}.txt")
    if member.file_size > LARGEST:
        raise ValueError(f"{member.filename} has {member.file_size} bytes")
    text = io.TextIOWrapper(archive.open(member), encoding="ascii").read()
    return [[int(value) for value in line.split(",")] for line in text.splitlines() if line.strip()]


def fetch_zinc(folder: Path) -> None:
    """PyG's own class downloads and unpacks its ZINC."""
    from torch_geometric.datasets import ZINC

    try:
        for part in ("train", "val", "test"):
            ZINC(str(folder), subset=True, split=part)
    except OSError as error:
        raise CosetError(f"PyG cannot download ZINC: {error}") from error
