# %% [markdown]
# # SMCN: seeing topology
#
# A cylinder and a Möbius strip of the same size: higher-order message passing cannot tell them apart, a network on
# pairs of cells can (arXiv 2408.05486). Both answers are exact.

# %%
from coset.topology import SubcomplexRefinement, separates
from coset.topology.data.torus import strip

cylinder, moebius = strip(5), strip(5, twisted=True)
print("higher-order message passing tells them apart:", separates(cylinder, moebius))
print("pairs of cells tell them apart:", separates(cylinder, moebius, SubcomplexRefinement((0, 1))))
