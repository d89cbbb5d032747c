"""Fuzz every reader of ``core.outside`` and of the domains: ``python benchmarks/fuzz.py --cases 20000 --seed 7``.

Whole files of every format are mutated (bits, bytes, pieces cut, doubled and moved, numbers made large, brackets and
words of the formats put in) or drawn from a grammar. Each must be read, or refused by one line of a ``CosetError``;
anything else (another exception, a crash, a wait, too much memory) is a failure, whose input is kept. Readers run in
processes of their own, bounded in memory and in time, so that a crash is one failure and not the end.

The corpus (``tests/fuzz/corpus``) holds what once failed; it is read first, each time, and by the tests.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import random
import resource
import selectors
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parents[1] / "tests" / "fuzz" / "corpus"
MEMORY = 6 << 30
"""Bytes of addresses that a reader's process may have."""
SECONDS = 20
"""Of a case."""
WORDS = [
    b"[" * 100, b"{" * 100, b"- " * 100, b"NaN", b"1e999", b"-1", b"18446744073709551616", b"\0", b"\xff\xfe", b",,",
    b'"', b"${oc.env:HOME}", b"!!python/name:os.system", b"&a [*a]", b"../../etc/passwd", b"(a|a)*b", b"\n", b"\r",
    b"9" * 400, b"true", b"null", b"\xe2\x80\xa8", b"#", b"~~~", b"=1+1",
]  # fmt: skip


def seeds(folder: Path) -> dict[str, tuple[bytes, ...]]:
    """Whole files of every format, by name's end."""
    import numpy as np
    import torch
    from safetensors.torch import save
    from torch_geometric.data import Data

    from coset.graphs.data.shards import write_shard
    from coset.weights.lora import LoraAdapter, LoraPair, save_peft

    arrays = io.BytesIO()
    np.savez(
        arrays,
        pred_tracks=np.linspace(5, 99, 6, dtype=np.float32).reshape(1, 1, 3, 2)
        + np.arange(4, dtype=np.float32)[:, None, None],
        pred_visibility=np.ones((1, 4, 3), bool),
    )
    inputs = io.BytesIO()
    np.savez_compressed(
        inputs, x_train=np.ones((2, 4)), y_train=np.array([0, 1]), x_test=np.ones((2, 4)), y_test=np.array([0, 1])
    )
    single = io.BytesIO()
    np.save(single, np.arange(6).reshape(2, 3))
    state = {"layers.0.weight": torch.ones(3, 4), "layers.0.bias": torch.zeros(3), "layers.2.weight": torch.ones(1, 3)}
    zipped, legacy = io.BytesIO(), io.BytesIO()
    torch.save(state, zipped)
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    graph = Data(x=torch.tensor([[1], [2]]), edge_index=torch.tensor([[0, 1], [1, 0]]), y=torch.ones(1, 1), id="a")
    write_shard(folder / "a.arrow", [graph, graph], {"file": "a.csv", "skipped": []})
    pair = LoraPair(torch.ones(4, 2), torch.ones(5, 2))
    save_peft(LoraAdapter({"x.q": pair}, "a"), folder / "adapter")
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    config |= {"rank_pattern": {r".*\.q": 2}, "alpha_pattern": {"x.(q|v)": 4}}
    recipe = b"kind: graphs\ndata: {name: freesolv}\nmodel:\n  name: gin\n  width: 16\nseed: 1\n"
    manifest = {
        "name": "a", "shards": [["a.arrow", 2]], "target_names": ["y"], "transform": "", "node_features": [3],
        "edge_features": None, "notes": [],
    }  # fmt: skip
    return {
        "csv": (b"smiles,y,split\nCCO,1.5,train\nc1ccccc1,2,test\n[Na+],,val\n", b'smiles,y\n"C,C",1\nC,2\n'),
        "tsv": (b"smiles\ty\nCCO\t1.5\nCC\t2\n",),
        "yaml": (recipe, b"a: &x {b: [1, 2]}\nc: *x\nd: ${a.b}\n"),
        "complex.json": (
            b'{"kind": "cell", "vertices": 3, "cells": {"1": [[0, 1], [1, 2], [0, 2]], "2": [[0, 1, 2]]}}',
        ),
        "atomlist": (b"1 2 {}\n2 3 {}\n1 3 {}\n1 2 3 {}\n", b"1\n2\n1 2\n"),
        "off": (b"OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n",),
        "obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\nf 1 3 4\nf 2 3 4\n",),
        "ply": (
            b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
            b"element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
        ),
        "g6": (b"D~{\n", b"EhEG\nEJaG\n", b"~?@c" + b"?" * 20),
        "tracks.npz": (arrays.getvalue(),),
        "inputs.npz": (inputs.getvalue(),),
        "npy": (single.getvalue(),),
        "safetensors": (save(state), save(state, {"format": "pt", "model": "{}"})),
        "pt": (zipped.getvalue(), legacy.getvalue()),
        "arrow": ((folder / "a.arrow").read_bytes(),),
        "shards.json": (json.dumps(manifest).encode(),),
        "adapter_config.json": (json.dumps(config).encode(),),
        "adapter.safetensors": ((folder / "adapter" / "adapter_model.safetensors").read_bytes(),),
        "pattern": (rb".*\.q_proj", rb"layers\.(1|2)\.[a-z]+", b"(?:a|b){1,3}c?"),
        "intrinsics.txt": (
            b"500 0 320\n0 500 240\n0 0 1\n", b"500,320,240\n", b'{"K": [[500, 0, 3], [0, 500, 2], [0, 0, 1]]}',
        ),
        "smiles": (b"CC(=O)Oc1ccccc1C(=O)O", b"[Na+].[Cl-]", b"C[C@H](N)C(=O)O"),
        "tu.txt.gz": (b"2\n2 0\n0 1 1\n0 1 0\n2 1\n0 1 1\n1 1 0\n",),
        "tsv.gz": (b"label\ttext\n0\ta good one\n1\tbad\n",),
        "base.safetensors": (save({"x.q.weight": torch.ones(4, 5), "norm.weight": torch.ones(4)}),),
        "index.json": (b'{"weight_map": {"x.q.weight": "a.safetensors", "norm.weight": "a.safetensors"}}',),
        "merge.yaml": MERGES,
        **own_graphs(),
    }  # fmt: skip


