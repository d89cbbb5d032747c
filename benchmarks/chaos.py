"""Faults in every command that writes, and whether what is left in the end equals an undisturbed run.

    python benchmarks/chaos.py [--faults 300] [--seed 0] [--verbs predict merge ...] [--results chaos.jsonl]

Each command runs undisturbed once; then again and again in a folder of its own with one fault, and, where the fault has
ended it, the same command once more. Held are: the exit code (143 and 130 after signals, 1 with one line for what the
system refuses, 0 only with the whole result), no half-written file after whatever could be tidied up, and results equal
by hash.

    kill, term, int   the signal, at the n-th file that is opened, renamed or made, or at a random moment
    nospace           from the n-th file on nothing more can be written (ENOSPC)
    toolarge          from the n-th file on no file may have content (EFBIG, also for writing that is not Python's)
    eio               the n-th file fails (EIO), of those that are read too
    twice             the same command in two processes at once
    readonly-root     nothing can be written but the output, and temporary files: the command must succeed
    readonly-output   nothing can be written where the output is to be

Processes are forked when all is imported, so that a fault costs no start; faults come through an audit hook of Python,
so that the package has no switch for them.
"""

from __future__ import annotations

import argparse
import csv
import errno
import hashlib
import importlib
import io
import json
import mmap
import os
import random
import resource
import shlex
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
FAULTS = ("kill", "term", "int", "nospace", "toolarge", "eio", "twice", "readonly-root", "readonly-output")
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
REFUSALS = {"nospace": errno.ENOSPC, "eio": errno.EIO, "readonly-root": errno.EROFS, "readonly-output": errno.EROFS}
VOLATILE = ("seconds", "cpu_seconds", "versions", "machine", "about", "pid", "host", "peak_memory_mb", "made", "wall")
NOT_COMPARED = (".html", ".md", ".ckpt", ".lock", "status.json", "recipe.yaml")
CHANGING = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink")
COSTLY = 3.0
"""CPU seconds of a command that gets fewer faults."""
GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "cases.yaml"


class Verb(NamedTuple):
    """A command.

    Attributes:
        arguments: ``OUT`` stands for its output, ``IN`` for the folder of inputs.
        output: Its name.
        again: What it says when its output is there already, if that is an error.
    """

    arguments: list[str]
    output: str = "out"
    again: str = ""


class Told(NamedTuple):
    """How a process ended: code as a shell sees it, what it printed on standard error, whether the fault took place, in
    the process itself, and how many places for faults it passed."""

    code: int
    problems: str
    fired: bool
    here: bool
    events: int
    cpu: float


class Fault(NamedTuple):
    """What happens, at which event, or after how many seconds if the event is 0."""

    kind: str = ""
    event: int = 0
    seconds: float = 0.0


CALM = Fault()

# ------------------------------------------------------------------------------------------------------------- inputs


