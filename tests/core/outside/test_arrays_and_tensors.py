import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from coset import CosetError
from coset.core.outside import array_archive, read_arrays, read_arrow, read_saved, read_tensors, tensor_file


def header(shape: str, dtype: str = "<f8") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_arrays_come_back(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(6).reshape(2, 3), y=np.array(1.5), z=np.array(["a", "b"]))
    found = read_arrays(tmp_path / "a.npz", ["x"])
    assert found["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (float(found["y"]), found["z"].tolist()) == (1.5, ["a", "b"])
    np.save(tmp_path / "a.npy", np.arange(4))
    assert read_arrays(tmp_path / "a.npy")[""].tolist() == [0, 1, 2, 3]
    with pytest.raises(CosetError, match=r"a\.npz lacks the array 'w': it holds x, y, z"):
        read_arrays(tmp_path / "a.npz", ["w"])


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(-1,)", "(2**62,)", "(10, 10)", "(True, 9)"])
def test_a_claimed_shape_is_held_against_the_file(tmp_path, shape):
    (tmp_path / "a.npy").write_bytes(header(shape) + bytes(64))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header(shape) + bytes(64))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(CosetError, match=name):
            read_arrays(tmp_path / name)


def test_objects_bombs_and_names_twice_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(CosetError, match="holds Python objects"):
        read_arrays(tmp_path / "objects.npy")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header("(4194304,)") + bytes(1 << 25))
    with pytest.raises(CosetError, match="at most 1,000,000 are read"):
        read_arrays(tmp_path / "bomb.npz", most=1_000_000)
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        archive.writestr("x.npy", header("(1,)") + bytes(8))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", header("(1,)") + bytes(8))
    with pytest.raises(CosetError, match="holds two arrays 'x'"):
        read_arrays(tmp_path / "twice.npz")


def test_tensors_come_back(tmp_path):
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.int64)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.ckpt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "a.pt", "a.ckpt", "old.pt"):
        found = read_tensors(tmp_path / name)
        assert found["a"].tolist() == [0, 1, 2]
        assert found["b"].shape == (2, 2)
    assert read_saved(tmp_path / "a.ckpt")["epoch"] == 3


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('run')",)


def test_nothing_is_unpickled(tmp_path):
    torch.save({"a": Evil()}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(CosetError, match=r"is damaged, or holds more than tensors"):
            read_saved(tmp_path / name)


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "a.pt")
    with pytest.raises(CosetError, match="claims a tensor of shape"):
        read_tensors(tmp_path / "a.pt")


def test_an_archive_that_grows_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1 << 22)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(CosetError, match="bytes of tensors and has"):
        read_tensors(tmp_path / "b.pt")


def test_files_of_something_else(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    claimed = json.dumps({"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", len(claimed)) + claimed + bytes(8))
    torch.save({"a": 1}, tmp_path / "a.pt")
    torch.save({}, tmp_path / "b.pt")
    for name in ("a.safetensors", "b.safetensors", "a.pt", "b.pt"):
        with pytest.raises(CosetError, match=name):
            read_tensors(tmp_path / name)
    with (
        pytest.raises(CosetError, match=r"none\.safetensors: no such file"),
        tensor_file(tmp_path / "none.safetensors"),
    ):
        pass


def arrow(ends: list[int], values: int) -> bytes:
    column = pa.LargeListArray.from_arrays(pa.array(ends), pa.array(np.arange(values)))
    sink = io.BytesIO()
    schema = pa.schema([pa.field("x", column.type)], metadata={"coset": "{}"})
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch([column], schema=schema))
    return sink.getvalue()


def test_offsets_of_arrow_are_validated(tmp_path):
    content = arrow([0, 2, 1234567], 1234567)
    at = content.index(struct.pack("<qqq", 0, 2, 1234567))
    (tmp_path / "a.arrow").write_bytes(content)
    assert read_arrow(tmp_path / "a.arrow").batch.num_rows == 2
    for wrong in (1 << 40, -5):
        (tmp_path / "a.arrow").write_bytes(content[: at + 8] + struct.pack("<q", wrong) + content[at + 16 :])
        with pytest.raises(CosetError, match=r"a\.arrow is no Arrow file"):
            read_arrow(tmp_path / "a.arrow")


def test_of_an_archive_only_what_is_asked_for_is_read(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(3), big=np.zeros((4, 1000)), objects=np.array([{}, {}], dtype=object))
    with array_archive(path, most=500) as archive:
        assert archive.names == ["a", "big", "objects"]
        assert (archive.shape("big"), archive.shape("objects")) == ((4, 1000), (2,))
        assert archive.read("a").tolist() == [0, 1, 2]
        with pytest.raises(CosetError, match="array 'big' has 32,000 bytes; at most"):
            archive.read("big")
        with pytest.raises(CosetError, match="array 'objects' holds Python objects"):
            archive.read("objects")


def test_archives_that_are_none(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    with (
        pytest.raises(CosetError, match="holds a single array; an NPZ was expected"),
        array_archive(tmp_path / "a.npy"),
    ):
        pass
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(CosetError, match="is no NPZ or NPY file"), array_archive(tmp_path / "text.npz"):
        pass
