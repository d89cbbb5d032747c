"""What merging of networks adds."""

from coset.core.domains import Domain, System

DOMAIN = Domain(
    name="merging",
    package="coset.weights.merging",
    kinds={"merging": "coset.weights.merging.experiments:MergingRecipe"},
    commands=("coset.weights.merging.commands",),
    adds={
        "data set": ("coset.weights.data_sets",),
        "network to merge": ("coset.weights.merging.networks",),
        "merge method": tuple(
            f"coset.weights.merging.{name}"
            for name in ("references", "averages", "mixing", "matched", "regression", "zipping", "heads", "trained")
        ),
    },
    needs="coset.weights.data_sets:needed",
    systems=(
        System(
            "FS-Merge",
            "Kinderman, Hubara, Maron, Soudry: Foldable SuperNets: scalable merging of transformers with different "
            "initializations and tasks, TMLR 2025, arXiv 2410.01483",
            module="coset.weights.merging.supernet",
            page="fs-merge",
            recipes="fs-merge/",
            words="model merging foldable supernet transformer ZipIt RegMean distillation mergekit",
        ),
    ),
)
