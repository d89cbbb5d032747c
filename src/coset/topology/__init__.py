"""Complexes, liftings, topological invariants; HOMP, MCN and SMCN."""

from coset.topology.adapters import from_toponetx, to_toponetx
from coset.topology.advice import compare_complexes
from coset.topology.batches import CellBatch, ComplexData, disjoint_copies, to_data
from coset.topology.cells import Cells
from coset.topology.complexes import Complex, disjoint_union, from_faces, from_simplices
from coset.topology.files import read_complex, write_complex
from coset.topology.homp import CIN, HOMP, HOMPLayer, Neighbourhood, natural_neighbourhoods
from coset.topology.invariants import (
    betti_numbers,
    components,
    cross_diameter,
    diameter,
    euler_characteristic,
    is_orientable,
)
from coset.topology.liftings import BallLift, CliqueLift, ClusterLift, FaceLift, MapperLift, RingLift, ring_complex
from coset.topology.marking import MarkPairs
from coset.topology.mcn import MCNLayer, MCNLinear
from coset.topology.meshes import PointLift, alpha_complex, delaunay_complex, read_mesh, rips_complex
from coset.topology.permutations import CellPermutation, CochainPermutation
from coset.topology.refinement import SubcomplexRefinement, homp_classes, separates, subcomplex_classes
from coset.topology.smcn import SCL, SMCN, BagInit
from coset.topology.surfaces import Surface, classify_surfaces, closed_surface, simplify
from coset.topology.triangulations import from_snappy, glued_tetrahedra

__all__ = [
    "CIN",
    "HOMP",
    "SCL",
    "SMCN",
    "BagInit",
    "BallLift",
    "CellBatch",
    "CellPermutation",
    "Cells",
    "CliqueLift",
    "ClusterLift",
    "CochainPermutation",
    "Complex",
    "ComplexData",
    "FaceLift",
    "HOMPLayer",
    "MCNLayer",
    "MCNLinear",
    "MapperLift",
    "MarkPairs",
    "Neighbourhood",
    "PointLift",
    "RingLift",
    "SubcomplexRefinement",
    "Surface",
    "alpha_complex",
    "betti_numbers",
    "classify_surfaces",
    "closed_surface",
    "compare_complexes",
    "components",
    "cross_diameter",
    "delaunay_complex",
    "diameter",
    "disjoint_copies",
    "disjoint_union",
    "euler_characteristic",
    "from_faces",
    "from_simplices",
    "from_snappy",
    "from_toponetx",
    "glued_tetrahedra",
    "homp_classes",
    "is_orientable",
    "natural_neighbourhoods",
    "read_complex",
    "read_mesh",
    "ring_complex",
    "rips_complex",
    "separates",
    "simplify",
    "subcomplex_classes",
    "to_data",
    "to_toponetx",
    "write_complex",
]
