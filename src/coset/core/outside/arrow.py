"""Arrow IPC files, mapped into memory: every offset is checked before anything is read through it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coset.core.errors import CosetError, require
from coset.core.outside.files import check_regular, refusing


@dataclass(frozen=True)
class ArrowTable:
    """One file.

    Attributes:
        metadata: Of its schema.
        fields: Of its columns.
        batch: All rows; ``None`` without any.
    """

    metadata: dict[bytes, bytes]
    fields: tuple[Any, ...]
    batch: Any | None


def read_arrow(path: Path | str) -> ArrowTable:
    """A file of one record batch at most, validated whole: a wrong offset would read beyond the file.

    Raises:
        CosetError: It is missing or damaged, packed, or has several batches.
    """
    path = check_regular(path)
    pa = require("pyarrow", "shards")
    with refusing(path, "Arrow file"):
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        for field in reader.schema:
            _ = field.name  # text, or an error here and not where it is read
        if reader.num_record_batches > 1:
            raise CosetError(f"{path} has {reader.num_record_batches} record batches; one was expected")
        batch = reader.get_batch(0) if reader.num_record_batches else None
        if batch is not None:
            batch.validate(full=True)
            if batch.get_total_buffer_size() > 2 * path.stat().st_size + (1 << 20):
                raise CosetError(f"{path} holds packed columns: write it without compression")
        return ArrowTable(dict(reader.schema.metadata or {}), tuple(reader.schema), batch)