def make_inputs(folder: Path, commands: str) -> None:
    """All that these commands read."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from coset.privacy import ReLUNetwork
    from coset.weights.lora import LoraAdapter, LoraPair, save_peft

    torch.manual_seed(0)
    chains = [f"{'C' * (1 + n)}{('O', 'N', 'F', '=O')[n % 4]}" for n in range(24)]
    (folder / "train.csv").write_text(
        "smiles,y\n" + "".join(f"{s},{len(s) % 5 + n / 24}\n" for n, s in enumerate(chains))
    )
    (folder / "new.csv").write_text("smiles\nCCO\nc1ccccc1\nCCN\n")
    layers = {f"model.layers.{n}.self_attn.q_proj": (12, 12) for n in range(3)}
    for name in ("a", "b", "c"):
        pairs = {layer: LoraPair(torch.randn(n, 2), torch.randn(m, 2)) for layer, (n, m) in layers.items()}
        save_peft(LoraAdapter(pairs, name), folder / "adapters" / name)
    base = {f"{layer}.weight": torch.randn(shape) for layer, shape in layers.items()}
    save_file(base, folder / "base.safetensors")
    (folder / "nets.py").write_text("from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Linear(4, 6), "
                                    "nn.ReLU(), nn.Linear(6, 3))\n")  # fmt: skip
    for name in ("one", "two"):
        network = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
        save_file(network.state_dict(), folder / f"{name}.safetensors")
    draw = np.random.default_rng(0)
    np.savez(folder / "data.npz", inputs=draw.normal(size=(30, 4)).astype(np.float32), targets=np.arange(30) % 3)
    held = {f"x_{part}": draw.normal(size=(6, 4)) for part in ("train", "test")}
    np.savez(folder / "audit.npz", **held, **{f"y_{part}": np.arange(6) % 2 for part in ("train", "test")})
    save_file(ReLUNetwork([4, 8, 1]).state_dict(), folder / "relu.safetensors")
    if "tracks.npz" in commands:
        make_scene_of_tracks(folder)
    if "video.mp4" in commands:
        make_video(folder / "video.mp4")
    if ".yaml" in commands:
        make_models(folder)
    for name, seed in (("trained", 0), ("other", 1)):
        arguments = ["run", "gin/freesolv", *SMALL_RUN, f"seed={seed}", "--output", str(folder / name)]
        if f"IN/{name} " in commands and call(arguments, folder):
            raise SystemExit("inputs could not be made")


def make_scene_of_tracks(folder: Path) -> None:
    """A short clip with its truth, and an untrained network."""
    from coset.motion.data import tracks
    from coset.motion.data.scenes import SceneOptions, make_scene
    from coset.motion.data.truth import Truth
    from coset.motion.models.checkpoint import save_model
    from coset.motion.models.trackster4d import TracksTo4D

    scene = make_scene("boxes", SceneOptions(points=40, frames=20, noise=0.2, outliers=0, least_seen=15), 3)
    truth = Truth(scene.depth(), scene.rotations, scene.positions, scene.moving)
    tracks.save(replace(scene.tracks, truth=truth), folder / "tracks.npz")
    sizes: dict[str, Any] = {"width": 16, "blocks": 1, "heads": 2, "head_width": 8, "hidden": 16, "basis": 5}
    save_model(TracksTo4D(**sizes, octaves=4, kernel=7, orbit=True).eval(), folder / "4d.safetensors", {"window": 8})


def make_video(path: Path) -> None:
    """A camera that glides past a textured plane."""
    import cv2
    import numpy as np

    wall = cv2.resize(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8), None, fx=5, fy=5)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20, (120, 96))
    for n in range(8):
        writer.write(wall[40:136, 40 + 2 * n : 160 + 2 * n].copy())
    writer.release()


def make_models(folder: Path) -> None:
    """Two checkpoints of transformers and a file to merge them by."""
    import torch
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(**sizes, vocab_size=20, max_position_embeddings=12, num_labels=2)
    for name in ("m0", "m1"):
        torch.manual_seed(len(name) + int(name[1]))
        transformers.BertForSequenceClassification(config).save_pretrained(folder / name)
    models = "".join(f"  - {{model: {folder / name}}}\n" for name in ("m0", "m1"))
    for name, method in (("slerp", "slerp\nparameters: {t: 0.3}"), ("weight", "weight_matching")):
        (folder / f"{name}.yaml").write_text(f"merge_method: {method}\nmodels:\n{models}output: unused\n")


SMALL_RUN = [
    "data={name: csv, path: IN/train.csv, target: y, fractions: [0.6, 0.2, 0.2]}", "model.width=16", "model.layers=1",
    "training.epochs=3", "training.batch_size=8", "--quiet",
]  # fmt: skip
FILES = """
predict IN/trained IN/new.csv --output OUT.csv --quiet
embed IN/trained IN/new.csv --output OUT.csv
export IN/trained OUT
runs IN/trained --page OUT.html
report IN/trained IN/other --output OUT.html
preprocess IN/train.csv --output OUT --target y --shard-rows 10 --quiet
lora convert IN/adapters/a OUT
lora convert IN/adapters/b OUT --rank 1
lora merge IN/adapters/a IN/adapters/b --output OUT --method svd --rank 2
lora apply IN/base.safetensors IN/adapters/a OUT.safetensors
lora collect IN/adapters OUT --quiet
lora map IN/adapters --output OUT.html
lora inspect IN/adapters/a --page OUT.html
lora zoo lol/digits-zoo adapters=4 source.steps=4 --output OUT --quiet
merge IN/slerp.yaml --output OUT --quiet
merge IN/weight.yaml --output OUT --quiet
connect IN/one.safetensors IN/two.safetensors --model IN/nets.py:build --data IN/data.npz --points 3 --output OUT
track IN/video.mp4 --output OUT.npz --points 40 --quiet
reconstruct IN/tracks.npz --output OUT --model IN/4d.safetensors --refine none --quiet
motion evaluate IN/tracks.npz --model IN/4d.safetensors --output OUT.json --quiet
audit IN/relu.safetensors --data IN/audit.npz --output OUT --steps 20
"""
"""Commands that read files."""


def verbs(kinds: bool = True) -> dict[str, Verb]:
    """All commands by name, and a run of every kind."""
    sub = ["model.width=16", "model.layers=1", "model.positional_encoding=2"]
    found = {
        "run": Verb(["run", "gin/freesolv", *SMALL_RUN, "--output", "OUT"]),
        "run subgraphormer": Verb(["run", "subgraphormer/freesolv", *SMALL_RUN, *sub, "--output", "OUT"]),
        "sweep": Verb(["sweep", "gin/freesolv", *SMALL_RUN, "model.width=8,16", "--seeds", "1", "--output", "OUT"]),
    }
    for line in FILES.strip().splitlines():
        words = shlex.split(line)
        output = next(word for word in words if word.startswith("OUT"))
        name = line.partition(" IN/")[0] if words[:2] != ["lora", "zoo"] else "lora zoo"
        name = name if name not in found else f"{name} 2"
        again = "exists already" if name.startswith(("lora apply", "lora convert", "lora merge")) else ""
        found[name] = Verb(["OUT" if word == output else word for word in words], output.replace("OUT", "out"), again)
    if kinds and GOLDEN.is_file():
        import yaml

        from coset.runs.recipes import show

        for case in yaml.safe_load(GOLDEN.read_text()).values():
            kind = yaml.safe_load(show(case["recipe"]))["kind"]
            command = ["run", case["recipe"], *case["overrides"], "--quiet", "--output", "OUT"]
            if kind not in ("graphs", "lora-zoo"):  # which are above
                found.setdefault(f"run {kind}", Verb(command))
    return found


# ---------------------------------------------------------------------------------------------------- a process of ours


class Hook:
    """What a process does to itself: counts the files that it touches below a folder, and makes the fault."""

    def __init__(self, fault: Fault, place: Path, output: Path, shared: mmap.mmap):
        self.fault, self.place, self.output, self.shared = fault, str(place), str(output), shared
        self.active = True

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active or not (event == "open" or event in CHANGING):
            return
        path = arguments[0]
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str | os.PathLike):  # a descriptor
            return
        path = os.path.abspath(path)
        writes = event != "open" or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        self.active = False  # what follows touches files itself
        try:
            if path.startswith(self.place):
                self._count()
            self._refuse(path, event, writes)
        finally:
            self.active = True

    def _refuse(self, path: str, event: str, writes: bool) -> None:
        kind = self.fault.kind
        inside = path.startswith(os.path.dirname(self.output))
        temporary = path.startswith(("/dev/", "/proc/", os.environ["TMPDIR"]))
        if writes and kind.startswith("readonly") and inside == (kind == "readonly-output") and not temporary:
            self._fire(kind)
        grows = event in ("open", "os.mkdir")  # what is there can be renamed and removed on a full disk
        if writes and grows and kind == "nospace" and self._fired() and not temporary:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _count(self) -> None:
        events, fired, pid = struct.unpack("qqq", self.shared[:24])
        self.shared[:24] = struct.pack("qqq", events + 1, fired, pid)
        if events + 1 == self.fault.event and not fired:
            self._fire(self.fault.kind)

    def _fired(self) -> bool:
        return bool(struct.unpack("qqq", self.shared[:24])[1])

    def _fire(self, kind: str) -> None:
        events = struct.unpack("qqq", self.shared[:24])[0]
        self.shared[:24] = struct.pack("qqq", events, 1, os.getpid())
        if kind in SIGNALS:
            os.kill(os.getpid(), SIGNALS[kind])
        elif kind == "toolarge":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        elif kind != "nospace":  # which lasts
            raise OSError(REFUSALS[kind], os.strerror(REFUSALS[kind]))


def call(arguments: list[str], inputs: Path) -> int:
    """The command line in this process; what it prints goes where it goes."""
    from coset.cli import main

    sys.argv = ["coset", *(argument.replace("IN/", f"{inputs}/") for argument in arguments)]
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def forked(work: Callable[[], int]) -> tuple[int, int]:
    """A process that does this and ends; its number, and where what it prints can be read."""
    ours, theirs = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return pid, ours
    code = 70
    try:
        os.close(ours)
        os.dup2(theirs, 1)
        os.dup2(theirs, 2)
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


class Bench:
    """A folder for inputs, one for each case, and the commands."""

    def __init__(self, folder: Path):
        self.folder, self.inputs = folder, folder / "inputs"
        self.inputs.mkdir(parents=True, exist_ok=True)
        (folder / "tmp").mkdir(exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")

    def prepare(self, verbs: Iterable[Verb]) -> None:
        """Inputs, made by a process whose modules are then known here too."""
        commands = " ".join(word for verb in verbs for word in (*verb.arguments, ""))
        if self._with_modules(lambda: make_inputs(self.inputs, commands)):
            raise SystemExit("inputs could not be made")

    def _with_modules(self, work: Callable[[], int | None]) -> int:
        """Do this in a process, and import here what it has imported."""
        names = self.folder / "modules.txt"

        def noted() -> int:
            code = work() or 0
            names.write_text("\n".join(sys.modules))
            return code

        pid, pipe = forked(noted)
        printed = _all_of(pipe)
        status = os.waitpid(pid, 0)[1]
        if status:
            print(printed, file=sys.stderr)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names.read_text().splitlines() if names.is_file() else ():
                if not name.startswith(("__", "cv2")):
                    with suppress(Exception):  # some are no modules
                        importlib.import_module(name)
        return status

    def warm(self, verb: Verb, place: Path) -> None:
        """Run a command once, so that its modules are imported here and its kernels compiled."""
        place.mkdir()

        def work() -> int:
            os.chdir(place)
            fork_jobs()
            return call([str(place / verb.output) if word == "OUT" else word for word in verb.arguments], self.inputs)

        if self._with_modules(work):
            print(f"FAILED undisturbed: {' '.join(verb.arguments)}", flush=True)
        shutil.rmtree(place)

    def start(self, verb: Verb, place: Path, fault: Fault) -> tuple[int, int, mmap.mmap]:
        """A process that runs the command into a folder."""
        place.mkdir(exist_ok=True)
        output, shared = place / verb.output, mmap.mmap(-1, 24)
        arguments = [str(output) if argument == "OUT" else argument for argument in verb.arguments]

        def work() -> int:
            os.chdir(place)
            fork_jobs()
            sys.addaudithook(Hook(fault, self.folder, output, shared))
            return call(arguments, self.inputs)

        return *forked(work), shared

    def told(self, started: tuple[int, int, mmap.mmap], fault: Fault = CALM) -> Told:
        """How it ended."""
        pid, pipe, shared = started
        if fault.kind in SIGNALS and not fault.event:
            time.sleep(fault.seconds)
            shared[8:24] = struct.pack("qq", 1, pid)
            os.kill(pid, SIGNALS[fault.kind])
        printed = _all_of(pipe)
        _, status, usage = os.wait4(pid, 0)
        events, fired, where = struct.unpack("qqq", shared[:24])
        code = os.waitstatus_to_exitcode(status)
        return Told(code, printed, bool(fired), where == pid, events, usage.ru_utime + usage.ru_stime)

    def run(self, verb: Verb, place: Path, fault: Fault = CALM) -> Told:
        """Run it to its end."""
        return self.told(self.start(verb, place, fault), fault)


def fork_jobs() -> None:
    """Jobs in processes of their own are forked as well, which saves the start of Python; here nothing has threads."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: context  # type: ignore[assignment, method-assign]


