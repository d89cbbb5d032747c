"""What a newcomer tries first, with files as other tools leave them: does it go through at the first attempt?

    python benchmarks/journeys.py [FOLDER] [--only NAME ...] [--processes]

A journey makes its files, gives one command or a few lines of Python, and says what must be there at the end. Commands
run in this process, or in one of their own with --processes, as from a shell. The table says how each ended and what
CPU seconds it took; the exit code is 1 if one did not go through. COSET_DATA holds the video.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from time import process_time

import networkx as nx
import numpy as np
import pandas as pd
import torch

from coset.core.data_files import data_file

JOURNEYS: dict[str, Callable[[Path], str]] = {}
SMILES = ["C" * k + tail for k in range(1, 13) for tail in ("", "O", "N", "Cl")]
QUICK = ["model.name=gin", "model.width=16", "model.layers=2", "training.epochs=2", "--quiet"]
PROCESSES = False


def journey(function: Callable[[Path], str]) -> Callable[[Path], str]:
    JOURNEYS[function.__name__.replace("_", " ")] = function
    return function


def coset(*arguments: object, code: int = 0) -> str:
    """What a command printed.

    Raises:
        AssertionError: It ended with another exit code.
    """
    line = [str(argument) for argument in arguments]
    if PROCESSES:
        done = subprocess.run([sys.executable, "-m", "coset", *line], capture_output=True, text=True)
        ended, text = done.returncode, done.stdout + done.stderr
    else:
        ended, text = _in_process(line)
    assert ended == code, f"coset {' '.join(line)} ended with {ended}: {text.strip()[-600:]}"
    return text


def _in_process(line: list[str]) -> tuple[int, str]:
    from coset.cli import main

    told, before = io.StringIO(), sys.argv
    sys.argv = ["coset", *line]
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            main()
    except SystemExit as end:
        return int(end.code or 0), told.getvalue()
    finally:
        sys.argv = before
    return 0, told.getvalue()


@journey
def a_column_called_SMILES(folder: Path) -> str:
    pd.DataFrame({"SMILES": SMILES, "solubility": range(len(SMILES))}).to_csv(folder / "mine.csv", index=False)
    coset("run", "csv", f"data.path={folder}/mine.csv", "data.target=solubility", "--output", folder / "run", *QUICK)
    coset("predict", folder / "run", folder / "mine.csv", "--output", folder / "out.csv", "--quiet")
    assert "prediction_solubility" in pd.read_csv(folder / "out.csv")
    coset("verify", folder / "run")
    return f"{(folder / 'run' / 'report.html').stat().st_size / 1e6:.1f} MB of page"


@journey
def a_target_of_words(folder: Path) -> str:
    kinds = ["alcohol" if "O" in text else "amine" if "N" in text else "other" for text in SMILES]
    pd.DataFrame({"smiles": SMILES, "kind": kinds}).to_csv(folder / "mine.csv", index=False)
    coset("run", "csv", f"data.path={folder}/mine.csv", "data.target=kind", "training.task=multiclass", "--output",
          folder / "run", *QUICK)  # fmt: skip
    coset("predict", folder / "run", folder / "mine.csv", "--output", folder / "out.csv", "--quiet")
    assert set(pd.read_csv(folder / "out.csv")["prediction_kind"]) <= set(kinds)
    return "classes by name"


@journey
def a_list_of_PyG_graphs(folder: Path) -> str:
    from torch_geometric.data import Data

    rng, graphs = np.random.default_rng(0), []
    for number in range(30):
        graph = nx.gnp_random_graph(8, 0.4, seed=number)
        edges = torch.tensor(list(graph.to_directed().edges), dtype=torch.long).reshape(-1, 2).T
        x = torch.from_numpy(rng.normal(size=(8, 3))).float()
        graphs.append(Data(x=x, edge_index=edges, y=torch.tensor([float(edges.size(1))])))
    torch.save(graphs, folder / "graphs.pt")
    coset("run", "graphs", f"data.path={folder}/graphs.pt", "--output", folder / "run", *QUICK)
    coset("verify", folder / "run")
    coset("predict", folder / "run", folder / "graphs.pt", "--output", folder / "out.csv", "--quiet")
    coset("run", "--resume", folder / "run", "--quiet")
    coset("embed", folder / "run", folder / "graphs.pt", "--output", folder / "vectors.csv")
    return "run, verify, predict, resume, embed"


@journey
def the_same_in_three_lines_of_Python(folder: Path) -> str:
    from coset.graphs import Learner

    graphs = [nx.cycle_graph(4 + k % 4) if k % 2 else nx.path_graph(4 + k % 4) for k in range(40)]
    learner = Learner("gin", width=16, layers=2, epochs=2).fit(graphs, ["ring", "chain"] * 20)
    assert set(learner.predict(graphs)) <= {"ring", "chain"}
    assert "<svg" in learner._repr_html_()
    learner.save_pretrained(folder / "use")
    assert (Learner.from_pretrained(folder / "use").predict(graphs) == learner.predict(graphs)).all()
    return ", ".join(sorted(file.name for file in (folder / "use").iterdir()))


@journey
def complexes_of_TopoNetX(folder: Path) -> str:
    import toponetx as tnx

    from coset.graphs import Learner

    complexes = []
    for number in range(16):
        made = tnx.CellComplex()
        made.add_cells_from([[0, 1, 2], [1, 2, 3]], rank=2)
        for extra in range(number % 4):
            made.add_edge(3, 4 + extra)
        complexes.append(made)
    learner = Learner("smcn", lift="none", width=8, layers=1, epochs=1).fit(
        complexes, [float(k % 4) for k in range(16)]
    )
    assert learner.predict(complexes).shape == (16,)
    return "objects in, numbers out"


@journey
def adapters_of_PEFT(folder: Path) -> str:
    import peft
    from torch import nn

    for number in range(4):
        torch.manual_seed(number)
        network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        model = peft.get_peft_model(network, peft.LoraConfig(r=2, target_modules=["0", "2"], init_lora_weights=False))
        model.save_pretrained(folder / "zoo" / f"a{number}")
    one = folder / "zoo" / "a0"
    coset("lora", "inspect", one)
    coset("lora", "convert", one, folder / "again")
    coset("lora", "merge", one, folder / "zoo" / "a1", "--output", folder / "both")
    coset("lora", "collect", folder / "zoo", folder / "collection", "--quiet")
    coset("lora", "search", one, folder / "collection")
    coset("lora", "duplicates", folder / "collection")
    return "inspect, convert, merge, collect, search, duplicates"


@journey
def two_BERTs_of_different_length(folder: Path) -> str:
    """A merge that cannot be done is refused by --check already, in one line."""
    from transformers import BertConfig, BertModel

    for name, positions in (("a", 64), ("b", 32)):
        torch.manual_seed(positions)
        config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                            intermediate_size=32, max_position_embeddings=positions)  # fmt: skip
        BertModel(config).save_pretrained(folder / name)
    models = [{"model": str(folder / name)} for name in "ab"]
    text = json.dumps({"merge_method": "linear", "models": models, "output": str(folder / "merged")})
    (folder / "merge.yaml").write_text(text)
    told = coset("merge", folder / "merge.yaml", "--check", code=1)
    assert told.count("\n") == 1, told
    return told.strip()[:90]


@journey
def a_network_to_audit(folder: Path) -> str:
    from safetensors.torch import save_file
    from torch import nn

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1, bias=False))
    save_file(network.state_dict(), folder / "model.safetensors")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 6)).astype(np.float32)
    y = np.sign(rng.normal(size=24)).astype(np.float32)
    np.savez(folder / "data.npz", x_train=x[:12], y_train=y[:12], x_test=x[12:], y_test=y[12:])
    told = coset("audit", folder / "model.safetensors", "--data", folder / "data.npz", "--output", folder / "audit",
                 "--steps", 20, "--quiet")  # fmt: skip
    assert "report.html" in told
    return "Linear-ReLU-Linear, without a bias in the second layer"


@journey
def a_video(folder: Path) -> str:
    coset("reconstruct", data_file("motion/cat.mp4"), "--output", folder / "scene", "--points", 200,
          "--refine", "none", "--quiet")  # fmt: skip
    return ", ".join(sorted(file.name for file in (folder / "scene").iterdir()))[:90]


@journey
def runs_of_different_data_are_not_ranked(folder: Path) -> str:
    for name, factor in (("a", 1), ("b", 100)):
        table = pd.DataFrame({"smiles": SMILES, f"target_{name}": np.arange(len(SMILES)) * factor})
        table.to_csv(folder / f"{name}.csv", index=False)
        coset("run", "csv", f"data.path={folder}/{name}.csv", f"data.target=target_{name}", "--output", folder / name,
              *QUICK)  # fmt: skip
    coset("report", folder / "a", folder / "b", "--output", folder / "both.html")
    text = (folder / "both.html").read_text()
    assert "a.csv" in text
    assert "b.csv" in text
    return "a table for each"


@journey
def an_ensemble_with_intervals(folder: Path) -> str:
    pd.DataFrame({"smiles": SMILES, "y": range(len(SMILES))}).to_csv(folder / "mine.csv", index=False)
    data = [f"data.path={folder}/mine.csv", "data.target=y", "data.split_seed=0", "data.fractions=[0.6,0.3,0.1]"]
    coset("sweep", "csv", *data, "--seeds", 2, "--output", folder / "two", *QUICK)
    coset("predict", folder / "two", folder / "mine.csv", "--output", folder / "out.csv", "--interval", 0.9, "--quiet")
    assert {"prediction_y", "spread_y", "low_y", "high_y"} <= set(pd.read_csv(folder / "out.csv"))
    return "prediction, spread, low, high"


@journey
def molecules_without_RDKit(folder: Path) -> str:
    """One line that names the package, not the first row."""
    pd.DataFrame({"smiles": SMILES, "y": range(len(SMILES))}).to_csv(folder / "mine.csv", index=False)
    line = ["coset", "run", "csv", f"data.path={folder}/mine.csv", "data.target=y", "--output", str(folder / "run")]
    code = f"import sys; sys.modules['rdkit'] = None; sys.argv = {line!r}; from coset.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    told = done.stderr.strip()
    assert done.returncode == 1, told
    assert 'pip install "coset[molecules]"' in told, told
    assert "row" not in told, told
    return told[:90]


def main() -> None:
    global PROCESSES
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where files are left; a temporary one by default")
    parser.add_argument("--only", nargs="+", help=f"of: {', '.join(JOURNEYS)}")
    parser.add_argument("--processes", action="store_true", help="each command in a process of its own")
    options = parser.parse_args()
    PROCESSES = options.processes
    chosen = [name for name in JOURNEYS if options.only is None or name in options.only]
    failed = 0
    print("| journey | first attempt | CPU s | |\n| --- | --- | --- | --- |")
    with contextlib.ExitStack() as stack:
        root = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="journeys-")))
        for name in chosen:
            place = root / name.replace(" ", "-")
            place.mkdir(parents=True)
            start = process_time() + sum(os.times()[2:4])
            try:
                ended, told = "yes", JOURNEYS[name](place)
            except Exception as error:
                ended, failed = "**no**", failed + 1
                told = " ".join(str(error).split())[:300] or traceback.format_exc(limit=1)
            print(f"| {name} | {ended} | {process_time() + sum(os.times()[2:4]) - start:.0f} | {told} |", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
