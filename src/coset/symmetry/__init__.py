"""Group actions, how far a map is from respecting one, group averages, and bases of equivariant linear maps."""

from coset.symmetry.actions import Action, Compose, Parts, TrivialAction
from coset.symmetry.averaging import GroupAverage, symmetrize
from coset.symmetry.axes import (
    AxisPermutation,
    CyclicImage,
    CyclicShift,
    DihedralImage,
    FramePermutation,
    PointPermutation,
    Reversal,
)
from coset.symmetry.equivariance import Claim, EquivarianceReport, check_equivariance, verify_claims
from coset.symmetry.linear_groups import GeneralLinear, OrthogonalBasis, Rotation3, SignFlip
from coset.symmetry.node_permutations import (
    NodePermutation,
    NodeRelabelling,
    NodeRowPermutation,
    PairRowPermutation,
)
from coset.symmetry.orbits import (
    OrbitBasis,
    TupleBasis,
    apply_pattern,
    count_partitions,
    equivariant_null_space,
    on_pairs,
    on_subsets,
    on_tuples,
    orbit_basis,
    orbits,
    set_partitions,
    symmetric_group_generators,
)
from coset.symmetry.set_node_orbits import (
    SetNodeOrbit,
    count_set_node_orbits,
    set_node_basis,
    set_node_orbit,
    set_node_orbits,
    subsets_of_size,
)

__all__ = [
    "Action",
    "AxisPermutation",
    "Claim",
    "Compose",
    "CyclicImage",
    "CyclicShift",
    "DihedralImage",
    "EquivarianceReport",
    "FramePermutation",
    "GeneralLinear",
    "GroupAverage",
    "NodePermutation",
    "NodeRelabelling",
    "NodeRowPermutation",
    "OrbitBasis",
    "OrthogonalBasis",
    "PairRowPermutation",
    "Parts",
    "PointPermutation",
    "Reversal",
    "Rotation3",
    "SetNodeOrbit",
    "SignFlip",
    "TrivialAction",
    "TupleBasis",
    "apply_pattern",
    "check_equivariance",
    "count_partitions",
    "count_set_node_orbits",
    "equivariant_null_space",
    "on_pairs",
    "on_subsets",
    "on_tuples",
    "orbit_basis",
    "orbits",
    "set_node_basis",
    "set_node_orbit",
    "set_node_orbits",
    "set_partitions",
    "subsets_of_size",
    "symmetric_group_generators",
    "symmetrize",
    "verify_claims",
]
