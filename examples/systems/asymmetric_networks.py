# %% [markdown]
# # Asymmetric networks: no permutation left
#
# Neurons of a layer can be swapped without changing what a network computes. A few fixed weights forbid it, and
# networks from different starts may then be averaged (arXiv 2405.20231).

# %%
from coset.weights.asymmetric import asymmetrize
from coset.weights.asymmetric.networks import mlp
from coset.weights.permutations.groups import permutation_spec, surviving_symmetries

network = mlp([64, 128, 128, 128, 10])
twin = asymmetrize(network, n_fix=[8, 16, 16, 64], kappa=[1, 1, 0.5, 0.25], seed=0)
print("before:", permutation_spec(network))
print("after:", surviving_symmetries(twin, permutation_spec(twin)) or "none survives")
