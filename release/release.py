"""Build and check a release: ``python release/release.py [--python python3.12 ...] [--extras all] [--lowest]``.

Builds the source distribution and the wheel, looks into both, installs the wheel into a clean environment of each
interpreter (the packages come from pip's own index, or from ``--find-links FOLDER``), and runs small runs there: first
without any extra, then with each one alone, whose packages are removed again after it. ``--lowest`` installs the oldest
releases that ``pyproject.toml`` allows. Says what it found and ends with 1 if anything is wrong. It uploads nothing and
makes no tag: the last lines say how.
"""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST = 5_000_000
"""Bytes of a distribution."""
IN_WHEEL = (
    "coset/py.typed", "coset/graphs/recipes/subgraphormer/freesolv.yaml", "coset/reports/static/plotly.js.gz",
    "coset/motion/pretrained/", "coset/graphs/__init__.pyi",
)  # fmt: skip
SMOKE = (
    ["--version"], ["list", "--json"], ["data", "list"], ["show", "gin/freesolv"],
    ["run", "homp/orientability", "data.sizes=[3,4]", "data.test_sizes=[4,5]", "model.width=8", "model.layers=1",
     "training.epochs=1", "--output", "run", "--quiet"],
    ["verify", "run"], ["runs", "."],
)  # fmt: skip
"""What runs without any extra."""
SMALL_RUN = ["homp/orientability", "data.sizes=[3,4]", "data.test_sizes=[4,5]", "model.width=8", "model.layers=1",
             "training.epochs=1"]  # fmt: skip
CSV = ["run", "csv", "data.path=small.csv", "data.target=y", "model.name=gin", "training.epochs=1"]
OF_EXTRA: dict[str, tuple[list[str], ...]] = {
    "molecules": ([*CSV, "--output", "of-csv"], ["predict", "of-csv", "small.csv"]),
    "weights": (["run", "lol/digits", "data.adapters=60", "training.epochs=1", "--output", "of-lora"],),
    "motion": (["track", "pictures", "--output", "tracks.npz"],),
    "topology": (["wl", "ring.g6", "path.g6"], ["run", "complexes", "data.path=meshes", "data.target=kind",
                 "training.task=multiclass", "data.fractions=[0.6,0.2,0.2]", "training.epochs=1",
                 "--output", "of-meshes"]),
    "shards": (["data", "list"],),
    "ray": (["sweep", *SMALL_RUN, "--seeds", "1", "--engine", "ray", "--output", "of-ray"],),
    "search": (["sweep", *SMALL_RUN[:-2], "training.epochs=1", "model.layers=1,2", "--seeds", "1", "--search", "tpe",
                "--samples", "2", "--output", "of-search"],),
    "hub": (["systems", "spectral"],),
    "gpu": (["--version"],),
    "docs": (["--version"],),
}  # fmt: skip
"""What is tried with each extra."""
IMPORTS = {
    "shards": "pyarrow", "hub": "huggingface_hub", "gpu": "triton", "docs": "mkdocs",
    "topology": "toponetx, gudhi, trimesh",
}  # fmt: skip
"""What extras bring that no small run shows."""


def build(folder: Path) -> tuple[Path, Path]:
    """The source distribution and the wheel."""
    code = f"from setuptools import build_meta as b; b.build_sdist({str(folder)!r}); b.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def problems_of(sdist: Path, wheel: Path) -> list[str]:
    """What is wrong with the distributions and with what says the version."""
    found = [f"{path.name} has {path.stat().st_size:,} bytes" for path in (sdist, wheel) if path.stat().st_size > MOST]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    found += [f"the wheel lacks {want}" for want in IN_WHEEL if not any(name.startswith(want) for name in names)]
    found += [f"the wheel holds {name}" for name in names if re.match(r"(tests|docs|benchmarks|release)/", name)]
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    found += [f"the source distribution lacks {want}" for want in ("LICENSE", "README.md") if want not in inside]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if f"version: {version}\n" not in (ROOT / "CITATION.cff").read_text():
        found.append(f"CITATION.cff does not say version {version}")
    if not re.search(
        rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    ):
        found.append(f"CHANGELOG.md has no dated section ## {version} (YYYY-MM-DD)")
    return found


class Environment:
    """A clean environment of an interpreter.

    Args:
        python: The interpreter.
        room: Where it is made, or was made before.
        pip: Options of ``pip install``.
    """

    def __init__(self, python: str, room: Path, pip: list[str]):
        self.python, self.room, self.pip = python, room, pip
        self.programs = room / ("Scripts" if sys.platform == "win32" else "bin")
        if not self.programs.is_dir():
            subprocess.run([python, "-m", "venv", room], check=True)

    def call(self, *arguments: str, folder: Path | None = None) -> str:
        """Call a program of the environment; returns why it failed, if it did."""
        lost = ("PYTHONPATH", "COSET_DATA")
        clean = {key: value for key, value in os.environ.items() if key not in lost}
        program, *rest = arguments
        done = subprocess.run(
            [self.programs / program, *rest], cwd=folder or self.room, capture_output=True, text=True, env=clean
        )
        said = done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or [""]
        return "" if done.returncode == 0 else f"{' '.join(arguments)}: {said[-1]}"

    def packages(self) -> set[str]:
        """Names of what is installed."""
        listed = subprocess.run([self.programs / "pip", "list", "--format=freeze"], capture_output=True, text=True)
        return {line.partition("==")[0] for line in listed.stdout.splitlines()}

    def install(self, wheel: Path, extra: str = "", lowest: bool = False) -> str:
        """Install the wheel with an extra; returns why that failed, if it did."""
        wanted = f"{wheel}[{extra}]" if extra else str(wheel)
        limits = ["--constraint", str(_lowest(self.room / "lowest.txt"))] if lowest else []
        return self.call("pip", "install", "--quiet", *self.pip, *limits, wanted)


