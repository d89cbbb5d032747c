"""Recipes of kind ``lora``: learn from a collection of adapters, and use what was learnt."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field, field_validator
from rich.progress import track
from torch import Tensor, nn

from coset.errors import CosetError
from coset.files import write_json, write_text
from coset.recipes.recipe import Options, Recipe
from coset.symmetry import EquivarianceReport, verify_claims
from coset.training import run_directory
from coset.weights.lora import fitting
from coset.weights.lora.digits import LAYOUT, make_digits_zoo
from coset.weights.lora.factors import Factors, Layout, pad_rank, regauge, select, stack
from coset.weights.lora.neighbours import Neighbour, map_of, search
from coset.weights.lora.reading import load_lora
from coset.weights.lora.zoo import INDEX, LoraZoo, build_zoo, find_adapters, open_zoo

GAUGED = (("O(r)", 1.0), ("GL(r)", 10.0))
CERTIFIED = 4  # adapters that a symmetry is measured on


class Collection:
    """Factors with a table of labels; ``names`` are the rows."""

    def __init__(self, layout: Layout, factors: Factors, names: list[str], table: pd.DataFrame, notes: list[str]):
        self.layout, self.factors, self.names, self.table, self.notes = layout, factors, names, table, notes


class DigitsData(Options):
    """The collection of digits, made on the spot in seconds."""

    name: Literal["digits"]
    adapters: int = Field(1200, ge=20)
    rank: int = Field(4, ge=1, le=64)
    shared_init: bool = False
    other_ranks: list[int] = Field([], description="test also on adapters of these ranks, never trained on")

    def load(self, seed: int, rank: int | None = None) -> Collection:
        """All adapters, or a test collection of another rank."""
        rank = rank or self.rank
        number = self.adapters if rank == self.rank else max(20, self.adapters // 8)
        zoo = make_digits_zoo(
            number, rank, shared_init=self.shared_init, seed=seed + (0 if rank == self.rank else 10_000 + rank)
        )
        table = pd.DataFrame({f"trained_on_{c}": zoo.members[:, c].numpy() for c in range(10)})
        table["accuracy"] = zoo.accuracy.numpy()
        return Collection(LAYOUT, zoo.factors, [f"digits-{i}" for i in range(number)], table, [])


class ZooData(Options):
    """A folder: a collection built by ``coset lora collect``, or one of adapters."""

    name: Literal["zoo"]
    path: str = Field(description="folder of the collection or of adapters")
    labels: str | None = Field(None, description="CSV with the column id; labels.csv in the folder by default")
    layers: Literal["same", "intersection", "union"] = "same"
    skip_bad: bool = False
    other_ranks: list[int] = Field([], max_length=0)

    @field_validator("path")
    @classmethod
    def _from_anywhere(cls, value: str) -> str:
        return str(Path(value).expanduser().absolute())

    def load(self, seed: int, rank: int | None = None) -> Collection:
        """Adapters that have a row of labels."""
        folder = Path(self.path)
        labels = Path(self.labels) if self.labels else folder / "labels.csv"
        if not labels.is_file():
            raise CosetError(f"no table of labels {labels} (data.labels=FILE, a CSV with a column id)")
        table = pd.read_csv(labels, dtype={"id": str})
        if "id" not in table:
            raise CosetError(f"{labels} has no column id; it has {', '.join(map(str, table.columns))}")
        zoo = opened(folder, self.layers, self.skip_bad)
        rows = {Path(name).name: i for i, name in enumerate(zoo.names)} | {n: i for i, n in enumerate(zoo.names)}
        known = table["id"].isin(list(rows))
        if not known.any():
            raise CosetError(f"no id of {labels} is an adapter of {folder} (first id {table['id'].iloc[0]!r})")
        notes = [*zoo.notes, *(f"{name} skipped: {reason}" for name, reason in zoo.skipped)]
        if not known.all():
            notes.append(f"{int((~known).sum())} rows of {labels.name} have no adapter")
        table = table[known].reset_index(drop=True)
        factors = zoo.factors([rows[i] for i in table["id"]])
        return Collection(zoo.layout, factors, list(table["id"]), table, notes)


def opened(folder: Path, layers: str = "same", skip_bad: bool = False) -> LoraZoo:
    """A built collection, or one built beside the adapters (in ``<folder>/.zoo``) when needed."""
    if (folder / INDEX).is_file():
        return open_zoo(folder)
    # Beside the adapters that ``coset lora zoo`` makes lies the model they were finetuned from.
    made = folder / "adapters"
    sources = find_adapters(made if made.is_dir() else folder)
    index = folder / ".zoo" / INDEX
    if index.is_file():
        built = open_zoo(folder / ".zoo")
        held = {*built.names, *(name for name, _ in built.skipped)}
        newest = max(f.stat().st_mtime for p in sources for f in (p, *(p.iterdir() if p.is_dir() else ())))
        same_rule = skip_bad or not built.skipped
        if held == {str(p.relative_to(folder)) for p in sources} and newest <= index.stat().st_mtime and same_rule:
            return built
    return build_zoo(sources, folder / ".zoo", root=folder, layers=layers, skip_bad=skip_bad)


class LoraModelOptions(Options):
    """Sizes that the models share."""

    width: int = Field(16, ge=1, description="k of the GL-nets")
    hidden: int = Field(128, ge=1, description="width of the head")
    dense_hidden: int = Field(32, ge=1, description="width of the head on dense updates")
    norm: bool = Field(False, description="GLNorm in the GL-nets")
    dropout: float = Field(0.0, ge=0, lt=1)


class LoraTrainingOptions(Options):
    """How to train each model."""

    task: fitting.Task
    targets: list[str] = Field(description="columns of labels; a trailing * stands for several", min_length=1)
    epochs: int = Field(30, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    fractions: tuple[float, float, float] = (0.75, 0.125, 0.125)


class LoraRecipe(Recipe):
    """Train LoL models on one collection and compare them, also on other factors of the same updates."""

    kind: Literal["lora"] = "lora"
    data: Annotated[DigitsData | ZooData, Field(discriminator="name")]
    models: list[str] = Field(list(fitting.MODELS), min_length=1)
    model: LoraModelOptions = Field(default_factory=lambda: LoraModelOptions.model_validate({}))
    training: LoraTrainingOptions

    @field_validator("models")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in fitting.MODELS:
                raise ValueError(f"model {name!r} is unknown; choose from {', '.join(fitting.MODELS)}")
        return value

    def run(self, folder: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
        """Fit every model; keep the one with the best validation score for predictions."""
        if resume:
            raise CosetError("a run on a collection of LoRAs takes minutes and is not resumed: start it again")
        started = time.monotonic()
        data = self.data.load(self.seed)
        columns = _columns(data.table, self.training.targets)
        targets = torch.tensor(data.table[columns].to_numpy(dtype=np.float64), dtype=torch.float32)
        splits = self._splits(len(targets))
        centre, spread = self._scale(targets[splits["train"]])
        y = (targets - centre) / spread
        others = {r: self.data.load(self.seed, r) for r in self.data.other_ranks}
        run_directory.begin(folder, self.to_yaml())
        results, fitted, histories = {}, {}, {}
        names = self.models if quiet else track(self.models, description="fitting models")
        for name in names:
            model, result, histories[name] = self._fit_one(name, data, y, splits)
            result |= self._other_ranks(model, name, others, columns, centre, spread, count_rank(data.factors))
            fitted[name], results[name] = model, result
        best = max(results, key=lambda n: results[n]["val"][_headline(self.training.task)])
        metrics = {
            "models": results, "best": best, "targets": columns, "task": self.training.task, "seed": self.seed,
            "adapters": {name: len(rows) for name, rows in splits.items()}, "recipe": self.name,
            "rank": count_rank(data.factors), "layers": len(data.layout.names), "notes": data.notes,
            "baseline": self._baseline(y, splits), "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        self._write(folder, fitted, histories, data, y, splits, metrics, (centre, spread))
        return metrics

    def _splits(self, number: int) -> dict[str, Tensor]:
        order = torch.randperm(number, generator=torch.Generator().manual_seed(self.seed))
        a, b = (round(number * sum(self.training.fractions[:k])) for k in (1, 2))
        splits = {"train": order[:a], "val": order[a:b], "test": order[b:]}
        if min(map(len, splits.values())) < 2:
            raise CosetError(f"{number} adapters are too few for training.fractions={self.training.fractions}")
        return splits

    def _scale(self, training: Tensor) -> tuple[Tensor, Tensor]:
        if self.training.task == "classification":
            if not bool(((training == 0) | (training == 1)).all()):
                raise CosetError("training.task=classification needs labels 0 and 1; for numbers take task=regression")
            return torch.zeros(training.size(1)), torch.ones(training.size(1))
        return training.mean(0), training.std(0).clamp(min=1e-8)

    def _fit_one(
        self, name: str, data: Collection, y: Tensor, splits: dict[str, Tensor]
    ) -> tuple[nn.Module, dict[str, Any], list[dict[str, float]]]:
        part = {split: select(data.factors, rows) for split, rows in splits.items()}
        training, validation = ((part[s], y[splits[s]]) for s in ("train", "val"))
        started, history, t = time.process_time(), [], self.training
        model: nn.Module
        if name == "kernel":
            model = fitting.fit_kernel(t.task, training, validation)
        else:
            sizes = self.model.model_dump()
            model = built = fitting.build(name, data.layout, part["train"], y.size(1), seed=self.seed, **sizes)
            history = fitting.fit(
                built, t.task, training, validation, epochs=t.epochs, batch_size=t.batch_size,
                learning_rate=t.learning_rate, weight_decay=t.weight_decay, seed=self.seed,
            )  # fmt: skip
        fitted = time.process_time() - started
        result: dict[str, Any] = {s: fitting.score(t.task, fitting.predict(model, part[s]), y[splits[s]]) for s in part}
        started = time.process_time()
        plain = fitting.predict(model, part["test"])
        result["seconds_per_adapter"] = (time.process_time() - started) / len(plain)
        for group, condition in GAUGED:
            moved = fitting.predict(model, regauge(part["test"], self.seed + 1, condition))
            result[f"test after {group}"] = fitting.score(t.task, moved, y[splits["test"]])
            result[f"change under {group}"] = float((moved - plain).abs().max() / plain.abs().max().clamp(min=1e-12))
        result["params"] = sum(p.numel() for p in model.parameters())
        result["fit_cpu_seconds"] = round(fitted, 2)
        return model, result, history

    def _other_ranks(
        self, model: nn.Module, name: str, others: dict[int, Collection], columns: list[str], centre: Tensor,
        spread: Tensor, rank: int,
    ) -> dict[str, Any]:  # fmt: skip
        result = {}
        for r, other in others.items():
            wanted = (torch.tensor(other.table[columns].to_numpy(dtype=np.float64)).float() - centre) / spread
            # What depends on the rank can only take smaller ones, filled up with zero columns.
            if r > rank and name in ("flat", "o_align", "balanced", "svd"):
                continue
            factors = pad_rank(other.factors, max(rank, r))
            result[f"test at rank {r}"] = fitting.score(self.training.task, fitting.predict(model, factors), wanted)
        return result

    def _baseline(self, y: Tensor, splits: dict[str, Tensor]) -> dict[str, float]:
        """Always predicting the mean of the training set, or the more frequent label."""
        mean = y[splits["train"]].mean(0)
        guess = (mean > 0.5).float() * 2 - 1 if self.training.task == "classification" else mean
        wanted = y[splits["test"]]
        found = fitting.score(self.training.task, guess.expand_as(wanted), wanted)
        return {key: found[key] for key in ("accuracy", "r2", "rmse") if key in found}

    def _write(
        self, folder: Path, fitted: dict[str, nn.Module], histories: dict[str, list[dict[str, float]]],
        data: Collection, y: Tensor, splits: dict[str, Tensor], metrics: dict[str, Any], scale: tuple[Tensor, Tensor],
    ) -> None:  # fmt: skip
        best = metrics["best"]
        example = select(data.factors, splits["train"][:1])
        saved = {
            "model": best, "state": fitted[best].state_dict(),
            "groups": [[list(s), list(n)] for s, n in data.layout.groups],
            "rank": count_rank(data.factors), "centre": scale[0], "spread": scale[1], "targets": metrics["targets"],
            "training": len(splits["train"]), "example": [list(pair) for pair in example],
        }  # fmt: skip
        part = folder / ".checkpoint.ckpt.part"
        torch.save(saved, part)
        part.replace(folder / "checkpoint.ckpt")
        frames = [pd.DataFrame(rows).assign(model=name) for name, rows in histories.items() if rows]
        if frames:
            write_text(folder / "history.csv", pd.concat(frames).to_csv(index=False))
        table = pd.DataFrame({"id": data.names})
        for split, rows in splits.items():
            table.loc[rows.numpy(), "split"] = split
        truth = y * scale[1] + scale[0]
        found = fitting.predict(fitted[best], data.factors)
        found = in_units(best, self.training.task, found, *scale)
        for i, name in enumerate(metrics["targets"]):
            table[f"target_{name}"], table[f"prediction_{name}"] = truth[:, i].numpy(), found[:, i].numpy()
        write_text(folder / "predictions.csv", table.to_csv(index=False))
        certificate = [r.to_dict() for r in certify(fitted[best], select(data.factors, slice(0, CERTIFIED)))]
        write_json(folder / "certificate.json", certificate)
        write_json(folder / "metrics.json", metrics)

    def verify(self, folder: Path | None = None, progress: bool = False) -> list[EquivarianceReport]:
        """The trained model of a run; of a recipe, every model that claims a symmetry, untrained."""
        if folder is not None:
            model, saved = load_model(folder)
            example: Factors = tuple((u, v) for u, v in saved["example"])
            return certify(model, example)
        data = self.data.load(self.seed)
        factors = select(data.factors, slice(0, 32))
        reports = []
        for name in self.models:
            if name not in ("flat", "kernel"):
                model = fitting.build(name, data.layout, factors, 3, seed=self.seed, **self.model.model_dump())
                reports += certify(model, select(factors, slice(0, CERTIFIED)))
        return reports

    def report(self, folder: Path) -> Path:
        from coset.recipes.lora_pages import write_run_page

        return write_run_page(self, folder)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row a model: the headline score on test, and the same after its factors were changed."""
        key = _headline(self.training.task)
        extra = [k for k in next(iter(metrics["models"].values()))["test"] if k != key]
        ranks = list(dict.fromkeys(k for r in metrics["models"].values() for k in r if k.startswith("test at rank")))
        rows = []
        for name, r in metrics["models"].items():
            shown = [r["train"][key], r["test"][key], *(r[f"test after {g}"][key] for g, _ in GAUGED)]
            shown += [r["test"].get(k) for k in extra] + [r[k][key] if k in r else None for k in ranks]
            mark = " *" if name == metrics["best"] else ""
            rows.append([name + mark, *("–" if v is None else f"{v:.3f}" for v in shown), f"{r['params']:,}"])
        groups = [f"{key} after {g}" for g, _ in GAUGED]
        return ["model", f"train {key}", f"test {key}", *groups, *extra, *ranks, "parameters"], rows


