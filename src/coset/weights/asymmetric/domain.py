"""What asymmetric networks and mode connectivity add."""

from coset.core.domains import Domain, System

DOMAIN = Domain(
    name="asymmetric",
    package="coset.weights.asymmetric",
    kinds={
        "mode-connectivity": "coset.weights.asymmetric.experiments:ConnectivityRecipe",
        "bayesian-depth": "coset.weights.asymmetric.bayesian_experiment:BayesianDepthRecipe",
        "metanet": "coset.weights.asymmetric.metanet_experiment:MetanetRecipe",
    },
    commands=("coset.weights.asymmetric.commands",),
    adds={
        "data set": ("coset.weights.data_sets",),
        "data of classification": ("coset.weights.asymmetric.classification_data",),
        "classifier": ("coset.weights.asymmetric.networks",),
    },
    needs="coset.weights.data_sets:needed",
    systems=(
        System(
            "Asymmetric networks",
            "Lim, Putterman, Walters, Maron, Jegelka: The empirical impact of neural parameter symmetries, or lack "
            "thereof, NeurIPS 2024, arXiv 2405.20231",
            module="coset.weights.asymmetric.asymmetrize",
            page="asymmetric",
            recipes="asymmetric/",
            words="mode connectivity permutation symmetry loss barrier sigma W FiGLU Bayesian metanetwork",
        ),
    ),
)