def _lowest(file: Path) -> Path:
    """Constraints that hold every dependency to the oldest release that is allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [each for name, of in project["optional-dependencies"].items() if name != "dev" for each in of]
    lines = {re.sub(r"\[.*\]", "", each).replace(">=", "==") for each in (*project["dependencies"], *extras)}
    file.write_text("".join(f"{line}\n" for line in sorted(lines)))
    return file


def _inputs(room: Path) -> None:
    """Small files for the runs."""
    room.mkdir(exist_ok=True)
    rows = "".join(f"{'C' * n}O,{n}\n" for n in range(1, 13))
    (room / "small.csv").write_text("smiles,y\n" + rows)
    (room / "ring.g6").write_text("EhEG\n")
    (room / "path.g6").write_text("EhCG\n")
    (room / "meshes").mkdir(exist_ok=True)
    faces = "3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"
    for number in range(10):
        kept = 4 - number % 2
        cut = "".join(faces.splitlines(keepends=True)[:kept])
        (room / "meshes" / f"{number}.off").write_text(f"OFF\n4 {kept} 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n{cut}")
    labels = "".join(f"{number}.off,{'open' if number % 2 else 'closed'}\n" for number in range(10))
    (room / "meshes" / "labels.csv").write_text("file,kind\n" + labels)


PICTURES = (
    "import numpy as np; from PIL import Image; from pathlib import Path; Path('pictures').mkdir(exist_ok=True); "
    "x = np.kron(np.random.default_rng(0).integers(0, 255, (40, 50)), np.ones((8, 8))).astype('uint8'); "
    "[Image.fromarray(x[k:k + 200, 2 * k:2 * k + 260]).save(f'pictures/{k:02d}.png') for k in range(10)]"
)
"""A textured wall, seen by a camera that goes along it."""


def try_in(python: str, wheel: Path, extras: list[str], pip: list[str], room: Path, lowest: bool) -> list[str]:
    """What fails in a clean environment of an interpreter; a line is printed for each part that was tried."""
    environment, failed = Environment(python, room, pip), list[str]()
    problem = environment.install(wheel, lowest=lowest)
    if problem:
        return [f"{python}: {problem}"]
    base = environment.packages()
    for extra in ["", *extras]:
        with tempfile.TemporaryDirectory() as place:
            _inputs(Path(place))
            own = [environment.install(wheel, extra, lowest)] if extra else []
            own.append(environment.call("python", "-c", PICTURES, folder=Path(place)) if extra == "motion" else "")
            if extra in IMPORTS:
                own.append(environment.call("python", "-c", f"import {IMPORTS[extra]}"))
            commands = OF_EXTRA.get(extra, ()) if extra else SMOKE
            own += [environment.call("coset", *command, folder=Path(place)) for command in commands]
        failed += [f"{python}, {extra or 'base'}: {problem}" for problem in own if problem]
        print(f"{python}, {extra or 'base'}: {'good' if not any(own) else 'failed'}", flush=True)
        brought = sorted(environment.packages() - base)
        if brought:
            environment.call("pip", "uninstall", "--quiet", "--yes", *brought)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="*", default=[sys.executable], help="interpreters to install into")
    parser.add_argument("--extras", default="", help="with commas, or all; each is tried alone beside the base")
    parser.add_argument("--find-links", help="folder of wheels, for a machine without the internet")
    parser.add_argument("--environments", type=Path, help="folder to keep environments in, which are used again")
    parser.add_argument("--lowest", action="store_true", help="install the oldest releases that are allowed")
    given = parser.parse_args()
    pip = ["--no-index", "--find-links", given.find_links] if given.find_links else []
    extras = [extra for extra in given.extras.split(",") if extra]
    extras = list(OF_EXTRA) if extras == ["all"] else extras
    output = ROOT / "dist"
    output.mkdir(exist_ok=True)
    for old in output.iterdir():
        old.unlink()
    sdist, wheel = build(output)
    found = problems_of(sdist, wheel)
    for python in given.python:
        with tempfile.TemporaryDirectory() as place:
            room = (given.environments or Path(place)) / Path(python).name
            found += try_in(python, wheel, extras, pip, room.absolute(), given.lowest)
    for line in found:
        print(f"problem: {line}")
    if found:
        sys.exit(1)
    version = wheel.name.split("-")[1]
    print(f"{sdist.name}, {wheel.name}: good. Next: git tag v{version}; git push --tags; twine upload dist/*")


if __name__ == "__main__":
    main()
