"""Several processes train what one would, and their shares of a batch cost alike."""

import json
import random

import pytest
from typer.testing import CliRunner

from coset.cli import app
from coset.errors import CosetError
from coset.training import torchrun
from coset.training.loaders import fair_share


def test_shares_of_a_batch_cost_alike():
    """Heavy-tailed sizes: the dearest share over the mean, against dealing rows out as they come."""
    generator = random.Random(0)
    costs = [float(generator.randint(5, 60)) ** 2 for _ in range(128)]
    rows = list(range(128))

    def worst(shares):
        sums = [sum(costs[row] for row in share) for share in shares]
        return max(sums) * len(sums) / sum(sums)

    for processes in (2, 3, 8):
        fair = [fair_share(rows, costs, rank, processes) for rank in range(processes)]
        assert sorted(row for share in fair for row in share) == rows
        assert max(map(len, fair)) - min(map(len, fair)) <= 1
        plain = [fair_share(rows, None, rank, processes) for rank in range(processes)]
        assert worst(fair) < 1.03
        assert worst(fair) < worst(plain)


def test_without_torchrun_there_is_one_process(monkeypatch):
    assert torchrun.world() is None
    assert torchrun.is_first()
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "5"), ("WORLD_SIZE", "6"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert torchrun.world() == (5, 6, 2, 3)
    assert not torchrun.is_first()
    with pytest.raises(CosetError, match="workers=0"):
        torchrun.launch([], 0)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    file = tmp_path / "chains.csv"
    file.write_text(
        "smiles,carbons\n" + "".join(f"{'C' * (1 + i % 9)}{'O' * (i % 3)},{1 + i % 9}\n" for i in range(32))
    )
    common = ["run", "gin/freesolv", "data={name: csv, fractions: [0.75, 0.125, 0.125]}", f"data.path={file}"]
    common += ["data.target=carbons", "model.norm=identity", "model.width=8", "model.layers=2", "training.batch_size=8"]
    common += ["training.schedule=constant", "--quiet"]

    def metrics(*arguments, folder):
        result = CliRunner().invoke(app, [*common, *arguments, "--output", str(tmp_path / folder)])
        assert result.exit_code == 0, (result.output, result.exception)
        return json.loads((tmp_path / folder / "metrics.json").read_text())

    one = metrics("training.epochs=4", folder="one")
    two = metrics("training.epochs=4", "--engine", "torchrun", folder="two")
    for split in ("train", "val", "test"):
        assert two[split]["mae"] == pytest.approx(one[split]["mae"], rel=1e-3)
    wrong = CliRunner().invoke(app, ["run", "lol/digits", "--engine", "torchrun"])
    assert "torchrun trains recipes of kind graphs only" in str(wrong.exception)
