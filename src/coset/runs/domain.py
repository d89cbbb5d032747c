"""Kinds of run that belong to no domain."""

from coset.core.domains import Domain

DOMAIN = Domain(
    name="runs",
    package="coset.runs",
    kinds={
        "sweep": "coset.runs.sweep.studies:SweepRecipe",
        "search": "coset.runs.sweep.search:SearchRecipe",
    },
    benches={"evidence": "coset.runs.evidence:main"},
    needs="coset.runs.data_needed:of_sweep",
)
