import json
import os
import stat
from contextlib import suppress

import pytest

from coset import CosetError
from coset.core.files import claimed_folder, json_text, make_folder, replacing, write_json, write_text


def test_text_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "new \ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CosetError, match=r"cannot write .*nowhere/a.txt: No such file or directory"):
        write_text(tmp_path / "nowhere" / "a.txt", "")


def test_json_is_strict(tmp_path):
    write_json(tmp_path / "a.json", {"a": [float("nan"), 1.5], "b": float("inf")})
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail) == {"a": [None, 1.5], "b": None}


def test_a_failure_keeps_the_old_file(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")
    with suppress(ZeroDivisionError), replacing(file) as part:
        part.write_bytes(b"ne")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == b"old"


def test_json_for_a_page_is_short():
    assert json_text({"a": [1, float("nan")], "b": "é"}) == '{"a":[1,null],"b":"\\u00e9"}'


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(CosetError, match=r"cannot make .*a/b: Not a directory"):
        make_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640)])
def test_files_are_as_private_as_the_user_wants_them(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "")
        with replacing(tmp_path / "b") as part:  # as safetensors does: another file takes its place
            part.unlink()
            part.touch(0o600)
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [mode, mode]


def test_an_output_is_for_one_process(tmp_path):
    with claimed_folder(tmp_path / "out"):
        with (
            pytest.raises(CosetError, match=r"out is in use by process \d+ on .*; wait for it"),
            claimed_folder(tmp_path / "out"),
        ):
            pass
        (tmp_path / "out" / "a").touch()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a"]
    with suppress(ZeroDivisionError), claimed_folder(tmp_path / "fails"):
        raise ZeroDivisionError
    assert not (tmp_path / "fails").exists()
