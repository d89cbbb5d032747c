"""What ``growth.py`` measures: of each system one or two operations, made for an input of any size.

A case builds an input of a size, outside of what is measured, and returns the operation. Exponents are those of the
mathematics as it is published or written out, for large inputs: where a smaller term is still in the lead, less is
found. Only the libraries of a case are imported by it.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

Operation = Callable[[], object]


class Case(NamedTuple):
    """One line of a panel.

    Attributes:
        system: Title of its panel.
        what: The operation.
        unit: Of its sizes.
        sizes: Doubled from one to the next.
        time: Exponent of the seconds that the theory gives.
        memory: That of the bytes.
        because: What that follows from.
        build: The operation on an input of a size.
    """

    system: str
    what: str
    unit: str
    sizes: tuple[int, ...]
    time: float
    memory: float
    because: str
    build: Callable[[int], Operation]

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from the others."""
        return self.system, self.what


def doubled(first: int, count: int) -> tuple[int, ...]:
    return tuple(first << k for k in range(count))


def descent_step(model: nn.Module, loss: Callable[[], Tensor]) -> Operation:
    """Forward, backward and a step of Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def pair_network(name: str, nodes: int, sets: int | None = None) -> Operation:
    """A training step on one graph as sparse as a molecule; ``sets``: CS-GNN on so many sets of nodes."""
    import gpu
    import subgraphormer
    from coset.graphs.transforms import Coarsen

    (graph,) = subgraphormer.dressed([subgraphormer.chain(nodes, 0)], 0)
    batch = gpu.batch_for(name, [graph if sets is None else Coarsen("spectral", sets)(graph)])
    model = gpu.network(name, subgraphormer.WIDTH, subgraphormer.LAYERS)
    return subgraphormer.training_step(model, batch, batch.y)


def product_encodings(nodes: int) -> Operation:
    import subgraphormer

    graph = subgraphormer.chain(nodes, 0)
    return lambda: subgraphormer.encoded([graph.clone()])


def epnn(nodes: int) -> Operation:
    from torch_geometric.data import Batch

    import subgraphormer
    from coset.graphs import EPNN
    from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES
    from coset.graphs.transforms import Eigenspaces, precompute

    batch = Batch.from_data_list(
        precompute(subgraphormer.dressed([subgraphormer.chain(nodes, 0)], 0), Eigenspaces(dtype=torch.float32))
    )
    torch.manual_seed(0)
    model = EPNN(1, ATOM_SIZES, BOND_SIZES, width=subgraphormer.WIDTH, layers=subgraphormer.LAYERS)
    return subgraphormer.training_step(model, batch, batch.y)


def eigenspaces(nodes: int) -> Operation:
    import subgraphormer
    from coset.graphs.transforms import Eigenspaces, precompute

    graph = subgraphormer.chain(nodes, 0)
    return lambda: precompute([graph.clone()], Eigenspaces())


def granola(nodes: int) -> Operation:
    import granola_layer
    from coset.graphs import GranolaNorm

    x, _, relation = granola_layer.setup(nodes)
    norm = GranolaNorm(granola_layer.CHANNELS, depth=granola_layer.DEPTH, init="paper")
    return partial(granola_layer.step, norm, x.requires_grad_(), (relation,))


def sides(faces: int) -> tuple[int, int]:
    """Of the squarest torus with a power of two of faces."""
    exponent = faces.bit_length() - 1
    return 1 << exponent // 2, 1 << exponent - exponent // 2


def homp(faces: int) -> Operation:
    import homp_step
    from coset.topology import CellBatch, to_data
    from coset.topology.data.torus import torus

    torch.manual_seed(0)
    data, network = to_data(torus(*sides(faces))), homp_step.Network(64)
    return descent_step(network, lambda: network(CellBatch(data)).sum())


def smcn(faces: int) -> Operation:
    from torch_geometric.data import Batch

    import gpu
    from coset.topology import to_data
    from coset.topology.data.torus import torus
    from coset.topology.liftings.marking import MarkPairs

    batch = Batch.from_data_list([MarkPairs(gpu.RANKS)(to_data(torus(*sides(faces))))])
    model = gpu.network("SMCN", 64, 3)
    return descent_step(model, lambda: model(batch).sum())


def told_apart(faces: int) -> Operation:
    """``coset wl --complex`` on two tori of as many faces, one half as thick as the other."""
    from coset.topology.commands import wl
    from coset.topology.data.torus import torus
    from coset.topology.files import write_complex

    folder = tempfile.TemporaryDirectory()
    thick, thin = Path(folder.name) / "thick.json", Path(folder.name) / "thin.json"
    r, R = sides(faces)
    write_complex(thick, torus(r, R))
    write_complex(thin, torus(r // 2, 2 * R))

    def command(_: tempfile.TemporaryDirectory = folder) -> None:  # which lives as long as the operation
        with contextlib.redirect_stdout(io.StringIO()):
            wl(str(thick), str(thin), complexes=True, json=True)

    return command


def glnet(width: int) -> Operation:
    """A training step on 16 adapters of four layers of one width."""
    import lora_speed
    from coset.weights.lora.data.factors import Layout
    from coset.weights.lora.models.glnet import GLNet

    torch.manual_seed(0)
    batch, rank, layers = lora_speed.BATCH, lora_speed.RANK, 4
    layout = Layout.of((f"layer.{i}", (width, width)) for i in range(layers))
    factors = ((torch.randn(batch, layers, width, rank), torch.randn(batch, layers, width, rank)),)
    net = GLNet(layout, factors, lora_speed.WIDTH, 1, lora_speed.HIDDEN, 1)
    return descent_step(net, lambda: net(factors).square().sum())


def adapter_file(layers: int) -> Operation:
    """Reading a PEFT adapter of so many layers from its folder."""
    from coset.weights.lora import LoraAdapter, LoraPair, load_lora, save_peft

    folder = tempfile.TemporaryDirectory()
    drawn = torch.Generator().manual_seed(0)
    pairs = {
        f"model.layers.{i // 4}.self_attn.{'qkvo'[i % 4]}_proj": LoraPair(
            torch.randn(256, 4, generator=drawn), torch.randn(256, 4, generator=drawn)
        )
        for i in range(layers)
    }
    saved = save_peft(LoraAdapter(pairs), Path(folder.name) / "adapter")
    return lambda _=folder: load_lora(saved).rank


def fixed_entries(width: int) -> Operation:
    import asymmetric_layers
    from coset.weights.asymmetric.asymmetrize import asymmetrize
    from coset.weights.asymmetric.networks import mlp

    torch.manual_seed(0)
    model = asymmetrize(mlp((64, width, width, width, 10)), method="w", n_fix=8, kappa=1.0, seed=0)
    x, y = torch.randn(asymmetric_layers.BATCH, 64), torch.randint(10, (asymmetric_layers.BATCH,))
    return partial(asymmetric_layers.step, model, torch.optim.AdamW(model.parameters()), x, y)


def matching(width: int) -> Operation:
    from coset.weights.asymmetric.networks import mlp
    from coset.weights.permutations.groups import permutation_spec
    from coset.weights.permutations.matching import weight_matching

    torch.manual_seed(0)
    models = [mlp((64, width, width, 10)) for _ in range(2)]
    spec, (first, second) = permutation_spec(models[0]), (model.state_dict() for model in models)
    return partial(weight_matching, spec, first, second)


def merge_fit(width: int) -> Operation:
    """Twenty steps of fitting two MLPs of three layers, 64 samples a task."""
    from coset.weights.merging import FoldedSuperNet
    from coset.weights.merging.encoders import MLPEncoder
    from coset.weights.merging.fitting import Fit, Targets, fit

    torch.manual_seed(0)
    teachers = [MLPEncoder.of((64, width, width, width)).eval() for _ in range(2)]
    targets = Targets.of(teachers, [torch.randn(64, 64) for _ in teachers])
    student = FoldedSuperNet(teachers, rank=8)
    return lambda: fit(student, targets, Fit(steps=20))


def tracks_pass(points: int, frames: int) -> Operation:
    import motion_forward
    from coset.motion.models.trackster4d import TracksTo4D

    torch.manual_seed(0)
    model = TracksTo4D(**motion_forward.SIZES["small"]).eval()
    tracks = torch.rand(points, frames, 3).add(0.5)
    return torch.no_grad()(lambda: model(tracks))


def refinement(points: int, frames: int) -> Operation:
    """Ten steps of bundle adjustment, and what moves placed: half of the points stand still, a body walks past them."""
    from coset.motion.bundle_adjustment import BundleOptions, bundle_adjust
    from coset.motion.models.checkpoint import pretrained

    tracks = walking_body(points, frames)
    with torch.no_grad():
        start = pretrained()[0](tracks)
    return lambda: bundle_adjust(start, tracks, BundleOptions(iterations=10))


def walking_body(points: int, frames: int) -> Tensor:
    """Tracks [points, frames, 3] of a camera that is carried along an arc, seen with half a pixel of noise."""
    drawn = torch.Generator().manual_seed(0)
    time = torch.linspace(0, 1, frames)
    places = torch.rand(points, 1, 3, generator=drawn) * torch.tensor([2.0, 1.5, 2.0]) - torch.tensor([1.0, 0.75, -3.0])
    walk = torch.stack([0.6 * time, 0.1 * (12 * time).sin(), 0.2 * time], 1)
    moving = (torch.arange(points) % 2 == 1).view(-1, 1, 1)
    world = places + moving * walk
    angle = 0.4 * (time - 0.5)
    zero, one = torch.zeros(frames), torch.ones(frames)
    turn = torch.stack([angle.cos(), zero, angle.sin(), zero, one, zero, -angle.sin(), zero, angle.cos()], 1)
    middle = torch.tensor([0.0, 0.0, 4.0])
    inside = torch.einsum("nij,pnj->pni", turn.view(frames, 3, 3), world - middle) + middle
    flat = inside[..., :2] / inside[..., 2:]
    flat = flat + 8e-4 * torch.randn(flat.shape, generator=drawn)
    return torch.cat([flat, torch.ones(points, frames, 1)], 2)


def search(inputs: int, order: int) -> Operation:
    """Ten steps from 20 candidates, on 100 neurons averaged over cyclic shifts."""
    from coset.privacy import Attack, InvariantClassifier, SoftplusFeatures, reconstruct
    from coset.privacy.groups import FiniteGroup

    shift = inputs // order * torch.arange(order)
    group = FiniteGroup((torch.arange(inputs) + shift[:, None]) % inputs, f"{order} shifts")
    base = SoftplusFeatures(inputs, 100, generator=torch.Generator().manual_seed(0))
    model, attack = InvariantClassifier(base, group), Attack(candidates=20, steps=10)
    return lambda: reconstruct(model, inputs, attack, group=group)


PAIRS = "a row a pair of nodes"
CASES = (
    Case("Subgraphormer", "training step", "nodes", doubled(8, 6), 2, 2, PAIRS,
         partial(pair_network, "Subgraphormer")),
    Case("Subgraphormer", "pre-processing", "nodes", doubled(40, 6), 3, 2, "eigenvectors", product_encodings),
    Case("CS-GNN", "step, a set a node", "nodes", doubled(8, 6), 2, 2, PAIRS, partial(pair_network, "CS-GNN")),
    Case("CS-GNN", "step, 8 sets", "nodes", doubled(80, 6), 1, 1, "a row a set and node",
         partial(pair_network, "CS-GNN", sets=8)),
    Case("EPNN", "training step", "nodes", doubled(20, 5), 3, 2, "pairs, each a sum over eigenvectors", epnn),
    Case("EPNN", "eigenspaces", "nodes", doubled(40, 6), 3, 2, "eigenvectors", eigenspaces),
    Case("GRANOLA", "a layer, both ways", "nodes", doubled(3072, 6), 1, 1, "nodes and edges", granola),
    Case("SMCN, HOMP", "SMCN, training step", "faces", doubled(16, 5), 2, 2, "a row a vertex and edge", smcn),
    Case("SMCN, HOMP", "HOMP, training step", "faces", doubled(256, 6), 1, 1, "cells", homp),
    Case("Learning on LoRAs", "GL-net, training step", "width", doubled(1024, 6), 1, 1, "entries of factors", glnet),
    Case("Learning on LoRAs", "reading a file", "layers", doubled(64, 6), 1, 1, "layers", adapter_file),
    Case("Asymmetric networks", "training step", "width", doubled(128, 6), 2, 2, "weights", fixed_entries),
    Case("Asymmetric networks", "weight matching", "width", doubled(64, 6), 3, 2, "products, assignment", matching),
    Case("FS-Merge", "fit, 20 steps", "width", doubled(64, 6), 2, 2, "weights", merge_fit),
    Case("TracksTo4D, a pass", "points, in 40 frames", "points", doubled(64, 6), 2, 1, "attention over points",
         partial(tracks_pass, frames=40)),
    Case("TracksTo4D, a pass", "frames, 100 points", "frames", doubled(32, 6), 2, 1, "attention over frames",
         partial(tracks_pass, 100)),
    Case("TracksTo4D, refinement", "points, in 40 frames", "points", doubled(32, 6), 2, 2, "distances of what moves",
         partial(refinement, frames=40)),
    Case("TracksTo4D, refinement", "frames, 64 points", "frames", doubled(20, 5), 3, 2, "a system of all cameras",
         partial(refinement, 64)),
    Case("Reconstruction", "inputs, 8 shifts", "entries", doubled(64, 6), 1, 1, "weights", partial(search, order=8)),
    Case("Reconstruction", "shifts of 256 entries", "shifts", doubled(4, 6), 1, 1, "orbits", partial(search, 256)),
    Case("coset wl --complex", "two tori", "faces", doubled(64, 5), 2, 2, "pairs of cells, a round", told_apart),
)  # fmt: skip
