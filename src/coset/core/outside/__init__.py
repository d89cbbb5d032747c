"""The one door for everything that comes from elsewhere: no other module opens a file of a user's.

Five readers, each with limits, each with a :class:`~coset.core.errors.CosetError` that names file and place for
whatever is wrong:

=====================  ==================================================================================
:func:`read_table`     CSV and TSV: cells as text, as many in each row as the header has
:func:`read_tree`      JSON and YAML, checked against a schema
:func:`read_arrays`    NPZ and NPY, without objects
:func:`read_tensors`   safetensors, and PyTorch's files of tensors alone
:func:`read_arrow`     Arrow IPC files, validated whole
=====================  ==================================================================================

Under them lie :func:`read_text` and :func:`read_bytes`, for formats that a domain parses itself (graph6, OFF, glTF).

What is refused everywhere: what is no regular file (a pipe would hang, a device would never end); more bytes, after
unpacking, than the limit; shapes that the file has no room for; nesting that is too deep. Nothing is unpickled, no code
of a stranger's is run, no resolver is called, no regular expression of a stranger's is matched.
"""

from coset.core.outside.arrays import read_arrays
from coset.core.outside.arrow import ArrowTable, read_arrow
from coset.core.outside.files import check_regular, inside, lines_of, read_bytes, read_text, refusing
from coset.core.outside.tables import escaped, read_table, table_chunks
from coset.core.outside.tensors import read_saved, read_tensors, tensor_file, tensors_with_metadata
from coset.core.outside.trees import parse_tree, read_settings, read_tree

__all__ = [
    "ArrowTable",
    "check_regular",
    "escaped",
    "inside",
    "lines_of",
    "parse_tree",
    "read_arrays",
    "read_arrow",
    "read_bytes",
    "read_saved",
    "read_settings",
    "read_table",
    "read_tensors",
    "read_text",
    "read_tree",
    "refusing",
    "table_chunks",
    "tensor_file",
    "tensors_with_metadata",
]