MERGES = (
    b"merge_method: slerp\nbase_model: a\nmodels:\n  - model: a\n  - model: b\nparameters:\n  t:\n"
    b"    - {filter: self_attn, value: [0, 0.5, 1]}\n    - value: 0.5\ndtype: bfloat16\noutput: out\n",
    b"merge_method: ties\nbase_model: a\nmodels:\n  - {model: b, parameters: {density: 0.5, weight: [0, 0.3]}}\n"
    b"  - {model: c, parameters: {density: 0.2, weight: 1}}\nparameters: {normalize: true}\noutput: out\n",
    b"merge_method: passthrough\nslices:\n  - sources: [{model: a, layer_range: [0, 2]}]\n"
    b"  - sources: [{model: b, layer_range: [1, 3]}]\ndtype: float16\noutput: out\n",
)
"""Files as mergekit has them."""


def own_graphs() -> dict[str, tuple[bytes, ...]]:
    """Graphs and complexes of one's own in all their forms."""
    import pandas as pd
    import torch
    from torch_geometric.data import Data

    edges = pd.DataFrame(
        {"graph": list("aabbccdd"), "source": list("01010101"), "target": list("12121212"), "w": range(8)}
    )
    table, listed = io.BytesIO(), io.BytesIO()
    edges.astype({"w": float}).to_parquet(table)
    index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    x = torch.tensor([[1.0], [2.0], [0.5]])
    torch.save([Data(x=x, edge_index=index, y=torch.tensor([[float(n)]])) for n in range(6)], listed)
    nodes = "".join(f"{g},{n},{n}.5,{'CNO'[n]}\n" for g in "abcd" for n in range(3))
    network = {
        "nodes": [{"id": n, "y": n / 2} for n in range(4)],
        "edges": [{"source": n, "target": n + 1} for n in range(3)],
    }
    return {
        "edges.csv": (edges.to_csv(index=False).encode(),),
        "nodes.csv": (f"graph,node,charge,kind\n{nodes}".encode(),),
        "graphs.csv": (b"graph,y,split\na,1.5,train\nb,2,train\nc,3,val\nd,4,test\n",),
        "edges.parquet": (table.getvalue(),),
        "graphml": (
            b'<?xml version="1.0" encoding="UTF-8"?><graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
            b'<key id="d0" for="node" attr.name="y" attr.type="double"/><graph edgedefault="undirected">'
            b'<node id="0"><data key="d0">1.5</data></node><node id="1"><data key="d0">2</data></node>'
            b'<node id="2"><data key="d0">3</data></node><edge source="0" target="1"/><edge source="1" target="2"/>'
            b"</graph></graphml>",
        ),
        "node-link.json": (json.dumps({"directed": False, "multigraph": False, "graph": {}, **network}).encode(),),
        "own.g6": (b"DQc\nD~{\nBw\nCF\n", b">>graph6<<DQc\nD~{\nBw\nCF\n"),
        "labels.csv": (b"graph,y\n0,1.5\n1,2\n2,3\n3,4\n", b"y\n1\n2\n3\n4\n"),
        "graphs.pt": (listed.getvalue(),),
        "cells.json": (
            b'{"kind": "cell", "vertices": 3, "cells": {"1": [[0, 1], [1, 2], [0, 2]], "2": [[0, 1, 2]]}, '
            b'"features": {"0": [[1], [2], [3]], "1": [[0.5], [1], [2]]}}',
        ),
        "cells.csv": (b"graph,y,split\na,1,train\nb,2,train\nc,3,val\nd,4,test\n",),
    }  # fmt: skip


