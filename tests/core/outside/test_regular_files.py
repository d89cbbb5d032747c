import gzip
import os
import zipfile

import pytest

from coset import CosetError
from coset.core.outside import check_regular, inside, lines_of, read_bytes, read_text


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place, said in (
        (tmp_path / "pipe", "is a pipe or a device"),
        ("/dev/zero", "is a pipe or a device"),
        (tmp_path, "is a folder"),
        (tmp_path / "none", "no such file"),
        (tmp_path / "pipe" / "none", "no such file"),
        ("a\0b", "is no name of a file"),
    ):
        with pytest.raises(CosetError, match=said):
            check_regular(place)


def test_bytes_are_counted_after_unpacking(tmp_path):
    with gzip.open(tmp_path / "bomb.gz", "wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    with pytest.raises(CosetError, match="unpacked, it holds more bytes"):
        read_bytes(tmp_path / "bomb.gz", 1 << 20)
    assert len(read_bytes(tmp_path / "bomb.gz", 1 << 27)) == 64 << 20
    (tmp_path / "plain").write_bytes(bytes(100))
    with pytest.raises(CosetError, match="holds more bytes"):
        read_bytes(tmp_path / "plain", 99)


def test_broken_packing_is_named(tmp_path):
    whole = gzip.compress(b"a,b\n" * 1000)
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.gz").write_bytes(b"plain")
    (tmp_path / "none.xz").write_bytes(b"plain")
    (tmp_path / "none.zip").write_bytes(b"plain")
    for name in ("cut.gz", "none.gz", "none.xz", "none.zip"):
        with pytest.raises(CosetError, match=name):
            read_bytes(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a", "1")
        archive.writestr("b", "2")
    with pytest.raises(CosetError, match="holds 2 files"):
        read_bytes(tmp_path / "two.zip")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_told(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("smiles,y\nCCO,1\n".encode(encoding))
    with pytest.raises(CosetError, match="is in UTF-16"):
        read_text(tmp_path / "a.txt")


def test_a_byte_that_is_no_utf8_is_placed(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\ntwo é\n".encode("latin-1"))
    with pytest.raises(CosetError, match=r"a\.txt, line 2: the byte 0xe9 is not UTF-8; save the file as UTF-8"):
        read_text(tmp_path / "a.txt")
    assert lines_of(tmp_path / "a.txt", encoding="latin-1") == ["one", "two é"]
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfone")
    assert read_text(tmp_path / "b.txt") == "one"


def test_names_stay_in_their_folder(tmp_path):
    assert inside(tmp_path, "a/b.bin", "index") == tmp_path / "a" / "b.bin"
    for name in ("../a", "/etc/passwd", "a/../../b", "", ".", 3, "a\0"):
        with pytest.raises(CosetError, match="index names"):
            inside(tmp_path, name, "index")
