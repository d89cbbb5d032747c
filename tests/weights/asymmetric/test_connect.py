"""Two checkpoints, a file with the architecture, and data: the command that users type."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.func import functional_call

from coset.weights.asymmetric.asymmetrize import asymmetrize
from coset.weights.asymmetric.classification_data import digits
from coset.weights.asymmetric.comparison import row
from coset.weights.asymmetric.ensembles import Training, initialise, train
from coset.weights.asymmetric.networks import mlp
from coset.weights.permutations.groups import NeuronPermutation, permutation_spec
from coset.weights.state_files import save_state, save_tensors

pytest.importorskip("sklearn")
SIZES = [64, 32, 32, 10]
SOURCE = """
from torch import nn
from coset.weights.asymmetric.asymmetrize import asymmetrize
from coset.weights.asymmetric.networks import mlp

def build():
    return mlp([64, 32, 32, 10])

def asymmetric():
    return asymmetrize(build(), n_fix=[8, 8, 16], seed=0)

def small():
    return mlp([64, 16, 10])

def normed():
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))

def number():
    return 3

def needs(width):
    return mlp([64, width, 10])
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    (folder / "nets.py").write_text(SOURCE)
    found = digits()
    np.savez(folder / "data.npz", inputs=found.test[0].numpy(), targets=found.test[1].numpy())
    np.savez(folder / "regression.npz", inputs=found.test[0].numpy(), targets=found.test[1].numpy().astype(float))
    np.savez(folder / "wide.npz", inputs=np.zeros((5, 7), np.float32), targets=np.zeros(5, int))
    model = mlp(SIZES)
    trained = train(
        model, initialise(lambda: mlp(SIZES), model, [0, 1, 2]), *found.train, Training(epochs=6), seeds=[0, 1, 2]
    )
    for i, name in enumerate("abc"):
        save_state(trained.network(i), folder / f"{name}.safetensors")
    other = asymmetrize(mlp(SIZES), n_fix=[8, 8, 16], seed=0)
    trained = train(
        other, initialise(lambda: mlp(SIZES), other, [0, 1]), *found.train, Training(epochs=6), seeds=[0, 1]
    )
    for i, name in enumerate("vw"):
        save_state(trained.network(i), folder / f"{name}.safetensors")
    return folder


def test_barriers_of_checkpoints_and_matched_copies(coset, place, tmp_path):
    a, b, out = place / "a.safetensors", place / "b.safetensors", tmp_path / "out"
    command = ["connect", a, b, "--model", f"{place}/nets.py:build", "--data", place / "data.npz", "--points", 5]
    code, shown, err = coset(*command, "--output", out)
    assert code == 0, err
    assert "matched by weights" in shown
    metrics = json.loads((out / "metrics.json").read_text())
    barrier = {name: r["barrier"][0] for name, r in metrics["forms"].items()}
    assert barrier["matched by weights"] < 0.5 * barrier["as they are"]
    assert barrier["matched by activations"] < 0.5 * barrier["as they are"]
    curves = json.loads((out / "curves.json").read_text())["as they are"]
    assert curves["loss"][0][0] == pytest.approx(metrics["networks"][0]["loss"])
    assert curves["loss"][0][-1] == pytest.approx(metrics["networks"][1]["loss"])
    x = digits().test[0][:9]
    moved = load_file(out / "b-2-matched-by-weights.safetensors")
    torch.testing.assert_close(
        functional_call(mlp(SIZES), moved, (x,)), functional_call(mlp(SIZES), load_file(b), (x,)), atol=1e-4, rtol=1e-4
    )
    page = (out / "report.html").read_text()
    assert "b.safetensors" in page
    assert "matched by activations" in page


def test_a_shuffled_copy_behind_a_wrapper_is_the_same_network(coset, place, tmp_path):
    state = load_file(place / "a.safetensors")
    action = NeuronPermutation(permutation_spec(mlp(SIZES)))
    moved = action.apply(action.sample(state, torch.Generator().manual_seed(0)), state)
    torch.save({"state_dict": {f"module.{k}": v for k, v in moved.items()}}, tmp_path / "moved.pt")
    code, _, err = coset(
        "connect", place / "a.safetensors", tmp_path / "moved.pt", "--model", f"{place}/nets.py:build", "--data",
        "digits", "--points", 3, "--output", tmp_path / "out", "--match", "weights", "--rows", 100,
    )  # fmt: skip
    assert code == 0, err
    forms = json.loads((tmp_path / "out" / "metrics.json").read_text())["forms"]
    assert forms["as they are"]["barrier"][0] > 0.1
    assert forms["matched by weights"]["barrier"][0] == pytest.approx(0, abs=1e-6)
    assert forms["matched by weights"]["distance"][0] == pytest.approx(0, abs=1e-6)