def _all_of(pipe: int) -> str:
    with os.fdopen(pipe, "rb") as file:
        return file.read().decode(errors="replace")


# ------------------------------------------------------------------------------------------------------------- results


def results(place: Path) -> dict[str, str]:
    """Digests of all files, by name, without clocks; of pages, notes and checkpoints only that they are there."""
    found = {}
    for file in sorted(place.rglob("*")):
        parts = file.relative_to(place).parts
        if file.is_file() and not any(part.startswith(".") or part in ("parts", "rows") for part in parts):
            compared = not file.name.endswith(NOT_COMPARED)
            found[str(file.relative_to(place))] = digest(file, str(place)) if compared else "there"
    return found


def digest(file: Path, place: str) -> str:
    """Of what does not change from run to run."""
    content = file.read_bytes().replace(place.encode(), b"OUT")
    if file.suffix == ".safetensors":  # the header tells seconds, too
        size = int.from_bytes(content[:8], "little")
        header = {name: told for name, told in json.loads(content[8 : 8 + size]).items() if name != "__metadata__"}
        content = json.dumps(header, sort_keys=True).encode() + content[8 + size :]
    if file.suffix == ".json":
        content = json.dumps(lasting(json.loads(content)), sort_keys=True).encode()
    if file.suffix == ".csv":
        rows = list(csv.reader(io.StringIO(content.decode())))
        kept = [n for n, name in enumerate(rows[0]) if not any(word in name for word in VOLATILE)]
        content = json.dumps([[row[n] for n in kept] for row in rows]).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def lasting(value: Any) -> Any:
    """Without what is measured of time and machine."""
    if isinstance(value, dict):
        kept = {key: lasting(each) for key, each in value.items() if not any(word in str(key) for word in VOLATILE)}
        return {key: each for key, each in kept.items() if key != "data_identity"}
    return [lasting(each) for each in value] if isinstance(value, list) else value