def count_rank(factors: Factors) -> int:
    """To which the factors are padded."""
    return factors[0][0].size(-1)


def certify(model: nn.Module, factors: Factors) -> list[EquivarianceReport]:
    """The claims of a model in float64; none for the flat one."""
    claims = model.symmetry()  # type: ignore[operator]
    return verify_claims(model, factors, claims=claims) if claims else []


def load_model(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The best model of a run and what was saved beside it.

    Raises:
        CosetError: The folder holds no finished run of kind ``lora``.
    """
    from coset.recipes.registry import load_run

    recipe, file = load_run(folder), folder / "checkpoint.ckpt"
    if not isinstance(recipe, LoraRecipe) or not file.is_file():
        raise CosetError(f"{folder} holds no finished run on a collection of LoRAs")
    saved = torch.load(file, weights_only=True)
    layout = Layout(tuple(((n, m), tuple(names)) for (n, m), names in saved["groups"]))
    example: Factors = tuple((u, v) for u, v in saved["example"])
    outputs = len(saved["targets"])
    two: Factors = select(example, [0, 0])
    if saved["model"] == "kernel":
        state = saved["state"]
        shells: Factors = tuple((state[f"u_{i}"], state[f"v_{i}"]) for i in range(len(example)))
        model: nn.Module = fitting.KernelRidge(
            select(shells, slice(0, 2)), torch.zeros(2, outputs), (two, torch.zeros(2, outputs))
        )
        for name, value in state.items():
            model.register_buffer(name, value)
    else:
        model = fitting.build(saved["model"], layout, two, outputs, seed=recipe.seed, **recipe.model.model_dump())
        model.load_state_dict(saved["state"])
    return model.eval(), saved


def in_units(model: str, task: str, output: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
    """Outputs of a model as shares between 0 and 1, or in the units of the target."""
    if task == "regression":
        return output * spread + centre
    # The kernel regresses on labels -1 and 1; the others give logits.
    return ((output + 1) / 2).clamp(0, 1) if model == "kernel" else torch.sigmoid(output)


def predict_adapters(run: Path, data: Path, output: Path, skip_bad: bool = False) -> tuple[int, tuple[str, ...]]:
    """Predictions for every adapter of a folder, as CSV; returns how many, and notes.

    Raises:
        CosetError: The run cannot be used, or an adapter does not fit it.
    """
    from coset.recipes.registry import load_run

    model, saved = load_model(run)
    recipe = load_run(run)
    assert isinstance(recipe, LoraRecipe)
    layout = Layout(tuple(((n, m), tuple(names)) for (n, m), names in saved["groups"]))
    rows, notes = [], []
    single = data.is_file() or any(
        (data / f).is_file() for f in ("adapter_config.json", "pytorch_lora_weights.safetensors")
    )
    for path in [data] if single else find_adapters(data):
        name = path.name if single else str(path.relative_to(data))
        try:
            adapter = load_lora(path)
            missing = [layer for layer in layout.names if layer not in adapter.layers]
            if len(missing) == len(layout.names):
                raise CosetError(f"{name} has none of the layers that the run was trained on ({missing[0]}, ...)")
            free = saved["model"] in ("dense", "glnet", "glnet2", "kernel")
            rank = max(adapter.rank, saved["rank"]) if free else saved["rank"]
            found = fitting.predict(model, stack([adapter], layout, rank))[0]
        except CosetError as error:
            if not skip_bad:
                raise CosetError(f"{error} (--skip-bad-rows leaves it out)") from error
            notes.append(f"skipped {error}")
            continue
        if missing:
            notes.append(f"{name} lacks {len(missing)} of {len(layout.names)} layers: taken as zero updates")
        found = in_units(saved["model"], recipe.training.task, found, saved["centre"], saved["spread"])
        rows.append([name, *found.tolist()])
    table = pd.DataFrame(rows, columns=["id", *(f"prediction_{t}" for t in saved["targets"])])
    write_text(output, table.to_csv(index=False))
    return len(rows), tuple(notes)


def search_folder(adapter: Path, collection: Path, top: int = 10) -> list[Neighbour]:
    """The adapters of a collection that are most like this one."""
    zoo = opened(collection)
    found = load_lora(adapter)
    if not set(found.layers) & set(zoo.layout.names):
        raise CosetError(f"{adapter} has none of the layers of {collection} ({zoo.layout.names[0]}, ...)")
    return search(stack([found], zoo.layout), zoo.factors(), zoo.names, top)[0]


def map_folder(collection: Path, output: Path, labels: Path | None = None, colour: str | None = None) -> Path:
    """Write the map of a collection, coloured by a label."""
    from coset.recipes.lora_pages import write_map

    zoo, colours = opened(collection), None
    file = labels or collection / "labels.csv"
    if colour is not None:
        if not file.is_file():
            raise CosetError(f"no table of labels {file} (--labels FILE)")
        table = pd.read_csv(file, dtype={"id": str}).set_index("id")
        if colour not in table:
            raise CosetError(f"{file} has no column {colour!r}; it has {', '.join(map(str, table.columns))}")
        colours = table[colour].reindex([n if n in table.index else Path(n).name for n in zoo.names])
    return write_map(output, list(zoo.names), map_of(zoo.factors()).numpy(), colours, f"Map of {collection.name}")


def _columns(table: pd.DataFrame, wanted: list[str]) -> list[str]:
    """Columns of labels; ``name*`` stands for all that begin so."""
    found: list[str] = []
    for name in wanted:
        matching = [c for c in table.columns if (c.startswith(name[:-1]) if name.endswith("*") else c == name)]
        if not matching:
            raise CosetError(f"no label {name!r}; the table has {', '.join(map(str, table.columns))}")
        found += matching
    if table[found].isna().any(axis=None):
        raise CosetError(f"labels are missing in {', '.join(c for c in found if table[c].isna().any())}")
    return found


def _headline(task: str) -> str:
    return "accuracy" if task == "classification" else "r2"
