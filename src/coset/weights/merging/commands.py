"""One network from several."""

from pathlib import Path
from typing import Annotated

import typer

from coset.core.commands import COMMANDS
from coset.runs.terminal import bars, console, print_notes, print_table


@COMMANDS.register("merge")
def merge(
    recipe: Annotated[Path, typer.Argument(help="YAML: merge_method, models, parameters, output.")],
    check: Annotated[bool, typer.Option("--check", help="Only say whether and how it can be done.")] = False,
    output: Annotated[Path | None, typer.Option(help="Folder to write; by default the file's.")] = None,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
) -> None:
    """Merge checkpoints of transformers into one that from_pretrained loads.

    Example: coset merge two-tasks.yaml --check; coset merge two-tasks.yaml --output merged
    """

    from coset.weights.merging import merge_file, merge_results
    from coset.weights.merging.merge_options import load

    wanted = load(recipe)
    if output is not None:
        wanted = wanted.model_copy(update={"output": str(output)})
    if check:
        for line in merge_file.check(wanted):
            console.print(line, highlight=False, soft_wrap=True)
        return
    with bars(quiet) as bar:
        work = bar.add_task(wanted.merge_method, total=None)
        facts = merge_file.run(wanted, progress=lambda done, of: bar.update(work, completed=done, total=of))
    print_notes(facts["notes"])
    if facts.get("scores"):
        print_table(*merge_results.summary(facts))
    console.print(f"{facts['seconds']} s; written to {wanted.output}", highlight=False, soft_wrap=True)