def halves(place: Path) -> list[str]:
    """Files that were not finished; locks and what a command goes on from are none."""
    hidden = [file for file in place.rglob(".*") if file.is_file() and not file.name.endswith("lock")]
    return sorted(str(file.relative_to(place)) for file in hidden if ".training" not in str(file))


# --------------------------------------------------------------------------------------------------------------- faults


def judged(told: Told, fault: Fault, verb: Verb) -> str:
    """What is wrong with how a disturbed command ended; empty if nothing is."""
    lines = [line for line in told.problems.splitlines() if "error:" in line or "stopped" in line]
    if "Traceback" in told.problems:
        return "a traceback"
    if not told.fired:
        return "" if told.code == 0 else f"exit code {told.code} without a fault"
    if fault.kind in SIGNALS:
        wanted = {"kill": -signal.SIGKILL, "term": 143, "int": 130}[fault.kind]
        allowed = {0, wanted} if told.here else {0, 1, wanted}  # a worker's death is made good, or told
        if not told.events:  # nothing has begun, and Python itself ends: for a shell 143 and 130 as well
            allowed.add(-SIGNALS[fault.kind])
        if told.code not in allowed:
            return f"exit code {told.code}, not {wanted}"
        return "nothing is said" if told.code in (143, 130) and not lines else ""
    allowed = {0} if fault.kind == "readonly-root" else {1} if fault.kind == "readonly-output" else {0, 1}
    if told.code not in allowed:
        return f"exit code {told.code}: {' '.join(told.problems.split())[-300:]}"
    if told.code == 1 and len(lines) != 1 and "failed" not in told.problems:
        return f"{len(lines)} lines say what is wrong: {' '.join(told.problems.split())[-300:]}"
    return ""


