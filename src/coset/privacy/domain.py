"""What the domain of privacy adds."""

from coset.core.domains import Domain, System

DOMAIN = Domain(
    name="privacy",
    package="coset.privacy",
    kinds={"reconstruction": "coset.privacy.experiments:ReconstructionRecipe"},
    commands=("coset.privacy.commands",),
    adds={"data set": ("coset.privacy.data_sets",)},
    needs="coset.privacy.data_sets:needed",
    systems=(
        System(
            "Reconstruction from invariant networks",
            "Elbaz, Yehudai, Galun, Maron: On the reconstruction of training data from group invariant networks, "
            "NeurReps 2024, arXiv 2411.16458",
            module="coset.privacy.reconstruction",
            page="reconstruction",
            recipes="reconstruction/",
            words="privacy audit training data leak KKT memorisation invariant",
        ),
    ),
)
