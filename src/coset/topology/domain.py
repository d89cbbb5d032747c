"""What the domain of topology adds; it builds on graphs."""

from coset.core.domains import Domain, System

DOMAIN = Domain(
    name="topology",
    package="coset.topology",
    commands=("coset.topology.commands",),
    benches={
        "blindspots": "coset.topology.benches.blindspots:gallery",
        "torus": "coset.topology.benches.blindspots:main",
    },
    adds={
        "data set": ("coset.topology.data_sets",),
        "graph model": ("coset.topology.models",),
        "graph data": ("coset.topology.sources", "coset.topology.own_complexes"),
        "lifting": ("coset.topology.liftings",),
        "page view": ("coset.topology.pages",),
    },
    systems=(
        System(
            "SMCN",
            "Eitan, Gelberg, Bar-Shalom, Frasca, Bronstein, Maron: Topological blindspots, ICLR 2025, arXiv 2408.05486",
            module="coset.topology.models.smcn",
            page="smcn",
            recipes="smcn/",
            words="topology cell complex HOMP MCN CIN simplicial combinatorial lifting higher-order message passing",
        ),
    ),
)
