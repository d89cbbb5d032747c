"""An audit of one's own model: what it finds, and what it refuses."""

import html
import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from coset import cli
from coset.core.errors import CosetError
from coset.privacy import Attack, InvariantClassifier, ReLUNetwork, audit, group_of, train_to_stationarity
from coset.privacy.audit import examine, load_network
from coset.privacy.data.images import digits
from coset.privacy.inputs import load_inputs


@pytest.fixture(scope="module")
def trained():
    """A ReLU network on ten digits, L2-regularised to (almost) a stationary point, and its data."""
    images = digits(10, 200)
    base = ReLUNetwork([64, 60, 1], generator=torch.Generator().manual_seed(0))
    model = InvariantClassifier(base, group_of("plain", (8, 8)))
    train_to_stationarity(model, images.train, images.labels, loss="logistic", weight_decay=1e-3, iterations=2000)
    labels = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(100)
    return model, (images.train, images.labels), (images.held_out, labels)


def test_members_explain_the_weights_better_than_others(trained):
    """A9 of the specification: attribution by non-negative least squares finds the training data."""
    model, train, held_out = trained
    attack = Attack(candidates=20, steps=30, least=0.1)
    found = audit(model, train, held_out, weight_decay=1e-3, attack=attack, plant=False)
    assert found.membership["multipliers"] > 0.75
    assert found.membership["multipliers"] > found.membership["loss"] - 0.1
    assert found.residual is not None
    assert found.residual < 0.2
    assert json.loads(json.dumps(found.to_dict()))["reconstruction"]["null"] > 0


def test_networks_outside_the_theory_are_refused():
    x = torch.randn(6, 9, dtype=torch.float64)

    def refused(model, message, group=None):
        with pytest.raises(CosetError, match=message):
            examine(model.double(), x, group)

    class One(nn.Module):
        def __init__(self, *layers):
            super().__init__()
            self.layers = nn.Sequential(*layers)

        def forward(self, x):
            return self.layers(x).squeeze(-1)

    refused(One(nn.Linear(9, 4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 1)), r"layers\.1 drops out at random")
    refused(One(nn.Linear(9, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), r"layers\.1 takes statistics of its batch")
    refused(One(nn.Linear(9, 4), nn.Linear(4, 1)), "affine in its inputs")
    refused(
        nn.Sequential(nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2)),
        r"shape \(6, 2\); an audit with labels -1 and 1 needs one",
    )
    spoilt = One(nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 1))
    refused(spoilt, "is not invariant under", group_of("d4", (3, 3)))
    assert "biases beyond the first layer" in examine(spoilt, x, None)[0]
    with torch.no_grad():
        spoilt.layers[0].weight[0, 0] = float("nan")
    refused(spoilt, "not finite")
    normed = One(nn.Linear(9, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 1, bias=False)).double()
    assert "normalises" in examine(normed, x, None)[0]


def test_classes_from_a_shell(tmp_path, monkeypatch, capsys):
    """Three classes; labels beyond the outputs are refused."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 4, dtype=torch.float64, generator=generator)
    y = torch.arange(30) % 3
    x = centres[y] + 0.3 * torch.randn(30, 4, dtype=torch.float64, generator=generator)
    model = ReLUNetwork([4, 10, 3], generator=generator)
    train_to_stationarity(model, x[:6], y[:6], loss="ce", weight_decay=1e-2, iterations=500)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    labels = {"y_train": y[:6].numpy(), "y_test": y[6:].numpy()}

    def call():
        np.savez(tmp_path / "data.npz", x_train=x[:6].view(-1, 2, 2), x_test=x[6:].view(-1, 2, 2), **labels)
        files = [str(tmp_path / name) for name in ("model.safetensors", "data.npz", "out")]
        monkeypatch.setattr(
            sys,
            "argv",
            ["coset", "audit", files[0], "--data", files[1], "--output", files[2], "--steps", "5", "--no-canaries"],
        )
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capsys.readouterr()

    code, printed, problems = call()
    assert code == 0, problems
    assert "membership AUC, multipliers" in printed
    labels["y_test"] = labels["y_test"] + 3
    code, _, problems = call()
    assert code == 1
    assert "labels up to 5 need at least" in problems


CNN = """
import torch
from torch import nn
from torch.nn import functional as F


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular")
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(4, 1, bias=False)

    def forward(self, x):
        return self.last(self.drop(F.relu(self.first(x)).mean((-2, -1))))


def nothing():
    return 3
