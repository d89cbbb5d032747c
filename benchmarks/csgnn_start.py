"""Where CS-GNN starts: its marks beside the atoms, and the first epochs of training, with the published start and ours.

Run: python benchmarks/csgnn_start.py [--sets 1 5 n] [--starts scaled unit published] [--seeds 0 1 2] [--epochs 12]
[--data FOLDER]. Molecules of ZINC (`zinc12k_train.csv` and `zinc12k_val.csv`, looked for in COSET_DATA/molecules), one
thread. A row a number of sets, seed and start, as JSON: the mean of X(S, v) over all pairs of 64 molecules (`offset`),
the mean norm of an encoded atom (`atoms`), the share of the channels that have one sign on 95 % of the pairs
(`one_sign`), all at width 96; then the validation MAE after every epoch on 1,000 molecules (3 layers of width 32,
batches of 32, Adam, a rate of .002 that rises for a tenth of the steps and falls to nothing), and the mean of the last
three.
"""

import argparse
import json
import time

import pandas as pd
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import Compose

from coset.core.data_files import data_file
from coset.graphs import CSGNN, BagGraph
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES, smiles_to_data
from coset.graphs.models.csgnn import STARTS, BagEncoder
from coset.graphs.transforms import Coarsen, ShortestPathDistances

TRAIN, VALIDATION, SHOWN, BATCH, RATE = 1000, 500, 64, 32, 2e-3


def molecules(file: str, count: int, sets: str, folder: str | None) -> list[Data]:
    """The first molecules of a file, with so many sets each."""
    table = pd.read_csv(data_file(f"molecules/{file}", folder))[:count]
    (target,) = [column for column in table if column != "smiles"]
    method = {"1": Coarsen("whole"), "n": Coarsen("singletons")}.get(sets) or Coarsen("spectral", size=int(sets))
    steps, made = Compose([ShortestPathDistances(5), method]), []
    for smiles, value in zip(table["smiles"], table[target], strict=True):
        data = steps(smiles_to_data(smiles))
        data.y = torch.tensor([[value]], dtype=torch.float32)
        made.append(data)
    return made


@torch.no_grad()
def offsets(graphs: list[Data], start: str) -> dict[str, float]:
    encoder, batch = BagEncoder(list(ATOM_SIZES), 96, start=start), Batch.from_data_list(graphs)
    x, atoms = encoder(batch, BagGraph.from_batch(batch)), encoder.nodes(batch.x)
    positive = (x > 0).float().mean(0)
    one_sign = ((positive > 0.95) | (positive < 0.05)).float().mean()
    numbers = {"offset": x.mean(0).norm(), "atoms": atoms.norm(dim=1).mean(), "one_sign": one_sign}
    return {name: round(float(value), 2) for name, value in numbers.items()}


def train(model: nn.Module, graphs: list[Data], held_out: list[Data], epochs: int, seed: int) -> list[float]:
    """Validation MAE after every epoch."""
    steps = epochs * -(-len(graphs) // BATCH)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    generator, errors = torch.Generator().manual_seed(seed), []
    for _ in range(epochs):
        model.train()
        for chosen in torch.randperm(len(graphs), generator=generator).split(BATCH):
            batch = Batch.from_data_list([graphs[i] for i in chosen.tolist()])
            loss = (model(batch) - batch.y).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        errors.append(round(validate(model, held_out), 3))
    return errors


@torch.no_grad()
def validate(model: nn.Module, graphs: list[Data]) -> float:
    model.eval()
    batches = [Batch.from_data_list(graphs[i : i + 100]) for i in range(0, len(graphs), 100)]
    return sum(float((model(batch) - batch.y).abs().sum()) for batch in batches) / len(graphs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["1", "5", "n"], help="sets a molecule")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12, help="0: no training")
    parser.add_argument("--data", help="folder of the two files, by default looked for in COSET_DATA")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for sets in options.sets:
        graphs = molecules("zinc12k_train.csv", TRAIN, sets, options.data)
        held_out = molecules("zinc12k_val.csv", VALIDATION, sets, options.data)
        for seed in options.seeds:
            for start in options.starts:
                torch.manual_seed(seed)
                row = {"sets": sets, "start": start, "seed": seed} | offsets(held_out[:SHOWN], start)
                if options.epochs:
                    torch.manual_seed(seed)
                    model = CSGNN(1, list(ATOM_SIZES), list(BOND_SIZES), width=32, layers=3, start=start)
                    used = time.process_time()
                    row["mae"] = train(model, graphs, held_out, options.epochs, seed)
                    row["last"] = round(sum(row["mae"][-3:]) / len(row["mae"][-3:]), 3)
                    row["cpu_seconds"] = round(time.process_time() - used)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