def readers() -> dict[str, Callable[[Path], Any]]:
    """What reads each format, by the same names."""
    import gzip

    from coset.core.errors import CosetError
    from coset.core.outside import read_arrays, read_saved, read_tensors
    from coset.graphs.data import datasets
    from coset.graphs.data.collections import read_graph6
    from coset.graphs.data.molecules import smiles_to_data
    from coset.graphs.data.own_graphs import GraphFiles
    from coset.graphs.data.shards import Shard, ShardedGraphs
    from coset.graphs.data.tu_datasets import read_tu
    from coset.motion.data import tracks
    from coset.motion.pipeline import read_intrinsics
    from coset.privacy.audit import load_network
    from coset.privacy.inputs import load_inputs
    from coset.runs import recipes
    from coset.topology.data.meshes import read_mesh
    from coset.topology.files import read_complex
    from coset.topology.own_complexes import ComplexFiles
    from coset.weights.lora import load_lora
    from coset.weights.lora.applying import apply
    from coset.weights.lora.combining import Mixing, combine
    from coset.weights.lora.data.patterns import matches
    from coset.weights.lora.data.writing import WRITERS
    from coset.weights.merging import merge_options
    from coset.weights.merging.checkpoints import Checkpoint
    from coset.weights.sentences import read_sentences

    def shards(file: Path) -> None:
        graphs = ShardedGraphs(file.parent)
        if len(graphs):
            graphs[0], graphs[len(graphs) - 1]

    def shard(file: Path) -> None:
        found = Shard(file)
        for row in range(min(len(found), 5)):
            found[row]

    def adapter(file: Path) -> None:
        load_lora(file.parent)

    def packed(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def one(file: Path) -> None:
            file.write_bytes(gzip.compress(file.read_bytes()))
            read(file)

        return one

    def weights(file: Path) -> None:
        for read in (read_tensors, lambda f: load_network(f, "plain", (4,))):
            try:
                read(file)
            except CosetError:
                continue
        file.with_name("model.safetensors").write_bytes(file.read_bytes())
        file.with_name("config.json").write_text("{}")
        Checkpoint(file.parent).shapes()

    def own(level: str = "auto") -> Callable[[Path], Any]:
        options: dict[str, Any] = {"target": ["y"], "level": level, "fractions": (0.5, 0.25, 0.25)}
        return lambda file: GraphFiles(path=str(file), **options).load(0, False)

    def tables(file: Path) -> None:
        own()(file.parent)

    def complexes(file: Path) -> None:
        parts: dict[str, Any] = {"fractions": (0.5, 0.25, 0.25)}
        ComplexFiles(path=str(file.parent), labels=str(file.parent / "labels.csv"), target=["y"], **parts).load(
            0, False
        )

    def base(file: Path) -> None:
        out = file.parent.with_name("applied")
        shutil.rmtree(out, ignore_errors=True)
        apply(load_lora(file.parent.with_name("adapter")), file.parent, out)

    def verbs(file: Path) -> None:
        adapter(file)
        found, out = load_lora(file.parent), file.parent / "written"
        for form in WRITERS:
            try:
                WRITERS[form](found, out / form if form == "peft" else out.with_suffix(f".{form}"))
            except CosetError:
                continue
        for method in ("linear", "svd", "ties"):
            try:
                combine([found, found], method, Mixing([1.0, 0.5], 2, 0.5, 0))
            except CosetError:
                continue

    def text(read: Callable[[str], Any]) -> Callable[[Path], Any]:
        return lambda file: read(file.read_bytes().decode("utf-8", "replace"))

    return {
        "csv": lambda f: datasets.csv(f, "smiles", "y", split=None, skip_bad_rows=True, drop_missing=True),
        "tsv": lambda f: datasets.csv(f, "smiles", "y", split=None),
        "yaml": lambda f: recipes.load(str(f)),
        "complex.json": lambda f: read_complex(str(f)),
        "atomlist": lambda f: read_complex(str(f)),
        "off": read_mesh,
        "obj": read_mesh,
        "ply": read_mesh,
        "g6": read_graph6,
        "tracks.npz": tracks.load,
        "inputs.npz": load_inputs,
        "npy": read_arrays,
        "safetensors": weights,
        "pt": read_saved,
        "arrow": shard,
        "shards.json": shards,
        "adapter_config.json": verbs,
        "adapter.safetensors": verbs,
        "pattern": text(lambda pattern: matches(pattern, "model.layers.1.self_attn.q_proj")),
        "intrinsics.txt": lambda f: read_intrinsics(str(f), None),
        "smiles": text(smiles_to_data),
        "tu.txt.gz": packed(read_tu),
        "tsv.gz": packed(read_sentences),
        "base.safetensors": base,
        "index.json": base,
        "merge.yaml": merge_options.load,
        "edges.csv": tables,
        "nodes.csv": tables,
        "graphs.csv": tables,
        "edges.parquet": tables,
        "graphml": own("node"),
        "node-link.json": own("node"),
        "own.g6": own(),
        "labels.csv": lambda file: own()(file.with_name("own.g6")),
        "graphs.pt": lambda file: GraphFiles(path=str(file), target=[], fractions=(0.5, 0.25, 0.25)).load(0, False),
        "cells.json": complexes,
        "cells.csv": complexes,
    }


NAMES = {
    "shards.json": "shards.json", "adapter_config.json": "adapter_config.json",
    "adapter.safetensors": "adapter_model.safetensors", "base.safetensors": "base/a.safetensors",
    "index.json": "base/model.safetensors.index.json", "edges.csv": "tables/edges.csv", "nodes.csv": "tables/nodes.csv",
    "graphs.csv": "tables/graphs.csv", "edges.parquet": "parquet/edges.parquet", "graphml": "networks/a.graphml",
    "node-link.json": "networks/a.json", "own.g6": "lines/own.g6", "labels.csv": "lines/labels.csv",
    "graphs.pt": "pyg/a.pt", "cells.json": "cells/a.json", "cells.csv": "cells/labels.csv",
}  # fmt: skip
"""What a file is called, and in which folder it lies, where its reader minds."""
TOGETHER = (
    ("adapter_config.json", "adapter.safetensors"), ("base.safetensors", "index.json"),
    ("edges.csv", "nodes.csv", "graphs.csv"), ("own.g6", "labels.csv"), ("cells.json", "cells.csv"),
)  # fmt: skip
"""Formats that are read together."""


def mutated(content: bytes, generator: random.Random, others: tuple[bytes, ...]) -> bytes:
    """A file with one change or several."""
    for _ in range(generator.choice((1, 1, 1, 2, 3, 8))):
        content = generator.choice(MUTATIONS)(content, generator, others)[: 1 << 20]
    return content


def _at(content: bytes, generator: random.Random) -> tuple[int, int]:
    start = generator.randrange(len(content) + 1)
    return start, min(len(content), start + generator.choice((1, 2, 4, 8, 16, 64, 1 << 20)))


def _flip(content: bytes, generator: random.Random, others: tuple[bytes, ...]) -> bytes:
    if not content:
        return b"\0"
    place = generator.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << generator.randrange(8)]) + content[place + 1 :]


