"""GIN and GINE: message passing on the graph itself, the baseline that everything here has to beat.

Xu, Hu, Leskovec, Jegelka, "How Powerful are Graph Neural Networks?", ICLR 2019; edge features as in Hu et al.,
"Strategies for Pre-training Graph Neural Networks", ICLR 2020. Group: S_n on the nodes. x'_i = MLP((1 + eps) x_i +
sum_j ReLU(x_j + e_ij)); the normalisation after each layer can be chosen, GRANOLA among them, and noise may be appended
to the input (``input_noise``, "RNF-PE"). With walks, feed-forward networks, dropout and residual connections it is what
Luo, Shi, Wu, "Can Classic GNNs Be Strong Baselines for Graph-level Tasks?", ICML 2025, call GNN+.

In evaluation mode noise follows from ``noise_seed`` and from the number of a node within its graph, so that the
prediction for a graph does not depend on what else is in the batch; the noise of different layers is independent.
"""

import math
from copy import copy
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import AddRandomWalkPE, BaseTransform, Compose

from coset.core.errors import check_choice
from coset.core.options import Options
from coset.graphs.models.granola import settled_noise
from coset.graphs.models.norms import AdaptiveNorm, make_norm
from coset.graphs.models.options import GRAPH_MODELS, OF_RUNS, Features, GraphModel, Level, Variant
from coset.graphs.models.product import node_counts
from coset.graphs.models.readouts import LEVELS, encode_nodes, head_of, node_encoder, pool_nodes, renumbering_claim
from coset.nn import MLP, FeatureEncoder
from coset.nn.norms import NORMS, known_norm
from coset.relations import IndexSet, Relation, propagate
from coset.relations.structure import KEY
from coset.symmetry import Claim


