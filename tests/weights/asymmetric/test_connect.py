"""Two checkpoints, a file with the architecture, and data: the command that users type."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.func import functional_call

from coset.weights.asymmetric.asymmetrize import asymmetrize
from coset.weights.asymmetric.checkpoints import build_model, read_networks
from coset.weights.asymmetric.classification_data import digits
from coset.weights.asymmetric.comparison import row
from coset.weights.asymmetric.ensembles import Training, initialise, train
from coset.weights.asymmetric.networks import mlp, seeded
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

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.again, self.head = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 10)

    def forward(self, x):
        x = self.enter(x).relu()
        return self.head(self.again(self.again(self.again(x).relu()).relu()).relu())

class Tied(Recurrent):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(16, 16)
        self.other.weight = self.again.weight

    def forward(self, x):
        return self.head(self.other(self.again(self.enter(x)).relu()).relu())

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.norm, self.head = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.norm(self.enter(x.view(-1, 8, 8)))).sum(1)

class Steps(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.enter(x.view(-1, 8, 8))[0][:, -1])

class Hooked(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.head = nn.Linear(64, 16), nn.Linear(16, 10)
        self.enter.register_forward_hook(lambda module, x, y: y.cumsum(-1))  # which no trace shows

    def forward(self, x):
        return self.head(self.enter(x))

class Pair(Recurrent):
    def forward(self, x):
        return super().forward(x), x

class Lacking(Recurrent):
    def forward(self, x):
        return self.nothing(x)

def raising():
    raise RuntimeError("no weather today\\nsecond line")

def number():
    return 3

def needs(width):
    return mlp([64, width, 10])
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    (folder / "nets.py").write_text(SOURCE)
    (folder / "broken.py").write_text("def build(:\n")
    (folder / "leaving.py").write_text("raise SystemExit(0)\n")
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
        ("ab", "nets.py:raising", "digits", "raising fails: RuntimeError: no weather today"),
        ("ab", "broken.py:build", "digits", "broken.py cannot be imported: SyntaxError: "),
        ("ab", "leaving.py:build", "digits", "leaving.py cannot be imported: SystemExit: 0"),
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


def made(place, name, seeds=(0, 1)):
    """Files of untrained networks of a class in nets.py."""
    build, files = build_model(f"{place / 'nets.py'}:{name}"), []
    for seed in seeds:
        files.append(place / f"{name}-{seed}.safetensors")
        save_tensors(seeded(type(build), seed).state_dict(), files[-1])
    return files


@pytest.mark.parametrize("name", ["Recurrent", "Tied"])
def test_matched_networks_with_layers_used_twice_compute_the_same(coset, place, tmp_path, name):
    files, model = made(place, name), f"{place}/nets.py:{name}"
    options = ["--model", model, "--data", "digits", "--points", 3, "--rows", 100, "--output", tmp_path / "out"]
    code, _, err = coset("connect", *files, *options, "--match", "weights,activations")
    assert code == 0, err
    x, network = digits().test[0][:20], build_model(model)
    before = functional_call(network, load_file(files[1]), (x,), tie_weights=False)
    for how in ("weights", "activations"):
        moved = load_file(tmp_path / "out" / f"{files[1].stem}-2-matched-by-{how}.safetensors")
        assert not torch.equal(moved["enter.weight"], load_file(files[1])["enter.weight"])
        network.load_state_dict(moved)  # as a user would: what is tied must be one tensor
        torch.testing.assert_close(network(x), before, atol=1e-5, rtol=1e-4)


def test_networks_whose_tied_weights_differ(coset, place, tmp_path):
    files = made(place, "Tied")
    save_tensors({**load_file(files[0]), "other.weight": torch.zeros(16, 16)}, tmp_path / "other.safetensors")
    options = ["--model", f"{place}/nets.py:Tied", "--data", "digits", "--output", tmp_path / "out"]
    code, _, err = coset("connect", files[0], tmp_path / "other.safetensors", *options)
    assert code == 1
    assert "other.safetensors: again.weight and other.weight differ, which the model ties" in err
    state = {name: value for name, value in load_file(files[0]).items() if name != "other.weight"}  # written once
    save_tensors(state, tmp_path / "once.safetensors")
    found = read_networks(build_model(f"{place}/nets.py:Tied"), [files[0], tmp_path / "once.safetensors"])
    assert all(torch.equal(value[0], value[1]) for value in found.state.values())


def test_the_data_tell_tokens_from_rows(coset, place, tmp_path):
    files = made(place, "Tokens")
    options = ["--model", f"{place}/nets.py:Tokens", "--data", "digits", "--points", 3, "--output", tmp_path / "out"]
    code, _, err = coset("connect", *files, *options)
    assert code == 0, err
    assert "not matched: Tokens has no neurons that can be permuted" in err


def test_recurrent_layers(coset, place, tmp_path):
    files = made(place, "Steps")
    options = ["--model", f"{place}/nets.py:Steps", "--data", "digits", "--points", 3, "--output", tmp_path / "out"]
    assert coset("connect", *files, *options, "--rows", 20)[0] == 0


def test_what_was_read_wrongly_is_not_matched(coset, place, tmp_path):
    files = made(place, "Hooked")
    options = ["--model", f"{place}/nets.py:Hooked", "--data", "digits", "--points", 3, "--rows", 50]
    code, shown, err = coset("connect", *files, *options, "--output", tmp_path / "out")
    assert code == 0, err
    assert "not matched: the outputs of network 2 change by" in " ".join(err.split())
    assert "matched by" not in shown
    code, _, err = coset("connect", *files, *options, "--output", tmp_path / "other", "--match", "weights")
    assert code == 1
    assert "the forward of Hooked was read wrongly; --match none" in err
    assert not (tmp_path / "other").exists()


def test_numbers_that_are_not_finite_and_classes_below_zero(coset, place, tmp_path):
    good = {"inputs": np.zeros((5, 64), np.float32), "targets": np.arange(5)}
    broken = {name: value.copy() for name, value in good.items()}
    broken["inputs"][3, 7] = np.inf
    broken["targets"][2] = -1
    files = [place / "a.safetensors", place / "b.safetensors"]
    model = ["--model", f"{place}/nets.py:build", "--output", tmp_path / "out", "--match", "none"]
    train = {f"train_{name}": value for name, value in broken.items()}
    for arrays, message in (
        ({"inputs": broken["inputs"]}, "inputs is not finite in row 3 (from 0)"),
        ({"targets": broken["targets"]}, "targets holds -1 in row 2 (from 0): classes are counted from 0"),
        (train, "train_inputs is not finite in row 3"),
        (train | {"train_inputs": good["inputs"]}, "train_targets holds -1 in row 2"),
        ({"train_inputs": good["inputs"][:, 1:], "train_targets": good["targets"]}, "a row of train_inputs has shape"),
        ({"inputs": good["inputs"][:0], "targets": good["targets"][:0]}, "inputs holds no rows"),
    ):
        np.savez(tmp_path / "data.npz", **{**good, **arrays})
        code, _, err = coset("connect", *files, *model, "--data", tmp_path / "data.npz")
        assert code == 1
        assert message in err
        assert err.count("\n") == 1
    state = load_file(files[0])
    state["1.bias"][0] = torch.nan
    save_tensors(state, tmp_path / "broken.safetensors")
    code, _, err = coset("connect", files[0], tmp_path / "broken.safetensors", *model, "--data", "digits")
    assert code == 1
    assert "broken.safetensors: 1.bias is not finite" in err
    state["1.bias"] = torch.ones_like(state["1.bias"], dtype=torch.int8)
    save_tensors(state, tmp_path / "broken.safetensors")
    code, _, err = coset("connect", files[0], tmp_path / "broken.safetensors", *model, "--data", "digits")
    assert code == 1
    assert "broken.safetensors: 1.bias is stored as torch.int8, the network computes with torch.float32" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Pair", "the network gives a tuple, not one tensor"),
        ("Lacking", "does not take inputs of shape (2, 64): 'Lacking' object has no attribute 'nothing'"),
    ],
)
def test_networks_that_answer_otherwise(coset, place, tmp_path, name, message):
    files = made(place, name)
    options = ["--model", f"{place}/nets.py:{name}", "--data", "digits", "--output", tmp_path / "out"]
    code, _, err = coset("connect", *files, *options)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("points", [-3, 0, 1, 4])
def test_curves_without_a_midpoint_leave_nothing(coset, place, tmp_path, points):
    files = [place / "a.safetensors", place / "b.safetensors"]
    options = ["--model", f"{place}/nets.py:build", "--data", "digits", "--output", tmp_path / "out"]
    code, _, err = coset("connect", *files, *options, "--points", points)
    assert code == 1
    assert f"points={points} must be odd and at least 3" in err
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
    found = read_networks(mlp(SIZES), [place / "a.safetensors", place / "b.safetensors"])
    assert all(
        torch.equal(value, row(found.state, 1)[name]) for name, value in load_file(place / "b.safetensors").items()
    )
