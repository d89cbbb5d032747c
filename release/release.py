"""Build and check a release: ``python release/release.py [--python python3.12 ...] [--extras molecules,weights]``.

Builds the source distribution and the wheel, looks into both, installs the wheel into a clean environment of each
interpreter (the packages come from pip's own index, or from ``--find-links FOLDER``), and runs a small run there. Says
what it found and ends with 1 if anything is wrong. It uploads nothing and makes no tag: the last lines say how.
"""

import argparse
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
    ["run", "homp/orientability", "data.sizes=[3,4]", "data.test_sizes=[3,4]", "model.width=8", "model.layers=1",
     "training.epochs=1", "--output", "run", "--quiet"],
    ["verify", "run"], ["runs", "."],
)  # fmt: skip
"""What runs without any extra."""
OF_EXTRA = {
    "molecules": ["run", "csv", "data.path=small.csv", "data.target=y", "training.epochs=1", "--output", "of-csv"],
    "weights": ["run", "lol/digits", "data.adapters=60", "training.epochs=1", "--output", "of-lora"],
    "motion": ["motion", "evaluate", "--help"],
}
"""What each extra makes possible; of others, that they install."""


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


def try_in(python: str, wheel: Path, extras: list[str], pip: list[str]) -> list[str]:
    """What fails in a clean environment of an interpreter."""
    with tempfile.TemporaryDirectory() as room:
        subprocess.run([python, "-m", "venv", room], check=True)
        programs = Path(room) / ("Scripts" if sys.platform == "win32" else "bin")
        wanted = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
        done = subprocess.run([programs / "pip", "install", "--quiet", *pip, wanted], capture_output=True, text=True)
        if done.returncode:
            return [f"{python}: cannot install {wanted}: {done.stderr.strip().splitlines()[-1]}"]
        (Path(room) / "small.csv").write_text("smiles,y\n" + "".join(f"{'C' * n}O,{n}\n" for n in range(1, 13)))
        failed = []
        for arguments in [*SMOKE, *(OF_EXTRA[extra] for extra in extras if extra in OF_EXTRA)]:
            done = subprocess.run([programs / "coset", *arguments], cwd=room, capture_output=True, text=True)
            if done.returncode:
                failed.append(f"{python}: coset {' '.join(arguments)}: {done.stderr.strip().splitlines()[-1]}")
        return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="*", default=[sys.executable], help="interpreters to install into")
    parser.add_argument("--extras", default="", help="of the package, with commas; each is tried beside the base alone")
    parser.add_argument("--find-links", help="folder of wheels, for a machine without the internet")
    given = parser.parse_args()
    pip = ["--no-index", "--find-links", given.find_links] if given.find_links else []
    output = ROOT / "dist"
    output.mkdir(exist_ok=True)
    for old in output.iterdir():
        old.unlink()
    sdist, wheel = build(output)
    found = problems_of(sdist, wheel)
    for python in given.python:
        for extras in [[], *([extra] for extra in given.extras.split(",") if extra)]:
            found += try_in(python, wheel, extras, pip)
    for line in found:
        print(f"problem: {line}")
    if found:
        sys.exit(1)
    version = wheel.name.split("-")[1]
    print(f"{sdist.name}, {wheel.name}: good. Next: git tag v{version}; git push --tags; twine upload dist/*")


if __name__ == "__main__":
    main()
