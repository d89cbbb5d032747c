from pathlib import Path

import torch
from torch import nn

from coset.graphs import Subgraphormer
from coset.graphs.data.datasets import csv
from coset.graphs.pages.run_report import write_report
from coset.graphs.pages.views import PAGE_VIEWS, last_split


def test_domains_add_views_by_registering_them() -> None:
    assert {view.file for _, view in PAGE_VIEWS.items()} == {"attention.json", "cells.json"}


def test_a_model_leaves_records_of_the_last_split_alone(small_csv: Path, make_run) -> None:
    table = csv(small_csv, "smiles", "carbons", split="random", seed=0)
    assert last_split(table) == table.splits["test"].tolist()
    folder = make_run("run")
    (folder / "attention.json").unlink()
    torch.manual_seed(0)
    model = Subgraphormer(1, width=16, heads=2, layers=1, marking="root", node_features=table.node_features)
    for _, view in PAGE_VIEWS.items():
        view.leave(folder, nn.Linear(1, 1), table)
    assert "attention-viewer" not in write_report(folder).read_text().split("<script")[0]
    for _, view in PAGE_VIEWS.items():
        view.leave(folder, model, table)
    assert '<div id="attention-viewer">' in write_report(folder).read_text()
    assert not (folder / "cells.json").exists()
