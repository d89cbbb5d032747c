"""Tables of records as inputs of an audit."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from coset import CosetError
from coset.privacy.inputs import load_inputs

HEAD = "age,weight,smokes,ill\n"
TRAIN = HEAD + "41,70.5,True,1\n60,81,False,0\n35,64,True,1\n"
OTHERS = "ill,age,weight,smokes\n0,50,77,False\n1,44,69,True\n"


@pytest.fixture
def tables(tmp_path):
    (tmp_path / "train.csv").write_text(TRAIN)
    (tmp_path / "others.csv").write_text(OTHERS)
    return tmp_path


def test_columns_keep_the_order_of_the_training_table(tables):
    found = load_inputs(tables / "train.csv", tables / "others.csv", "ill")
    assert found.columns == ("age", "weight", "smokes")
    assert found.shape == (3,)
    assert found.train[0].tolist() == [[41, 70.5, 1], [60, 81, 0], [35, 64, 1]]
    assert found.train[1].tolist() == [1, -1, 1]
    assert found.held_out[0].tolist() == [[50, 77, 0], [44, 69, 1]]
    assert found.held_out[1].tolist() == [-1, 1]


def test_a_column_may_say_which_records_were_trained_on(tables):
    rows = [line + part for line, part in zip(TRAIN.splitlines(), (",split", ",train", ",test", ",train"), strict=True)]
    (tables / "one.csv").write_text("\n".join(rows))
    found = load_inputs(str(tables / "one.csv"), target="ill")
    assert found.columns == ("age", "weight", "smokes")
    assert (len(found.train[0]), len(found.held_out[0])) == (2, 1)
    frame = pd.read_csv(tables / "one.csv")
    pytest.importorskip("pyarrow")
    frame.to_parquet(tables / "one.parquet")
    assert torch.equal(load_inputs(tables / "one.parquet", target="ill").train[0], found.train[0])


@pytest.mark.parametrize(
    ("train", "others", "target", "said"),
    [
        (TRAIN, OTHERS, None, r"train\.csv is a table: --target COLUMN"),
        (TRAIN, OTHERS, "il", r"no column 'il'.*did you mean 'ill'"),
        (TRAIN, None, "ill", r"give --held-out TABLE, or a column 'split'"),
        (TRAIN.replace("60", "sixty"), OTHERS, "ill", r"train\.csv, row 3, column 'age': 'sixty' is no number"),
        (TRAIN.replace("60", "\n\nsixty"), OTHERS, "ill", r"train\.csv, row 5, column 'age': 'sixty' is no number"),
        (TRAIN, OTHERS.replace("77", ""), "ill", r"others\.csv, row 2, column 'weight' is empty"),
        (TRAIN, OTHERS.replace("weight", "mass"), "ill", r"others\.csv has no column 'weight', which .*train\.csv has"),
        (TRAIN, OTHERS.replace("ill,", "id,ill,").replace("\n", "\n1,", 2), "ill", r"train\.csv has no column 'id'"),
        (TRAIN.replace("True,1", "True,0.5", 1), OTHERS, "ill", r"y_train must hold -1 and 1"),
        (TRAIN.replace("ill", "ill,split", 1).replace("1\n", "1,train\n").replace("0\n", "0,val\n"), None, "ill",
         r"row 3: split is 'val'; train or test"),
        (TRAIN.replace("ill", "ill,split", 1).replace("1\n", "1,train\n").replace("0\n", "0,train\n"), None, "ill",
         r"train\.csv: no held-out records \(x_test \(0, 3\)\); both kinds are needed"),
    ],
)  # fmt: skip
def test_what_cannot_be_audited_is_told(tmp_path, train, others, target, said):
    (tmp_path / "train.csv").write_text(train)
    if others is not None:
        (tmp_path / "others.csv").write_text(others)
    with pytest.raises(CosetError, match=said):
        load_inputs(tmp_path / "train.csv", tmp_path / "others.csv" if others is not None else None, target)


@pytest.mark.parametrize(("empty", "said"), [("train", "no training records"), ("test", "no held-out records")])
def test_arrays_without_records_are_told(tmp_path, empty, said):
    rows = {kind: 0 if kind == empty else 2 for kind in ("train", "test")}
    arrays = {f"x_{kind}": np.ones((count, 4)) for kind, count in rows.items()}
    np.savez(tmp_path / "a.npz", **arrays, **{f"y_{kind}": np.ones(count) for kind, count in rows.items()})
    with pytest.raises(CosetError, match=said):
        load_inputs(tmp_path / "a.npz")


def test_arrays_take_no_columns(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.ones((2, 4)))
    with pytest.raises(CosetError, match="leave --held-out and --target out"):
        load_inputs(tmp_path / "a.npz", target="y")


def test_the_command_finds_records_of_a_table(coset, tmp_path):
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 6, generator=draw), (torch.arange(12) % 2).float()
    columns = [f"lab_{place}" for place in range(6)]
    for name, rows in (("train", slice(0, 6)), ("others", slice(6, 12))):
        frame = pd.DataFrame(x[rows].numpy(), columns=columns).assign(ill=y[rows].int().numpy())
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    network = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 1))
    step = torch.optim.SGD(network.parameters(), 0.5)
    for _ in range(400):
        step.zero_grad()
        nn.functional.softplus(-(2 * y[:6] - 1) * network(x[:6])[:, 0]).mean().backward()
        step.step()
    torch.save(network.state_dict(), tmp_path / "mlp.pt")
    files = [str(tmp_path / name) for name in ("mlp.pt", "train.csv", "others.csv", "out")]
    code, _, problems = coset(
        "audit", files[0], "--data", files[1], "--held-out", files[2], "--target", "ill", "--steps", "30",
        "--no-canaries", "--output", files[3], "--quiet",
    )  # fmt: skip
    assert code == 0, problems
    found = pd.read_csv(tmp_path / "out" / "found.csv")
    assert list(found.columns) == ["record", "correlation", *columns]
    assert len(found) == 6
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["reconstruction"]
    assert "lab_3" in (tmp_path / "out" / "report.html").read_text()
