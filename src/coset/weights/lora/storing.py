"""Names under which ``transformers`` stores parameters, where a release calls them otherwise in memory.

A ViT of transformers 5 has ``vit.layers.0.attention.q_proj``, and its files, like those of all releases before,
``vit.encoder.layer.0.attention.attention.query``; an adapter goes by the names in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from coset.core.errors import CosetError, require
from coset.core.outside import read_tree


def stored_names(base: Path, names: Iterable[str]) -> dict[str, str]:
    """Names in files by names in memory, of what the installed ``transformers`` merely renames; none without it.

    Args:
        base: Folder of the model.
        names: Of its parameters in files.
    """
    if not (base / "config.json").is_file():
        return {}
    kind = next(iter(read_tree(base / "config.json", dict[str, Any]).get("architectures") or []), "")
    try:
        transformers = require("transformers", "weights")
        conversion = require("transformers.conversion_mapping", "weights")
        loading = require("transformers.core_model_loading", "weights")
        config = transformers.AutoConfig.from_pretrained(base, trust_remote_code=False)
        with torch.device("meta"):
            model = getattr(transformers, kind)(config)
        steps = conversion.get_model_conversion_mapping(model)
        joined = [step for step in steps if isinstance(step, loading.WeightConverter)]
        renamed = [step for step in steps if not isinstance(step, loading.WeightConverter)]
        found = {name: loading.rename_source_key(name, renamed, joined) for name in names}
    except (CosetError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError):
        return {}  # another release, or a model that it does not know
    return {new: name for name, (new, into) in found.items() if into is None and new != name}