def test_three_networks_are_averaged_and_drawn_on_a_plane(coset, place, tmp_path):
    files = [place / f"{name}.safetensors" for name in "abc"]
    code, _, err = coset(
        "connect", *files, "--model", f"{place}/nets.py:build", "--data", place / "data.npz", "--points", 3,
        "--output", tmp_path, "--rows", 100,
    )  # fmt: skip
    assert code == 0, err
    metrics, curves = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("metrics", "curves"))
    assert metrics["pairs"] == [[0, 1], [0, 2], [1, 2]]
    assert len(curves["matched by weights"]["plane"]["loss"]) == 17
    found = {name: r["averages"]["average_accuracy"] for name, r in metrics["forms"].items()}
    assert found["matched by weights"] > found["as they are"]


def test_asymmetric_checkpoints_are_interpolated_as_they_are(coset, place, tmp_path):
    files = [place / f"{name}.safetensors" for name in "vw"]
    model = f"{place}/nets.py:asymmetric"
    code, shown, err = coset("connect", *files, "--model", model, "--data", "digits", "--output", tmp_path)
    assert code == 0, err
    assert "not matched" in err
    assert "matched by" not in shown
    assert json.loads((tmp_path / "metrics.json").read_text())["fingerprint"]
    code, _, err = coset("connect", *files, "--model", model, "--data", "digits", "--match", "weights")
    assert code == 1
    assert "--match none" in err


def test_networks_of_a_run(coset, tmp_path):
    code, _, err = coset(
        "run", "asymmetric/lmc-digits", "network.hidden=[16,16,16]", "training.epochs=2", "networks=2", "points=3",
        "variants.W.n_fix=8", "--output", tmp_path / "run", "--quiet",
    )  # fmt: skip
    assert code == 0, err
    files = [tmp_path / "run" / "networks" / f"W-{i}.safetensors" for i in range(2)]
    code, _, err = coset("connect", *files, "--model", f"{tmp_path}/run:W", "--output", tmp_path / "out")
    assert code == 0, err
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["forms"]["as they are"]["barrier"]
    wanted = json.loads((tmp_path / "run" / "metrics.json").read_text())["variants"]["W"]["barrier"]
    assert found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("files", "model", "data", "message"),
    [
        ("ab", "nets.py:small", "digits", "a.safetensors has 4.bias, which the model has not"),
        ("ab", "nets.py:nothing", "digits", "has no nothing"),
        ("ab", "nets.py:number", "digits", "number made a int, not a torch.nn.Module"),
        ("ab", "nets.py:needs", "digits", "needs must be callable without arguments"),
        ("ab", "nothing.py:build", "digits", "nothing.py: no such file"),
        ("ab", "nets.py", "digits", "give file.py:function"),
        ("ab", "nets.py:build", "elsewhere.npz", "no such file, and none of digits, mnist, cifar10-small"),
        ("ab", "nets.py:build", "regression.npz", "targets must be as many whole numbers as inputs has rows (540)"),
        ("ab", "nets.py:build", "wide.npz", "does not take inputs of shape (2, 7)"),
        ("ab", "nets.py:build", None, "--data is needed beside --model"),
        ("a", "nets.py:build", "digits", "give two networks or more, not 1"),
        ("az", "nets.py:build", "digits", "z.safetensors: no such file"),
        ("va", "nets.py:asymmetric", "digits", "a.safetensors lacks"),
    ],
)
def test_mistakes_give_one_line(coset, place, monkeypatch, tmp_path, files, model, data, message):
    monkeypatch.chdir(place)
    options = [] if data is None else ["--data", data]
    code, _, err = coset(
        "connect", *(f"{name}.safetensors" for name in files), "--model", model, *options, "--output", tmp_path / "out"
    )
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_batch_norm_needs_training_data(coset, place, tmp_path):
    from torch import nn

    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    for name in "xy":
        save_tensors(model.state_dict(), tmp_path / f"{name}.safetensors")
    files = [tmp_path / f"{name}.safetensors" for name in "xy"]
    command = ["connect", *files, "--model", f"{place}/nets.py:normed", "--output", tmp_path / "out"]
    code, _, err = coset(*command, "--data", place / "data.npz")
    assert code == 1
    assert "put train_inputs" in err
    assert coset(*command, "--data", "digits", "--points", 3)[0] == 0


def test_rows_of_a_stack_are_the_files(place):
    from coset.weights.asymmetric.checkpoints import read_networks

    found = read_networks(mlp(SIZES), [place / "a.safetensors", place / "b.safetensors"])
    assert all(
        torch.equal(value, row(found.state, 1)[name]) for name, value in load_file(place / "b.safetensors").items()
    )