class GIN(nn.Module):
    """Graph isomorphism network, with edge features if there are any.

    Args:
        outputs: Number of predicted values a graph.
        node_features: Table sizes of categorical node features, number of real ones, or ``None`` for bare graphs.
        edge_features: The same for edges; ``None`` ignores them.
        width: Columns of the node features.
        layers: Number of layers.
        readout: ``sum`` or ``mean`` over the nodes.
        residual: Residual connections.
        dropout: Probability.
        walks: Lengths of random walks, 1 to so many, whose chances of return (``data.walks``) are added to the input.
        feed_forward: After each layer BatchNorm(x + MLP(x)), twice as wide inside.
        norm: Normalisation after the MLP of each layer, a name of :mod:`coset.graphs.models.norms`.
        granola: Options of :class:`coset.graphs.models.granola.GranolaNorm`, for the norms built on it.
        inner_norm: Batch normalisation inside the MLPs as well; by default with ``norm="batch"`` only.
        head_norm: Batch normalisation in the head. The authors of GRANOLA have it in their other networks, and batch
            norms inside the MLPs, beside the norm that is compared.
        input_noise: Columns of Gaussian noise appended to the encoded node features, drawn anew at every pass.
        draws: Passes with different noise that a prediction is the mean of, where there is noise.
        noise_seed: Of the noise in evaluation mode.
        level: ``graph``, ``node``, ``edge`` or ``link``: one row of output a graph, a node, or a pair of
            ``edge_label_index``.

    Shape:
        PyG batch -> ``[rows, outputs]``.
    """

    def __init__(
        self,
        outputs: int = 1,
        node_features: list[int] | int | None = None,
        edge_features: list[int] | int | None = None,
        *,
        width: int = 96,
        layers: int = 6,
        readout: str = "sum",
        residual: bool = False,
        dropout: float = 0.0,
        walks: int = 0,
        feed_forward: bool = False,
        norm: str = "batch",
        granola: dict[str, Any] | None = None,
        inner_norm: bool | None = None,
        head_norm: bool = False,
        input_noise: int | None = None,
        draws: int = 1,
        noise_seed: int = 0,
        level: str = "graph",
    ):
        super().__init__()
        check_choice("level", level, LEVELS)
        check_choice("readout", readout, ("sum", "mean"))
        self.encoder = node_encoder(node_features, width)
        self.input_noise = nn.Linear(input_noise, width, bias=False) if input_noise else None
        self.walks = nn.Linear(walks, width) if walks else None
        self.edge_encoders = nn.ModuleList(
            FeatureEncoder(edge_features, width) for _ in range(layers) if edge_features is not None
        )
        self.eps = nn.Parameter(torch.zeros(layers))
        inside = norm == "batch" if inner_norm is None else inner_norm
        inner = nn.BatchNorm1d if inside else nn.Identity
        self.mlps = nn.ModuleList(MLP(width, width, norm=inner) for _ in range(layers))
        wide = range(layers if feed_forward else 0)
        self.feed_forwards = nn.ModuleList(MLP(width, width, 2 * width, norm=nn.Identity) for _ in wide)
        self.feed_forward_norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in wide)
        edge_width = None if edge_features is None else width
        self.norms = nn.ModuleList(make_norm(norm, width, edge_width, **(granola or {})) for _ in range(layers))
        columns = [part.noise_channels for part in self.norms if isinstance(part, AdaptiveNorm)]
        self.noise_columns = [input_noise or 0, *(columns or [0] * layers)]
        self.draws, self.noise_seed = draws, noise_seed
        self.head = head_of(level, width, outputs, edge_features, norm=head_norm)
        self.readout, self.residual, self.dropout, self.level = readout, residual, dropout, level

    @property
    def noisy(self) -> bool:
        """Whether a pass draws noise."""
        return sum(self.noise_columns) > 0

    def structure(self, data: Batch | Data) -> Relation:
        """What the layers need to know of a batch (:mod:`coset.relations.structure`)."""
        return self._relation(data).settle()

    @staticmethod
    def _relation(data: Batch | Data) -> Relation:
        if KEY in data:
            return data[KEY]
        nodes = IndexSet(node_counts(data))
        return Relation(nodes, nodes, data.edge_index)

    def forward(self, data: Batch | Data) -> Float[Tensor, "rows outputs"]:
        relation = self._relation(data)
        nodes = relation.target
        if not self.noisy:
            return self._pass(data, relation, None)
        if "noise" in data:
            return self._pass(data, relation, data.noise)
        if self.training:
            fresh = torch.randn(nodes.total, sum(self.noise_columns), device=data.edge_index.device)
            return self._pass(data, relation, fresh)
        return self.each_draw(data).mean(0)

    def each_draw(self, data: Batch | Data) -> Float[Tensor, "draws rows outputs"]:
        """Outputs of each of the passes whose mean a prediction is."""
        relation, columns = self._relation(data), sum(self.noise_columns)
        nodes = relation.target
        drawn = (settled_noise(nodes, columns, self.noise_seed, draw) for draw in range(self.draws))
        return torch.stack([self._pass(data, relation, noise) for noise in drawn])

    def with_noise(self, data: Batch | Data, seed: int = 0) -> Batch | Data:
        """A copy whose ``noise`` the forward pass uses: renumbering nodes then moves it along."""
        data = copy(data)
        if self.noisy:
            rows = int(node_counts(data).sum())
            data.noise = torch.randn(rows, sum(self.noise_columns), generator=torch.Generator().manual_seed(seed))
        return data

    def _pass(self, data: Batch | Data, relation: Relation, noise: Tensor | None) -> Tensor:
        nodes = relation.target
        x = encode_nodes(self.encoder, data, nodes.total)
        if self.walks is not None:
            x = x + self.walks(data.walks.to(x))
        parts = [None] * len(self.noise_columns) if noise is None else noise.to(x).split(self.noise_columns, dim=1)
        if self.input_noise is not None:
            x = x + self.input_noise(parts[0])
        kinds, kind = self._kinds_of_edges(data)
        for layer, (mlp, norm) in enumerate(zip(self.mlps, self.norms)):
            rows = None if kinds is None else self.edge_encoders[layer](kinds)
            edge = rows if kind is None or rows is None else F.embedding(kind, rows)
            gathered = propagate(x, relation, edge=edge, relu=edge is not None)
            if "neighbour_scale" in data:  # of the neighbours only some are there
                gathered = gathered * data.neighbour_scale.to(gathered).unsqueeze(1)
            out = mlp(gathered + (1 + self.eps[layer]) * x)
            here = parts[layer + 1] if self.noise_columns[layer + 1] else None
            out = F.relu(norm(out, relation, nodes.batch, edge_attr=rows, edge_row=kind, noise=here))
            out = F.dropout(out, self.dropout, self.training)
            x = out + x if self.residual else out
            if self.feed_forwards:
                more = F.dropout(self.feed_forwards[layer](x), self.dropout, self.training)
                x = self.feed_forward_norms[layer](x + more)
        if self.level == "node":
            return self.head(x)
        if self.level != "graph":
            return self.head(x, data)
        return self.head(pool_nodes(x, nodes, self.readout))

    def _kinds_of_edges(self, data: Batch | Data) -> tuple[Tensor | None, Tensor | None]:
        """The different rows of categorical edge features, and which one each edge has: encoding the few is enough.

        Real features come back as they are, a row an edge.
        """
        if not self.edge_encoders:
            return None, None
        attr, encoder = data.edge_attr, self.edge_encoders[0]
        assert isinstance(encoder, FeatureEncoder)
        if not encoder.categorical or attr.is_floating_point() or attr.dim() != 2 or not attr.numel():
            return attr, None
        if attr.device.type != "cpu":  # what is saved there is less than the wait for how many there are
            return attr, None
        sizes = attr.amax(0) + 1
        if int(attr.min()) < 0 or math.prod(sizes.tolist()) >= 2**62:
            return attr, None
        place = torch.cat([sizes.flip(0).cumprod(0).flip(0)[1:], sizes.new_ones(1)])
        codes, kind = (attr * place).sum(1).unique(return_inverse=True)  # far faster than unique(dim=0)
        return codes.unsqueeze(1) // place % sizes, kind

    def symmetry(self) -> tuple[Claim, ...]:
        return (renumbering_claim(self.level),)


