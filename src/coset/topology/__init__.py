"""Complexes, liftings, topological invariants; HOMP, MCN and SMCN."""

from coset.topology.adapters import from_toponetx, to_toponetx
from coset.topology.batches import CellBatch, ComplexData, disjoint_copies, to_data
from coset.topology.complexes import Complex, disjoint_union, from_faces
from coset.topology.homp import CIN, HOMP, HOMPLayer, Neighbourhood, natural_neighbourhoods
from coset.topology.invariants import (
    betti_numbers,
    components,
    cross_diameter,
    diameter,
    euler_characteristic,
    is_orientable,
)
from coset.topology.liftings import BallLift, CliqueLift, RingLift, ring_complex
from coset.topology.marking import MarkPairs
from coset.topology.mcn import MCNLayer, MCNLinear
from coset.topology.permutations import CellPermutation, CochainPermutation
from coset.topology.refinement import SubcomplexRefinement, homp_classes, separates, subcomplex_classes
from coset.topology.smcn import SCL, SMCN, BagInit

__all__ = [
    "CIN",
    "HOMP",
    "SCL",
    "SMCN",
    "BagInit",
    "BallLift",
    "CellBatch",
    "CellPermutation",
    "CliqueLift",
    "CochainPermutation",
    "Complex",
    "ComplexData",
    "HOMPLayer",
    "MCNLayer",
    "MCNLinear",
    "MarkPairs",
    "Neighbourhood",
    "RingLift",
    "SubcomplexRefinement",
    "betti_numbers",
    "components",
    "cross_diameter",
    "diameter",
    "disjoint_copies",
    "disjoint_union",
    "euler_characteristic",
    "from_faces",
    "from_toponetx",
    "homp_classes",
    "is_orientable",
    "natural_neighbourhoods",
    "ring_complex",
    "separates",
    "subcomplex_classes",
    "to_data",
    "to_toponetx",
]
