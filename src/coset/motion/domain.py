"""What the domain of motion adds."""

from coset.core.domains import Domain, System

DOMAIN = Domain(
    name="motion",
    package="coset.motion",
    kinds={"motion": "coset.motion.experiments:MotionRecipe"},
    commands=("coset.motion.commands",),
    adds={"data set": ("coset.motion.data_sets",)},
    needs="coset.motion.data_sets:needed",
    systems=(
        System(
            "TracksTo4D",
            "Kasten, Lu, Maron: Fast encoder-based 3D from casual videos via point track processing, NeurIPS 2024, "
            "arXiv 2404.07097",
            module="coset.motion.models.trackster4d",
            page="trackster4d",
            recipes="trackster4d/",
            words="video camera 3D structure from motion point tracks reconstruct dynamic",
        ),
    ),
)
