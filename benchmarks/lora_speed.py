"""Time of LoL models on Stable-Diffusion-shaped adapters: stacked by shape against one layer after another, and dense.

Run: python benchmarks/lora_speed.py. Process time, one thread, medians; ratios are what matters. The loop has what it
likes best: a contiguous tensor a layer and side, weights of its own. Ours is given the same adapters twice: as plain
arrays ``[batch, layers, n, r]``, and in the memory order in which training takes batches from a collection.
"""

from collections.abc import Callable

import torch
from scipy.linalg import orthogonal_procrustes

from coset.weights.lora.data.factors import Factors, Layout, select
from coset.weights.lora.models.columns import columns, gather
from coset.weights.lora.models.features import Alignment
from coset.weights.lora.models.glnet import GLNet
from coset.weights.lora.models.heads import Head
from timing import median_ms

SHAPES = [((320, 320), 15), ((320, 768), 5), ((640, 640), 15), ((640, 768), 5), ((1280, 1280), 18), ((1280, 768), 6)]
BATCH, RANK, WIDTH, HIDDEN, COLLECTION = 16, 4, 16, 16, 64


def loop(net: GLNet, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """The same network, one layer of the adapters after another."""
    phis = [phi for group in net.first.phi for phi in group]
    psis = [psi for group in net.first.psi for psi in group]
    parts = [((phi @ u) @ (psi @ v).mT).flatten(1) for phi, psi, (u, v) in zip(phis, psis, layers, strict=True)]
    return net.head.mlp(torch.cat(parts, 1))


def apart(x: Factors) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A contiguous pair a layer."""
    return [(u[:, i].contiguous(), v[:, i].contiguous()) for u, v in x for i in range(u.size(1))]


def glnet(layout: Layout, collection: Factors) -> GLNet:
    """Every mode of a GL-net side by side; returns the network."""
    plain = select(collection, slice(0, BATCH))
    plain = tuple((u.clone(), v.clone()) for u, v in plain)
    ordered, layers = gather(plain, torch.arange(BATCH)), apart(plain)
    net = GLNet(layout, plain, WIDTH, 1, HIDDEN, 1)
    net.size.fill_(1.0)
    torch.testing.assert_close(loop(net, layers), net(plain), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(net(ordered), net(plain), rtol=1e-3, atol=1e-3)

    def step(forward: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def both() -> None:
            net.zero_grad()
            forward().square().sum().backward()

        return both

    all_layers = apart(collection)
    rows = torch.arange(0, COLLECTION, COLLECTION // BATCH)

    def taken() -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(u[rows], v[rows]) for u, v in all_layers]

    def no_grad(f: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        return torch.no_grad()(f)

    show("forward without gradients", no_grad(lambda: loop(net, layers)), no_grad(lambda: net(ordered)),
         no_grad(lambda: net(plain)))  # fmt: skip
    show("forward", lambda: loop(net, layers), lambda: net(ordered), lambda: net(plain))
    show("forward and backward", step(lambda: loop(net, layers)), step(lambda: net(ordered)), step(lambda: net(plain)))
    show("batch taken from a collection, forward and backward", step(lambda: loop(net, taken())),
         step(lambda: net(gather(collection, rows))))  # fmt: skip
    floor(net, ordered)
    return net


def show(what: str, theirs: Callable[[], object], *ours: Callable[[], object]) -> None:
    """The loop against ours, in the memory order and plain."""
    t = median_ms(theirs)
    found = [median_ms(f) for f in ours]
    shown = ", ".join(
        f"{label} {f:.1f} ms ({t / f:.2f} x)" for label, f in zip(("ordered", "plain"), found, strict=False)
    )
    print(f"GL-net, {what}: layer by layer {t:.1f} ms, {shown}", flush=True)


def floor(net: GLNet, ordered: Factors) -> None:
    """The matrix products of the first layer alone, and reading the inputs once."""
    both = [(columns(u), columns(v)) for u, v in ordered]
    with torch.no_grad():
        products = median_ms(
            lambda: [(p @ u, q @ v) for p, q, (u, v) in zip(net.first.phi, net.first.psi, both, strict=True)]
        )
        copy = median_ms(lambda: [(u.clone(), v.clone()) for u, v in both])
    print(
        f"floor: matrix products of the first layer {products:.1f} ms; a copy of the inputs {copy:.1f} ms", flush=True
    )


def dense(layout: Layout, net: GLNet, x: Factors) -> None:
    """Time, memory and size against an MLP on the updates themselves."""
    numbers = layout.dense_numbers()
    head, rest = torch.randn(HIDDEN, numbers), Head(HIDDEN, HIDDEN, 1)

    def forward() -> torch.Tensor:
        result, start = torch.zeros(BATCH, HIDDEN), 0
        for u, v in x:
            product = (u @ v.mT).flatten(1)
            result += product @ head[:, start : start + product.size(1)].mT
            start += product.size(1)
        return rest(result)

    with torch.no_grad():
        d, g = median_ms(forward, 3), median_ms(lambda: net(x))
    print(f"dense forward: {d:.0f} ms, GL-net on plain arrays {g:.1f} ms: {d / g:.0f} x")
    sizes = [sum(t.numel() for pair in x for t in pair), BATCH * numbers]
    print(f"inputs of a batch: GL-net {sizes[0] * 4 / 1e6:.0f} MB, dense {sizes[1] * 4 / 1e6:.0f} MB")
    parameters = sum(p.numel() for p in net.parameters())
    print(f"parameters: dense {head.numel():,}, GL-net {parameters:,}: {head.numel() / parameters:.0f} x")


def procrustes(what: str, x: Factors) -> None:
    """Rotations of all layers of all adapters, as ``scipy.linalg.orthogonal_procrustes`` returns them one by one."""
    align = Alignment(select(x, slice(0, 1)))
    joined = [torch.cat([u, v], -2).numpy() for u, v in x]
    ordered = gather(x, torch.arange(x[0][0].size(0)))

    def scipy_loop() -> None:
        for i, group in enumerate(joined):
            template = align.get_buffer(f"template_{i}").numpy()
            for row in group:
                for layer in range(row.shape[0]):
                    orthogonal_procrustes(row[layer], template[layer])

    with torch.no_grad():
        t, *ours = (
            median_ms(scipy_loop, 3),
            median_ms(lambda: align.rotations(ordered)),
            median_ms(lambda: align.rotations(x)),
        )
    number = sum(u.size(0) * u.size(1) for u, _ in x)
    shown = ", ".join(
        f"{label} {f:.1f} ms ({t / f:.1f} x)" for label, f in zip(("ordered", "plain"), ours, strict=True)
    )
    print(f"Procrustes, {number} matrices of {what}: SciPy in a loop {t:.0f} ms, {shown}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layout = Layout.of((f"{shape}.{i}", shape) for shape, count in SHAPES for i in range(count))
    collection = tuple(
        (torch.randn(COLLECTION, c, n, RANK), torch.randn(COLLECTION, c, m, RANK)) for (n, m), c in SHAPES
    )
    net = glnet(layout, collection)
    batch = select(collection, torch.arange(BATCH))
    procrustes("Stable Diffusion", batch)
    procrustes("digits", ((torch.randn(1200, 2, 64, RANK), torch.randn(1200, 2, 64, RANK)),))
    dense(layout, net, batch)


if __name__ == "__main__":
    main()
