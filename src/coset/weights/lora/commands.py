"""LoRA adapters: look into them, collect, search, map."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from coset.core.commands import COMMANDS
from coset.core.errors import CosetError
from coset.core.files import claimed_output, named_after
from coset.runs.terminal import console, print_notes, print_table, track

ALPHA = typer.Option(help="Alpha of all layers, where the file tells none.")
LOSSY = typer.Option("--lossy", help="Go on without what cannot be carried.")
FORM = typer.Option("--to", help="peft, diffusers, kohya or comfyui; by default peft for folders, kohya for files.")
SKIP = typer.Option(help="Leave out adapters that cannot be read.")
MODEL = typer.Option(help="flux or hunyuan, where layers are called alike in both and the file does not tell.")
NETWORK = typer.Option(help="Only the layers of this network of a pipeline, e.g. unet.")


@COMMANDS.register("lora inspect")
def inspect_adapter(
    path: Annotated[Path, typer.Argument(help="PEFT or diffusers folder, or a file of weights.")],
    adapter: Annotated[str | None, typer.Option(help="Which adapter, where there are several.")] = None,
    alpha: Annotated[float | None, ALPHA] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    page: Annotated[Path | None, typer.Option(help="Write a page too: norms and ranks by layer, spectra.")] = None,
) -> None:
    """Layers, ranks, scales, norms and effective ranks of an adapter; of a folder of several, a line each.

    Example: coset lora inspect my-adapter --page my-adapter.html
    """
    from coset.weights.lora import inspect, load_lora
    from coset.weights.lora.data.inspection import adapters_beside

    others = adapters_beside(path, adapter)
    if adapter is None and others is not None and others.apart:
        if len(others.names) > 1:
            _inspect_all(path, others, alpha, json)
            return
        path, others = path / others.names[0], None
    facts = inspect(load_lora(path, adapter=adapter, alpha=alpha))
    if page is not None:
        from coset.weights.lora.pages import write_inspection

        with claimed_output(page):
            write_inspection(page, facts)
    if json:
        typer.echo(json_module.dumps(facts.to_dict(), indent=2))
        return
    rows = [
        [f.name, f.kind, f"{f.n} x {f.m}", str(f.rank), f"{f.scale:g}", f"{f.norm:.4g}", f"{f.effective_rank:.2f}"]
        for f in facts.layers
    ]
    print_table(["layer", "kind", "shape", "rank", "scale", "norm", "effective rank"], rows)
    base = f", base model {facts.base_model}" if facts.base_model else ""
    console.print(
        f"{facts.name} ({facts.source_format}{base}): {len(rows)} layers, {facts.parameters:,} numbers for "
        f"{facts.dense_parameters:,} of the updates, norm {facts.norm:.4g}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    more, links = (others.names, others.notes) if others is not None else ([], ())
    print_notes((*facts.notes, *([f"further adapters in it: {', '.join(more)}"] if more else []), *links))


def _inspect_all(folder: Path, found: Any, alpha: float | None, json: bool) -> None:
    """A line for each adapter of a folder, or why it cannot be read."""
    from coset.weights.lora import inspect, load_lora

    rows: list[list[str]] = []
    for name in found.names:
        try:
            facts = inspect(load_lora(folder / name, alpha=alpha))
        except CosetError as error:
            rows.append([name, "", "", "", "", str(error).removeprefix(f"{folder / name}: ")])
            continue
        ranks = sorted({layer.rank for layer in facts.layers})
        shown = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        rows.append(
            [name, facts.source_format, str(len(facts.layers)), shown, f"{facts.norm:.4g}", "; ".join(facts.notes)]
        )
    head = ["adapter", "written as", "layers", "rank", "norm", "notes"]
    if json:
        typer.echo(json_module.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=2))
        return
    print_table(head, rows)
    console.print(f"{len(rows)} adapters in {folder}", highlight=False, soft_wrap=True)
    print_notes(found.notes)


@COMMANDS.register("lora convert")
def convert(
    path: Annotated[Path, typer.Argument(help="Any adapter that can be read.")],
    output: Annotated[
        Path | None, typer.Argument(help="A folder (PEFT), or a .safetensors file; of style.safetensors style-peft.")
    ] = None,
    form: Annotated[str | None, FORM] = None,
    rank: Annotated[int | None, typer.Option(help="Best approximation of this rank.")] = None,
    alpha: Annotated[float | None, ALPHA] = None,
    network: Annotated[str | None, NETWORK] = None,
    adapter: Annotated[str | None, typer.Option(help="Which adapter, where there are several.")] = None,
    lossy: Annotated[bool, LOSSY] = False,
    model: Annotated[str | None, MODEL] = None,
) -> None:
    """Write an adapter in another form.

    Example: coset lora convert style.safetensors style-peft
    """
    from coset.weights.lora import load_lora
    from coset.weights.lora.data.naming import of_model

    found = load_lora(path, adapter=adapter, alpha=alpha)
    if rank is not None:
        error = found.truncation_error(rank)
        found = found.truncate(rank)
        console.print(f"rank {rank}: relative error {error:.3g} of the updates", highlight=False)
    _write(of_model(found, model), output or _beside(path, form), form, network, lossy)


@COMMANDS.register("lora merge")
def merge_adapters(
    adapters: Annotated[list[Path], typer.Argument(help="Adapters.")],
    output: Annotated[
        Path | None, typer.Option(help="A folder (PEFT), or a .safetensors file; of a and b a-merged.")
    ] = None,
    method: Annotated[str, typer.Option(help="linear, cat, svd, ties, dare_linear or dare_ties.")] = "linear",
    weights: Annotated[str | None, typer.Option(help="One an adapter, as in 0.5,0.5; each 1 by default.")] = None,
    rank: Annotated[int | None, typer.Option(help="Of the result: the best of this rank.")] = None,
    density: Annotated[
        float | None, typer.Option(help="Share of entries that ties and dare keep; by default .5.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of what dare drops; by default 0.")] = None,
    form: Annotated[str | None, FORM] = None,
    alpha: Annotated[float | None, ALPHA] = None,
    network: Annotated[str | None, NETWORK] = None,
    lossy: Annotated[bool, LOSSY] = False,
    model: Annotated[str | None, MODEL] = None,
) -> None:
    """Combine adapters into one: a weighted sum of their updates, exact or of a rank.

    Example: coset lora merge style subject --output both --weights 1,0.7 --method svd --rank 16
    """
    from coset.weights.lora import load_lora
    from coset.weights.lora.combining import Mixing, combine, unused
    from coset.weights.lora.data.naming import of_model
    from coset.weights.lora.data.writing import check_whole

    found = [load_lora(path, alpha=alpha) for path in adapters]
    for one in () if lossy else found:
        check_whole(one)
    shares = [1.0] * len(found) if weights is None else [_number(w) for w in weights.split(",")]
    mixing = Mixing(shares, rank, Mixing.density if density is None else density, seed or 0)
    made, idle = combine(found, method, mixing), [f"--{name}" for name in unused(method, density, seed)]
    print_notes((*made.notes, *([f"{method} does not look at {' and '.join(idle)}"] if idle else [])))
    console.print(f"relative error of the updates: {made.error:.3g}", highlight=False)
    _write(of_model(made.adapter, model), output or _beside(adapters[0], form, "merged"), form, network, lossy)


@COMMANDS.register("lora apply")
def apply_adapter(
    base: Annotated[Path, typer.Argument(help="Folder of the base model (safetensors), or one file of it.")],
    path: Annotated[Path, typer.Argument(help="An adapter of it.")],
    output: Annotated[
        Path | None, typer.Argument(help="Folder, or file if the base is one; of bert bert-adapted.")
    ] = None,
    strength: Annotated[float, typer.Option(help="What the update is multiplied with.")] = 1.0,
    alpha: Annotated[float | None, ALPHA] = None,
    network: Annotated[str | None, NETWORK] = None,
    adapter: Annotated[str | None, typer.Option(help="Which adapter, where there are several.")] = None,
    lossy: Annotated[bool, LOSSY] = False,
) -> None:
    """Write a base model with an adapter in it, shard by shard.

    Example: coset lora apply bert my-adapter bert-adapted
    """
    from coset.weights.lora import load_lora
    from coset.weights.lora.applying import apply, left_behind
    from coset.weights.lora.data.naming import canonical
    from coset.weights.lora.data.writing import alone, check_whole, only

    found = load_lora(path, adapter=adapter, alpha=alpha)
    if not lossy:
        check_whole(found)
    found = canonical(found)
    found = alone(found) if network is None else only(found, network)
    output = output or named_after(base, "adapted" + (base.suffix if base.is_file() else ""))
    with claimed_output(output):
        changed = apply(found, base, output, strength)
    left = left_behind(base)
    print_notes([f"not copied from {base}, as code or what no loader reads: {', '.join(left)}"] if left else [])
    console.print(f"{changed} parameters changed; written to {output}", highlight=False, soft_wrap=True)


def _beside(path: Path, form: str | None, what: str = "") -> Path:
    """A new folder or file for an adapter that is made of another."""
    form = form or "peft"
    return named_after(path, (what or form) + (".safetensors" if form in ("kohya", "comfyui") else ""))


def _write(adapter: Any, output: Path, form: str | None, network: str | None, lossy: bool) -> None:
    """In a form that has a place for all of it, or what that has a place for."""
    from coset.weights.lora.applying import new_output
    from coset.weights.lora.data import writing

    if not lossy:
        writing.check_whole(adapter)
    chosen = form or ("kohya" if output.suffix == ".safetensors" else "peft")
    if network is not None:
        adapter = writing.only(writing.canonical(adapter), network)
    with claimed_output(output), new_output(output, chosen == "peft") as part:
        if lossy:
            writing.save_lossy(adapter, part, chosen)
        else:
            writing.WRITERS[chosen](adapter, part)
    print_notes(adapter.notes)
    console.print(f"{len(adapter.layers)} layers written to {output}", highlight=False, soft_wrap=True)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise CosetError(f"--weights holds {text!r}: numbers between commas were expected") from error


@COMMANDS.register("lora collect")
def collect(
    folder: Annotated[Path, typer.Argument(help="Folder of adapters, at any depth.")],
    output: Annotated[Path | None, typer.Argument(help="Folder of the collection; of adapters adapters-zoo.")] = None,
    layers: Annotated[str, typer.Option(help="same, intersection or union, where layers differ.")] = "same",
    skip_bad: Annotated[bool, SKIP] = False,
    lossy: Annotated[bool, LOSSY] = False,
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Read many adapters into one collection of memory-mapped arrays.

    Example: coset lora collect adapters zoo --skip-bad
    """

    from coset.weights.lora.data.finding import adapters_below
    from coset.weights.lora.data.zoo import build_zoo

    def bar(items: Any, what: str) -> Any:
        return track(items, what, quiet=quiet)

    found = adapters_below(folder)
    output = output or named_after(folder, "zoo")
    zoo = build_zoo(
        found.paths, output, root=folder, layers=layers, skip_bad=skip_bad, lossy=lossy, dtype=dtype, progress=bar
    )
    print_notes((*found.notes, *zoo.notes, *(f"skipped {name}: {reason}" for name, reason in zoo.skipped)))
    console.print(f"{len(zoo)} adapters, rank {zoo.rank}, in {output}", highlight=False, soft_wrap=True)