"""


def test_modules_of_ones_own_from_a_shell(tmp_path, monkeypatch, capsys):
    """A network of circular convolutions: dropout is off in an audit, and its invariance under shifts is checked."""
    source, weights = tmp_path / "cnn.py", tmp_path / "cnn.safetensors"
    source.write_text(CNN)
    generator = torch.Generator().manual_seed(0)
    state = {"first.weight": (4, 1, 3, 3), "first.bias": (4,), "last.weight": (1, 4)}
    save_file({k: torch.randn(*v, generator=generator) for k, v in state.items()}, weights)
    x = {f"x_{kind}": np.random.default_rng(0).normal(size=(4, 1, 4, 4)) for kind in ("train", "test")}
    np.savez(tmp_path / "data.npz", **x, y_train=np.array([0, 1, 0, 1]), y_test=np.array([0, 1, 1, 0]))

    def call(*extra, name="Pooled", file=weights):
        line = ["coset", "audit", str(file), "--data", str(tmp_path / "data.npz"), "--output", str(tmp_path / "out")]
        line += ["--model", f"{source}:{name}", "--steps", "5", "--part", "3", "--quiet", "--no-canaries", *extra]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, capsys.readouterr().err

    code, problems = call("--group", "d4")
    assert code == 1
    assert "is not invariant under D_4" in problems
    assert "holds no function or class 'other'" in call(name="other")[1]
    assert "makes a int, no torch.nn.Module" in call(name="nothing")[1]
    assert "expected FILE.py:NAME" in call("--model", "cnn")[1]
    save_file({"first.weight": torch.ones(2)}, tmp_path / "few.safetensors")
    assert "does not go with" in call(file=tmp_path / "few.safetensors")[1]
    assert not (tmp_path / "out").exists()
    code, problems = call("--group", "shifts")
    assert code == 0, problems
    with np.load(tmp_path / "out" / "reconstructions.npz") as arrays:
        assert arrays["found"].shape == arrays["held_out"].shape == (4, 16)


def test_files_are_checked(tmp_path):
    with pytest.raises(CosetError, match="no such file"):
        load_network(tmp_path / "no.safetensors", "plain", (4,))
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(CosetError, match="is no safetensors file"):
        load_network(tmp_path / "bad.safetensors", "plain", (4,))
    save_file({"a": torch.ones(3, 5), "b": torch.ones(1, 3)}, tmp_path / "five.safetensors")
    with pytest.raises(CosetError, match=r"layers 5 - 3 - 1; expected 4 - \.\.\. as weights and biases"):
        load_network(tmp_path / "five.safetensors", "plain", (2, 2))
    np.savez(tmp_path / "few.npz", x_train=np.ones((2, 4)))
    with pytest.raises(CosetError, match="lacks the array 'y_train'"):
        load_inputs(tmp_path / "few.npz")
    parts = {f"{name}_{kind}": value for kind in ("train", "test") for name, value in (("x", np.ones((2, 4))),)}
    np.savez(tmp_path / "labels.npz", **parts, y_train=np.array([0, -1]), y_test=np.array([0, 1]))
    with pytest.raises(CosetError, match="y_train must hold -1 and 1, 0 and 1, or class"):
        load_inputs(tmp_path / "labels.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(CosetError, match="is no NPZ or NPY file"):
        load_inputs(tmp_path / "text.npz")


def test_layers_with_biases_and_files_of_torch(tmp_path):
    """Linear, ReLU, Linear with biases, as ``torch.save`` writes it: nothing in the file is executed."""
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    torch.save(theirs.state_dict(), tmp_path / "plain.pt")
    torch.save({"state_dict": theirs.state_dict(), "epoch": 3}, tmp_path / "checkpoint.ckpt")
    for name in ("plain.pt", "checkpoint.ckpt"):
        ours, _ = load_network(tmp_path / name, "plain", (2, 2))
        torch.testing.assert_close(ours(x), theirs(x).squeeze(-1))
    torch.save(theirs, tmp_path / "whole.pt")
    with pytest.raises(CosetError, match="holds more than tensors"):
        load_network(tmp_path / "whole.pt", "plain", (2, 2))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CosetError, match="holds no state dict"):
        load_network(tmp_path / "list.pt", "plain", (2, 2))


class Named(nn.Module):
    """Linear layers by name, in the order in which they are called."""

    def __init__(self, **layers):
        super().__init__()
        self.order = list(layers)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        for name in self.order[:-1]:
            x = F.relu(getattr(self, name)(x))
        return getattr(self, self.order[-1])(x)


def many():
    return Named(**{f"fc{place}": nn.Linear(4, 4) for place in range(1, 12)}, out=nn.Linear(4, 1))


def unnumbered(hidden=4):
    return Named(input=nn.Linear(4, hidden), hidden=nn.Linear(hidden, 4), output=nn.Linear(4, 1))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (many, "many.pt"), (many, "many.safetensors"), (unnumbered, "named.pt"),
        (lambda: unnumbered(5), "named.safetensors"),
    ],
)  # fmt: skip
def test_layers_are_read_in_the_order_of_the_network(tmp_path, make, name):
    """By numbers in names, ten after nine; by the file if ``torch.save`` wrote it; by widths if one order fits."""
    torch.manual_seed(0)
    theirs, x = make().double(), torch.randn(5, 4, dtype=torch.float64)
    (torch.save if name.endswith("pt") else save_file)(theirs.state_dict(), tmp_path / name)
    ours, _ = load_network(tmp_path / name, "plain", (4,))
    torch.testing.assert_close(ours(x), theirs(x).squeeze(-1))


def test_a_lone_bias_is_of_the_first_layer(tmp_path):
    torch.manual_seed(0)
    state = {"b": torch.randn(3), "v": torch.randn(1, 3), "w": torch.randn(3, 4)}
    save_file(state, tmp_path / "lone.safetensors")
    x = torch.randn(5, 4, dtype=torch.float64)
    theirs = F.relu(x @ state["w"].T.double() + state["b"]) @ state["v"][0].double()
    torch.testing.assert_close(load_network(tmp_path / "lone.safetensors", "plain", (4,))[0](x), theirs)
    save_file(state | {"c_bias": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CosetError, match=r"c_bias \(3,\) is no weight or bias of a linear layer"):
        load_network(tmp_path / "other.safetensors", "plain", (4,))
    save_file(state | {"b2": torch.ones(1)}, tmp_path / "two.safetensors")
    with pytest.raises(CosetError, match="2 biases have no weight beside them"):
        load_network(tmp_path / "two.safetensors", "plain", (4,))
    save_file(state | {"b": torch.ones(2)}, tmp_path / "short.safetensors")
    with pytest.raises(CosetError, match="the bias of w has 2 numbers for 3 outputs"):
        load_network(tmp_path / "short.safetensors", "plain", (4,))


def test_layers_in_no_certain_order_are_refused(tmp_path):
    save_file(unnumbered().state_dict(), tmp_path / "named.safetensors")
    with pytest.raises(CosetError, match="fit together in more than one order; number their names"):
        load_network(tmp_path / "named.safetensors", "plain", (4,))
    square = {f"{letter}.weight": torch.eye(4) for letter in "abcdefghijklmn"}
    save_file(square | {"last.weight": torch.ones(1, 5)}, tmp_path / "square.safetensors")
    with pytest.raises(CosetError, match="layers 4 - 4"):
        load_network(tmp_path / "square.safetensors", "plain", (4,))


@pytest.mark.parametrize(
    "between", [nn.BatchNorm1d(6), nn.BatchNorm1d(6, affine=False), nn.LayerNorm(6), nn.RMSNorm(6), nn.PReLU(6),
                nn.PReLU(), nn.Conv1d(1, 1, 1)],
)  # fmt: skip
def test_files_that_hold_more_than_linear_layers_are_refused(tmp_path, between):
    """None of its numbers may pass for the first layer's bias, and none may be left out."""
    theirs = nn.Sequential(nn.Linear(4, 6, bias=False), between, nn.ReLU(), nn.Linear(6, 1))
    torch.save(theirs.state_dict(), tmp_path / "normed.pt")
    with pytest.raises(CosetError, match=r"normed\.pt: 1\.\w+ \(.*\) is no weight or bias of a linear layer.*--model"):
        load_network(tmp_path / "normed.pt", "plain", (4,))


