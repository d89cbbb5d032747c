import json
import shutil

import numpy as np
import pytest

from coset import CosetError
from coset.motion.reconstruct import Options, reconstruct
from coset.motion.viewer import page_data, write_viewer

NASTY = "</script><img src=x onerror='window.broken=1'>"


@pytest.fixture(scope="module")
def result(scene, network):
    return reconstruct(scene.tracks, network, Options(refine="bundle"))


def test_the_page_holds_everything_and_asks_no_network(result, tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (14, 60, 80, 3)).astype(np.uint8)
    write_viewer(result, tmp_path / "index.html", NASTY, frames)
    text = (tmp_path / "index.html").read_text()
    assert NASTY not in text
    assert "http://" not in text
    assert "https://" not in text
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert len(data["pictures"]) == 14
    assert np.allclose(data["basis"], result.prediction.basis.numpy(), atol=1e-5)
    assert sum(row.count("1") for row in data["visible"]) == result.tracks.visible.sum()


def test_tracks_in_the_page_begin_where_they_are_first_seen(result):
    data = page_data(result)
    for p in (0, 17, 40):
        first = data["first"][p]
        assert result.tracks.visible[p, first]
        assert np.allclose(data["tracks"][p][0], result.tracks.xy[p, first], atol=0.06)


def test_a_page_that_cannot_be_written(result, tmp_path):
    with pytest.raises(CosetError, match="cannot write"):
        write_viewer(result, tmp_path / "no" / "index.html", "scene")


@pytest.mark.browser
def test_a_browser_draws_every_point_and_answers(result, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium or chromedriver is not installed")
    write_viewer(result, tmp_path / "index.html", NASTY)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        browser.get((tmp_path / "index.html").as_uri())
        run = browser.execute_script
        assert run("return document.body.dataset.ready") == "yes"
        assert not run("return window.broken")
        assert int(run("return document.getElementById('world').dataset.drawn")) > 50
        before = run("return document.getElementById('world').toDataURL()")
        slider = "const s = document.getElementById('frame'); s.value = 9; s.oninput(); return [s.max, state.frame]"
        assert run(slider) == ["13", 9]
        assert run("return document.getElementById('number').textContent") == "10 of 14"
        assert int(run("return document.getElementById('picture').dataset.drawn")) == result.tracks.visible[:, 9].sum()
        assert run("return document.getElementById('world').toDataURL()") != before
        assert browser.get_log("browser") == []
    finally:
        browser.quit()