def try_fault(bench: Bench, verb: Verb, fault: Fault, place: Path, expected: dict[str, str]) -> dict[str, Any]:
    """One fault; what happened, with ``wrong`` if something is."""
    told = bench.run(verb, place, fault)
    wrong = judged(told, fault, verb)
    left = halves(place)
    if left and told.code != -signal.SIGKILL and fault.kind != "nospace":
        wrong = wrong or f"left half-written: {', '.join(left[:3])}"
    if fault.kind == "readonly-output" and results(place):
        wrong = wrong or "wrote where nothing can be written"
    row = {"code": told.code, "fired": told.fired, "left": len(left)}
    if told.code == 0:
        return row | {"wrong": wrong or differing(place, expected, "it says success, but ")}
    again = bench.run(verb, place)
    row["again"] = again.code
    if again.code and not (verb.again and verb.again in again.problems):
        wrong = wrong or f"the same command again: {' '.join(again.problems.split())[-300:]}"
    return row | {"wrong": wrong or differing(place, expected, "in the end ")}


def try_twice(bench: Bench, verb: Verb, place: Path, expected: dict[str, str]) -> dict[str, Any]:
    """The command in two processes at once."""
    started = [bench.start(verb, place, Fault()) for _ in range(2)]
    told = [bench.told(each) for each in started]
    wrong = "" if any(each.code == 0 for each in told) else "neither succeeds"
    for each in told:
        known = "in use by" in each.problems or (verb.again and verb.again in each.problems)
        if each.code not in (0, 1) or (each.code == 1 and not known):
            wrong = wrong or f"exit code {each.code}: {' '.join(each.problems.split())[-300:]}"
    left = halves(place)
    wrong = wrong or (f"left half-written: {', '.join(left[:3])}" if left else "")
    row = {"code": [each.code for each in told], "fired": True, "left": len(left)}
    return row | {"wrong": wrong or differing(place, expected, "in the end ")}