@COMMANDS.register("lora zoo")
def make_zoo(
    recipe: Annotated[str, typer.Argument(help="Recipe of kind lora-zoo, e.g. lol/minilm-zoo.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. adapters=50")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder; one that was interrupted is completed. Of lol/minilm-zoo runs/lol-minilm-zoo."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Overrides the recipe's seed.")] = None,
    engine: Annotated[str, typer.Option(help="local (processes) or ray.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Finetunes at a time.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="Starts more for a worker that dies.")] = 2,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Make a collection: finetune many adapters and label them.

    Example: coset lora zoo lol/digits-zoo --output runs/digits-zoo --workers 4
    """
    from coset.runs.recipes import load
    from coset.weights.lora.zoo_experiment import LoraZooRecipe, Workers

    checked = load(recipe, list(overrides or []) + ([] if seed is None else [f"seed={seed}"]))
    if not isinstance(checked, LoraZooRecipe):
        raise CosetError(f"{recipe} is of kind {checked.kind}; coset lora zoo takes lora-zoo, e.g. lol/minilm-zoo")
    output = output or Path("runs", checked.name.replace("/", "-"))
    metrics = checked.run(output, prepared=Workers(engine, workers, retries), quiet=quiet)
    print_table(*checked.summary(metrics))
    console.print(f"{metrics['seconds']} s; everything is in {output}", highlight=False)


@COMMANDS.register("lora search")
def search(
    adapter: Annotated[Path, typer.Argument(help="An adapter.")],
    collection: Annotated[Path, typer.Argument(help="A collection, or a folder of adapters.")],
    top: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    skip_bad: Annotated[bool, SKIP] = False,
    lossy: Annotated[bool, LOSSY] = False,
) -> None:
    """The adapters of a collection that are most like this one, however they are factorised.

    Example: coset lora search mine zoo
    """
    from coset.weights.lora.neighbours import about_cosines, asked, gathered, nearest, outside

    zoo = gathered(collection, skip_bad)
    query = asked(adapter, zoo, lossy)
    found, others = nearest(query, zoo, top), outside(query, zoo)
    print_table(["adapter", "cosine"], [[n.name, f"{n.cosine:.4f}"] for n in found])
    counted = "not compared" if zoo.is_cut else "orthogonal to all of it"
    told = (
        [f"{adapter} has {len(others)} layers that the collection lacks ({others[0]}, ...): {counted}"]
        if others
        else []
    )
    print_notes((*about_cosines(zoo), *told))


@COMMANDS.register("lora duplicates")
def find_duplicates(
    collection: Annotated[Path, typer.Argument(help="A collection, or a folder of adapters.")],
    threshold: Annotated[float, typer.Option(help="Smallest cosine that counts.")] = 0.99,
    skip_bad: Annotated[bool, SKIP] = False,
) -> None:
    """Pairs of adapters with nearly the same update.

    Example: coset lora duplicates zoo --threshold 0.95
    """
    from coset.weights.lora.neighbours import about_cosines, duplicates, gathered

    zoo = gathered(collection, skip_bad)
    found = duplicates(zoo.factors(), zoo.names, threshold)
    print_table(["adapter", "and", "cosine"], [[a, b, f"{c:.4f}"] for a, b, c in found])
    console.print(f"{len(found)} pairs among {len(zoo)} adapters", highlight=False)
    print_notes(about_cosines(zoo))


@COMMANDS.register("lora map")
def draw_map(
    collection: Annotated[Path, typer.Argument(help="A collection, or a folder of adapters.")],
    output: Annotated[Path | None, typer.Option(help="The page; of zoo zoo-map.html.")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV with a column id; labels.csv by default.")] = None,
    colour: Annotated[str | None, typer.Option(help="Column of it that colours the points.")] = None,
    skip_bad: Annotated[bool, SKIP] = False,
) -> None:
    """A page with every adapter as a point, near those that are like it.

    Example: coset lora map runs/digits-zoo --colour accuracy
    """
    from coset.weights.lora.neighbours import map_folder

    output = output or named_after(collection, "map.html")
    with claimed_output(output):
        page = map_folder(collection, output, labels, colour, skip_bad)
    console.print(f"{page}", highlight=False, soft_wrap=True)
