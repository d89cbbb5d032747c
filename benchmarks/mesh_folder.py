"""A thousand meshes from a folder to predictions: spheres, tori and Klein bottles of about 50 faces, told apart.

    python benchmarks/mesh_folder.py FOLDER [--count 1000] [--model homp] [--epochs 5]

writes OFF files and ``labels.csv``, does in this process what ``coset run complexes`` and ``coset predict`` do, and
prints seconds of the processor, and memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np

KINDS = {"sphere": (0, True), "torus": (1, True), "klein": (2, False)}


def write_meshes(folder: Path, count: int, vertices: int = 20, flips: int = 60) -> None:
    """Triangulated surfaces at random; places of vertices are random, since models read none."""
    from coset.topology.surfaces import closed_surface

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = ["mesh,kind"]
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        faces = closed_surface(*KINDS[kind], int(rng.integers(vertices, 2 * vertices)), flips, rng).cells[2]
        points = rng.normal(size=(1 + max(map(max, faces)), 3))
        lines = [f"OFF\n{len(points)} {len(faces)} 0", *(" ".join(f"{x:.6f}" for x in point) for point in points)]
        lines += [f"3 {' '.join(map(str, face))}" for face in faces]
        (folder / f"{number:04d}.off").write_text("\n".join(lines) + "\n")
        rows.append(f"{number:04d},{kind}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--model", default="homp")
    parser.add_argument("--epochs", type=int, default=5)
    given = parser.parse_args()
    from coset.runs.recipes import load
    from coset.topology.own_complexes import ComplexFiles

    meshes = given.folder / "meshes"
    meshes.mkdir(parents=True, exist_ok=True)  # recipes are refused whose data are nowhere
    steps = {"write": lambda: write_meshes(meshes, given.count)}
    options = {"path": str(meshes), "target": ["kind"], "split": "stratified"}
    steps["read"] = lambda: ComplexFiles.model_validate(options).load(0, False)
    said = [f"data.path={meshes}", "data.target=kind", "data.split=stratified", "training.task=multiclass"]
    recipe = load("complexes", [*said, f"model.name={given.model}", f"training.epochs={given.epochs}"])
    run = given.folder / f"run-{given.model}"
    steps["run"] = lambda: recipe.run(run, quiet=True)
    steps["predict"] = lambda: recipe.predict(recipe.folder(run), meshes, given.folder / "predictions.csv", quiet=True)
    for name, step in steps.items():
        began, clock = time.process_time(), time.monotonic()
        result = step()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        spent, waited = time.process_time() - began, time.monotonic() - clock
        print(f"{name}: {spent:.1f} CPU s, {waited:.1f} s, {memory:.0f} MB at most")
        if name == "run":
            print({split: round(result[split]["accuracy"], 3) for split in ("train", "val", "test")})


if __name__ == "__main__":
    main()
