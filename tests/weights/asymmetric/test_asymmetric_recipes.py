"""Every recipe of asymmetric networks at toy size, from its settings to its page."""

import json

import numpy as np
import pytest
import torch

from coset.core.errors import CosetError
from coset.runs.recipes import load, load_run, verify
from coset.weights.asymmetric.asymmetrize import asymmetries, fingerprint
from coset.weights.asymmetric.experiments import network_file
from coset.weights.state_files import load_state

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Files like mnist.npz and cifar10_small.npz: bright blots at a place that tells the class."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, shape in (("mnist", (28, 28)), ("cifar10_small", (32, 32, 3))):
        arrays = {}
        for part, rows in (("train", 200), ("test", 60)):
            labels = rng.integers(10, size=rows)
            pixels = rng.integers(0, 80, size=(rows, *shape))
            for i, label in enumerate(labels):
                pixels[i, 2 * label : 2 * label + 4] += 150
            arrays |= {f"{part}_images": pixels.astype(np.uint8), f"{part}_labels": labels.astype(np.uint8)}
        np.savez(folder / f"{name}.npz", **arrays)
    return folder


def toy(name, folder):
    small = ["training.epochs=3", "networks=2", "points=3"]
    return {
        "lmc-digits": [*small, "network.hidden=[16,16,16]", *(f"variants.{name}.n_fix=4" for name in
                       ("W", "W-twice-n_fix", "W-kappa-5e-2", "W-kappa-0"))],
        "lmc-mnist": [*small, "network.hidden=[12,12,12]", "variants.W.n_fix=4", f"data.path={folder}"],
        "lmc-gnn": [*small, "network.width=16", "data.nodes=100"],
        "lmc-cifar-resnet": [*small, "network.width=6", f"data.path={folder}", "data.rows=100",
                             "variants.W.n_fix=0.3"],
    }[name]  # fmt: skip


def test_what_was_released_as_sigma_is_fixed_entries_and_one_gate(images):
    recipe = load("asymmetric/lmc-cifar-gates", [f"data.path={images}", "data.rows=100", "network.width=6",
                                                 "variants.released.n_fix=0.3", "variants.W.n_fix=0.3"])  # fmt: skip
    data = recipe.data.load(0)
    gates = {name: [a.name for a in asymmetries(recipe.variant(name, data)) if a.kind == "gate"]
             for name in recipe.variants}  # fmt: skip
    assert gates["released"] == ["act"]
    assert gates["sigma"] == ["act", *(f"blocks.{b}.act{i}" for b in range(3) for i in (1, 2))]
    assert not gates["W"]
    assert not gates["standard"]
    fixed = [a.name for a in asymmetries(recipe.variant("released", data)) if a.kind == "entries"]
    assert fixed == [a.name for a in asymmetries(recipe.variant("W", data))]


def test_images_of_some_classes(images):
    changes = [f"data.path={images}", "data.classes=frog,cat"]
    data = load("asymmetric/lmc-cifar-resnet", changes).data.load(0)
    with np.load(images / "cifar10_small.npz") as file:
        labels = file["test_labels"]
    kept = labels[np.isin(labels, (3, 6))]
    assert data.classes == 2
    assert data.test[1].tolist() == [int(label == 3) for label in kept]
    assert len(data.train[0]) == len(data.train[1])
    for names, words in (("frog,frogs", "frogs is none of airplane"), ("frog,frog", "two or more different classes")):
        with pytest.raises(CosetError, match=words):
            load("asymmetric/lmc-cifar-resnet", [f"data.classes={names}"])


def test_the_gates_of_the_mnist_row_have_three_sizes(images):
    recipe = load("asymmetric/lmc-mnist-gates", [f"data.path={images}", "network.hidden=[16,16,16]",
                                                 "variants.W.n_fix=4"])  # fmt: skip
    data = recipe.data.load(0)
    scales = {name: asymmetries(recipe.variant(name, data))[0].scale for name in recipe.variants if "sigma" in name}
    for name, wanted in (("sigma-1", 1), ("sigma-root", 1 / 4), ("sigma-hundredth", 0.01 / 4)):
        assert scales[name] == pytest.approx(wanted, rel=0.15)
    assert (recipe.training.epochs, recipe.networks, recipe.points) == (25, 10, 25)


@pytest.mark.parametrize("name", ["lmc-digits", "lmc-mnist", "lmc-gnn", "lmc-cifar-resnet"])
def test_a_recipe_runs_from_its_settings_to_its_page(name, images, tmp_path):
    recipe = load(f"asymmetric/{name}", toy(name, images))
    metrics = recipe.run(tmp_path, quiet=True)
    assert {"standard", "standard, weights matched", "standard, activations matched", "W"} <= set(metrics["variants"])
    assert all(np.isfinite(r["barrier"]).all() for r in metrics["variants"].values())
    columns, rows = recipe.summary(metrics)
    assert all(len(row) == len(columns) for row in rows)
    page = recipe.report(tmp_path).read_text(encoding="utf-8")
    assert "From initialisation to minimum" in page
    assert json.loads((tmp_path / "certificate.json").read_text())[0]["passed"]
    assert [report.passed for report in verify(str(tmp_path))] == [True]
    again = load_run(tmp_path)
    model = again.variant("W", again.data.load(0))
    state = load_state(network_file(tmp_path, "W", 1))
    model.load_state_dict(state)
    assert fingerprint(model) == metrics["variants"]["W"]["fingerprint"]


