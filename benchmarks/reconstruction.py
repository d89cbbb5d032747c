"""What weights give away, measured: the experiments of docs/reconstruction.md, and the speed of restarts side by side.

    python benchmarks/reconstruction.py plain groups activation drift basin isotypic generator collapse members sets
    python benchmarks/reconstruction.py solved_plain solved_c4 solved_d4 canaries
    python benchmarks/reconstruction.py written speed seeds=1
    python benchmarks/reconstruction.py mnist_fifty mnist_hundred mnist_descent

Each name is one experiment on scikit-learn's digits (``sets``: point clouds); every row is one seed. CPU seconds.
"""

import sys
import time
from functools import partial

import torch

from coset.privacy import (
    Attack,
    InvariantClassifier,
    ReLUNetwork,
    SoftplusFeatures,
    attribute,
    audit,
    distinct_neurons,
    first_layer,
    group_of,
    hidden_layer_of,
    information_of,
    membership_auc,
    multipliers,
    reconstruct,
    score,
    train_to_margin,
    train_to_stationarity,
    with_surrogate,
)
from coset.privacy.canaries import planted
from coset.privacy.data.images import digits, mnist, point_clouds
from coset.privacy.descent import train_by_descent
from coset.privacy.kinks import determined_by_gates, stationarity_at_kinks
from coset.privacy.models.modules import OnFlatInputs
from coset.privacy.neuron_differences import units
from coset.privacy.reconstruction import _Objective

SHAPE = (8, 8)
DECAY = 1e-3
HELD_OUT = 200


class Toy:
    """A classifier trained on a few digits, to a stationary point."""

    def __init__(self, name: str, count: int, hidden: int, seed: int, images=None, tolerance: float = 1e-7):
        self.images = images or digits(count, HELD_OUT, seed)
        self.group = group_of(name, self.images.shape)
        self.inputs = self.images.train.size(1)
        generator = torch.Generator().manual_seed(seed)
        scale = 0.05 if count == 6 else 0.1
        self.model = InvariantClassifier(
            SoftplusFeatures(self.inputs, hidden, scale=scale, generator=generator), self.group
        )
        self.reached = train_to_stationarity(self.model, self.images.train, self.images.labels, tolerance=tolerance)
        with torch.no_grad():
            self.c = multipliers("mse", self.model(self.images.train), self.images.labels, DECAY)

    def attack(self, given=None, **options):
        count = options.pop("candidates", len(self.images.train))
        size = float(self.c.abs().mean()) * len(self.c) / count
        return reconstruct(
            self.model, self.inputs, Attack(candidates=count, **options), group=self.group, scale=size, start=given
        )  # fmt: skip

    def score(self, found):
        picture = self.images.picture
        return score(found.candidates[found.best], self.images.train, self.images.held_out, self.group, picture)


def show(name: str, seed: int, **numbers) -> None:
    cells = [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items()]
    print(f"{name} seed={seed}: " + ", ".join(cells), flush=True)


def plain(seed: int) -> None:
    """A1: no group, ten digits, twice as many candidates."""
    toy = Toy("plain", 10, 100, seed)
    scores = toy.score(toy.attack(candidates=20, steps=3000, seed=seed))
    show("plain", seed, correlation=scores.mean, recognised=scores.recognised(), null=float(scores.null.mean()))


def groups(seed: int) -> None:
    """A2: the same digits, networks that see fewer and fewer of their symmetries."""
    for name, hidden in (("plain", 100), ("c4", 200), ("d4", 200)):
        toy = Toy(name, 10, hidden, seed)
        found = toy.attack(steps=4000, seed=seed)
        scores = toy.score(found)
        show(
            f"groups {name}", seed, correlation=scores.mean, recognised=scores.recognised(),
            null=float(scores.null.mean()), symmetry=scores.symmetry, of_data=scores.data_symmetry,
            residual=float(found.residual.min()),
        )  # fmt: skip


