# %% [markdown]
# # Subgraphormer: a property of molecules
#
# Every molecule is seen as a bag of copies, one for each atom as the root; attention runs inside copies and across them
# (arXiv 2402.08450). Chains and rings, and the number of their carbon atoms, so that it takes seconds; with your own
# molecules: `coset run csv data.path=mine.csv data.target=solubility`.

# %%
from coset.graphs import Learner

smiles = [f"{'C' * n}{end}" for n in range(1, 11) for end in ("", "O", "N")] + [f"C1{'C' * n}1" for n in range(2, 8)]
carbons = [text.count("C") for text in smiles]
learner = Learner("subgraphormer", epochs=60, batch_size=8, learning_rate=0.005, width=16, layers=2, heads=2,
                  positional_encoding=2, readout="sum")  # fmt: skip
learner.fit(smiles, carbons)

# %%
for text, found in zip(["CCCCCCF", "OCCO"], learner.predict(["CCCCCCF", "OCCO"])):
    print(f"{text:8} {float(found):.2f} carbon atoms, in truth {text.count('C')}")

# %%
learner.plot("train")
