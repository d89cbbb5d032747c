"""The verbs of ``coset lora`` on a small collection, from the command line."""

import shutil
import sys

import pytest

from coset import cli

pytest.importorskip("sklearn")
pytest.importorskip("safetensors")


@pytest.fixture
def coset(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["coset", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def adapters(coset, tmp_path):
    code, out, err = coset("lora", "zoo", "lol/digits-zoo", "adapters=4", "--output", tmp_path / "run", "--quiet")
    assert code == 0, err
    assert "everything is in" in out
    return tmp_path / "run" / "adapters"


def test_inspect_convert_and_read_again(coset, adapters, tmp_path):
    code, out, _ = coset("lora", "inspect", adapters / "00000")
    assert code == 0
    assert "layers.0" in out
    assert "2 layers" in out
    assert coset("lora", "convert", adapters / "00000", tmp_path / "again")[0] == 0
    assert coset("lora", "inspect", tmp_path / "again")[1].splitlines()[:3] == out.splitlines()[:3]


def test_collect_search_duplicates_and_map(coset, adapters, tmp_path):
    shutil.copytree(adapters / "00002", adapters / "copy")
    code, out, err = coset("lora", "collect", adapters, tmp_path / "zoo")
    assert code == 0, err
    assert "5 adapters" in out
    first = coset("lora", "search", adapters / "00001", tmp_path / "zoo")[1].splitlines()[1]
    assert first.split() == ["00001", "1.0000"]
    out = coset("lora", "duplicates", tmp_path / "zoo")[1]
    assert "00002" in out
    assert "1 pair" in out
    assert coset("lora", "map", tmp_path / "zoo", "--output", tmp_path / "map.html")[0] == 0
    page = (tmp_path / "map.html").read_text()
    assert "00003" in page
    assert "http" not in page.split("<script>")[0].split("</style>")[1]


def test_a_spoilt_adapter_is_named_and_nothing_is_written(coset, adapters, tmp_path):
    (adapters / "00003" / "adapter_model.safetensors").write_bytes(b"spoilt")
    code, _, err = coset("lora", "collect", adapters, tmp_path / "zoo")
    assert code == 1
    assert "00003" in err
    assert not (tmp_path / "zoo").exists()
    code, out, _ = coset("lora", "collect", adapters, tmp_path / "zoo", "--skip-bad")
    assert code == 0
    assert "3 adapters" in out


def test_what_is_no_adapter_gets_one_line(coset, tmp_path):
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    for target, message in (("nothing", "does not exist"), ("notes.csv", "or not a file of tensors")):
        code, _, err = coset("lora", "inspect", tmp_path / target)
        assert code == 1
        assert message in err
        assert "weights_only" not in err
