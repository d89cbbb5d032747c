"""What lies between trained networks."""

from pathlib import Path
from typing import Annotated

import typer

from coset.core.commands import COMMANDS
from coset.core.files import named_after
from coset.runs.folder import REPORT
from coset.runs.terminal import console, print_notes, print_table


@COMMANDS.register("connect")
def connect(
    networks: Annotated[list[Path], typer.Argument(help="Two or more state dicts: .safetensors, or .pt of tensors.")],
    model: Annotated[str, typer.Option(help="file.py:function, package.module:function, or RUN:variant.")],
    data: Annotated[
        str | None, typer.Option(help="digits, mnist, cifar10-small, or an .npz of inputs and targets.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder to write; of a.pt and others runs/a-connection.")] = None,
    match: Annotated[str | None, typer.Option(help="none, weights, activations; by default both if possible.")] = None,
    points: Annotated[int, typer.Option(help="Of each curve, odd.")] = 25,
    rows: Annotated[int | None, typer.Option(min=1, help="Measure on the first so many rows.")] = None,
    seed: Annotated[int, typer.Option(help="Of weight matching.")] = 0,
) -> None:
    """Loss barriers between trained networks, as they are and with their neurons matched.

    Example: coset connect a.safetensors b.safetensors --model nets.py:build --data test.npz
    """
    from coset.weights.asymmetric.connect import connect as measure

    output = output or named_after(networks[0], "connection", Path("runs"))
    with console.status("measuring"):
        columns, table, notes = measure(
            networks, model, data, output, match=match, points=points, rows=rows, seed=seed
        )  # fmt: skip
    print_table(columns, table)
    print_notes(notes)
    console.print(f"look at {output / REPORT}", highlight=False, soft_wrap=True)
