"""Trained networks: connect, merge, audit."""

from pathlib import Path
from typing import Annotated

import typer

from coset.runs.terminal import console, print_notes, print_table, problems


def connect(
    networks: Annotated[list[Path], typer.Argument(help="Two or more state dicts: .safetensors, or .pt of tensors.")],
    model: Annotated[str, typer.Option(help="file.py:function, package.module:function, or RUN:variant.")],
    data: Annotated[
        str | None, typer.Option(help="digits, mnist, cifar10-small, or an .npz of inputs and targets.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder to write.")] = Path("connection"),
    match: Annotated[str | None, typer.Option(help="none, weights, activations; by default both if possible.")] = None,
    points: Annotated[int, typer.Option(help="Of each curve, odd.")] = 25,
    rows: Annotated[int | None, typer.Option(min=1, help="Measure on the first so many rows.")] = None,
    seed: Annotated[int, typer.Option(help="Of weight matching.")] = 0,
) -> None:
    """Loss barriers between trained networks, as they are and with their neurons matched.

    Example: coset connect a.safetensors b.safetensors --model nets.py:build --data test.npz
    """
    from coset.weights.asymmetric.connect import connect as measure

    with console.status("measuring"):
        columns, table, notes = measure(
            networks, model, data, output, match=match, points=points, rows=rows, seed=seed
        )  # fmt: skip
    print_table(columns, table)
    print_notes(notes)
    console.print(f"look at {output / 'report.html'}", highlight=False, soft_wrap=True)


def merge(
    recipe: Annotated[Path, typer.Argument(help="YAML: merge_method, models, parameters, output.")],
    check: Annotated[bool, typer.Option("--check", help="Only say whether and how it can be done.")] = False,
    output: Annotated[Path | None, typer.Option(help="Folder to write; by default the file's.")] = None,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
) -> None:
    """Merge checkpoints of transformers into one that from_pretrained loads.

    Example: coset merge two-tasks.yaml --check; coset merge two-tasks.yaml --output merged
    """
    from rich.progress import Progress

    from coset.weights.merging import merge_file, merge_results

    wanted = merge_file.load(recipe)
    if output is not None:
        wanted = wanted.model_copy(update={"output": str(output)})
    if check:
        for line in merge_file.check(wanted):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    with Progress(console=problems, disable=quiet) as bar:
        work = bar.add_task(wanted.merge_method, total=None)
        facts = merge_file.run(wanted, progress=lambda done, of: bar.update(work, completed=done, total=of))
    print_notes(facts["notes"])
    if facts.get("scores"):
        print_table(*merge_results.summary(facts))
    console.print(f"{facts['seconds']} s; written to {wanted.output}", highlight=False, soft_wrap=True)


def audit(
    weights: Annotated[Path, typer.Argument(help="safetensors of a ReLU network with one output, or one a class.")],
    data: Annotated[
        Path, typer.Option(help="NPZ: x_train, y_train, x_test, y_test; labels -1 and 1, 0 and 1, or class numbers.")
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; it will hold private data.")],
    group: Annotated[str, typer.Option(help="plain, flips, c4, d4, shifts or sets.")] = "plain",
    loss: Annotated[str, typer.Option(help="mse or logistic; with several outputs always ce.")] = "logistic",
    weight_decay: Annotated[float | None, typer.Option(help="Of training, if there was any.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of the search.")] = 3000,
    restarts: Annotated[int, typer.Option(min=1, help="Independent starts, side by side.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the starts.")] = 0,
    model: Annotated[str | None, typer.Option(help="FILE.py:NAME that makes another network of yours.")] = None,
    part: Annotated[int | None, typer.Option(min=1, help="Candidates at a time, to bound memory.")] = None,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """How much of its training data a model of your own gives away.

    Example: coset audit model.safetensors --data data.npz --output audit --group d4 --weight-decay 1e-3

    Example: coset audit cnn.safetensors --model cnn.py:make --data data.npz --output audit --group shifts
    """
    from coset.privacy.experiments import audit_files

    results, warnings = audit_files(
        weights, data, output, group, loss, weight_decay, steps, restarts, seed, model, part, quiet
    )
    print_notes(warnings)
    print_table(["measured", ""], [[k, f"{v:.4g}"] for k, v in results.items()])
    console.print(f"look at {output / 'report.html'}", highlight=False, soft_wrap=True)
