import pandas as pd
import pytest
import torch
from tiny_graphs import tiny_graphs, tiny_task
from torch_geometric.data import Batch

from coset import CosetError
from coset.core.outside import read_numbers
from coset.graphs.fitting.engine import Fit, fit, predict_with_spread
from coset.graphs.fitting.loaders import FIRST_VOTE, Views
from coset.graphs.fitting.tasks import GraphTask
from coset.graphs.models.gin import GIN
from coset.runs.checkpoints import read_checkpoint
from coset.runs.metrics import metrics_of


class Power(Exception):
    pass


class Interrupted(GraphTask):
    """Loses power in the middle of an epoch."""

    def on_train_batch_end(self, *_):
        if self.current_epoch == 3:
            raise Power


def predicted(*given, **how):
    return predict_with_spread(*given, **how)[0]


def run(folder, graphs, how, resume=False, **options):
    folder.mkdir(exist_ok=True)
    view = options.pop("view", None)
    task = tiny_task(graphs, epochs=how.epochs, **options)
    best = fit(task, graphs[:-5], graphs[-5:], how, folder, view=view, resume=resume)
    return task, best


def quick(**options):
    return Fit(**{"epochs": 6, "batch_size": 4, "quiet": True, **options})


def noisy(graph, seed):
    graph.x = graph.x + 0.1 * torch.randn(graph.x.shape, generator=torch.Generator().manual_seed(seed))
    return graph


def test_few_graphs_are_learnt_by_heart(tmp_path):
    graphs = tiny_graphs(8)
    task = tiny_task(graphs, learning_rate=0.02)
    fit(task, graphs, graphs, quick(epochs=120, batch_size=8), tmp_path)
    target = torch.cat([graph.y for graph in graphs])
    scores = metrics_of("regression", predicted(task, graphs), target)
    assert scores["mae"] < 0.15 * (target - target.mean()).abs().mean()


def test_two_classes_are_learnt(tmp_path):
    graphs = tiny_graphs(20, targets=2)
    for graph in graphs:
        graph.y = (graph.y > 100).float()
        graph.y[0, 1] = torch.nan if int(graph.id) % 3 else graph.y[0, 1]
    task = tiny_task(graphs, task="classification", monitor="auroc", learning_rate=0.02)
    fit(task, graphs, graphs, quick(epochs=40, batch_size=8), tmp_path)
    prediction = predicted(task, graphs)
    assert 0 <= prediction.min() <= prediction.max() <= 1
    assert metrics_of("classification", prediction, torch.cat([graph.y for graph in graphs]))["auroc"] > 0.9


def test_a_run_leaves_history_and_checkpoints(tmp_path):
    graphs = tiny_graphs()
    task, best = run(tmp_path / "a", graphs, quick(identity={"model": {"width": 3}}))
    history = pd.read_csv(tmp_path / "a" / "history.csv")
    assert list(history) == ["epoch", "train_loss", "val_rmse", "val_mae", "val_r2", "lr", "seconds", "cpu_seconds"]
    assert best == history["val_mae"].idxmin()
    state = read_checkpoint(tmp_path / "a" / "checkpoint.ckpt")
    assert state["identity"] == {"model": {"width": 3}}
    assert all(torch.equal(state["state_dict"][name], value) for name, value in task.state_dict().items())
    val = graphs[-5:]
    mae = metrics_of("regression", predicted(task, val), torch.cat([graph.y for graph in val]))["mae"]
    assert mae == pytest.approx(history["val_mae"].min(), rel=1e-5)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["checkpoint.ckpt", "history.csv", "last.ckpt"]


def test_one_seed_one_result(tmp_path):
    graphs = tiny_graphs()
    first, _ = run(tmp_path / "a", graphs, quick(seed=1), dropout=0.5, view=noisy, seed=1)
    second, _ = run(tmp_path / "b", graphs, quick(seed=1), dropout=0.5, view=noisy, seed=1)
    other, _ = run(tmp_path / "c", graphs, quick(seed=2), dropout=0.5, view=noisy, seed=2)
    assert torch.equal(first.model.first.weight, second.model.first.weight)
    assert not torch.equal(first.model.first.weight, other.model.first.weight)


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "constant"},
        {"schedule": "cosine", "warmup": 2},
        {"schedule": "plateau", "patience": 1, "learning_rate": 0.3},
        {"dropout": 0.5, "view": noisy, "weight_decay": 0.1},
    ],
    ids=lambda options: "-".join(options),
)
def test_resuming_after_an_interruption_changes_nothing(tmp_path, options):
    graphs, how = tiny_graphs(), quick(epochs=9, early_stopping=7, gradient_clip=1.0)
    whole, best = run(tmp_path / "whole", graphs, how, **options)
    with pytest.raises(Power):
        run(tmp_path / "half", graphs, how, kind=Interrupted, **options)
    assert len(pd.read_csv(tmp_path / "half" / "history.csv")) == 3
    half, best_of_half = run(tmp_path / "half", graphs, how, resume=True, **options)
    assert best_of_half == best
    assert all(torch.equal(value, half.state_dict()[name]) for name, value in whole.state_dict().items())
    histories = [
        pd.read_csv(tmp_path / name / "history.csv").drop(columns=["seconds", "cpu_seconds"])
        for name in ("whole", "half")
    ]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def test_a_folder_may_move_before_its_run_is_resumed(tmp_path):
    graphs, how = tiny_graphs(), quick(epochs=8)
    _, best = run(tmp_path / "whole", graphs, how, learning_rate=0.3)
    with pytest.raises(Power):
        run(tmp_path / "half", graphs, how, kind=Interrupted, learning_rate=0.3)
    (tmp_path / "half").rename(tmp_path / "moved")
    assert run(tmp_path / "moved", graphs, how, resume=True, learning_rate=0.3)[1] == best