def _byte(content: bytes, generator: random.Random, others: tuple[bytes, ...]) -> bytes:
    place = generator.randrange(len(content) + 1)
    return content[:place] + bytes([generator.randrange(256)]) + content[place + 1 :]


def _cut(content: bytes, generator: random.Random, others: tuple[bytes, ...]) -> bytes:
    start, stop = _at(content, generator)
    return content[:start] + content[stop:]


def _end(content: bytes, generator: random.Random, others: tuple[bytes, ...]) -> bytes:
    return content[: generator.randrange(len(content) + 1)]


def _double(content: bytes, generator: random.Random, others: tuple[bytes, ...]) -> bytes:
    start, stop = _at(content, generator)
    return content[:stop] + content[start:stop] * generator.choice((1, 1, 2, 100)) + content[stop:]


def _word(content: bytes, generator: random.Random, others: tuple[bytes, ...]) -> bytes:
    place = generator.randrange(len(content) + 1)
    return content[:place] + generator.choice(WORDS) + content[place + generator.choice((0, 0, 1, 4)) :]


def _integer(content: bytes, generator: random.Random, others: tuple[bytes, ...]) -> bytes:
    place = generator.randrange(len(content) + 1)
    form = generator.choice(("<b", "<h", "<i", "<q"))
    size = struct.calcsize(form)
    value = generator.choice((-1, 0, 1, 1 << (8 * size - 2), -(1 << (8 * size - 1)), (1 << (8 * size - 1)) - 1))
    return content[:place] + struct.pack(form, value) + content[place + size :]