def activation(seed: int) -> None:
    """A3: activation maximisation, on an invariant network and on a plain one."""
    d4 = group_of("d4", SHAPE)
    for name in ("plain", "d4"):
        toy = Toy(name, 6, 300, seed)
        for start in (1e-4, 0.1, 0.3):
            found = toy.attack(method="activation", steps=1000, start=start, seed=seed)
            x = found.candidates[0]
            show(
                f"activation {name} start={start}", seed, symmetry=float(d4.symmetry_index(x).median()),
                self_similarity=float(d4.self_similarity(x).median()), correlation=toy.score(found).mean,
            )  # fmt: skip


def drift(seed: int) -> None:
    """A4: symmetry of candidates along the search, from near zero and from far."""
    for count, hidden in ((10, 200), (6, 300)):
        toy = Toy("d4", count, hidden, seed)
        for start in (1e-4, 0.1):
            found = toy.attack(steps=4000, start=start, seed=seed)
            early = next(row for row in found.trace if row["step"] >= 40)
            scores = toy.score(found)
            show(
                f"drift n={count} start={start}", seed, step=early["step"], early=early["symmetry"],
                final=found.trace[-1]["symmetry"], of_data=scores.data_symmetry, correlation=scores.mean,
            )  # fmt: skip


def basin(seed: int) -> None:
    """A5: from the truth with noise, against six random starts."""
    toy = Toy("d4", 4, 200, seed)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, *toy.images.train.shape, generator=generator, dtype=torch.float64)
    near = toy.attack(given=_by_label(toy.images) + 0.1 * noise, steps=3000, learning_rate=0.01, seed=seed)
    far = toy.attack(steps=3000, learning_rate=0.01, restarts=6, seed=seed)
    show(
        "basin", seed, correlation=toy.score(near).mean, residual=float(near.residual.min()),
        random=toy.score(far).mean, random_residual=float(far.residual.min()),
    )  # fmt: skip


def _by_label(images):
    return images.train[images.labels.argsort(stable=True)]


def isotypic(seed: int) -> None:
    """A6, and the memory: remedies against the plain search, same number of steps, from 1e-4."""
    for count, hidden in ((6, 300), (10, 200)):
        toy = Toy("d4", count, hidden, seed)
        for name, options in (("none", {}), ("isotypic 100", {"isotypic": 100.0}), ("memory 0.1", {"memory": 0.1})):
            before = time.process_time()
            scores = toy.score(toy.attack(steps=4000, start=1e-4, seed=seed, **options))
            show(
                f"remedies n={count} {name}", seed, correlation=scores.mean, recognised=scores.recognised(),
                null=float(scores.null.mean()), symmetry=scores.symmetry, seconds=time.process_time() - before,
            )  # fmt: skip


def generator(seed: int) -> None:
    """A7: candidates out of a generator."""
    toy = Toy("d4", 6, 300, seed)
    found = toy.attack(steps=4000, generator=True, learning_rate=0.005, seed=seed)
    early = next(row for row in found.trace if row["step"] >= 40)
    scores = toy.score(found)
    show(
        "generator",
        seed,
        step=early["step"],
        early=early["symmetry"],
        correlation=scores.mean,
        symmetry=scores.symmetry,
    )


def collapse(seed: int) -> None:
    """A8: all weights trained with decay: few distinct neurons, a small residual, wrong images."""
    images = digits(10, HELD_OUT, seed)
    group = group_of("plain", SHAPE)
    base = ReLUNetwork([64, 100, 1], generator=torch.Generator().manual_seed(seed))
    model = InvariantClassifier(_softplus(base), group)
    reached = train_to_stationarity(model, images.train, images.labels, loss="logistic")
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    neurons = distinct_neurons(torch.cat([linear[0].weight, linear[0].bias[:, None]], 1).detach())
    with torch.no_grad():
        c = multipliers("logistic", model(images.train), images.labels, DECAY)
    attack = Attack(candidates=20, steps=4000, restarts=2, seed=seed)
    found = reconstruct(model, 64, attack, group=group, scale=float(c.abs().mean()) / 2)
    scores = score(found.candidates[found.best], images.train, images.held_out, group, SHAPE)
    show(
        "collapse", seed, gradient=reached, neurons=neurons, residual=float(found.residual.min()),
        correlation=scores.mean, null=float(scores.null.mean()),
    )  # fmt: skip


