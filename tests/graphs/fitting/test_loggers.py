import pandas as pd
import pytest
from tiny_graphs import tiny_graphs, tiny_task

from coset import CosetError
from coset.graphs.fitting import loggers
from coset.graphs.fitting.engine import Fit, fit
from coset.runs.devices import device_of, moved
from coset.runs.recipes import load


def logged(folder, name, epochs=2, resume=False):
    graphs = tiny_graphs(20)
    how = Fit(
        epochs=epochs, batch_size=8, quiet=True, logger=name, name="tiny", identity={"recipe": {"model": {"width": 8}}}
    )
    fit(tiny_task(graphs, epochs=epochs), graphs[:15], graphs[15:], how, folder, resume=resume)


def test_csv_has_the_losses_and_metrics_of_every_epoch(tmp_path):
    logged(tmp_path, "csv")
    table = pd.read_csv(tmp_path / "logs" / "metrics.csv")
    history = pd.read_csv(tmp_path / "history.csv")
    assert table["val_mae"].dropna().tolist() == pytest.approx(history["val_mae"].tolist())
    assert len(table["train_loss"].dropna()) == 2
    logged(tmp_path, "csv", epochs=3, resume=True)
    rest = pd.read_csv(tmp_path / "logs" / "from-epoch-2" / "metrics.csv")
    assert (rest["epoch"].unique().tolist(), len(pd.read_csv(tmp_path / "logs" / "metrics.csv"))) == ([2], len(table))


def test_tensorboard_gets_event_files(tmp_path):
    pytest.importorskip("tensorboardX")
    logged(tmp_path, "tensorboard")
    assert list((tmp_path / "logs").glob("events.out.tfevents*"))


def test_a_missing_package_is_one_line_before_any_data_are_read(tmp_path, monkeypatch, small_csv):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    changes = [f"data.path={small_csv}", "data.target=carbons", "trainer.logger=wandb"]
    with pytest.raises(CosetError, match=r"^trainer.logger=wandb: wandb is not installed: pip install wandb$"):
        load("csv", changes).run(tmp_path / "run", quiet=True)


def test_a_device_that_is_not_there_or_cannot_be_trained_on_is_refused(tmp_path, small_csv):
    assert device_of("cpu").type == "cpu"
    assert moved({"a": [1, (2.0,)]}, device_of("cpu")) == {"a": [1, (2.0,)]}
    changes = [f"data.path={small_csv}", "data.target=carbons", "device=mps"]
    with pytest.raises(CosetError, match=r"device=mps: this machine, or this build of PyTorch, has none; there is cpu"):
        load("csv", changes).run(tmp_path / "run", quiet=True)
    with pytest.raises(CosetError, match=r"device='cuda': runs of this kind train on the CPU; leave it at auto"):
        load("fs-merge/digits", ["device=cuda"])
    with pytest.raises(CosetError, match=r"device=cpu and trainer.accelerator=gpu: give one of them"):
        load("csv", [*changes[:2], "device=cpu", "trainer.accelerator=gpu"])
