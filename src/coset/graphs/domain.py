"""What the domain of graphs adds: kinds, commands, benches, registries, systems."""

from coset.core.domains import Domain, System

DOMAIN = Domain(
    name="graphs",
    package="coset.graphs",
    kinds={"graphs": "coset.graphs.experiments:GraphRecipe"},
    commands=("coset.graphs.commands",),
    benches={
        "bags": "coset.graphs.benches.bags:main",
        "brec": "coset.graphs.benches.brec_protocol:main",
        "counting": "coset.graphs.benches.counting:main",
        "expressivity": "coset.graphs.benches.expressivity:main",
        "norms": "coset.graphs.benches.norms:main",
    },
    adds={
        "data set": ("coset.graphs.data_sets",),
        "graph model": ("coset.graphs.models",),
        "graph data": ("coset.graphs.data.sources", "coset.graphs.data.own_graphs"),
        "norm": ("coset.graphs.models.norms",),
        "page view": ("coset.graphs.pages",),
        "coarsening": ("coset.graphs.encodings.coarsening",),
    },
    needs="coset.graphs.data_sets:needed",
    systems=(
        System(
            "Subgraphormer",
            "Bar-Shalom, Bevilacqua, Maron: Subgraphormer: unifying subgraph GNNs and graph transformers via graph "
            "products, ICML 2024, arXiv 2402.08450",
            module="coset.graphs.models.subgraphormer",
            page="subgraphormer",
            recipes="subgraphormer/",
            words="subgraph GNN transformer attention product positional encoding GNN-SSWL+ molecules",
        ),
        System(
            "CS-GNN",
            "Bar-Shalom, Eitan, Frasca, Maron: A flexible, equivariant framework for subgraph GNNs via graph products "
            "and graph coarsening, NeurIPS 2024, arXiv 2406.09291",
            module="coset.graphs.models.csgnn",
            page="csgnn",
            recipes="csgnn/",
            words="coarsening bag subgraphs clusters symmetry-based updates",
        ),
        System(
            "EPNN",
            "Zhang, Zhao, Maron: On the expressive power of spectral invariant graph neural networks, ICML 2024, "
            "arXiv 2406.04336",
            module="coset.graphs.models.epnn",
            page="epnn",
            recipes="epnn/",
            words="spectral eigenspace projection invariant EPWL GRIT",
        ),
        System(
            "GRANOLA",
            "Eliasof, Bevilacqua, Schönlieb, Maron: GRANOLA, adaptive normalization for graph neural networks, "
            "NeurIPS 2024, arXiv 2404.13344",
            module="coset.graphs.models.granola",
            page="granola",
            recipes="granola/",
            words="normalisation normalization norm random node features",
        ),
    ),
)