def test_early_stopping_stops_and_is_remembered(tmp_path):
    graphs, how = tiny_graphs(), quick(epochs=200, early_stopping=3)
    _, best = run(tmp_path / "a", graphs, how, learning_rate=0.5)
    epochs = len(pd.read_csv(tmp_path / "a" / "history.csv"))
    assert epochs == best + 1 + 3
    run(tmp_path / "a", graphs, how, learning_rate=0.5, resume=True)
    assert len(pd.read_csv(tmp_path / "a" / "history.csv")) == epochs


def test_time_runs_out_and_the_best_epoch_still_counts(tmp_path):
    graphs = tiny_graphs()
    task, best = run(tmp_path / "a", graphs, quick(epochs=100_000, max_minutes=0.5 / 60))
    history = pd.read_csv(tmp_path / "a" / "history.csv")
    assert 1 <= len(history) < 100_000
    assert best == history["val_mae"].idxmin()
    assert predicted(task, graphs).isfinite().all()


def test_time_may_run_out_in_the_first_epoch(tmp_path):
    task, best = run(tmp_path / "a", tiny_graphs(), quick(max_minutes=1e-5))
    assert best == 0
    assert predicted(task, tiny_graphs(3)).shape == (3, 1)


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path):
    graphs = tiny_graphs(targets=2, missing=0.4)
    one, best = run(tmp_path / "one", graphs, quick(gradient_clip=1.0))
    two, best_of_two = run(tmp_path / "two", graphs, quick(gradient_clip=1.0, trainer={"devices": 2}))
    assert best == best_of_two
    for name, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    histories = [
        pd.read_csv(tmp_path / name / "history.csv").drop(columns=["seconds", "cpu_seconds"]) for name in ("one", "two")
    ]
    pd.testing.assert_frame_equal(*histories, rtol=1e-4)


@pytest.mark.slow
def test_an_error_in_another_process_is_told_in_one_line(tmp_path):
    graphs = tiny_graphs()
    with pytest.raises(CosetError, match=r"^training diverged in epoch \d+: [^\n]*$"):
        run(tmp_path / "a", graphs, quick(trainer={"devices": 2}), learning_rate=1e30, loss="mse")


def test_divergence_is_an_error(tmp_path):
    with pytest.raises(CosetError, match=r"training diverged in epoch 0: the loss is (nan|inf); lower training.learn"):
        run(tmp_path / "a", tiny_graphs(), quick(), learning_rate=1e30, loss="mse")


def test_one_graph_is_too_few(tmp_path):
    graphs = tiny_graphs(2)
    with pytest.raises(CosetError, match="1 graph to train on: at least 2 are needed"):
        fit(tiny_task(graphs), graphs[:1], graphs, quick(), tmp_path)


def test_a_batch_must_be_large_enough_to_share(tmp_path):
    graphs = tiny_graphs(3)
    with pytest.raises(CosetError, match=r"trainer\.devices=4 cannot share batches of 3"):
        fit(tiny_task(graphs), graphs, graphs, quick(trainer={"devices": 4}), tmp_path)


def test_a_metric_that_cannot_judge_validation_is_refused_before_training(tmp_path):
    graphs = tiny_graphs(4)
    for graph in graphs:
        graph.y = torch.ones(1, 1)
    with pytest.raises(CosetError, match=r"training\.monitor=auroc cannot choose the best epoch: it needs both labels"):
        fit(tiny_task(graphs, task="classification", monitor="auroc"), graphs, graphs, quick(), tmp_path)
    with pytest.raises(CosetError, match=r"training\.monitor=r2 .* two different values in val \(4 graphs\)"):
        fit(tiny_task(graphs, monitor="r2"), graphs, graphs, quick(), tmp_path)


def test_votes_are_averaged():
    graphs = tiny_graphs(5)
    task = tiny_task(graphs)
    draws = [predicted(task, graphs, view=noisy, votes=votes, seed=3) for votes in (1, 2)]
    batches = [Batch.from_data_list(Views(graphs, noisy, 3)[[(row, FIRST_VOTE + 1)]]) for row in range(5)]
    second = torch.cat([task(batch) for batch in batches])
    torch.testing.assert_close(draws[1], (draws[0] + second) / 2, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(draws[1], predicted(task, graphs, view=noisy, votes=2, seed=3, batch_size=2))


def test_what_the_loader_settles_changes_nothing(tmp_path, monkeypatch):
    """As for a GPU: each batch brings its structure along."""
    graphs = tiny_graphs()

    def history(folder):
        torch.manual_seed(0)
        folder.mkdir()
        task = GraphTask(GIN(1, 2, width=8, layers=2), "regression", torch.cat([graph.y for graph in graphs]))
        fit(task, graphs[:-5], graphs[-5:], quick(epochs=2), folder)
        return read_numbers(folder / "history.csv")[["train_loss", "val_mae"]], predicted(task, graphs)

    plain, asked = history(tmp_path / "plain"), []
    monkeypatch.setattr(
        GraphTask, "structure_for", lambda task, _: lambda batch: asked.append(batch) or task.model.structure(batch)
    )
    settled = history(tmp_path / "settled")
    assert len(asked) == 2 * (5 + 2) + 1  # steps and validation of each epoch, and the predictions
    assert settled[0].equals(plain[0])
    torch.testing.assert_close(settled[1], plain[1])