def _softplus(network: torch.nn.Module) -> torch.nn.Module:
    for number, layer in enumerate(network.layers):
        if isinstance(layer, torch.nn.ReLU):
            network.layers[number] = torch.nn.Softplus(beta=5.0)
    return network


def members(seed: int, count: int = 20) -> None:
    """A9: who is in the training set, by multipliers and by the loss; ReLU network, momentum descent with decay."""
    images = digits(count, HELD_OUT, seed)
    model = InvariantClassifier(
        ReLUNetwork([64, 200, 1], generator=torch.Generator().manual_seed(seed)), group_of("plain", SHAPE)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=DECAY)
    for _ in range(40_000):
        optimizer.zero_grad()
        torch.nn.functional.softplus(-images.labels * model(images.train)).mean().backward()
        optimizer.step()
    theirs = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(HELD_OUT // 2)
    everything = torch.cat([images.train, images.held_out]), torch.cat([images.labels, theirs])
    own = attribute(model, images.train, images.labels).explained
    other = attribute(model, images.held_out[:count], theirs[:count]).explained
    joint = attribute(model, *everything).multipliers
    with torch.no_grad():
        margin = everything[1] * model(everything[0])
    show(
        "members", seed, explained=own, by_held_out=other, auc=membership_auc(joint[:count], joint[count:]),
        loss_auc=membership_auc(margin[:count], margin[count:]),
    )  # fmt: skip


def sets(seed: int) -> None:
    """A10: point clouds of six points; symmetry of candidates early in the search."""
    toy = Toy("sets", 6, 60, seed, images=point_clouds(6, 120, seed))
    found = toy.attack(steps=1500, start=0.1, seed=seed)
    scores = toy.score(found)
    early = [row["symmetry"] for row in found.trace if row["step"] <= 50]
    show(
        "sets", seed, correlation=scores.mean, null=float(scores.null.mean()), early=max(early[1:]),
        of_data=scores.data_symmetry, final=scores.symmetry,
    )  # fmt: skip


def shifts(seed: int) -> None:
    """A11: activation maximisation under all 64 shifts of the image."""
    toy = Toy("shifts", 6, 60, seed)
    found = toy.attack(method="activation", steps=500, start=0.01, seed=seed)
    show("shifts", seed, symmetry=float(toy.group.symmetry_index(found.candidates[0]).median()))


def relu(seed: int) -> None:
    """A12: wide ReLU networks on twenty digits, trained without decay to the margin; surrogate gates."""
    images, group = digits(20, HELD_OUT, seed), group_of("plain", SHAPE)
    for hidden, first in (([1000], None), ([1000, 1000], 1e-4)):
        base = ReLUNetwork([64, *hidden, 1], first=first, generator=torch.Generator().manual_seed(seed))
        model = InvariantClassifier(base, group)
        before = time.process_time()
        trace = train_to_margin(model, images.train, images.labels, steps=3000)
        truth = attribute(model, images.train, images.labels)
        show(
            f"relu {hidden} trained", seed, explained=truth.explained, margin=trace[-1]["margin"],
            neurons=distinct_neurons(first_layer(model)), seconds=time.process_time() - before,
        )  # fmt: skip
        for alpha in (20.0, 100.0):
            before = time.process_time()
            attack = Attack(candidates=40, steps=1500, alpha=alpha, start=0.1, least=0.1, seed=seed)
            found = reconstruct(model, 64, attack, scale=float(truth.multipliers.sum()) / 40)
            scores = score(found.candidates[found.best], images.train, images.held_out, group, SHAPE)
            show(
                f"relu {hidden} alpha={alpha:g}", seed, first=found.trace[0]["residual"],
                residual=float(found.residual.min()), correlation=scores.mean, recognised=scores.recognised(),
                null=float(scores.null.mean()), largest=float(scores.null.max()), seconds=time.process_time() - before,
            )  # fmt: skip


def _mnist(count: int, seed: int, attacks: dict[str, Attack]) -> None:
    """784-1000-1 with ReLUs, all weights trained with decay until the equations hold, gates at kinks counted."""
    images, group = mnist(count, 20 * count, seed=seed), group_of("plain", (28, 28))
    base = ReLUNetwork([784, 1000, 1], first=0.1, generator=torch.Generator().manual_seed(seed))
    model = InvariantClassifier(base, group)
    before = time.process_time()
    train_by_descent(model, images.train, images.labels, steps=6000 * max(1, count // 50))
    with torch.no_grad():
        c = multipliers("logistic", model(images.train), images.labels, DECAY)
    layer = hidden_layer_of(model, 784)
    reached = stationarity_at_kinks(layer, images.train, c)
    known = determined_by_gates(layer, reached.gates, c)
    show(
        f"mnist n={count} trained", seed, residual=reached.residual, by_sign=reached.by_sign, kinks=reached.kinks,
        neurons=len(units(layer).rows),
        rank=known.rank, undetermined=known.undetermined, condition=known.condition,
        seconds=time.process_time() - before,
    )  # fmt: skip
    for name, attack in attacks.items():
        before = time.process_time()
        found = reconstruct(model, 784, attack, scale=float(c.abs().sum()) / attack.candidates)
        scores = score(found.candidates[found.best], images.train, images.held_out, group, (28, 28))
        show(
            f"mnist n={count} {name}", seed, correlation=scores.mean, above_8=scores.recognised(0.8),
            above_9=scores.recognised(), null=float(scores.null.mean()), largest=float(scores.null.max()),
            ssim=float(scores.ssim.mean()), candidates=found.candidates.size(1), seconds=time.process_time() - before,
        )  # fmt: skip


def mnist_fifty(seed: int) -> None:
    """Fifty images, by differences of neurons."""
    _mnist(50, seed, {"differences": Attack(method="differences", candidates=100)})


def mnist_hundred(seed: int) -> None:
    """A hundred."""
    _mnist(100, seed, {"differences": Attack(method="differences", candidates=200)})


def mnist_descent(seed: int) -> None:
    """Fifty, by descent through gates."""
    attack = Attack(candidates=100, steps=2000, alpha=20.0, start=0.1, least=0.1, precision="float32", seed=seed)
    _mnist(50, seed, {"kkt": attack})


def speed(seed: int) -> None:
    """Restarts side by side against one after the other: CPU seconds of 100 steps."""
    for name, hidden in (("plain", 100), ("d4", 200)):
        toy = Toy(name, 10, hidden, seed, tolerance=1e-3)
        for restarts in (1, 4, 16):
            toy.attack(steps=2, restarts=restarts)
            before = time.process_time()
            toy.attack(steps=100, restarts=restarts)
            together = time.process_time() - before
            before = time.process_time()
            for number in range(restarts):
                toy.attack(steps=100, seed=number)
            show(f"speed {name}", seed, restarts=restarts, together=together, apart=time.process_time() - before)


def _solved(name: str, hidden: int, seed: int, **options) -> None:
    """Second-order steps beside the ceiling of an attack without a prior."""
    toy = Toy(name, 10, hidden, seed)
    before = time.process_time()
    found = toy.attack(method="gauss-newton", seed=seed, **options)
    seconds = time.process_time() - before
    known = information_of(toy.model, toy.images.train, toy.c, toy.group)
    scores = toy.score(found)
    show(
        f"solved {name}", seed, correlation=scores.mean, ceiling=float(known.ceiling.mean()),
        recognised=scores.recognised(), exact=scores.recognised(0.99), residual=float(found.residual[0]),
        undetermined=known.undetermined, candidates=found.candidates.size(1), seconds=seconds,
    )  # fmt: skip


def solved_plain(seed: int) -> None:
    """No group: twice as many candidates as images."""
    _solved("plain", 100, seed, candidates=20, steps=400, restarts=2)


def solved_c4(seed: int) -> None:
    """Quarter turns."""
    _solved("c4", 200, seed, steps=400, restarts=4)


def solved_d4(seed: int) -> None:
    """All symmetries of the square."""
    _solved("d4", 200, seed, steps=400, restarts=4)


def canaries(seed: int) -> None:
    """Audits' controls: canaries found inside the theory, and verdicts outside of it."""
    images, group = digits(10, HELD_OUT, seed), group_of("plain", SHAPE)
    theirs = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(HELD_OUT // 2)
    for gate in (torch.nn.Softplus(5.0), torch.nn.Tanh(), torch.nn.SiLU()):
        model = _features(gate, seed)
        attack = Attack(method="gauss-newton", candidates=20, steps=400, restarts=4, seed=seed)
        before = time.process_time()
        found = planted(model, images.train, images.labels, attack, group, loss="mse", weight_decay=DECAY)
        show(
            f"canaries {type(gate).__name__}", seed, recovered=found.recovered, of=10, residual=found.residual,
            ceiling=float(found.ceiling.mean()), seconds=time.process_time() - before,
        )  # fmt: skip
    torch.manual_seed(seed)
    normed = torch.nn.Sequential(
        torch.nn.Linear(64, 50), torch.nn.LayerNorm(50), torch.nn.ReLU(), torch.nn.Linear(50, 1), torch.nn.Flatten(0)
    )
    for name, model in (("stopped early", ReLUNetwork([64, 100, 1])), ("layer norm", normed.double())):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(300):
            optimizer.zero_grad()
            torch.nn.functional.softplus(-images.labels * model(images.train)).mean().backward()
            optimizer.step()
        data = (images.train, images.labels), (images.held_out, theirs)
        attack = Attack(candidates=20, steps=200, least=0.1)
        found = audit(model, *data, weight_decay=DECAY, attack=attack, plant=False)
        show(f"outside, {name}", seed, verdict=found.verdict.kind, residual=found.residual)


def _features(gate: torch.nn.Module, seed: int) -> torch.nn.Module:
    """A first layer that is trained, between biases and output weights that are not."""
    generator = torch.Generator().manual_seed(seed)
    first, last = torch.nn.Linear(64, 100).double(), torch.nn.Linear(100, 1, bias=False).double()
    with torch.no_grad():
        first.bias.copy_(torch.randn(100, generator=generator))
        last.weight.copy_(0.01 * torch.randn(1, 100, generator=generator).sign())
    first.bias.requires_grad_(False)
    last.weight.requires_grad_(False)
    return OnFlatInputs(torch.nn.Sequential(first, gate, last), (64,))


def written(seed: int) -> None:
    """Steps of descent by the equations written out, in either precision, against differentiation: warm, in turns."""
    for name, hidden in (("plain", 100), ("d4", 200)):
        for candidates in (20, 100):
            toy = Toy(name, 10, hidden, seed, tolerance=1e-2)
            labels = torch.where(torch.arange(candidates) < candidates // 2, -1.0, 1.0).double()
            ways = {}
            for precision in ("float64", "float32"):
                attack = Attack(candidates=candidates, precision=precision)
                smooth = with_surrogate(toy.model, 50.0).eval().to(getattr(torch, precision))
                objective = _Objective(smooth, 64, attack, labels, toy.group, 1.0)
                x = torch.randn(1, candidates, 64).to(getattr(torch, precision))
                state = {"x": x, "c": labels.to(x).unsqueeze(0)}
                ways[precision] = partial(objective.fastest(hidden_layer_of(toy.model, 64, 50.0)), state, x)
                if precision == "float64":
                    ways["differentiated"] = partial(objective.whole, state, x)
            spent = dict.fromkeys(ways, 0.0)
            for turn in range(12):
                for way, step in ways.items():
                    before = time.process_time()
                    for _ in range(10):
                        step()
                    spent[way] += (time.process_time() - before) * (turn > 1)  # the first two warm up
            show(
                f"written {name} m={candidates}", seed, ratio=spent["differentiated"] / spent["float64"],
                ratio_float32=spent["differentiated"] / spent["float32"],
            )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = dict(part.split("=") for part in sys.argv[1:] if "=" in part)
    for experiment in [part for part in sys.argv[1:] if "=" not in part]:
        for number in range(int(options.get("seeds", 3))):
            globals()[experiment](number)
