"""Ragged index sets, their products, sparse relations between them, and four verbs: the one hot path of Coset.

Features of a batch are rows of one tensor. A set with sizes (3, 5) has 8 rows; its product with itself has 9 + 25 rows,
row ``s * n + v`` of a graph's block holding X[s, v]. A relation acts on one axis of a product (``along=0`` or
``along=1``), so A (x) I and I (x) A are never written down: index memory is that of A.
"""

from coset.relations.index_sets import IndexSet, Product
from coset.relations.relation import Relation
from coset.relations.verbs import attend, broadcast, marginalise, pool, propagate, use_kernels

__all__ = ["IndexSet", "Product", "Relation", "attend", "broadcast", "marginalise", "pool", "propagate", "use_kernels"]
