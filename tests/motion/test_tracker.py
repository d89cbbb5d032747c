from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coset import CosetError
from coset.motion.tracker import TrackerOptions, preview, track
from coset.motion.video import Video, read_video, shots, uneven

cv2 = pytest.importorskip("cv2")


def texture(seed=0, height=200, width=260):
    noise = np.random.default_rng(seed).uniform(0, 255, (height // 4, width // 4, 3)).astype(np.float32)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def gliding(frames=10, step=(1.5, -1.0), seed=0):
    """A texture that glides: the true motion of every point is known."""
    whole = texture(seed)
    size = (160, 120)
    pictures = []
    for n in range(frames):
        shift = np.array([[1, 0, -40 + n * step[0]], [0, 1, -40 + n * step[1]]])
        pictures.append(cv2.warpAffine(whole, shift, size, flags=cv2.INTER_CUBIC))
    return Video(np.stack(pictures), 25.0, Path("gliding"))


def write(path, pictures, rate=20):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, pictures.shape[2:0:-1])
    for picture in pictures:
        writer.write(picture[..., ::-1])
    writer.release()


def test_tracks_follow_a_known_motion():
    tracks = track(gliding(), options=TrackerOptions(least_length=4))
    assert tracks.points > 50
    errors = []
    for p in range(tracks.points):
        seen = np.flatnonzero(tracks.visible[p])
        moved = tracks.xy[p, seen] - tracks.xy[p, seen[0]]
        expected = (seen - seen[0])[:, None] * np.array([1.5, -1.0])
        errors.append(np.abs(moved - expected).max())
        assert seen[0] == tracks.started_at[p]
        assert (np.diff(seen) == 1).all()
    assert np.percentile(errors, 90) < 0.3
    assert max(errors) < 1.0  # at the edges the window looks out of the picture


def test_empty_cells_are_seeded_anew():
    tracks = track(gliding(frames=30, step=(2.0, 0.0)), options=TrackerOptions(least_length=5))
    assert (tracks.started_at > 10).any()
    # The picture glides out to the right: what it brings in on the left is tracked too.
    late = tracks.visible[:, 25]
    assert tracks.xy[late, 25, 0].min() < 30


def test_in_few_frames_that_change_much_half_of_them_are_enough():
    tracks = track(gliding(frames=8, step=(19.0, 0.0)))
    length = tracks.visible.sum(1)
    assert length.min() == 4
    assert (length == 8).sum() < 20 < tracks.points
    assert TrackerOptions().least(16) == TrackerOptions().least(400) == 8
    assert TrackerOptions().least(3) == 3


def test_the_longest_are_kept_when_there_are_too_many():
    few = track(gliding(), options=TrackerOptions(points=30, least_length=4))
    assert few.points == 30


def test_a_cut_is_found_and_a_shot_tracked():
    a, b = gliding(seed=0), gliding(seed=1)
    dark = (b.frames * 0.3).astype(np.uint8)
    video = Video(np.concatenate([a.frames, dark]), 25.0, Path("cut"))
    assert shots(video) == [slice(0, 10), slice(10, 20)]
    assert shots(a) == [slice(0, 10)]
    assert track(video, shots(video)[1], TrackerOptions(least_length=4)).frames == 10


def test_videos_are_read_from_files(tmp_path):
    video = gliding()
    write(tmp_path / "a.mp4", video.frames)
    read = read_video(tmp_path / "a.mp4")
    assert read.frames.shape == video.frames.shape
    assert read.rate == pytest.approx(20)
    assert np.abs(read.frames.astype(float) - video.frames).mean() < 15
    assert len(read_video(tmp_path / "a.mp4", most_frames=4).frames) == 4
    assert len(read_video(tmp_path / "a.mp4", stride=3).frames) == 4
    small = read_video(tmp_path / "a.mp4", longest_side=80)
    assert (small.size, small.scale) == ((80, 60), 0.5)


def test_a_preview_draws_on_a_copy():
    video = gliding()
    tracks = track(video, options=TrackerOptions(least_length=4))
    before = video.frames[5].copy()
    assert (preview(video, tracks, 5) != before).any()
    assert (video.frames[5] == before).all()


def test_files_that_are_no_videos(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    for name in ("text.mp4", "empty.mp4"):
        with pytest.raises(CosetError, match=r"no picture can be decoded; it is corrupt"):
            read_video(tmp_path / name)
    with pytest.raises(CosetError, match="no such file"):
        read_video(tmp_path / "missing.mp4")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(CosetError, match=r"no pictures in this folder; frames end in \.png"):
        read_video(tmp_path / "pictures")


def test_a_folder_of_pictures_is_a_video(tmp_path):
    video = gliding()
    for n, frame in enumerate(video.frames[:8]):
        cv2.imwrite(str(tmp_path / f"f{n * 2}.png"), frame[..., ::-1])
    (tmp_path / "notes.txt").write_text("no picture")
    read = read_video(str(tmp_path))
    assert (read.frames == video.frames[:8]).all()  # f2 before f10
    assert read.damage is None
    assert len(read_video(tmp_path, most_frames=3, stride=2).frames) == 3
    cv2.imwrite(str(tmp_path / "f15.png"), video.frames[0][:50])
    (tmp_path / "f16.png").write_bytes(b"broken")
    read = read_video(tmp_path)
    assert len(read.frames) == 8
    assert "2 pictures of" in read.damage
    assert "f15.png first" in read.damage


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_pictures_of_more_bits_than_bytes_have_are_as_bright_as_they_were(bits, tmp_path):
    """Cameras of 10 and 12 bits write files of 16; of those a frame that is dark beside the others stays so."""
    generator = np.random.default_rng(0)
    wanted = generator.integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)
    wanted[0] //= 4
    for number, frame in enumerate(wanted):
        deep = frame.astype(np.uint16) << (bits - 8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), (frame if bits == 8 else deep)[..., ::-1])
    assert np.array_equal(read_video(tmp_path).frames, wanted)


