"""The same seed gives the same numbers, whatever the number of threads and of processes that load batches."""

import pytest
import torch

from coset.relations.kernels import threads
from coset.runs.recipes import load

SMALL = ["model.width=16", "training.epochs=2", "training.batch_size=16"]
RECIPES = {
    "subgraphormer/freesolv": ["model.layers=1", "model.positional_encoding=4"],
    "gnn-sswl-plus/freesolv": ["model.layers=1"],
    "csgnn/freesolv": ["model.layers=1", "model.bag=3"],
    "epnn/freesolv": ["model.layers=1"],
    "granola/zinc12k": ["model.layers=2"],
    "smcn/freesolv": ["model.layers=1"],
}


@pytest.fixture(scope="module")
def long_molecules(tmp_path_factory):
    """Chains and rings, large enough that PyTorch shares sums over their batches among its threads."""
    chains = [f"{'C' * (8 + n)}OC1CCC(CC1){'N' * (n % 3)}" for n in range(18)]
    rows = [f"{smiles},{len(smiles) + number % 4}" for number, smiles in enumerate(chains)]
    file = tmp_path_factory.mktemp("data") / "long.csv"
    file.write_text("smiles,y\n" + "\n".join(rows) + "\n")
    return file


@pytest.fixture
def with_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def numbers(name, file, folder, *changes):
    """Metrics and predictions of a short run of a shipped recipe on this file."""
    data = f"data={{name: csv, path: {file}, target: y, fractions: [0.8, 0.1, 0.1]}}"
    metrics = load(name, [data, *SMALL, *RECIPES[name], *changes]).run(folder, quiet=True)
    return [metrics[split] for split in ("train", "val", "test")], (folder / "predictions.csv").read_bytes()


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_does_not_depend_on_threads(name, long_molecules, with_threads, tmp_path):
    with_threads(1)
    alone = numbers(name, long_molecules, tmp_path / "1")
    with_threads(4)
    assert numbers(name, long_molecules, tmp_path / "4") == alone
    assert torch.get_num_threads() == 4  # as before the run


def test_a_run_does_not_depend_on_loading_processes(long_molecules, with_threads, tmp_path):
    name = "gnn-sswl-plus/freesolv"
    with_threads(2)
    alone = numbers(name, long_molecules, tmp_path / "0")
    assert numbers(name, long_molecules, tmp_path / "2", "training.workers=2") == alone


def test_what_pytorch_gives_up_our_kernels_keep(with_threads):
    with_threads(3)
    with threads.pytorch_threads(1):
        assert (torch.get_num_threads(), threads.thread_count()) == (1, 3)
        with threads.pytorch_threads(2):
            assert (torch.get_num_threads(), threads.thread_count()) == (2, 3)
        assert (torch.get_num_threads(), threads.thread_count()) == (1, 3)
    assert (torch.get_num_threads(), threads.thread_count()) == (3, 3)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_every_part_is_worked_on_once(number, with_threads):
    with_threads(number)
    seen = []
    threads.run(lambda first, last, part: seen.append((first, last, part)), [0, 3, 3, 4, 9])
    assert sorted(seen) == [(0, 3, 0), (3, 4, 2), (4, 9, 3)]


def test_parts_with_sums_of_their_own_follow_from_the_size():
    sizes = [0, threads.LEAST_SUMMED, 3 * threads.LEAST_SUMMED, 100 * threads.LEAST_SUMMED]
    assert [threads.summed_parts(size) for size in sizes] == [1, 1, 3, threads.MOST_PARTS]
