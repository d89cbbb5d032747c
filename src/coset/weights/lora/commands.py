"""LoRA adapters: look into them, collect, search, map."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from coset.core.commands import COMMANDS
from coset.core.errors import CosetError
from coset.runs.terminal import console, print_notes, print_table, track


@COMMANDS.register("lora inspect")
def inspect_adapter(
    path: Annotated[Path, typer.Argument(help="PEFT or diffusers folder, or a file of weights.")],
    adapter: Annotated[str | None, typer.Option(help="Which adapter, where there are several.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    page: Annotated[Path | None, typer.Option(help="Write a page too: norms and ranks by layer, spectra.")] = None,
) -> None:
    """Layers, ranks, scales, norms and effective ranks of an adapter.

    Example: coset lora inspect my-adapter --page my-adapter.html
    """
    from coset.weights.lora import inspect, load_lora

    facts = inspect(load_lora(path, adapter=adapter))
    if page is not None:
        from coset.weights.lora.pages import write_inspection

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
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    print_notes(facts.notes)


@COMMANDS.register("lora convert")
def convert(
    path: Annotated[Path, typer.Argument(help="Any adapter that can be read.")],
    output: Annotated[Path, typer.Argument(help="PEFT folder, or a .safetensors file in kohya's naming.")],
    rank: Annotated[int | None, typer.Option(help="Best approximation of this rank.")] = None,
) -> None:
    """Write an adapter in another form.

    Example: coset lora convert style.safetensors style-peft
    """
    from coset.weights.lora import load_lora, save_kohya, save_peft

    adapter = load_lora(path)
    adapter = adapter if rank is None else adapter.truncate(rank)
    written = (save_kohya if output.suffix == ".safetensors" else save_peft)(adapter, output)
    print_notes(adapter.notes)
    console.print(f"{len(adapter.layers)} layers written to {written}", highlight=False, soft_wrap=True)


@COMMANDS.register("lora collect")
def collect(
    folder: Annotated[Path, typer.Argument(help="Folder of adapters, at any depth.")],
    output: Annotated[Path, typer.Argument(help="Folder of the collection.")],
    layers: Annotated[str, typer.Option(help="same, intersection or union, where layers differ.")] = "same",
    skip_bad: Annotated[bool, typer.Option(help="Leave out adapters that cannot be read.")] = False,
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Read many adapters into one collection of memory-mapped arrays.

    Example: coset lora collect adapters zoo --skip-bad
    """

    from coset.weights.lora.data.zoo import build_zoo, find_adapters

    def bar(items: Any, what: str) -> Any:
        return track(items, what, quiet=quiet)

    sources = find_adapters(folder)
    zoo = build_zoo(sources, output, root=folder, layers=layers, skip_bad=skip_bad, dtype=dtype, progress=bar)
    print_notes((*zoo.notes, *(f"skipped {name}: {reason}" for name, reason in zoo.skipped)))
    console.print(f"{len(zoo)} adapters, rank {zoo.rank}, in {output}", highlight=False, soft_wrap=True)


@COMMANDS.register("lora zoo")
def make_zoo(
    recipe: Annotated[str, typer.Argument(help="Recipe of kind lora-zoo, e.g. lol/minilm-zoo.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. adapters=50")] = None,
    output: Annotated[Path, typer.Option(help="Folder; one that was interrupted is completed.")] = Path("runs/zoo"),
    seed: Annotated[int | None, typer.Option(help="Overrides the recipe's seed.")] = None,
    engine: Annotated[str, typer.Option(help="local (processes) or ray.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Finetunes at a time.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="Starts more for a worker that dies.")] = 2,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Make a collection: finetune many adapters and label them.

    Example: coset lora zoo lol/minilm-zoo --output runs/minilm-zoo --workers 4
    """
    from coset.runs.recipes import load
    from coset.weights.lora.zoo_experiment import LoraZooRecipe, Workers

    checked = load(recipe, list(overrides or []) + ([] if seed is None else [f"seed={seed}"]))
    if not isinstance(checked, LoraZooRecipe):
        raise CosetError(f"{recipe} is of kind {checked.kind}; coset lora zoo takes lora-zoo, e.g. lol/minilm-zoo")
    metrics = checked.run(output, prepared=Workers(engine, workers, retries), quiet=quiet)
    print_table(*checked.summary(metrics))
    console.print(f"{metrics['seconds']} s; everything is in {output}", highlight=False)


@COMMANDS.register("lora search")
def search(
    adapter: Annotated[Path, typer.Argument(help="An adapter.")],
    collection: Annotated[Path, typer.Argument(help="A collection, or a folder of adapters.")],
    top: Annotated[int, typer.Option(help="How many.")] = 10,
) -> None:
    """The adapters of a collection that are most like this one, however they are factorised.

    Example: coset lora search mine zoo
    """
    from coset.weights.lora.neighbours import search_folder

    print_table(["adapter", "cosine"], [[n.name, f"{n.cosine:.4f}"] for n in search_folder(adapter, collection, top)])


@COMMANDS.register("lora duplicates")
def find_duplicates(
    collection: Annotated[Path, typer.Argument(help="A collection, or a folder of adapters.")],
    threshold: Annotated[float, typer.Option(help="Smallest cosine that counts.")] = 0.99,
) -> None:
    """Pairs of adapters with nearly the same update.

    Example: coset lora duplicates zoo --threshold 0.95
    """
    from coset.weights.lora.collections import opened
    from coset.weights.lora.neighbours import duplicates

    zoo = opened(collection)
    found = duplicates(zoo.factors(), zoo.names, threshold)
    print_table(["adapter", "and", "cosine"], [[a, b, f"{c:.4f}"] for a, b, c in found])
    console.print(f"{len(found)} pairs among {len(zoo)} adapters", highlight=False)


@COMMANDS.register("lora map")
def draw_map(
    collection: Annotated[Path, typer.Argument(help="A collection, or a folder of adapters.")],
    output: Annotated[Path, typer.Option(help="The page.")] = Path("map.html"),
    labels: Annotated[Path | None, typer.Option(help="CSV with a column id; labels.csv by default.")] = None,
    colour: Annotated[str | None, typer.Option(help="Column of it that colours the points.")] = None,
) -> None:
    """A page with every adapter as a point, near those that are like it.

    Example: coset lora map runs/minilm-zoo --colour accuracy
    """
    from coset.weights.lora.neighbours import map_folder

    console.print(f"{map_folder(collection, output, labels, colour)}", highlight=False, soft_wrap=True)
