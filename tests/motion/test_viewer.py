import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from coset import CosetError
from coset.motion.movers import Body, moving_rows
from coset.motion.reconstruct import Options, reconstruct
from coset.motion.verdict import verdict
from coset.motion.viewer import in_picture, page_data, radii, write_viewer
from in_browser import open_page

NASTY = "</script><img src=x onerror='window.broken=1'>"


@pytest.fixture(scope="module")
def result(scene, network):
    return reconstruct(scene.tracks, network, Options(refine="bundle"))


def unpacked(data, name):
    """An array of the page, flat."""
    entry = data["arrays"][name]
    return np.frombuffer(base64.b64decode(entry["data"]), entry["kind"])


def test_the_page_holds_everything_and_asks_no_network(result, tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (14, 60, 80, 3)).astype(np.uint8)
    write_viewer(result, tmp_path / "index.html", NASTY, frames)
    text = (tmp_path / "index.html").read_text()
    assert NASTY not in text
    assert "http://" not in text
    assert "https://" not in text
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert len(data["pictures"]) == 14
    seen = np.unpackbits(unpacked(data, "visible"))[: result.tracks.visible.size]
    assert np.array_equal(seen.reshape(result.tracks.visible.shape), result.tracks.visible)


def test_points_of_the_page_are_where_they_are(result):
    data = page_data(result)
    places = unpacked(data, "static").reshape(-1, 1, 3).repeat(result.tracks.frames, 1)
    rows, units = unpacked(data, "clouded"), unpacked(data, "units")
    assert 0 < len(rows) < len(places)
    clouds = unpacked(data, "clouds").reshape(len(rows), -1, 3) * units[:, None, None]
    places[rows] += np.einsum("pkd,nk->pnd", clouds, np.array(data["coefficients"])[:, 1:])
    assert np.allclose(places, result.points().numpy(), atol=2e-3)


def test_tracks_in_the_page_begin_where_they_are_first_seen(result):
    data = page_data(result)
    first, offsets, tracks = (unpacked(data, name) for name in ("first", "offsets", "tracks"))
    for p in (0, 17, 40):
        assert result.tracks.visible[p, first[p]]
        assert np.allclose(tracks.reshape(-1, 2)[offsets[p]] / 16, result.tracks.xy[p, first[p]], atol=0.04)


def test_of_very_many_points_some_are_drawn_on_the_frames():
    moving = np.arange(20_000) < 3_000
    drawn = in_picture(moving)
    assert len(drawn) == len(set(drawn)) == 1200
    assert moving[drawn].sum() == 600
    assert np.array_equal(in_picture(moving[:900]), np.arange(900))


def test_discs_meet_where_points_are_dense():
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(20), [0.0]), -1).reshape(-1, 3) * 0.1
    lone = np.array([[50.0, 0, 0]])
    found = radii(np.concatenate([grid, lone]))
    assert np.allclose(found[:-1], 0.05)
    assert found[-1] < 0.1


def test_verdicts_say_what_cannot_be_known(result):
    assert "moves" in verdict(result) or "move" in verdict(result)
    body = Body(np.arange(9), 1.0, 0.4, "network", known=False)
    told = verdict(replace(result, bodies=(body,)))
    assert told.endswith("How far away a body of 9 moving points is cannot be known, only guessed.")
    assert replace(result, bodies=(body,)).metrics()["moving_points_of_unknown_depth"] == 9
    guessed = replace(result.tracks, intrinsics=replace(result.tracks.intrinsics, source="assumed"))
    assert "focal length is not known" in verdict(replace(result, tracks=guessed))
    assert verdict(replace(result, depth_known=False)).startswith("Depth cannot be known: the camera only turns.")


def test_points_move_by_their_level_or_with_their_body(result):
    moving, noise = result.moving(), result.noise
    level = moving_rows(result.prediction.gamma, noise)
    placed = np.concatenate([np.zeros(0, int), *(body.rows for body in result.bodies)])
    assert set(np.flatnonzero(moving)) == set(np.flatnonzero(level)) | set(placed)
    quiet = int(np.flatnonzero(~moving)[0])
    body = Body(np.array([quiet]), 1.0, 0.1, "motion", known=True)
    assert replace(result, bodies=(*result.bodies, body)).moving()[quiet]


def test_a_page_that_cannot_be_written(result, tmp_path):
    with pytest.raises(CosetError, match="cannot write"):
        write_viewer(result, tmp_path / "no" / "index.html", "scene")


@pytest.mark.browser
def test_a_browser_draws_every_point_and_answers(browser, result, tmp_path):
    write_viewer(result, tmp_path / "index.html", NASTY)
    open_page(browser, tmp_path / "index.html")
    run = browser.execute_script
    assert run("return document.body.dataset.ready") == "yes"
    assert not run("return window.broken")
    assert run("return Boolean(canvas.getContext('webgl2'))")
    before = run("return canvas.toDataURL()")
    slider = "const s = document.getElementById('frame'); s.value = 9; s.oninput(); return [s.max, state.frame]"
    assert run(slider) == ["13", 9]
    assert run("return document.getElementById('number').textContent") == "10 of 14"
    assert int(run("return document.getElementById('picture').dataset.drawn")) == result.tracks.visible[:, 9].sum()
    assert run("return canvas.toDataURL()") != before
    assert browser.get_log("browser") == []


@pytest.mark.browser
def test_both_painters_put_points_at_the_same_places(browser, result, tmp_path):
    """With WebGL and without: what is not background is at like pixels."""
    write_viewer(result, tmp_path / "index.html", "scene")
    open_page(browser, tmp_path / "index.html")
    pictures = browser.execute_script(
        "const flat = document.createElement('canvas'); flat.width = canvas.width; flat.height = canvas.height;"
        "for (const id of ['trails', 'cameras']) { $(id).checked = false; $(id).onchange(); }"
        "paintsFlat(flat)(scene(), eye()); return [canvas.toDataURL(), flat.toDataURL()]"
    )
    drawn = []
    for picture in pictures:
        content = base64.b64decode(picture.partition(",")[2])
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
        drawn.append(np.abs(pixels - pixels[0, 0]).sum(-1) > 60)
    for one, other in (drawn, drawn[::-1]):
        assert one.sum() > 500
        assert binary_dilation(other, iterations=2)[one].mean() > 0.97


@pytest.mark.browser
def test_a_turn_is_made_into_a_gif(browser, result, tmp_path):
    write_viewer(result, tmp_path / "index.html", "scene")
    open_page(browser, tmp_path / "index.html")
    content, first = browser.execute_async_script(
        "const done = arguments[0], kept = save; let bytes = '';"
        "save = (link, name, kind, data) => { bytes = btoa(Array.from(data, (v) => String.fromCharCode(v)).join('')); "
        "kept(link, name, kind, data); };"
        "const first = canvas.toDataURL(); record(3).then(() => done([bytes, first]));"
    )
    assert browser.execute_script("return $('recorded').download") == "turn.gif"
    with Image.open(io.BytesIO(base64.b64decode(content))) as film:
        assert (film.n_frames, film.info["duration"], film.info["loop"]) == (3, 60, 0)
        assert max(film.size) == 480
        shown = np.asarray(film.convert("RGB")).astype(int)
        film.seek(1)
        assert np.abs(np.asarray(film.convert("RGB")).astype(int) - shown).max() > 100
    with Image.open(io.BytesIO(base64.b64decode(first.partition(",")[2]))) as picture:
        drawn = np.asarray(picture.convert("RGB").resize(film.size, Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(shown - drawn).mean() < 4