def _digits(content: bytes, generator: random.Random, others: tuple[bytes, ...]) -> bytes:
    places = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
    if not places:
        return content
    place = generator.choice(places)
    return (
        content[:place]
        + str(generator.choice((0, 7, -1, 255, 10**9, 10**18, 10**30, 0.5))).encode()
        + content[place + 1 :]
    )


def _splice(content: bytes, generator: random.Random, others: tuple[bytes, ...]) -> bytes:
    other = generator.choice(others)
    return content[: generator.randrange(len(content) + 1)] + other[generator.randrange(len(other) + 1) :]


def _grammar(content: bytes, generator: random.Random, others: tuple[bytes, ...]) -> bytes:
    """JSON drawn at random: right to the parser, wrong to the schema."""

    def value(depth: int) -> Any:
        kind = generator.randrange(8 if depth < 4 else 5)
        if kind < 5:
            return generator.choice((0, -1, 2**31, 2**63, 1.5, None, True, "", "a", "1", "a.arrow"))
        if kind < 7:
            return [value(depth + 1) for _ in range(generator.randrange(4))]
        keys = ("kind", "vertices", "cells", "1", "2", "r", "shards", "lora_alpha", "K", "rank_pattern", "name")
        return {generator.choice(keys): value(depth + 1) for _ in range(generator.randrange(4))}

    try:
        whole = json.loads(content)
    except ValueError:
        return content
    if isinstance(whole, dict) and whole:
        whole[generator.choice(list(whole))] = value(0)
    return json.dumps(whole).encode()


