"""Camera and moving 3D of videos: networks from elsewhere."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from coset.core.commands import COMMANDS
from coset.core.errors import CosetError
from coset.core.files import claimed_output, json_text, named_after
from coset.runs.terminal import console, print_notes, print_table

BRIEF = {
    "reprojection_mean_px": "pixels", "ate": "ATE", "rpe_translation": "RPE", "rpe_rotation": "degrees",
    "abs_rel": "abs-rel", "delta1": "< 1.25", "dynamic_abs_rel": "moving", "seconds": "seconds",
}  # fmt: skip
"""Errors of a clip for which a terminal has room."""

DEPTH_UNKNOWN = 3
"""Exit code where the camera only turns or stands still."""


@COMMANDS.register("track")
def track(
    video: Annotated[Path, typer.Argument(help="Video file, or folder of pictures.")],
    output: Annotated[
        Path | None, typer.Option(help="NPZ to write (video.mp4: video-tracks.npz); further shots get -2, -3, ...")
    ] = None,
    preview: Annotated[Path | None, typer.Option(help="PNG of a frame with its tracks drawn.")] = None,
    intrinsics: Annotated[str | None, typer.Option(help="f,cx,cy or fx,fy,cx,cy in pixels, or a file.")] = None,
    points: Annotated[int, typer.Option(min=20, help="Most tracks to keep.")] = 600,
    max_frames: Annotated[int | None, typer.Option(min=3, help="Read no more frames.")] = None,
    stride: Annotated[int, typer.Option(min=1, help="Take every so many frames.")] = 1,
    shot: Annotated[int | None, typer.Option(min=1, help="Only this shot of a video with cuts.")] = None,
    find_again: Annotated[bool, typer.Option(help="Look for points that come back into view: longer tracks.")] = False,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Follow points through a video: tracks as CoTracker writes them.

    Example: coset track video.mp4 --output tracks.npz --preview tracks.png
    """
    from coset.motion.pipeline import Input, track_video

    source = Input(video, intrinsics, points, max_frames, stride, shot, again=find_again)
    output = output or named_after(video, "tracks.npz")
    with claimed_output(output):
        lines = track_video(source, output, preview, progress=not quiet)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


