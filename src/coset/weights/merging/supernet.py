r"""FS-Merge: a SuperNet of frozen teachers joined by learned maps, trained in its folded form.

Every linear map of the SuperNet is y = (concat_i [(x U_i) W_i^T + b_i]) M, which equals x W*^T + b* with
W* = sum_i M_i^T W_i U_i^T and b* = sum_i b_i M_i, for any M and U. So the SuperNet and the folded network are the same
function at every step of training, and it is enough to fold once a step and run one ordinary network:
:class:`FoldedSuperNet`. :class:`ExplicitSuperNet` is the SuperNet as it is written, for tests and for comparison.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from coset.core.errors import CosetError
from coset.weights.merging.encoders import Encoder, Inputs
from coset.weights.merging.operators import LOW_RANK, BlockMap, HeadMap, Kind, Start, fold
from coset.weights.merging.wiring import Blocks, Slot, Wiring, check_alike, matrix, shaped

Mode = Literal["dense", "implicit", "folded"]


class Student(nn.Module, ABC):
    """What is trained to give the teachers' features: merged features, and from them those of each teacher."""

    @abstractmethod
    def forward(self, inputs: Inputs) -> Float[Tensor, "samples width"]:
        """Merged features."""

    @abstractmethod
    def project(self, i: int, features: Float[Tensor, "samples width"]) -> Float[Tensor, "samples d_i"]:
        """Features of teacher i, from merged ones."""

    @abstractmethod
    def finished(self) -> tuple[Encoder, list[Float[Tensor, "d_i width"]]]:
        """An ordinary network, and for each teacher the map from its features to the teacher's."""


