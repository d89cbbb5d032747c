"""Pictures of what each system gives: ``python release/gallery.py [NAMES] [--runs FOLDER]`` makes docs/pictures again.

Each is a part of the page of a real run of this repository's own recipes, as headless Chromium shows it. The runs take
minutes of one core and are kept in ``--runs``; one that is there already is not run again.
"""

import argparse
import base64
import io
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
WIDTH = 1180
FIGURE = (
    "return [...document.querySelectorAll('.plot-card')]"
    ".find(card => card.querySelector('figcaption').textContent.includes({!r}))"
)
DRAWN = "(window.coset?.drawing ?? Promise.resolve()).finally(() => setTimeout(arguments[0], 900))"
BOX = (
    "const e = (() => {{ {} }})(); if (!e) return null; e.querySelectorAll('.modebar').forEach(bar => bar.remove());"
    "const b = e.getBoundingClientRect();"
    "return {{x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height}}"
)


@dataclass(frozen=True)
class Shot:
    """A picture of a page.

    Attributes:
        command: That makes the page, without ``--output``.
        find: Script that returns the element to show.
        page: In the folder of the run.
    """

    command: tuple[str, ...]
    find: str
    page: str = "report.html"


def figure(title: str) -> str:
    """The figure with this title."""
    return FIGURE.format(title)


SHOTS = {
    "subgraphormer": Shot(
        ("run", "subgraphormer/freesolv", "training.epochs=30"),
        "return document.querySelector('#attention .card, #attention figure, #attention svg')",
    ),
    "csgnn": Shot(("run", "csgnn/freesolv", "training.epochs=30"), figure("Predicted versus")),
    "epnn": Shot(("run", "epnn/freesolv", "training.epochs=30"), figure("Predicted versus")),
    "granola": Shot(("run", "granola/mutag", "training.epochs=30"), figure("ROC of")),
    "smcn": Shot(
        ("run", "smcn/surfaces", "data.count=60", "training.epochs=6", "model.width=16"),
        "return document.querySelector('.cells-plot')",
    ),
    "lol": Shot(("run", "lol/digits", "data.adapters=300"), figure("Scores before")),
    "asymmetric": Shot(("run", "asymmetric/lmc-digits", "networks=3", "training.epochs=20"), figure("Test loss")),
    "fs-merge": Shot(("run", "fs-merge/digits", "seeds=1", "samples=[20]"), figure("Relative error")),
    "reconstruction": Shot(("run", "reconstruction/digits-c4"), "return document.querySelector('figure.picture img')"),
    "trackster4d": Shot(("reconstruct", "TRACKS"), "return document.querySelector('#world')", "index.html"),
}  # fmt: skip


def make_run(name: str, shot: Shot, runs: Path) -> Path:
    """The page, of a run that is there already or is made now."""
    folder = runs / name
    if not (folder / "metrics.json").is_file():
        command = [_tracks(runs) if part == "TRACKS" else part for part in shot.command]
        done = subprocess.run(
            [sys.executable, "-m", "coset", *command, "--output", str(folder), "--quiet"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{name}: {done.stderr.strip()}")
    return folder / shot.page


def _tracks(runs: Path) -> str:
    """Tracks of a made-up scene."""
    from coset.motion.data import tracks
    from coset.motion.data.scenes import SceneOptions, make_scene

    file = runs / "tracks.npz"
    tracks.save(make_scene("human-walk", SceneOptions(points=160, frames=40), 0).tracks, file)
    return str(file)


def browser(room: Path) -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    swift = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
    for flag in ("--headless=new", "--no-sandbox", f"--user-data-dir={room}", "--hide-scrollbars", *swift):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver") or ""))


def take(driver: Any, page: Path, shot: Shot, file: Path) -> None:
    """A picture of the element, of 128 colours and at most 600 pixels wide."""
    from PIL import Image

    size = {"width": WIDTH, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(page.as_uri())
    driver.execute_async_script(DRAWN)
    box = driver.execute_script(BOX.format(shot.find))
    if box is None:
        sys.exit(f"{page}: nothing to show")
    options = {"format": "png", "captureBeyondViewport": True, "clip": {**box, "scale": 1}}
    shown = driver.execute_cdp_cmd("Page.captureScreenshot", options)
    picture = Image.open(io.BytesIO(base64.b64decode(shown["data"]))).convert("RGB")
    picture = _trimmed(picture)
    if picture.width < 300:
        picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
    if picture.width > 600:
        picture = picture.resize((600, round(600 * picture.height / picture.width)), Image.Resampling.LANCZOS)
    picture.quantize(128).save(file, optimize=True)


def _trimmed(picture: Any) -> Any:
    """Without the empty margins, but for a few pixels."""
    from PIL import Image, ImageChops

    ground = Image.new("RGB", picture.size, picture.getpixel((4, 4)))
    box = ImageChops.difference(picture, ground).getbbox() or (0, 0, *picture.size)
    left, top, right, bottom = (*(max(0, edge - 14) for edge in box[:2]), *(edge + 14 for edge in box[2:]))
    return picture.crop((left, top, min(right, picture.width), min(bottom, picture.height)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="of pictures; all by default")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "gallery", help="where the runs are kept")
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    names = given.names or list(SHOTS)
    pages = {name: make_run(name, SHOTS[name], given.runs.absolute()) for name in names}
    driver = browser(given.runs.absolute() / "browser")
    for name, page in pages.items():
        file = PICTURES / f"{name}.png"
        take(driver, page, SHOTS[name], file)
        print(f"{name}: {file.stat().st_size:,} bytes, coset {' '.join(SHOTS[name].command)}")
    driver.quit()


if __name__ == "__main__":
    main()