def test_a_run_repeats_itself_and_all_variants_see_the_same_initial_networks(tmp_path):
    recipe = load("asymmetric/lmc-digits", ["network.hidden=[16,16,16]", "training.epochs=1", "networks=2", "points=3",
                                            "variants.W.n_fix=4"])  # fmt: skip
    recipe = recipe.model_copy(update={"variants": {k: recipe.variants[k] for k in ("standard", "W")}})
    first, second = (recipe.run(tmp_path / n, quiet=True)["variants"] for n in "ab")
    for name, found in first.items():
        assert found["barrier"] == second[name]["barrier"]
        assert found["distance"] == second[name]["distance"]
    states = [load_state(network_file(tmp_path / n, "standard", 0)) for n in "ab"]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("lmc-digits", "points=4", "must be odd"),
        ("lmc-digits", "network.name=gnn", "network"),
        ("lmc-gnn", "data.name=digits", "data"),
        ("lmc-mnist", "training.augment=true", "training.augment=true needs images"),
        ("lmc-digits", "variants.W.method=v", "variants.W.method='v'"),
        ("lmc-digits", "matching=[weight]", "weight"),
    ],
)
def test_settings_that_do_not_fit(name, change, message):
    with pytest.raises(CosetError, match="recipe asymmetric/") as error:
        load(f"asymmetric/{name}", [change])
    assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CosetError, match=r"mnist\.npz"):
        load("asymmetric/lmc-mnist", [f"data.path={tmp_path}"]).run(tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_variational_training_over_depth(tmp_path):
    toy = ["depths=[1,2]", "width=8", "runs=2", "training.steps=30", "training.samples=2"]
    recipe = load("asymmetric/bnn-depth", toy)
    metrics = recipe.run(tmp_path / "a", quiet=True)
    assert metrics["variants"] == recipe.run(tmp_path / "b", quiet=True)["variants"]
    assert len(metrics["variants"]["W"]["2"]["accuracy"]) == 2
    assert "W-own-masks" in recipe.report(tmp_path / "a").read_text(encoding="utf-8")
    columns, rows = recipe.summary(metrics)
    assert all(len(row) == len(columns) for row in rows)
    assert [report.passed for report in verify(str(tmp_path / "a"))] == [True]
    data = recipe.data.load(0)
    shared, own = ([recipe.build(n, 2, i, data).get_submodule("0").trainable for i in (0, 1)]
                   for n in ("W", "W-own-masks"))  # fmt: skip
    assert torch.equal(*shared)
    assert not torch.equal(*own)
    with pytest.raises(CosetError, match="depths"):
        load("asymmetric/bnn-depth", ["depths=[2,2]"])
    with pytest.raises(CosetError, match="knows standard and w"):
        load("asymmetric/bnn-depth", ["variants.W.method=sigma"])


def test_metanetworks_on_two_zoos(tmp_path):
    toy = ["zoo.networks=40", "zoo.steps=[3,20]", "variants.W-longer.steps=[6,40]", "variants.W-longer.n_fix=4",
           "training.epochs=3", "training.runs=2", "ways=4", "network.hidden=[12]", "variants.W.n_fix=4",
           "predictors=[flat,statistics,deepsets,settings]"]  # fmt: skip
    recipe = load("asymmetric/metanet", toy)
    metrics = recipe.run(tmp_path / "a", quiet=True)
    again = recipe.run(tmp_path / "b", quiet=True)
    for name, found in metrics["variants"].items():
        assert found["predictors"] == again["variants"][name]["predictors"]
        assert found["monotonicity"]["networks"] == 4
        assert set(found["predictors"]) == {"flat", "statistics", "deepsets", "settings"}
    page = recipe.report(tmp_path / "a").read_text(encoding="utf-8")
    assert "From initialisation to minimum" in page
    columns, rows = recipe.summary(metrics)
    assert all(len(row) == len(columns) for row in rows)
    assert [report.passed for report in verify(str(tmp_path / "a"))] == [True]
    with pytest.raises(CosetError, match="the first must not be larger"):
        load("asymmetric/metanet", ["zoo.steps=[9,3]"])


@pytest.mark.parametrize(
    ("name", "variants", "changes"),
    [
        ("lmc-digits", ["standard", "W"], ["network.hidden=[8,8,8]", "variants.W.n_fix=4", "training.epochs=1",
                                           "networks=3", "points=3", "plane=3"]),
        ("lmc-gnn", ["standard", "sigma-root"], ["network.width=8", "data.nodes=60", "training.epochs=2", "networks=2",
                                                 "points=3"]),
        ("bnn-depth", ["standard", "W"], ["depths=[1,2]", "width=8", "runs=2", "training.steps=5",
                                          "training.samples=2"]),
        ("metanet", ["standard", "W"], ["zoo.networks=40", "zoo.steps=[3,10]", "training.epochs=2", "training.runs=2",
                                        "ways=4", "network.hidden=[12]", "variants.W.n_fix=4"]),
    ],
)  # fmt: skip
def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(name, variants, changes, same_after_a_kill):
    recipe = load(f"asymmetric/{name}", changes)
    same_after_a_kill(recipe.model_copy(update={"variants": {k: recipe.variants[k] for k in variants}}))