def test_pictures_of_floats_are_no_frames(tmp_path):
    frame = np.linspace(0, 255, 24 * 32 * 3, dtype=np.float32).reshape(24, 32, 3)
    cv2.imwrite(str(tmp_path / "0.tiff"), frame)
    with pytest.raises(CosetError, match=r"no picture can be decoded, 0\.tiff to begin with"):
        read_video(tmp_path)


def test_pictures_of_another_size_are_left_out_with_their_time(tmp_path):
    pictures = gliding(6).frames
    for n, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{n}.png"), picture[::2, ::2] if n in (0, 3) else picture)
    video = read_video(tmp_path)
    assert (video.frames == pictures[[1, 2, 4, 5]][..., ::-1]).all()
    assert video.times == pytest.approx(np.array([0, 1, 3, 4]) / 20)
    assert "2 pictures" in video.damage
    assert "0.png first" in video.damage


def test_uneven_times_are_kept_and_even_ones_are_not():
    assert uneven(np.arange(5) / 30) is None
    assert uneven(np.array([0.0, 0.1, 0.1, 0.2])) is None
    assert uneven(np.array([2.0, 2.1, 2.3, 2.4])) == pytest.approx([0, 0.1, 0.3, 0.4])
    video = replace(gliding(), times=np.arange(10) ** 1.5 / 20)
    tracks = track(video, slice(2, 10), TrackerOptions(least_length=4))
    assert tracks.seconds()[0] == 0
    assert tracks.seconds()[-1] == pytest.approx((9**1.5 - 2**1.5) / 20)


def test_sound_without_pictures(tmp_path):
    import wave

    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    with pytest.raises(CosetError, match="has no video stream"):
        read_video(tmp_path / "sound.wav")


def test_nothing_to_follow():
    blank = Video(np.full((6, 60, 80, 3), 128, np.uint8), 25.0, Path("blank.mp4"))
    with pytest.raises(CosetError, match=r"blank.mp4: only 0 points could be followed"):
        track(blank)
    with pytest.raises(CosetError, match="a shot of 2 frames"):
        track(blank, slice(0, 2))


def before_a_wall(frames=30):
    """A square that glides over a still texture."""
    wall, thing = texture(0, 120, 160), texture(5, 60, 60)[10:50, 10:50]
    pictures = []
    for n in range(frames):
        picture = wall.copy()
        x = 20 + 3 * n
        picture[40:80, x : x + 40] = thing[:, : 160 - x]
        pictures.append(picture)
    return Video(np.stack(pictures), 25.0, Path("square"))


def test_tracks_of_what_moves_do_not_slip_onto_what_lies_behind():
    tracks = track(before_a_wall(), options=TrackerOptions(least_length=4))
    slipped, on = 0, 0
    for p in range(tracks.points):
        seen = np.flatnonzero(tracks.visible[p])
        (x, y), n = tracks.xy[p, seen[0]], seen[0]
        if 43 < y < 76 and 23 + 3 * n < x < 56 + 3 * n:  # begins well inside the square
            errors = np.abs(tracks.xy[p, seen] - [x, y] - (seen - n)[:, None] * [3.0, 0.0]).max(1)
            on, slipped = on + len(seen), slipped + int((errors > 2).sum())
    assert on > 100
    assert slipped < 0.05 * on


def test_tracks_that_begin_late_are_followed_back_to_where_they_come_into_view():
    """With cells as large as the picture all points are seeded late or in the first frame: none in between."""
    video = gliding(frames=30, step=(2.0, 0.0))
    reversed_video = replace(video, frames=video.frames[::-1])
    forward, backward = (track(v, options=TrackerOptions(least_length=5)) for v in (video, reversed_video))
    counts = forward.visible.sum(0), backward.visible.sum(0)[::-1]
    # Seeding goes with time; what is followed does not: as many points are seen in a frame from either side.
    assert np.abs(np.log(counts[0] / counts[1])).max() < 0.5