def _archive(content: bytes, generator: random.Random, others: tuple[bytes, ...]) -> bytes:
    """A mutation inside an archive, whose checksums are right again."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as old:
            members = {name: old.read(name) for name in old.namelist()}
    except Exception:  # it is no whole archive any more
        return content
    if not members:
        return content
    chosen = generator.choice(list(members))
    change = generator.choice((_flip, _byte, _integer, _digits, _end, _word))
    members[chosen] = change(members[chosen], generator, others)
    new = io.BytesIO()
    with zipfile.ZipFile(new, "w") as archive:
        for name, part in members.items():
            archive.writestr(name, part)
    return new.getvalue()


MUTATIONS = (_flip, _byte, _cut, _end, _double, _word, _integer, _digits, _splice, _grammar, _archive)


def tried(kind: str, content: bytes, read: Callable[[Path], Any], folder: Path, whole: dict[str, bytes]) -> str:
    """Empty if a file was read, or refused as it should be; else what went wrong."""
    from coset.core.errors import CosetError

    file = laid_out(kind, content, folder, whole)
    try:
        read(file)
    except CosetError as error:
        return "" if "\n" not in str(error) else f"several lines: {str(error)[:100]!r}"
    except BaseException as error:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else "?"
        return f"{type(error).__name__} at {where}: {str(error)[:100]!r}"
    return ""


def laid_out(kind: str, content: bytes, folder: Path, whole: dict[str, bytes]) -> Path:
    """The file under its name, with what lies beside it."""
    name = NAMES.get(kind, f"a.{kind}")
    for place, held in {**whole, name: content}.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(held)
    return folder / name


def beside(kind: str, given: dict[str, tuple[bytes, ...]]) -> dict[str, bytes]:
    """Whole files that a reader needs beside the one that is mutated."""
    whole = {NAMES[k]: given[k][0] for group in TOGETHER if kind in group for k in group}
    if kind in ("base.safetensors", "index.json"):
        adapter = ("adapter_config.json", "adapter.safetensors")
        whole |= {f"adapter/{NAMES[k]}": given[k][-1] for k in adapter}
    if kind in ("cells.json", "cells.csv"):
        whole |= {f"cells/{name}.json": given["cells.json"][0] for name in "bcd"}
    if kind == "edges.parquet":
        whole |= {f"parquet/{k}": given[k][0] for k in ("nodes.csv", "graphs.csv")}
    return whole | ({"a.arrow": given["arrow"][0]} if kind == "shards.json" else {})


def case(seed: int, number: int, given: dict[str, tuple[bytes, ...]]) -> tuple[str, bytes]:
    """The format and content of a case: the same for the same seed and number."""
    generator = random.Random(f"{seed}:{number}")
    kinds = sorted(given)
    kind = kinds[number % len(kinds)]
    return kind, mutated(generator.choice(given[kind]), generator, given[kind])


class Fuzzer:
    """Cases shared out over processes that are forked when all is imported; one that crashes or hangs is replaced."""

    def __init__(self, seed: int, cases: int, workers: int):
        self.seed, self.cases, self.workers = seed, cases, workers
        self.failures: list[dict[str, Any]] = []
        self.slowest, self.peak, self.done = 0.0, 0, 0
        self.place = tempfile.TemporaryDirectory()
        self.given, self.known = seeds(Path(self.place.name)), readers()
        self._compile()

    def _compile(self) -> None:
        """Read whole files, so that Numba has compiled and stored what they need: that is no case's wait.

        In a process of its own: threads that readers start are not there after a fork, and waited for.
        """
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            return
        try:
            for kind, files in self.given.items():
                tried(kind, files[0], self.known[kind], Path(self.place.name) / "whole", beside(kind, self.given))
        finally:
            os._exit(0)

    def run(self, until: float = math.inf) -> None:
        """All cases, or as many as there is time for."""
        waiting = selectors.DefaultSelector()
        for worker in range(self.workers):
            self._start(waiting, worker)
        while waiting.get_map():
            for key, _ in waiting.select(0.5):
                key.data.read(os.read(key.fd, 1 << 16), self)
            for key in list(waiting.get_map().values()):
                child = key.data
                hangs = child.open and time.monotonic() - child.since > SECONDS
                if hangs or time.monotonic() > until:
                    os.kill(child.pid, signal.SIGKILL)
                    child.over = True
                if not child.over:
                    continue
                waiting.unregister(key.fd)
                os.close(key.fd)
                status = os.waitpid(child.pid, 0)[1]
                if time.monotonic() > until:
                    continue
                if hangs or status:
                    ended = f"the process ended with {os.waitstatus_to_exitcode(status)}"
                    why = f"hangs for {SECONDS} s" if hangs else ended
                    self.failures.append({"number": child.number, "wrong": why})
                    self._start(waiting, child.number + self.workers)

    def _start(self, waiting: selectors.BaseSelector, first: int) -> None:
        if first >= self.cases:
            return
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid:
            os.close(theirs)
            waiting.register(ours, selectors.EVENT_READ, Child(pid, first))
            return
        try:
            os.close(ours)
            with tempfile.TemporaryDirectory() as own:
                self._work(range(first, self.cases, self.workers), theirs, Path(own))
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)

    def _work(self, numbers: range, told: int, own: Path) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for number in numbers:
            kind, content = case(self.seed, number, self.given)
            _tell(told, {"begins": number})
            began = time.perf_counter()
            wrong = tried(kind, content, self.known[kind], own, beside(kind, self.given))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            _tell(told, {"number": number, "wrong": wrong, "seconds": time.perf_counter() - began, "peak": peak})


def _tell(pipe: int, said: dict[str, Any]) -> None:
    os.write(pipe, json.dumps(said).encode() + b"\n")


class Child:
    """A process at work, as its parent knows it."""

    def __init__(self, pid: int, number: int):
        self.pid, self.number, self.since = pid, number, time.monotonic()
        self.open, self.over, self.rest = False, False, b""

    def read(self, content: bytes, fuzzer: Fuzzer) -> None:
        self.over = not content
        *lines, self.rest = (self.rest + content).split(b"\n")
        for line in lines:
            said = json.loads(line)
            self.since, self.open = time.monotonic(), "begins" in said
            if self.open:
                self.number = said["begins"]
                continue
            fuzzer.done += 1
            fuzzer.slowest, fuzzer.peak = max(fuzzer.slowest, said["seconds"]), max(fuzzer.peak, said["peak"])
            if said["wrong"]:
                fuzzer.failures.append({"number": said["number"], "wrong": said["wrong"]})


def keep(fuzzer: Fuzzer) -> None:
    """One input of each class of failures, in the corpus."""
    CORPUS.mkdir(parents=True, exist_ok=True)
    given = fuzzer.given
    classes: dict[str, dict[str, Any]] = {}
    for failure in fuzzer.failures:
        kind, content = case(fuzzer.seed, failure["number"], given)
        name = f"{kind}: {failure['wrong'].partition(': ')[0]}"
        if name not in classes or len(content) < len(classes[name]["content"]):
            classes[name] = {"kind": kind, "content": content, "wrong": failure["wrong"]}
    for name, worst in classes.items():
        digest = hashlib.sha256(worst["content"]).hexdigest()[:10]
        (CORPUS / f"{digest}.{worst['kind']}").write_bytes(worst["content"])
        print(f"{name}\n    {worst['wrong']}\n    kept as {digest}.{worst['kind']}")


def guided(kind: str, seconds: float) -> None:
    """Mutations of one format that follow which branches of our readers they reach, with Atheris (``pip install
    atheris``; Linux); ends the process, with 77 after a failure, whose input is in the corpus then."""
    import atheris

    package = Path(str(find_spec("coset").origin)).parent
    compiled = [file for file in package.rglob("*.py") if "numba" in file.read_text(encoding="utf-8")]
    names = [".".join(file.relative_to(package.parent).with_suffix("").parts) for file in compiled]
    with atheris.instrument_imports(include=["coset"], exclude=names):  # Numba compiles no marks of coverage
        known = readers()
    if kind not in known:
        sys.exit(f"{kind} is none of {', '.join(known)}")
    place = tempfile.TemporaryDirectory()
    given = seeds(Path(place.name))
    begun, own = Path(place.name) / "begun", Path(place.name) / "own"
    begun.mkdir(), own.mkdir()
    for number, content in enumerate(given[kind]):
        (begun / str(number)).write_bytes(content)

    def one(content: bytes) -> None:
        wrong = tried(kind, content, known[kind], own, beside(kind, given))
        if wrong:
            name = hashlib.sha256(content).hexdigest()[:10]
            (CORPUS / f"{name}.{kind}").write_bytes(content)
            raise AssertionError(f"{kind}: {wrong}; kept as {name}.{kind}")

    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # libFuzzer's clock; cypari has taken it
    limits = [f"-max_total_time={seconds:.0f}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEMORY >> 20}"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={place.name}/", str(begun)], one)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time() // 86_400), help="that of today by default")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, help="stop after so many, whatever is left")
    parser.add_argument("--guided", metavar="FORMAT", help="let coverage guide the mutations of a format (Atheris)")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.guided is not None:
        guided(given.guided, given.seconds or 60)
    began = time.monotonic()
    fuzzer = Fuzzer(given.seed, given.cases, given.workers)
    fuzzer.run(math.inf if given.seconds is None else began + given.seconds)
    print(
        f"seed {given.seed}: {fuzzer.done:,} of {given.cases:,} cases in {time.monotonic() - began:.0f} s, "
        f"{len(fuzzer.failures)} failures, slowest {fuzzer.slowest:.2f} s, largest memory {fuzzer.peak:,} MB"
    )
    keep(fuzzer)
    sys.exit(bool(fuzzer.failures))


if __name__ == "__main__":
    main()
