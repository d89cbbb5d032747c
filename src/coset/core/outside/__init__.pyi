from .arrays import ArrayArchive, array_archive, read_arrays
from .arrow import ArrowTable, read_arrow
from .files import check_regular, inside, lines_of, read_bytes, read_text, refusing
from .tables import (
    MISSING,
    check_column,
    escaped,
    read_header,
    read_numbers,
    read_table,
    row_named,
    spelled,
    table_chunks,
)
from .tensors import read_saved, read_tensors, tensor_file, tensors_with_metadata
from .trees import parse_tree, read_settings, read_tree

__all__ = [
    "MISSING",
    "ArrayArchive",
    "ArrowTable",
    "array_archive",
    "check_column",
    "check_regular",
    "escaped",
    "inside",
    "lines_of",
    "parse_tree",
    "read_arrays",
    "read_arrow",
    "read_bytes",
    "read_header",
    "read_numbers",
    "read_saved",
    "read_settings",
    "read_table",
    "read_tensors",
    "read_text",
    "read_tree",
    "refusing",
    "row_named",
    "spelled",
    "table_chunks",
    "tensor_file",
    "tensors_with_metadata",
]
