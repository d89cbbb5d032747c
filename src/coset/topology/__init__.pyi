from .benches.advice import compare_complexes
from .data.adapters import from_toponetx, to_toponetx
from .data.batches import CellBatch, ComplexData, disjoint_copies, to_data
from .data.cells import Cells
from .data.complexes import Complex, disjoint_union, from_faces, from_simplices
from .data.meshes import PointLift, alpha_complex, delaunay_complex, read_mesh, rips_complex
from .data.permutations import CellPermutation, CochainPermutation
from .data.triangulations import from_snappy, glued_tetrahedra
from .files import read_complex, write_complex
from .invariants import (
    betti_numbers,
    components,
    cross_diameter,
    diameter,
    euler_characteristic,
    is_orientable,
)
from .invariants.subcomplex_refinement import (
    SubcomplexRefinement,
    homp_classes,
    separates,
    subcomplex_classes,
)
from .liftings import BallLift, CliqueLift, ClusterLift, FaceLift, MapperLift, RingLift, ring_complex
from .liftings.marking import MarkPairs
from .models.homp import CIN, HOMP, HOMPLayer, Neighbourhood, natural_neighbourhoods
from .models.mcn import MCN, MCNLayer, MCNLinear
from .models.smcn import SCL, SMCN, BagInit
from .surfaces import Surface, classify_surfaces, closed_surface, simplify

__all__ = [
    "CIN",
    "HOMP",
    "MCN",
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
