"""Files of tensors: safetensors, and PyTorch's own read without unpickling anything but tensors."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from coset.core.errors import CosetError, require
from coset.core.outside.files import check_regular, refusing

if TYPE_CHECKING:  # opening other files should not import PyTorch
    from torch import Tensor

State = "dict[str, Tensor]"


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Tensors by name: ``.safetensors``, or a ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` of tensors alone.

    A dictionary with ``state_dict`` in it, as Lightning writes it, stands for that.

    Raises:
        CosetError: The file is missing, damaged, or holds something else.
    """
    return tensors_with_metadata(path)[0]


def tensors_with_metadata(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The same with the texts that a safetensors file keeps beside them."""
    path = Path(path)
    if path.suffix.lower() == ".safetensors" or _begins_as_safetensors(path):
        with tensor_file(path) as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    return _state_dict(read_saved(path), path), {}


def _state_dict(state: Any, path: Path) -> dict[str, Tensor]:
    from torch import Tensor

    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    ):
        raise CosetError(f"{path} holds no state dict: names and tensors were expected")
    return state


class _Saved:
    """A state dict with the methods of a safetensors file.

    Args:
        state: Tensors by name.
    """

    NAMES: ClassVar = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
                       "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"}  # fmt: skip

    def __init__(self, state: dict[str, Tensor]):
        self.state = state

    def keys(self) -> list[str]:
        return list(self.state)

    def get_tensor(self, name: str) -> Tensor:
        return self.state[name].detach().clone()

    def get_slice(self, name: str) -> Any:
        value = self.state[name]
        kind = str(value.dtype).removeprefix("torch.")
        return SimpleNamespace(get_shape=lambda: list(value.shape), get_dtype=lambda: self.NAMES.get(kind, kind))

    def metadata(self) -> None:
        return None


def _begins_as_safetensors(path: Path) -> bool:
    """Whatever it is called: a length, then JSON."""
    with open(check_regular(path), "rb") as file:
        return file.read(9)[8:] == b"{"


@contextmanager
def tensor_file(path: Path | str) -> Iterator[Any]:
    """A file of tensors, of which nothing is read yet; it has ``keys``, ``get_tensor``, ``get_slice``, ``metadata``.

    Safetensors, or what PyTorch saved of tensors alone (``.bin``, ``.pt``, ``.pth``), mapped into memory.

    Raises:
        CosetError: It is missing or damaged, also if this shows only while it is read.
    """
    path = check_regular(path)
    if path.suffix.lower() in (".bin", ".pt", ".pth") and not _begins_as_safetensors(path):
        yield _Saved(_state_dict(read_saved(path, mapped=True), path))
        return
    safetensors = require("safetensors", "weights")
    with refusing(path, "safetensors file"), safetensors.safe_open(str(path), framework="pt") as file:
        yield file


def read_saved(path: Path | str, classes: Sequence[type] = (), *, mapped: bool = False) -> Any:
    """What ``torch.save`` wrote of tensors, numbers, texts, lists and dictionaries; nothing in it is executed.

    Args:
        path: Of the file.
        classes: Further ones of which objects may be in it; they are made without calling their constructors.
        mapped: Leave tensors in the file until they are used, where it is a file of PyTorch 1.6 or later.

    Raises:
        CosetError: The file is missing or damaged, holds something else, or claims more than there is.
    """
    import torch

    path = check_regular(path)
    _check_archive(path)
    with refusing(path, "file of tensors"):
        try:
            with torch.serialization.safe_globals(list(classes)):
                mapped = mapped and zipfile.is_zipfile(path)
                value = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except CosetError:
            raise
        except Exception as error:
            # What PyTorch says is about its own options, not about the file.
            more = "".join(f", {each.__name__}" for each in classes[:1])
            if (named := re.search(r"GLOBAL ([\w.]{1,80})", str(error))) is not None:
                more += f": it holds {named[1]}"
            raise CosetError(
                f"{path} cannot be read: it is damaged, or holds more than tensors, numbers and texts{more}"
            ) from error
        _check_tensors(value, path, tuple(classes))
    return value


def _check_archive(path: Path) -> None:
    """PyTorch stores tensors as they are: an archive that would be larger unpacked is none of its own."""
    with refusing(path, "file of tensors"):
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
    if total > path.stat().st_size:
        raise CosetError(f"{path} claims {total:,} bytes of tensors and has {path.stat().st_size:,}")


def _held(each: Any) -> list[Any]:
    """What a container, or an object, consists of."""
    if isinstance(each, dict):
        return [*each.keys(), *each.values()]
    return list(each) if isinstance(each, list | tuple) else list(vars(each).values())


def _check_tensors(value: Any, path: Path, classes: tuple[type, ...]) -> None:
    """That no tensor repeats a small storage over a shape that memory does not hold; nothing is nested in itself."""
    import torch

    waiting, around, done = [(value, False)], set[int](), set[int]()
    while waiting:
        each, left = waiting.pop()
        if left:
            around.remove(id(each))
            done.add(id(each))
        elif isinstance(each, (dict, list, tuple, *classes)):
            if id(each) in around:
                raise CosetError(f"{path} holds something that holds itself")
            if id(each) in done:
                continue
            around.add(id(each))
            waiting += [(each, True), *((inner, False) for inner in _held(each))]
        elif isinstance(each, torch.Tensor) and each.layout == torch.strided:
            claimed, there = each.numel() * each.element_size(), each.untyped_storage().nbytes()
            if claimed > max(there, 1 << 20):
                raise CosetError(f"{path} claims a tensor of shape {tuple(each.shape)}; {there:,} bytes are there")
        elif isinstance(each, torch.Tensor):
            raise CosetError(f"{path} holds a sparse tensor: save dense ones")