def differing(place: Path, expected: dict[str, str], when: str) -> str:
    """Which results are not as undisturbed."""
    found = results(place)
    names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"{when}{', '.join(names[:4])} differ from the undisturbed run" if names else ""


def planned(calm: dict[str, Told], faults: int, generator: random.Random) -> list[tuple[str, Fault]]:
    """Which faults there are, every command first with every kind of fault, costly ones with fewer."""
    rounds: list[tuple[str, str]] = []
    while len(rounds) < faults:
        number = len(rounds)
        for name, told in calm.items():
            some = FAULTS if told.cpu < COSTLY else generator.sample(FAULTS, 3)
            rounds += [(name, kind) for kind in some if number == 0 or not kind.startswith(("readonly", "twice"))]
    if len(calm) * len(FAULTS) > faults:  # a short form: all commands, all faults, not all pairs
        generator.shuffle(rounds)
    drawn = []
    for name, kind in rounds[:faults]:
        timed = kind in SIGNALS and generator.random() < 0.3
        event = 0 if timed or kind.startswith("readonly") else generator.randint(1, max(1, calm[name].events))
        drawn.append((name, Fault(kind, event, generator.uniform(0, calm[name].cpu) if timed else 0.0)))
    return drawn


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="*", help="only these")
    parser.add_argument("--folder", type=Path, help="kept afterwards; by default a temporary one")
    parser.add_argument("--results", type=Path, help="a line of JSON a fault")
    options = parser.parse_args()
    os.environ.update(dict.fromkeys(THREADS, "1"))  # a process with threads cannot be forked
    known = verbs(kinds=options.verbs is None or any(name.startswith("run ") for name in options.verbs))
    chosen = known if options.verbs is None else {name: known[name] for name in options.verbs}
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    bench = Bench(folder.resolve())
    bench.prepare(chosen.values())
    calm, expected, failed = {}, {}, 0
    for name, verb in chosen.items():
        place = bench.folder / f"calm-{name.replace(' ', '-').replace('/', '-')}"
        bench.warm(verb, place)
        first = bench.run(verb, place)
        if first.code:
            failed += 1
            continue
        calm[name], expected[name] = first, results(place)
        print(f"{name}: {first.cpu:.1f} CPU s, {first.events} files touched, {len(expected[name])} results", flush=True)
    table: dict[str, Counter[str]] = {name: Counter() for name in chosen}
    began = time.monotonic()
    plan = planned(calm, options.faults, random.Random(options.seed))
    for number, (name, fault) in enumerate(plan):
        place = bench.folder / f"{number}"
        if fault.kind == "twice":
            row = try_twice(bench, chosen[name], place, expected[name])
        else:
            row = try_fault(bench, chosen[name], fault, place, expected[name])
        table[name][fault.kind] += 1
        shutil.rmtree(place, ignore_errors=not row["wrong"]) if not row["wrong"] else None
        failed += bool(row["wrong"])
        if row["wrong"]:
            print(f"FAILED {number}: {name}, {fault}: {row}", flush=True)
        if options.results:
            with options.results.open("a") as file:
                file.write(json.dumps({"number": number, "verb": name, **fault._asdict(), **row}) + "\n")
    print("\n| command | " + " | ".join(FAULTS) + " |\n| --- |" + " --- |" * len(FAULTS))
    for name, counts in table.items():
        print(f"| {name} | " + " | ".join(str(counts[kind]) for kind in FAULTS) + " |")
    print(f"\n{len(plan)} faults, {failed} failures, {time.monotonic() - began:.0f} s (seed {options.seed})")
    if options.folder is None and not failed:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
