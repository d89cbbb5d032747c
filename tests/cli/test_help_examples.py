"""The examples of every command's help are run as they are written, on small files of the names that they use.

Where an example would take long, words are added that make it small; what a shell does (``>``, ``|``, ``;``) is done
here.
"""

import contextlib
import gzip
import importlib.util
import io
import json
import runpy
import shlex
import shutil
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark_scripts import script
from command_line import FUNCTIONS, example_lines
from coset.core.data_files import data_file
from coset.core.errors import CosetError
from published_checkpoints import in_their_form

for extra in ("cv2", "datamol", "pyarrow", "safetensors", "sklearn", "transformers", "trimesh"):
    if importlib.util.find_spec(extra) is None:
        pytest.skip(f"{extra} is not installed", allow_module_level=True)

chaos = script("chaos")
SMALL = ["training.epochs=1", "training.batch_size=64", "model.width=16", "model.layers=1"]
ADDED = {
    "run subgraphormer/freesolv": SMALL,
    "run mine.yaml": SMALL,
    "sweep gin/esol subgraphormer": ["--seeds", "1", "--workers", "1", *SMALL],
    "sweep gin/esol model.width": ["training.epochs=4", "model.layers=1", "--samples", "4"],
    "preprocess": ["--workers", "1", "--shard-rows", "10"],
    "run csv": SMALL,
    "track": ["--points", "40"],
    "reconstruct": ["--points", "40", "--refine", "none"],
    "audit cnn.safetensors": ["--steps", "20", "--no-canaries"],
    "data get mnist": ["--unverified"],
    "lora zoo": ["adapters=4", "source.steps=4", "--workers", "1"],
}
"""Words that make an example small, by the first words of it."""
CNN = """from torch import nn


def make():
    layers = nn.Unflatten(1, (1, 2)), nn.Conv2d(1, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(3, 1))
"""
PLACES = {"/media/stick/downloads": "stick"}
SLOW = {"torchrun"}
LINES = [
    pytest.param(line, id=line[:60], marks=[pytest.mark.slow] if SLOW & set(line.split()) else [])
    for function in FUNCTIONS.values()
    for line in example_lines(function)
]
ENDS = ("O", "N", "C1CC1", "c1ccccc1", "C1CCC1", "c1ccncc1", "C1CCCCC1")
CHAINS = [f"{'C' * (1 + n // 7)}{ENDS[n % 7]}" for n in range(42)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with everything that examples name."""
    folder = tmp_path_factory.mktemp("inputs")
    chaos.make_inputs(folder, ".yaml tracks.npz")
    tables(folder)
    runs(folder)
    adapters(folder)
    networks(folder)
    clips(folder)
    return folder


def tables(folder):
    chains = pd.DataFrame({"smiles": CHAINS, "y": [len(s) / 12 for s in CHAINS]})
    chains.rename(columns={"y": "solubility"}).to_csv(folder / "mine.csv", index=False)
    with gzip.open(folder / "zinc.csv.gz", "wt") as file:
        chains.rename(columns={"y": "logP"}).to_csv(file, index=False)
    (folder / "data" / "molecules").mkdir(parents=True)
    with contextlib.suppress(CosetError):
        (folder / "data" / "expressivity").symlink_to(data_file("expressivity/brec/basic.npy").resolve().parents[1])
    solubility, molecules = "measured log solubility in mols per litre", folder / "data" / "molecules"
    named = chains.rename(columns={"y": solubility}).assign(**{"Compound ID": CHAINS})
    named.to_csv(molecules / "esol.csv", index=False)
    for part in ("train", "val"):
        chains.rename(columns={"y": "penalized_logp"}).to_csv(molecules / f"zinc12k_{part}.csv", index=False)
    draw = np.random.default_rng(0)
    for name in ("patients", "others"):
        values = pd.DataFrame(draw.normal(size=(8, 4)), columns=list("abcd"))
        values.assign(ill=[0, 1] * 4).to_csv(folder / f"{name}.csv", index=False)
    (folder / "stick").mkdir()
    for part, count in (("train", 60), ("t10k", 10)):
        images, labels = np.zeros((count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10
        for values, name in ((images, "images-idx3"), (labels, "labels-idx1")):
            header = struct.pack(f">{1 + values.ndim}I", 2048 + values.ndim, *values.shape)
            (folder / "stick" / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))
    (folder / "bunny.off").write_text("OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n")
    torus = {"kind": "cell", "vertices": 3, "cells": {"1": [[0, 1], [1, 2], [2, 0]], "2": [[0, 1, 2]]}}
    (folder / "torus.json").write_text(json.dumps(torus))


def runs(folder):
    from coset.runs.recipes import load

    path = folder / "mine.csv"
    data = f"data={{name: csv, path: {path}, target: solubility, fractions: [0.5, 0.3, 0.2]}}"
    for seed, name in enumerate("ab"):
        load("gin/freesolv", [data, *SMALL, f"seed={seed}"]).run(folder / "runs" / name, quiet=True)
    shutil.copytree(folder / "runs" / "a", folder / "runs" / "mine")
    stopped = folder / "runs" / "subgraphormer-freesolv-20250131-120000"
    shutil.copytree(folder / "runs" / "a", stopped)
    (stopped / "metrics.json").unlink()
    load("lol/digits-zoo", ["adapters=4", "source.steps=4"]).run(folder / "runs" / "digits-zoo", quiet=True)


def adapters(folder):
    for name, made in (("my-adapter", "a"), ("style", "a"), ("subject", "b"), ("mine", "c")):
        shutil.copytree(folder / "adapters" / made, folder / name)
    shutil.copytree(folder / "adapters", folder / "zoo")
    from coset.weights.lora import LoraAdapter, LoraPair
    from coset.weights.lora.data.writing import save_kohya

    (folder / "bert").mkdir()
    shutil.copy(folder / "base.safetensors", folder / "bert" / "model.safetensors")
    (folder / "bert" / "config.json").write_text("{}")
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    save_kohya(
        LoraAdapter({layer: LoraPair(torch.randn(8, 2), torch.randn(8, 2))}, "style"), folder / "style.safetensors"
    )


def networks(folder):
    from safetensors.torch import save_file

    from coset.motion.models.checkpoint import save_model
    from coset.motion.models.trackster4d import TracksTo4D
    from coset.privacy import ReLUNetwork

    save_file(ReLUNetwork([4, 8, 1]).state_dict(), folder / "model.safetensors")
    torch.save(ReLUNetwork([4, 8, 1]).state_dict(), folder / "mlp.pt")
    for name, made in (("a", "one"), ("b", "two")):
        shutil.copy(folder / f"{made}.safetensors", folder / f"{name}.safetensors")
    shutil.copy(folder / "data.npz", folder / "test.npz")
    images = dict(np.load(folder / "audit.npz"))
    images |= {name: images[name].reshape(-1, 2, 2) for name in ("x_train", "x_test")}
    np.savez(folder / "data.npz", **images)
    (folder / "cnn.py").write_text(CNN)
    convolution = runpy.run_path(str(folder / "cnn.py"))["make"]()
    save_file(convolution.state_dict(), folder / "cnn.safetensors")
    shutil.copy(folder / "slerp.yaml", folder / "two-tasks.yaml")
    sizes = {"width": 16, "blocks": 1, "heads": 16, "head_width": 4, "hidden": 16, "basis": 5, "octaves": 4}
    network = TracksTo4D(**sizes, kernel=7, read_unseen=True).eval()
    torch.save(in_their_form(network.state_dict(), 4, 5), folder / "TracksTo4D_pretrained_cats_dogs.pt")
    save_model(network, folder / "cats-dogs.safetensors", {"window": 20})


def clips(folder):
    """A camera that glides past a wall with posts before it, and a clip with its truth."""
    import cv2

    draw = np.random.default_rng(0)
    wall, posts = (cv2.resize(draw.integers(0, 255, (40, 100, 3), dtype=np.uint8), None, fx=4, fy=4) for _ in range(2))
    writer = cv2.VideoWriter(str(folder / "video.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 20, (160, 120))
    for n in range(16):
        picture = wall[:120, 2 * n : 160 + 2 * n].copy()
        for left in (70, 130, 190):  # on the wall nearer by: twice as fast
            seen = slice(max(left - 4 * n, 0), max(min(left + 25 - 4 * n, 160), 0))
            picture[30:, seen] = posts[30:120, 4 * n + seen.start : 4 * n + seen.stop]
        writer.write(picture)
    writer.release()
    (folder / "our_data_format_4_validation_rgbd").mkdir()
    shutil.copy(folder / "tracks.npz", folder / "our_data_format_4_validation_rgbd" / "one.npz")


@pytest.mark.parametrize("line", LINES)
def test_an_example_works(line, inputs, coset, tmp_path, monkeypatch):
    place = tmp_path / "here"
    shutil.copytree(inputs, place, symlinks=True)
    if "bench" in line and not (place / "data" / "expressivity").exists():
        pytest.skip("no expressivity data: set COSET_DATA")
    monkeypatch.chdir(place)
    monkeypatch.setenv("COSET_DATA", str(place / "data"))
    for part in line.split("; "):
        words = [PLACES.get(word, word) for word in shlex.split(part.rpartition(" | ")[2])]
        into = words.pop() if ">" in words else None
        words = [word for word in words if word != ">"]
        assert words[0] == "coset"
        if " | " in part:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"F??Fw\nF??G_\n")))
        rest = " ".join(words[1:])
        more = next((added for start, added in ADDED.items() if rest.startswith(start)), [])
        code, out, problems = coset(*words[1:], *more)
        assert code == 0, problems
        if into is not None:
            Path(into).write_text(out)