class GranolaOptions(Options):
    """Options of GRANOLA in the slots of a network."""

    depth: int = Field(2, ge=1, description="layers of the network that predicts the affine part")
    noise_channels: int | None = Field(None, ge=0, description="random features a node; the width by default")
    noise_scale: float = Field(1.0, ge=0, description="of the weights that the noise enters with, at the start")
    init: Literal["identity", "paper"] = "identity"


@GRAPH_MODELS.add
class GINOptions(GraphModel):
    """Options of :class:`GIN`."""

    bound: ClassVar[str | None] = "1-WL"
    levels: ClassVar[tuple[Level, ...]] = ("graph", "node", "edge", "link")
    # It draws random node features, and so tells any two graphs apart by chance: nothing bounds it. (Walks, too, see
    # beyond the bound; benches have no such variant.)
    variants: ClassVar[dict[str, Variant]] = {"granola": Variant({"norm": "granola"}, None)}

    name: Literal["gin"] = "gin"
    residual: bool = False
    readout: Literal["sum", "mean"] = "sum"
    walks: int = Field(0, ge=0, description="lengths of random walks whose chances of return nodes carry")
    feed_forward: bool = Field(False, description="a feed-forward network after each layer, as transformers have")
    norm: Annotated[str, AfterValidator(known_norm)] = Field("batch", description="normalisation after each layer")
    granola: GranolaOptions | None = Field(None, description="for norm=granola and its variants")
    inner_norm: bool | None = Field(None, description="batch norm inside the MLPs; by default with norm=batch only")
    head_norm: bool = Field(False, description="batch norm in the head")
    input_noise: int | None = Field(None, ge=1, description="random features a node, appended to its own")
    draws: int = Field(1, ge=1, description="passes with other noise that a prediction is the mean of")

    def build(
        self, outputs: int, node_features: Features, edge_features: Features, level: Level = "graph"
    ) -> nn.Module:
        if self.norm not in ("granola", "granola-no-rnf", "rnf-norm") and self.granola is not None:
            raise ValueError(f"granola: norm={self.norm} has no such options; set norm=granola")
        if self.norm not in ("granola", "rnf-norm") and not self.input_noise and self.draws > 1:
            raise ValueError(f"draws={self.draws}: norm={self.norm} draws no noise; leave it at 1")
        options = self.model_dump(exclude=set(OF_RUNS))
        return GIN(outputs, node_features, edge_features, level=level, **options)

    def transform(self) -> BaseTransform:
        return AddRandomWalkPE(self.walks, "walks") if self.walks else Compose([])

    def why_whole(self) -> str:
        if self.walks:
            return "its random walks are of a whole graph"
        if self.input_noise:
            return "its input noise is drawn for a whole graph"
        return "" if NORMS[self.norm].reads == "rows" else f"norm={self.norm} reads all nodes of a graph"

    def settled(self, network: nn.Module, batch: Batch) -> Batch:
        return network.with_noise(batch)  # type: ignore[operator]

    def redrawn(self, network: nn.Module, draws: int | None, seed: int | None) -> bool:
        assert isinstance(network, GIN)
        if not network.noisy:
            return False
        network.draws = network.draws if draws is None else draws
        network.noise_seed = network.noise_seed if seed is None else seed
        return True