@COMMANDS.register("reconstruct")
def reconstruct(
    source: Annotated[Path, typer.Argument(help="Video, folder of pictures, or NPZ of tracks.")],
    output: Annotated[Path | None, typer.Option(help="Folder to write; of video.mp4 runs/video-scene.")] = None,
    refine: Annotated[str, typer.Option(help="none, bundle or finetune.")] = "bundle",
    model: Annotated[
        Path | None, typer.Option(help="model.safetensors of a run; the package's own by default.")
    ] = None,
    intrinsics: Annotated[
        str | None, typer.Option(help="f,cx,cy or fx,fy,cx,cy in pixels, or a file: held, not estimated.")
    ] = None,
    points: Annotated[int, typer.Option(min=20, help="Most tracks to follow in a video.")] = 600,
    max_frames: Annotated[int | None, typer.Option(min=3, help="Read no more frames of a video.")] = None,
    stride: Annotated[int, typer.Option(min=1, help="Take every so many frames of a video.")] = 1,
    shot: Annotated[
        int | None, typer.Option(min=1, help="Which shot of a video with cuts; the longest by default.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Updates of --refine finetune.")] = 300,
    focal_guess: Annotated[
        float | None, typer.Option(min=1.0, help="Pixels; the focal length is estimated from there.")
    ] = None,
    find_again: Annotated[bool, typer.Option(help="Look for points that come back into view: longer tracks.")] = False,
    images: Annotated[bool, typer.Option(help="Write the frames of a video too, for nerfstudio and COLMAP.")] = False,
    turntable: Annotated[
        Path | None, typer.Option(help="Film of one turn around the scene to write, .gif or .mp4.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a verdict, metrics and notes as JSON.")] = False,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Cameras and moving 3D of a video: a page to look at, COLMAP, PLY and glTF files, metrics.

    Exit code 3: the camera only turns or stands still; its rotations are written, and no depth.

    Example: coset reconstruct video.mp4
    """
    from coset.motion.pipeline import Input, reconstruct_file
    from coset.motion.reconstruct import Options
    from coset.motion.turntable import check_ending
    from coset.motion.verdict import verdict

    if refine not in ("none", "bundle", "finetune"):
        raise CosetError(f"--refine {refine}: choose none, bundle or finetune")
    if intrinsics is not None and focal_guess is not None:
        raise CosetError("--intrinsics are held and --focal-guess is not: give one of them")
    if turntable is not None:
        check_ending(turntable)
    output = output or named_after(source, "scene", Path("runs"))
    inputs = Input(source, intrinsics, points, max_frames, stride, shot, focal_guess, images, turntable, find_again)
    options = Options(refine=refine, steps=steps)  # type: ignore[arg-type]
    result, notes = reconstruct_file(inputs, output, options, model, progress=not quiet)
    if json:
        content = {"verdict": verdict(result), **result.metrics(), "output": str(output), "notes": list(notes)}
        typer.echo(json_text(content, indent=2).rstrip())
    else:
        console.print(verdict(result), highlight=False, soft_wrap=True)
        print_notes(notes)
        cells = [[k, f"{v:.4g}" if isinstance(v, float) else str(v)] for k, v in result.metrics().items()]
        print_table(["measured", ""], cells)
        console.print(f"look at {output / 'index.html'}", highlight=False, soft_wrap=True)
    if not result.depth_known:
        raise typer.Exit(DEPTH_UNKNOWN)


@COMMANDS.register("motion convert")
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint .pt of the authors' code (NVlabs/tracks-to-4d).")],
    output: Annotated[
        Path | None, typer.Argument(help="File to write; of cats.pt cats-network.safetensors here.")
    ] = None,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads; 16 in the released code.")] = 16,
    predict_focal: Annotated[
        bool, typer.Option(help="Correct the focal length, as their --predict_focal_length 1 does.")
    ] = False,
) -> None:
    """A checkpoint of TracksTo4D's authors as a network for coset reconstruct --model.

    Example: coset motion convert TracksTo4D_pretrained_cats_dogs.pt cats-dogs.safetensors
    """
    from coset.motion.models.checkpoint import save_model
    from coset.motion.models.published import read_published

    output = output or named_after(checkpoint, "network.safetensors")
    with claimed_output(output):
        model, about = read_published(checkpoint, heads, predict_focal)
        save_model(model, output, about)
    count = sum(parameter.numel() for parameter in model.parameters())
    console.print(f"{count:,} parameters written to {output}", highlight=False, soft_wrap=True)


@COMMANDS.register("motion evaluate")
def evaluate(
    clips: Annotated[list[Path], typer.Argument(help="NPZ of tracks with their truth, or folders of them.")],
    model: Annotated[Path | None, typer.Option(help="model.safetensors; the package's own network by default.")] = None,
    refine: Annotated[str, typer.Option(help="none, bundle or finetune.")] = "none",
    steps: Annotated[int, typer.Option(min=1, help="Updates of --refine finetune.")] = 500,
    output: Annotated[Path | None, typer.Option(help="JSON of every clip, means and medians.")] = None,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Depths and cameras of a test set, measured as TracksTo4D's authors do.

    Example: coset motion evaluate our_data_format_4_validation_rgbd --model cats-dogs.safetensors
    """
    from coset.core.files import write_json
    from coset.motion.models.checkpoint import load_model, pretrained
    from coset.motion.reconstruct import WINDOW, Options
    from coset.motion.test_sets import averages, evaluate_clips
    from coset.runs.terminal import progress

    if refine not in ("none", "bundle", "finetune"):
        raise CosetError(f"--refine {refine}: choose none, bundle or finetune")
    paths = [path for clip in clips for path in (sorted(clip.glob("*.npz")) if clip.is_dir() else [clip])]
    network, about = pretrained() if model is None else load_model(model)
    window = int(about.get("window", WINDOW))
    options = Options(refine=refine, steps=steps, window=window)  # type: ignore[arg-type]
    options = replace(options, overlap=min(options.overlap, window - 1))
    with nullcontext() if output is None else claimed_output(output):
        with progress("clips", len(paths), quiet) as each:
            table, notes = evaluate_clips(paths, network, options, each)
        means, measured = averages(table), table.to_dict("records")
        if output is not None:
            write_json(output, {"clips": measured, **means, "refine": refine, "notes": notes})
    print_notes(notes)
    lines: list[dict] = [*measured, *({"clip": kind, **values} for kind, values in means.items())]
    rows = [[str(line["clip"]), *(f"{line[name]:.3g}" if name in line else "" for name in BRIEF)] for line in lines]
    print_table(["clip", *BRIEF.values()], rows)
