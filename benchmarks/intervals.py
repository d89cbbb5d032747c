"""Do intervals of `coset predict --interval 0.9` hold 90 % of new truths? Ten random splits of ESOL and of FreeSolv.

    python benchmarks/intervals.py [runs=FOLDER] [recipes=gin/esol,gin/freesolv] [seeds=10] [share=0.9]

A run a split (`coset run RECIPE seed=S data.fractions=[0.7,0.15,0.15]`); the margin is that of its validation rows, the
coverage the share of its test rows that are inside. Runs are kept in the folder and read when the script is run again.
"""

import json
import sys
from pathlib import Path

import numpy as np

from coset.graphs.data.graph_table import GraphTable
from coset.graphs.prediction import conformal_margins
from coset.runs.recipes import load
from coset.runs.results import RunResults

options = {"runs": "runs/intervals", "recipes": "gin/esol,gin/freesolv", "seeds": "10", "share": "0.9"}
options |= dict(argument.split("=", 1) for argument in sys.argv[1:])
share, found = float(options["share"]), {}
for name in options["recipes"].split(","):
    rows = []
    for seed in range(int(options["seeds"])):
        folder = Path(options["runs"]) / name.replace("/", "-") / f"seed-{seed}"
        recipe = load(name, [f"seed={seed}", "data.split=random", "data.fractions=[0.7,0.15,0.15]"])
        recipe.run(folder, quiet=True)
        (margin,) = conformal_margins([folder], GraphTable([], ("y",)), share)
        run = RunResults(folder)
        test = run.predictions["split"] == "test"
        inside = ((run.values("prediction", "y") - run.values("target", "y"))[test].abs() <= margin).mean()
        rows.append({"seed": seed, "margin": float(margin), "coverage": float(inside), "test": int(test.sum())})
        print(name, rows[-1], flush=True)
    coverage = np.array([row["coverage"] for row in rows])
    found[name] = {"mean": float(coverage.mean()), "sd": float(coverage.std(ddof=1)), "splits": rows}
print(json.dumps({name: {k: v for k, v in value.items() if k != "splits"} for name, value in found.items()}, indent=2))