def test_from_a_shell(trained, tmp_path, monkeypatch, capsys):
    model, train, held_out = trained
    save_file({k: v.clone() for k, v in model.base.state_dict().items()}, tmp_path / "model.safetensors")
    arrays = {"x_train": train[0].view(-1, 8, 8), "y_train": train[1], "x_test": held_out[0].view(-1, 8, 8)}
    np.savez(tmp_path / "data.npz", **{k: v.numpy() for k, v in arrays.items()}, y_test=F.relu(held_out[1]).numpy())
    loaded, _ = load_network(tmp_path / "model.safetensors", "plain", (8, 8))
    torch.testing.assert_close(loaded(train[0]), model(train[0]))

    def call(*extra):
        files = [str(tmp_path / name) for name in ("model.safetensors", "data.npz", "out")]
        line = ["coset", "audit", files[0], "--data", files[1], "--output", files[2], "--steps", "20", *extra]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capsys.readouterr()

    code, _, problems = call("--group", "d5")
    assert code == 1
    assert "group 'd5': choose plain" in problems
    assert not (tmp_path / "out").exists()
    code, printed, _ = call("--weight-decay", "1e-3", "--no-canaries")
    assert code == 0, printed
    assert "membership AUC" in printed
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "metrics.json", "reconstructions.npz", "report.html",
    }  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text()
    assert "private data" in page
    assert "send it" not in page
    assert "95 % interval" in page
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["verdict"]["text"] in html.unescape(page)
    assert written["verdict"]["text"] in printed.replace("\n", " ")
    assert written["controls"] == {}
    assert len(written["records"]) == 10


def test_images_stand_in_bands_of_ten():
    from coset.privacy.pages import _grid

    one, three = (_grid((4, 4), *(np.zeros((count, 16)) for _ in range(3))) for count in (7, 23))
    assert one.shape == (3 * 6, 7 * 6)
    assert three.shape == (2 * 3 * 6 + 4, 10 * 6)  # the first twenty
