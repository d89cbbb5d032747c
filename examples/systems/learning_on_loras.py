# %% [markdown]
# # Learning on LoRAs: what an adapter was trained on, from its weights
#
# The same update has many factorisations; a network on factors should not care which (arXiv 2410.04207). A small
# collection is made, four models learn from it, and their page shows what other factors do to each.

# %%
from pathlib import Path

from coset.reports import bars, figure
from coset.runs.recipes import load
from coset.runs.run import execute

small = ["data.adapters=60", "training.epochs=2", "model.width=4", "model.hidden=16", "model.token_width=16"]
metrics = execute(load("lol/digits", small), Path("runs/loras"), quiet=True)
for name, scores in metrics["models"].items():
    other = scores["test after GL(r)"]["accuracy"]
    print(f"{name:12} accuracy {scores['test']['accuracy']:.2f}, with other factors {other:.2f}")

# %%
parts = ("test", "test after GL(r)")
models = metrics["models"]
figure(*(bars(list(models), [models[name][part]["accuracy"] for name in models], part) for part in parts), y="accuracy")
