"""Time of LoL models on Stable-Diffusion-shaped adapters: stacked by shape against one layer after another, and dense.

Run: python benchmarks/lora_speed.py. Process time, one thread; ratios are what matters.
"""

import time
from collections.abc import Callable

import torch
from scipy.linalg import orthogonal_procrustes

from coset.weights.lora.factors import Factors, Layout, select
from coset.weights.lora.features import Alignment
from coset.weights.lora.heads import Head
from coset.weights.lora.models import GLNet

SHAPES = [((320, 320), 15), ((320, 768), 5), ((640, 640), 15), ((640, 768), 5), ((1280, 1280), 18), ((1280, 768), 6)]
BATCH, RANK, WIDTH, HIDDEN = 16, 4, 16, 16


def median(function: Callable[[], object], repeats: int = 7) -> float:
    """Median of process times, the first call left out."""
    function()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return sorted(times)[len(times) // 2]


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layout = Layout.of((f"{shape}.{i}", shape) for shape, count in SHAPES for i in range(count))
    x = tuple((torch.randn(BATCH, c, n, RANK), torch.randn(BATCH, c, m, RANK)) for (n, m), c in SHAPES)
    net = GLNet(layout, x, WIDTH, 1, HIDDEN, 1)

    def per_layer() -> torch.Tensor:
        parts = []
        for (u, v), phi, psi, i in zip(x, net.first.phi, net.first.psi, range(len(x)), strict=True):
            size = net.get_buffer(f"size_{i}")
            for layer in range(u.size(1)):
                a = (phi[layer] * size[layer]) @ u[:, layer]
                b = (psi[layer] * size[layer]) @ v[:, layer]
                parts.append((a @ b.mT).flatten(1))
        return net.head(torch.cat(parts, 1))

    assert torch.allclose(per_layer(), net(x), rtol=1e-3, atol=1e-4)

    def step(forward: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def both() -> None:
            net.zero_grad()
            forward().square().sum().backward()

        return both

    grouped, looped = median(lambda: net(x)), median(per_layer)
    times = f"stacked {grouped * 1e3:.1f} ms, layer by layer {looped * 1e3:.1f} ms"
    print(f"GL-net forward: {times}: {looped / grouped:.2f} x")
    with torch.no_grad():
        grouped, looped = median(lambda: net(x)), median(per_layer)
    times = f"stacked {grouped * 1e3:.1f} ms, layer by layer {looped * 1e3:.1f} ms"
    print(f"GL-net forward without gradients: {times}: {looped / grouped:.2f} x")
    g, s = median(step(lambda: net(x))), median(step(per_layer))
    print(f"GL-net forward and backward: {g * 1e3:.1f} ms, layer by layer {s * 1e3:.1f} ms: {s / g:.2f} x")
    dense_numbers = layout.dense_numbers()
    head = torch.randn(HIDDEN, dense_numbers)
    rest = Head(HIDDEN, HIDDEN, 1)

    def dense() -> torch.Tensor:
        result = torch.zeros(BATCH, HIDDEN)
        start = 0
        for u, v in x:
            product = (u @ v.mT).flatten(1)
            result += product @ head[:, start : start + product.size(1)].mT
            start += product.size(1)
        return rest(result)

    with torch.no_grad():
        d, grouped = median(dense, 3), median(lambda: net(x))
    parameters = sum(p.numel() for p in net.parameters())
    features = len(layout.names) * WIDTH**2
    print(f"dense forward: {d * 1e3:.0f} ms, GL-net {grouped * 1e3:.1f} ms: {d / grouped:.0f} x")
    sizes = [sum(t.numel() for pair in x for t in pair), BATCH * dense_numbers]
    print(f"inputs of a batch: GL-net {sizes[0] * 4 / 1e6:.0f} MB, dense {sizes[1] * 4 / 1e6:.0f} MB")
    print(f"parameters: dense {head.numel():,}, GL-net {parameters:,}: {head.numel() / parameters:.0f} x")
    print(f"features of an adapter: dense {dense_numbers:,}, GL-net {features:,}: {dense_numbers / features:.0f} x")
    procrustes("Stable Diffusion", x)
    procrustes("digits", ((torch.randn(1200, 2, 64, RANK), torch.randn(1200, 2, 64, RANK)),))


def procrustes(what: str, x: Factors) -> None:
    """Rotations of all layers of all adapters, as ``scipy.linalg.orthogonal_procrustes`` returns them one by one."""
    align = Alignment(select(x, slice(0, 1)))
    joined = [torch.cat([u, v], -2).numpy() for u, v in x]

    def scipy_loop() -> None:
        for i, group in enumerate(joined):
            template = align.get_buffer(f"template_{i}").numpy()
            for row in group:
                for layer in range(row.shape[0]):
                    orthogonal_procrustes(row[layer], template[layer])

    with torch.no_grad():
        ours, loop = median(lambda: align.rotations(x)), median(scipy_loop, 3)
    number = sum(u.size(0) * u.size(1) for u, _ in x)
    times = f"batched {ours * 1e3:.1f} ms, SciPy in a loop {loop * 1e3:.0f} ms"
    print(f"Procrustes, {number} matrices of {what}: {times}: {loop / ours:.1f} x")


if __name__ == "__main__":
    main()
