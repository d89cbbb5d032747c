"""What ``coset track`` and ``coset reconstruct`` do: files in, files out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coset.core.errors import CosetError, require
from coset.core.files import claimed_folder, json_text, write_bytes, write_text
from coset.core.outside import parse_tree, read_text
from coset.motion.data import tracks as track_files
from coset.motion.data.tracks import BETWEEN, MEAN, Intrinsics, Tracks
from coset.motion.export import clear, write_all, write_images
from coset.motion.models.checkpoint import load_model, pretrained
from coset.motion.reconstruct import WINDOW, Options, Reconstruction, reconstruct
from coset.motion.tracker import TrackerOptions, preview, track
from coset.motion.turntable import write_turntable
from coset.motion.verdict import verdict
from coset.motion.video import Video, read_video, shots
from coset.motion.viewer import write_viewer
from coset.runs.folder import METRICS
from coset.runs.terminal import bars

NO_TRACKS = (".pkl", ".pickle", ".npy", ".pt", ".pth", ".mat", ".h5")
"""Endings under which trackers and test sets keep tracks that are not read."""

BESIDE = 0.1  # of width or height, from which a principal point is far from the middle
REACH = 0.6  # of width and height, which points that were tracked in a picture hardly ever stay within


@dataclass(frozen=True)
class Input:
    """Where tracks come from and how a video is read.

    Attributes:
        path: NPZ of tracks, a video, or a folder of pictures.
        intrinsics: File, or numbers ``f,cx,cy`` or ``fx,fy,cx,cy``, in pixels of the upright frames, which are held;
            the focal length is estimated if None.
        focal_guess: Pixels of the upright frames, from which an estimate of the focal length sets out.
        images: Write the frames too, for programs that read the cameras.
        turntable: Film of one turn around the scene to write, if wanted.
        again: Look for points that come back into view.
        points: Most tracks to follow in a video.
        most_frames: Read no more frames of a video.
        stride: Take every so many frames of a video.
        shot: Which shot of a video with cuts, from 1; the longest if None.
    """

    path: Path
    intrinsics: str | None = None
    points: int = 600
    most_frames: int | None = None
    stride: int = 1
    shot: int | None = None
    focal_guess: float | None = None
    images: bool = False
    turntable: Path | None = None
    again: bool = False


def track_video(source: Input, output: Path, picture: Path | None = None, progress: bool = False) -> list[str]:
    """Write tracks of a video: one NPZ a shot (``tracks.npz``, ``tracks-2.npz``, ...); returns lines to print.

    Args:
        source: The video.
        output: NPZ to write.
        picture: PNG of a frame with the tracks drawn, if wanted.
        progress: Show a bar.

    Raises:
        CosetError: The video cannot be read or followed, or a file cannot be written.
    """
    if output.suffix.lower() != ".npz":
        raise CosetError(f"{output}: tracks are written as a file that ends in .npz")
    if picture is not None:
        check_picture(picture)
    video = read_video(source.path, source.most_frames, source.stride)
    intrinsics = read_intrinsics(source.intrinsics, video)
    runs = [run for run in shots(video) if run.stop - run.start >= 3]
    if not runs:
        raise CosetError(f"{source.path}: {_count(video)}; tracks need a shot of at least 3")
    chosen = [_shot(runs, source.shot, source.path)] if source.shot else runs
    lines, lost, number = [], [], 0
    for run in chosen:
        try:
            found = _follow(video, run, source, intrinsics, progress)
        except CosetError as error:
            if len(chosen) == 1:
                raise
            lost.append(f"frames {run.start} to {run.stop - 1} are left out: {error}")
            continue
        number += 1
        file = output if number == 1 else output.with_name(f"{output.stem}-{number}{output.suffix}")
        track_files.save(found, file)
        length = found.visible.sum(1).mean()
        lines.append(f"{found.points} tracks of {length:.1f} frames over frames {run.start} to {run.stop - 1}: {file}")
        if picture is not None and number == 1:
            middle = found.frames // 2
            shot = replace(video, frames=video.frames[run])
            write_picture(preview(shot, found, middle), picture)
            lines.append(f"frame {run.start + middle} with its tracks: {picture}")
    if not number:
        raise CosetError(lost[0])
    return [
        *lines,
        _focal_note(found.intrinsics),
        *_lens_notes(found),
        *lost,
        *([video.damage] if video.damage else []),
    ]


def reconstruct_file(
    source: Input, output: Path, options: Options, model: Path | None = None, progress: bool = False
) -> tuple[Reconstruction, list[str]]:
    """Reconstruct a video or its tracks into a folder; returns the reconstruction and notes.

    The folder gets ``index.html``, ``metrics.json``, ``tracks.npz``, ``reconstruction.npz``, ``scene.glb``,
    ``transforms.json``, ``ply/`` and ``colmap/``.

    Args:
        source: Video or NPZ.
        output: Folder; made if missing.
        options: How to reconstruct.
        model: Checkpoint; the one of the package if None.
        progress: Show bars.

    Raises:
        CosetError: The input cannot be used, or a file cannot be written.
    """
    if source.images and source.path.resolve() == (output / "images").resolve():
        raise CosetError(f"{source.path}: --images would write over the pictures that it reads; take another --output")
    with claimed_folder(output):
        return _reconstruct(source, output, options, model, progress)


def _reconstruct(
    source: Input, output: Path, options: Options, model: Path | None, progress: bool
) -> tuple[Reconstruction, list[str]]:
    network, about = pretrained() if model is None else load_model(model)
    window = options.window or int(about.get("window", WINDOW))
    options = replace(options, window=window, overlap=min(options.overlap, window - 1))
    tracks, frames, notes = read_input(source, progress)
    with _bar(progress, "reconstructing", None) as each:
        result = reconstruct(tracks, network, options, lambda stage: each(stage))
    clear(output, images=_wrote_images(output) and source.path.resolve() != (output / "images").resolve())
    names = write_all(result, output)
    if source.images and frames is not None:
        write_images(frames, output / "images")
        names.append("images/")
    track_files.save(result.tracks, output / "tracks.npz")
    write_viewer(result, output / "index.html", f"{source.path.name} in 3D", frames)
    if source.turntable is not None:
        write_turntable(result, source.turntable, frames)
    notes = [*notes, *result.notes]
    metrics = {
        "verdict": verdict(result),
        **result.metrics(),
        "refine": options.refine,
        "window": options.window,
        "notes": notes,
    }
    content = {**metrics, "files": ["index.html", "tracks.npz", *names]}
    write_text(output / METRICS, json_text(content, indent=2))
    return result, notes


def _wrote_images(folder: Path) -> bool:
    """Whether a reconstruction that was written to a folder says that it wrote pictures."""
    try:
        told = parse_tree(read_text(folder / METRICS, 1 << 24), folder / METRICS)
    except CosetError:
        return False
    return isinstance(told, dict) and "images/" in (told.get("files") or [])


def read_input(source: Input, progress: bool) -> tuple[Tracks, np.ndarray | None, list[str]]:
    """Tracks of an NPZ, or of the longest (or chosen) shot of a video with its frames; notes."""
    if source.path.suffix.lower() in NO_TRACKS:
        raise CosetError(
            f"{source.path}: tracks are read from NPZ alone, since pickles may run code; save its arrays by name with "
            "numpy.savez"
        )
    if source.path.suffix.lower() == ".npz":
        asked = {"--max-frames": source.most_frames, "--stride": source.stride > 1, "--shot": source.shot}
        asked |= {"--find-again": source.again, "--images": source.images}
        if any(asked.values()):
            names = " and ".join(name for name, value in asked.items() if value)
            raise CosetError(f"{source.path}: {names} is for videos; the tracks of a file are taken as they are")
        found = track_files.load(source.path, read_intrinsics(source.intrinsics, None))
        return _guessed(found, source.focal_guess), None, [*_size_note(found), *_lens_notes(found)]
    video = read_video(source.path, source.most_frames, source.stride)
    runs = [run for run in shots(video) if run.stop - run.start >= 3]
    if not runs:
        raise CosetError(f"{source.path}: {_count(video)}; a reconstruction needs a shot of at least 3")
    run = _shot(runs, source.shot, source.path)
    notes = [video.damage] if video.damage else []
    if len(runs) > 1:
        notes.append(f"the video has {len(runs)} shots; frames {run.start} to {run.stop - 1} are used (--shot chooses)")
    tracks = _follow(video, run, source, read_intrinsics(source.intrinsics, video), progress)
    guess = None if source.focal_guess is None else source.focal_guess * video.scale
    return _guessed(tracks, guess), video.frames[run], [*notes, *_lens_notes(tracks)]


def _size_note(tracks: Tracks) -> list[str]:
    """What is not sure where nothing says how large the pictures are, nor where the middle of the lens is."""
    if tracks.size_is_known or tracks.intrinsics.source != "assumed":
        return []
    width, height = tracks.size
    return [
        f"the file does not say how large the pictures are: {width} x {height} is how far its points reach, and the "
        "middle of that is taken for that of the lens; add image_size (width, height), or give --intrinsics f,cx,cy"
    ]


def _lens_notes(tracks: Tracks) -> list[str]:
    """What is to be said of intrinsics that were given, and may be those of other pictures."""
    k, size, notes = tracks.intrinsics, np.array(tracks.size), []
    if k.source == MEAN:
        notes.append(
            "the cameras of the file differ, or their pixels are not square: tracks are brought to one camera of "
            f"{k.focal:.1f} px, and all that is written is in its pixels"
        )
    if k.source == BETWEEN:
        notes.append(f"fx and fy differ: their mean of {k.focal:.1f} px is taken for both")
    if k.known and (np.abs([k.cx, k.cy] - size / 2) > BESIDE * size).any():
        notes.append(
            f"the principal point ({k.cx:g}, {k.cy:g}) is far from the middle of pictures of {size[0]} x {size[1]}: "
            "right for pictures that were cropped, but not if it is that of another size, turned, or cy before cx"
        )
    reach = tracks.xy[tracks.visible].max(0, initial=0)
    if (reach < REACH * size).all():
        notes.append(
            f"points reach only to {reach[0]:.0f} x {reach[1]:.0f} of pictures of {size[0]} x {size[1]}: "
            "their coordinates have to be in pixels of these pictures"
        )
    return notes


def _guessed(tracks: Tracks, focal: float | None) -> Tracks:
    """With a focal length that is not sure, where one is given."""
    if focal is None:
        return tracks
    k = replace(tracks.intrinsics, focal=focal, source="guess", deviation=0.0)
    return replace(tracks, intrinsics=k.checked(tracks.size, "--focal-guess"))


def read_intrinsics(value: str | None, video: Video | None) -> Intrinsics | None:
    """From a text or JSON file, or numbers; scaled along if the video's frames were made smaller.

    Raises:
        CosetError: They cannot be read, make no pinhole, or are those of pictures of another size than the video's.
    """
    if value is None:
        return None
    numbers: Any
    try:
        if Path(value).is_file():
            text = read_text(Path(value), 1 << 20)
            rows = (line.split("#")[0].replace(",", " ").split() for line in text.splitlines())
            words = parse_tree(text, value) if text.lstrip().startswith(("[", "{")) else [row for row in rows if row]
            numbers = words[0] if isinstance(words, list) and len(words) == 1 else words
            numbers = numbers.get("K", numbers.get("intrinsics")) if isinstance(numbers, dict) else numbers
        else:
            numbers = [float(part) for part in value.split(",")]
        parsed = Intrinsics.parse(numbers)
    except (ValueError, TypeError, OverflowError, OSError) as error:
        raise CosetError(f"intrinsics {value!r}: give f,cx,cy or fx,fy,cx,cy, or a file of a 3 x 3 matrix") from error
    scale = 1.0 if video is None else video.scale
    found = Intrinsics(parsed.focal * scale, parsed.cx * scale, parsed.cy * scale, parsed.source)
    return found if video is None else found.checked(video.size, f"intrinsics {value!r}")


def check_picture(path: Path) -> None:
    """Refuse what no picture can be written to, before the work and not after it.

    Raises:
        CosetError: The folder is missing, or pictures are not written under such a name.
    """
    cv2 = require("cv2", "motion")
    if not path.parent.is_dir() or not cv2.haveImageWriter(f"picture{path.suffix or '.png'}"):
        raise CosetError(f"cannot write {path}: give a name that ends in .png or .jpg in a folder that exists")


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write an image in the format that the name asks for.

    Raises:
        CosetError: It cannot be written.
    """
    cv2 = require("cv2", "motion")
    try:
        good, content = cv2.imencode(path.suffix or ".png", picture[..., ::-1])
        if not good:
            raise OSError("unknown format")
        write_bytes(path, content.tobytes())
    except (OSError, cv2.error) as error:
        raise CosetError(
            f"cannot write {path}: give a name that ends in .png or .jpg in a folder that exists"
        ) from error