class FoldedSuperNet(Student):
    """The SuperNet of several networks, run as the one network that it folds to.

    Args:
        teachers: Networks of one architecture; they are left alone.
        width: Of the merged network; that of the first teacher if None.
        kind: Parametrisation of all M and U.
        rank: Of their low-rank parts; hidden units of MLP blocks get floor(rank h / d).
        init: ``first`` begins as teacher 1, ``average`` as the mean of the weights.
        seed: Of the random parts.

    Raises:
        CosetError: The teachers do not fit together, or the options do not fit them.
    """

    def __init__(
        self, teachers: Sequence[Encoder], *, width: int | None = None, kind: Kind = "diagonal_and_low_rank",
        rank: int = 4, init: Start = "first", seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        self._teachers, self._width = list(teachers), width
        wirings = [teacher.wiring() for teacher in teachers]
        check_alike([f"teacher {i + 1}" for i in range(len(teachers))], wirings)
        self._shell = [teachers[0].shell(width).eval().requires_grad_(False)]  # a list: not a submodule
        self.wiring = self._shell[0].wiring()
        stream = self.wiring.widths[self.wiring.stream]
        if kind in (*LOW_RANK, "heads") and not 1 <= rank <= stream:
            raise CosetError(f"rank={rank} must lie between 1 and the width of the merged network, {stream}")
        self._states = [teacher.weights() for teacher in teachers]
        generator = torch.Generator().manual_seed(seed)
        merges, unmerges = self.wiring.maps()
        example = self._states[0][self.wiring.slots[0].weight]
        options = (wirings, kind, rank, init, generator, example)
        self.merges = nn.ModuleDict({n: self._map(space, "merge", *options) for n, space in merges.items()})
        self.unmerges = nn.ModuleDict({n: self._map(space, "unmerge", *options) for n, space in unmerges.items()})
        self.norms = nn.ParameterDict()
        for norm in self.wiring.norms:
            for name in norm.names:
                self.norms[_key(name)] = nn.Parameter(self._start_of_norm(name, norm.space, init))
        self.to(device=example.device, dtype=example.dtype)

    def _map(
        self, space: str, side: Any, wirings: Sequence[Wiring], kind: Kind, rank: int, init: Start,
        generator: torch.Generator, example: Tensor,
    ) -> BlockMap:  # fmt: skip
        """A map of a space at its start, which is computed in the teachers' precision: a third is a third."""
        widths, width = [w.widths[space] for w in wirings], self.wiring.widths[space]
        heads = self.wiring.heads.get(space)
        if kind == "heads" and heads:
            made: BlockMap = HeadMap(widths, width, heads, shared=side == "unmerge")
        else:
            plain: Kind = "diagonal_and_low_rank" if kind == "heads" else kind
            made = BlockMap(widths, width, plain, self.wiring.rank(space, rank))
        made.to(device=example.device, dtype=example.dtype)
        made.start(init, side, generator)
        return made

    def _start_of_norm(self, name: str, space: str, init: Start) -> Tensor:
        width = self.wiring.widths[space]
        values = [F.pad(s[name][:width], (0, max(0, width - len(s[name])))) for s in self._states]
        if init == "random":
            return torch.full_like(values[0], 1.0 if name.endswith("weight") else 0.0)
        return values[0].clone() if init == "first" else torch.stack(values).mean(0)

    @torch.no_grad()
    def start_from(self, merges: Mapping[str, Blocks], unmerges: Mapping[str, Blocks]) -> None:
        """Begin with maps given by space, such as those of zipping; LayerNorms are merged in the same way.

        Args:
            merges: M_i ``[d_i, width]`` by space.
            unmerges: U_i^T ``[d_i, width]`` by space.

        Raises:
            CosetError: The maps have no room for any matrix.
        """
        of_merges, of_unmerges = self.wiring.maps()
        for maps, spaces, given in ((self.merges, of_merges, merges), (self.unmerges, of_unmerges, unmerges)):
            for name, space in spaces.items():
                full: Any = maps[name].full
                if full is None:
                    raise CosetError("only kind=full can begin with any maps")
                for parameter, block in zip(full, given[space], strict=True):
                    parameter.copy_(block)
        for norm in self.wiring.norms:
            for name in norm.names:
                parts = [s[name] @ merges[norm.space][i].to(s[name]) for i, s in enumerate(self._states)]
                self.norms[_key(name)].copy_(torch.stack(parts).sum(0))

    @torch.no_grad()
    def tie_output(self) -> None:
        """Leave the map from merged features to the teachers' at [I ... I]: all of them share one space.

        Raises:
            CosetError: The map has no diagonal.
        """
        output: Any = self.unmerges["output"]
        output.start("average", "unmerge", torch.Generator())
        output.requires_grad_(False)

    @property
    def teachers(self) -> int:
        return len(self._states)

    @property
    def shell(self) -> Encoder:
        """The ordinary network whose parameters are folded."""
        return self._shell[0]

    def source(self, slot: Slot, i: int) -> Tensor:
        """W_i of one teacher, as a matrix."""
        return matrix(slot, self._states[i][slot.weight])

    def biases(self, slot: Slot) -> list[Tensor]:
        return [state[slot.bias] for state in self._states] if slot.bias else []

    def fold(self, slot: Slot) -> tuple[Tensor, Tensor | None]:
        """W* as a matrix, and b*."""
        unmerge: Any = self.unmerges[slot.unmerge] if slot.unmerge else None
        merge: Any = self.merges[slot.merge]
        return fold(merge, partial(self.source, slot), self.biases(slot) or None, unmerge)

    def folded(self) -> dict[str, Tensor]:
        """All parameters of the ordinary network; gradients flow to M, U and the norms."""
        return dict(self.folded_one_by_one())

    def folded_one_by_one(self) -> Iterator[tuple[str, Tensor]]:
        """The same, each made when it is asked for."""
        for slot in self.wiring.slots:
            weight, bias = self.fold(slot)
            yield slot.weight, shaped(slot, weight, self._states[0][slot.weight])
            if slot.bias and bias is not None:
                yield slot.bias, bias
        yield from self.trained_norms().items()

    def trained_norms(self) -> dict[str, Tensor]:
        return {n: self.norms[_key(n)] for norm in self.wiring.norms for n in norm.names}

    def forward(self, inputs: Inputs) -> Float[Tensor, "samples width"]:
        """Merged features."""
        return functional_call(self.shell, self.folded(), (inputs,))

    def project(self, i: int, features: Float[Tensor, "samples width"]) -> Float[Tensor, "samples d_i"]:
        return self.unmerges["output"].spread(i, features)  # type: ignore[operator]

    @property
    def output_widths(self) -> list[int]:
        """Widths of the teachers' features."""
        return [t.wiring().widths[self.wiring.output] for t in self._teachers]

    @torch.no_grad()
    def encoder(self) -> Encoder:
        """The ordinary network that it folds to."""
        made = self._teachers[0].shell(self._width).eval()
        for name, value in self.folded_one_by_one():
            module, _, last = name.rpartition(".")
            made.get_submodule(module).register_parameter(last, nn.Parameter(value.contiguous().clone()))
        return made

    @torch.no_grad()
    def finished(self) -> tuple[Encoder, list[Float[Tensor, "d_i width"]]]:
        return self.encoder(), [self.unmerges["output"].dense(i).clone() for i in range(self.teachers)]  # type: ignore[operator]

    def explicit(self, mode: Mode = "implicit") -> ExplicitSuperNet:
        """The same SuperNet, with the same parameters, run layer by layer; see :class:`ExplicitSuperNet`."""
        return ExplicitSuperNet(self, mode)


class ExplicitSuperNet(Student):
    """The SuperNet as it is written: every teacher's layer is run, between U and M.

    Args:
        net: Whose maps (the very same parameters) are used.
        mode: ``dense`` multiplies by M and U as matrices, ``implicit`` by their diagonals and factors; ``folded`` folds
            a layer where it is used and once more for its gradient, and keeps no W*: the least memory.
    """

    def __init__(self, net: FoldedSuperNet, mode: Mode = "implicit"):
        super().__init__()
        self.net = net
        self.body = copy.deepcopy(net.shell)
        self.plain: list[Slot] = []
        for slot in net.wiring.slots:
            parent = self.body.get_submodule(slot.module)
            if isinstance(parent, nn.Linear | nn.Conv2d | nn.Embedding):
                where, _, name = slot.module.rpartition(".")
                setattr(self.body.get_submodule(where), name, _SuperMap(net, slot, parent, mode))
            else:
                self.plain.append(slot)

    def forward(self, inputs: Inputs) -> Float[Tensor, "samples width"]:
        values = self.net.trained_norms()
        for slot in self.plain:
            # A class token or positions: concatenated, then merged.
            table = torch.cat([s[slot.weight] for s in self.net._states], -1)
            stacked = torch.cat([self.net.merges[slot.merge].dense(i) for i in range(self.net.teachers)])  # type: ignore[operator]
            values[slot.weight] = table @ stacked
        return functional_call(self.body, values, (inputs,))

    def project(self, i: int, features: Float[Tensor, "samples width"]) -> Float[Tensor, "samples d_i"]:
        return self.net.project(i, features)

    def finished(self) -> tuple[Encoder, list[Tensor]]:
        return self.net.finished()


class _SuperMap(nn.Module):
    """(concat_i [(x U_i) W_i^T + b_i]) M in the place of a Linear, a convolution or a table."""

    def __init__(self, net: FoldedSuperNet, slot: Slot, replaced: nn.Module, mode: str):
        super().__init__()
        self.merge, self.mode = net.merges[slot.merge], mode
        self.unmerge = net.unmerges[slot.unmerge] if slot.unmerge else None
        self.source = lambda i: net._states[i][slot.weight]  # read where it is used: it may be on disk
        self.fold = lambda: net.fold(slot)
        self.biases = net.biases(slot) or [None] * net.teachers  # type: ignore[list-item]
        self.replaced = [replaced]  # its stride; some models also ask for its dtype

    @property
    def weight(self) -> Tensor:
        return self.replaced[0].weight  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        k = len(self.biases)
        if isinstance(self.replaced[0], nn.Conv2d):
            stride = self.replaced[0].stride
            made = [F.conv2d(x, self.source(i), b, stride).movedim(1, -1) for i, b in enumerate(self.biases)]
            return self._merge(made).movedim(-1, 1)
        if isinstance(self.replaced[0], nn.Embedding):
            return self._merge([F.embedding(x, self.source(i)) for i in range(k)])
        if self.mode == "folded":
            return checkpoint(lambda y: F.linear(y, *self.fold()), x, use_reentrant=False)
        return self._merge([F.linear(y, self.source(i), self.biases[i]) for i, y in enumerate(self._unmerge(x, k))])

    def _unmerge(self, x: Tensor, k: int) -> list[Tensor]:
        if self.unmerge is None:
            return [x] * k
        if self.mode == "dense":
            stacked = torch.cat([self.unmerge.dense(i) for i in range(k)])  # type: ignore[operator]
            return list((x @ stacked.mT).split([len(self.unmerge.dense(i)) for i in range(k)], -1))  # type: ignore[operator]
        return [self.unmerge.spread(i, x) for i in range(k)]  # type: ignore[operator]

    def _merge(self, parts: list[Tensor]) -> Tensor:
        if self.mode == "dense":
            stacked = torch.cat([self.merge.dense(i) for i in range(len(parts))])  # type: ignore[operator]
            return torch.cat(parts, -1) @ stacked
        return torch.stack([self.merge.gather(i, part) for i, part in enumerate(parts)]).sum(0)  # type: ignore[operator]


class Distilled(Student):
    """An ordinary network trained on the teachers' features: plain knowledge distillation.

    Args:
        start: Where it begins; copied.
        scales: For each teacher, what merged features are multiplied with to give its own.

    Raises:
        CosetError: Teachers have features of other widths.
    """

    def __init__(self, start: Encoder, scales: Sequence[float]):
        super().__init__()
        self.encoder = copy.deepcopy(start).requires_grad_(True)
        self.scales = list(scales)

    def forward(self, inputs: Inputs) -> Float[Tensor, "samples width"]:
        return self.encoder(inputs)

    def project(self, i: int, features: Float[Tensor, "samples width"]) -> Float[Tensor, "samples width"]:
        return features * self.scales[i]

    @torch.no_grad()
    def finished(self) -> tuple[Encoder, list[Tensor]]:
        made = copy.deepcopy(self.encoder).eval()
        wiring = made.wiring()
        eye = torch.eye(wiring.widths[wiring.output])
        return made, [eye * scale for scale in self.scales]


class DistilledApart(Distilled):
    """Distillation with a map of each teacher's own on top, so that teachers need not share one space of features.

    They are folded into the heads in the end, as FS-Merge's maps of outputs are: so both have the same room.

    Args:
        start: Where it begins; copied.
        widths: Of each teacher's features; the maps begin at the identity.
    """

    def __init__(self, start: Encoder, widths: Sequence[int]):
        super().__init__(start, [1.0] * len(widths))
        wiring = start.wiring()
        like = next(start.parameters())
        self.maps = nn.ParameterList(nn.Parameter(torch.eye(d, wiring.widths[wiring.output]).to(like)) for d in widths)

    def project(self, i: int, features: Float[Tensor, "samples width"]) -> Float[Tensor, "samples d_i"]:
        return features @ self.maps[i].mT

    @torch.no_grad()
    def finished(self) -> tuple[Encoder, list[Tensor]]:
        return copy.deepcopy(self.encoder).eval(), [u.detach().clone() for u in self.maps]


def check_output_widths(teachers: Sequence[Encoder]) -> None:
    """Distillation into one space needs equal widths of features.

    Raises:
        CosetError: They differ.
    """
    widths = [w.widths[w.output] for w in (t.wiring() for t in teachers)]
    if len(set(widths)) > 1:
        raise CosetError(
            f"teachers have features of widths {widths}: distillation with output=tied needs equal ones; output=free "
            "and fs_merge do not"
        )


def _key(name: str) -> str:
    return name.replace(".", "_")
