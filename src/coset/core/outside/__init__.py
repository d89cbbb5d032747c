"""The one door for everything that comes from elsewhere: no other module opens a file of a user's.

Five readers, each with limits, each with a :class:`~coset.core.errors.CosetError` that names file and place for
whatever is wrong:

=====================  ====================================================================================
:func:`read_table`     CSV and TSV: cells as text, as many in each row as the header has
:func:`read_tree`      JSON and YAML, checked against a schema
:func:`read_arrays`    NPZ and NPY, without objects; :func:`array_archive` reads what is asked for alone
:func:`read_tensors`   safetensors, and PyTorch's files of tensors alone
:func:`read_arrow`     Arrow IPC files, validated whole
=====================  ====================================================================================

Under them lie :func:`read_text` and :func:`read_bytes`, for formats that a domain parses itself (graph6, OFF, glTF).

What is refused everywhere: what is no regular file (a pipe would hang, a device would never end); more bytes, after
unpacking, than the limit; shapes that the file has no room for; nesting that is too deep. Nothing is unpickled, no code
of a stranger's is run, no resolver is called, no regular expression of a stranger's is matched.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