def _follow(video: Video, run: slice, source: Input, intrinsics: Intrinsics | None, progress: bool) -> Tracks:
    with _bar(progress, "tracking", run.stop - run.start - 1) as each:
        return track(
            video, run, TrackerOptions(points=source.points, again=source.again), intrinsics, lambda: each("tracking")
        )


def _count(video: Video) -> str:
    return f"{len(video.frames)} {'frame' if len(video.frames) == 1 else 'frames'}"


def _shot(runs: list[slice], number: int | None, path: Path) -> slice:
    if number is None:
        return max(runs, key=lambda run: run.stop - run.start)
    if not 1 <= number <= len(runs):
        raise CosetError(f"{path} has {len(runs)} shots of 3 frames or more; shot {number} does not exist")
    return runs[number - 1]


def _focal_note(k: Intrinsics) -> str:
    how = (
        "assumed (mean of width and height); coset reconstruct estimates it unless --intrinsics are given"
        if k.source == "assumed"
        else k.source
    )
    return f"focal length {k.focal:g} px, {how}"


class _bar:
    """A progress bar whose text is the stage; silent if not wanted."""

    def __init__(self, wanted: bool, text: str, total: int | None):

        self.progress = bars(quiet=not wanted, counted=True)
        self.task = self.progress.add_task(text, total=total)

    def __enter__(self) -> Callable[[str], None]:
        self.progress.start()
        return lambda stage: self.progress.update(self.task, advance=1, description=stage)

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
