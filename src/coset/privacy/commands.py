"""What a trained network gives away."""

from pathlib import Path
from typing import Annotated

import typer

from coset.core.commands import COMMANDS
from coset.core.files import named_after
from coset.runs.terminal import console, print_notes, print_table


@COMMANDS.register("audit")
def audit(
    weights: Annotated[
        Path, typer.Argument(help="Weights (safetensors, .pt) of linear layers and ReLUs; one output, or one a class.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="NPZ: x_train, y_train, x_test, y_test (best nine times as many); labels -1 and 1, 0 and 1, or class "
            "numbers. Or a table."
        ),
    ],
    held_out: Annotated[
        Path | None, typer.Option(help="Table of records never trained on; else the column split of --data says.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Column of tables that holds the labels.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write; it will hold private data. Of m.pt runs/m-audit.")
    ] = None,
    group: Annotated[str, typer.Option(help="plain, flips, c4, d4, shifts or sets.")] = "plain",
    loss: Annotated[str, typer.Option(help="mse or logistic; with several outputs always ce.")] = "logistic",
    weight_decay: Annotated[float | None, typer.Option(help="Of training, if there was any.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of descent; else the attack is chosen for the network.")
    ] = None,
    restarts: Annotated[int, typer.Option(min=1, help="Independent starts, side by side.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the starts.")] = 0,
    model: Annotated[str | None, typer.Option(help="FILE.py:NAME that makes another network of yours.")] = None,
    part: Annotated[int | None, typer.Option(min=1, help="Candidates at a time, to bound memory.")] = None,
    canaries: Annotated[bool, typer.Option(help="Train and attack controls: what the attack can find.")] = True,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """How much of its training data a model of your own gives away.

    Example: coset audit model.safetensors --data data.npz --output audit --group d4 --weight-decay 1e-3

    Example: coset audit mlp.pt --data patients.csv --held-out others.csv --target ill

    Example: coset audit cnn.safetensors --model cnn.py:make --data data.npz --output audit --group shifts
    """
    from coset.privacy.file_audit import FileAudit

    asked = FileAudit(
        weights=weights, data=data, held_out=held_out, target=target, group=group, loss=loss,
        weight_decay=weight_decay, steps=steps, restarts=restarts, seed=seed, model=model, part=part, plant=canaries,
    )  # fmt: skip
    output = output or named_after(weights, "audit", Path("runs"))
    result = asked.run(output, quiet)
    console.print(result.verdict.text, highlight=False, soft_wrap=True)
    print_notes(result.warnings)
    print_table(["measured", ""], [[name, f"{value:.4g}"] for name, value in result.numbers().items()])
    console.print(f"look at {output / 'report.html'}", highlight=False, soft_wrap=True)
