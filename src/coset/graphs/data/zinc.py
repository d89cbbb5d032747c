"""ZINC-12k: the benchmark of drug-like molecules and their penalised logP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from coset.core.data_files import data_file
from coset.core.outside import lines_of
from coset.graphs.data.datasets import csv
from coset.graphs.data.graph_table import GraphTable


def zinc12k(path: str | Path | None = None, progress: bool = False) -> GraphTable:
    """ZINC-12k: penalised logP of drug-like molecules; 10,000 to train on, the benchmark's 1,000 to validate on.

    The validation molecules are those of the benchmark. So are the training molecules of files that ``coset data get
    zinc12k`` made, which have a column ``benchmark``; those of other files are 10,000 others of ZINC-250k. There is no
    test split: an error reported here is a validation error, and the epoch should not be chosen by it.

    Args:
        path: Folder with ``zinc12k_train.csv`` and ``zinc12k_val.csv``.
        progress: Show a progress bar.
    """
    parts, same = {}, False
    for part in ("train", "val"):
        file = data_file(f"molecules/zinc12k_{part}.csv", None if path is None else Path(path) / f"zinc12k_{part}.csv")
        same = same or (part == "train" and "benchmark" in lines_of(file)[0])
        parts[part] = csv(file, "smiles", "penalized_logp", split=None, progress=progress)
    for part, table in parts.items():
        for data in table.graphs:
            data.id = f"{part}-{data.id}"
    graphs = parts["train"].graphs + parts["val"].graphs
    rows = torch.arange(len(graphs)).split([len(parts["train"]), len(parts["val"])])
    note = f"validation molecules are the benchmark's, training molecules are {'too' if same else 'not'}; "
    note += "there is no test split"
    return replace(parts["train"], graphs=graphs, splits=dict(zip(parts, rows)), name="ZINC-12k", notes=(note,))
