"""Data sets by name: downloaded from a server or a folder, checked, converted, written whole."""

import functools
import gzip
import hashlib
import http.server
import threading
from dataclasses import replace

import pytest

from coset import CosetError
from coset.core.data_files import data_file, data_folders, download_folder, need
from coset.core.data_sets import DATA_SETS, DataSet, Download
from coset.core.downloads import download

TABLE = b"smiles,y\nCCO,1\n"


@pytest.fixture
def server(tmp_path):
    """The address of a folder served on this machine, and the folder."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=served)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", served
        running.shutdown()


@pytest.fixture
def table(server):
    address, served = server
    (served / "table.csv").write_bytes(TABLE)
    part = Download(f"{address}/table.csv", f"sha256:{hashlib.sha256(TABLE).hexdigest()}", len(TABLE))
    return DataSet("table", "a table", "MIT", files=("molecules/table.csv.gz",), downloads=(part,))


def test_a_file_is_packed_and_put_where_recipes_look(table, tmp_path, monkeypatch):
    monkeypatch.setenv("COSET_DATA", str(tmp_path / "data"))
    assert (need(table).kind, str(need(table))) == ("get", "coset data get table")
    received = []
    written = download(table, download_folder(), each=received.append)
    assert written == [tmp_path / "data" / "molecules" / "table.csv.gz"] == [data_file("molecules/table.csv.gz")]
    assert gzip.decompress(written[0].read_bytes()) == TABLE
    assert sum(received) == len(TABLE)
    assert str(need(table)) == "ready"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["molecules"]


def test_a_file_that_is_not_the_expected_one_is_not_kept(table, tmp_path):
    changed = replace(table, downloads=(replace(table.downloads[0], checksum="md5:0123"),))
    with pytest.raises(CosetError, match=r"table.csv has the md5 checksum \w{32}, not 0123: it is damaged"):
        download(changed, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.gz"))
    assert download(changed, tmp_path / "data", unverified=True)[0].is_file()


def test_what_is_missing_or_unreachable_is_told_in_a_line(table, tmp_path, server):
    gone = replace(table, downloads=(Download(f"{server[0]}/nothing.csv"),))
    with pytest.raises(CosetError, match=r"nothing.csv cannot be had: the server answers 404; coset data get --mirror"):
        download(gone, tmp_path / "data")
    silent = replace(table, downloads=(Download("http://127.0.0.1:9/table.csv"),))
    with pytest.raises(CosetError, match=r"cannot be had: Connection refused"):
        download(silent, tmp_path / "data")
    with pytest.raises(CosetError, match=r"^own is not downloaded: data.path=FILE"):
        download(DataSet("own", "", "", otherwise="data.path=FILE"), tmp_path / "data")


def test_a_mirror_is_a_folder_or_an_address(table, tmp_path, server):
    far = replace(table, downloads=(replace(table.downloads[0], url="https://example.invalid/deep/table.csv"),))
    for number, mirror in enumerate([str(server[1]), server[0]]):
        assert download(far, tmp_path / str(number), mirror)[0].is_file()


def test_several_files_come_whole_or_not_at_all(table, tmp_path, server):
    two = replace(table, files=("a/one.csv", "a/two.csv"),
                  downloads=(table.downloads[0], Download(f"{server[0]}/gone.csv")))  # fmt: skip
    with pytest.raises(CosetError, match="gone"):
        download(two, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.csv"))


def test_what_is_needed_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COSET_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    assert data_folders()[-1] == download_folder() == tmp_path / "home" / "coset"
    assert str(need(DATA_SETS["esol"])) == "coset data get esol"
    assert str(need(DATA_SETS["csv"])) == "needs data.path=FILE.csv data.target=COLUMN"
    assert str(need(DATA_SETS["minilm-zoo"])) == "coset run lol/minilm-zoo --output runs/minilm-zoo"
    assert str(need(DATA_SETS["communities"])) == "ready"
    assert str(need(DataSet("a", "", "", distribution="no-such-thing"))) == "pip install --no-deps no-such-thing"
    assert str(need(DataSet("a", "", "", modules=("cv2x",)))) == "pip install cv2x"
    with pytest.raises(CosetError, match=r"esol.csv is not found at .*; coset data get esol downloads it; or give"):
        data_file("molecules/esol.csv")
