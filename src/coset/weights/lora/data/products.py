r"""LoHa and LoKr, products of low-rank matrices, as the LoRAs that they are: factors of the same update, exactly.

LoHa (Hyeon-Woo, Ye-Bin, Oh, "FedPara", ICLR 2022, arXiv 2108.06098) has dW = (A1 B1) o (A2 B2), entrywise; its rank is
at most r^2, with the products of columns as columns: U[:, (i, j)] = A1[:, i] A2[:, j]. LoKr (Edalati et al., "KronA",
arXiv 2212.10650; Yeh et al., "LyCORIS", arXiv 2309.14859) has dW = W1 (x) W2, and (U1 V1^T) (x) (U2 V2^T) =
(U1 (x) U2) (V1 (x) V2)^T.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from coset.core.errors import CosetError


class Product(NamedTuple):
    """Factors of an update without its scale.

    Attributes:
        u: ``[n, r]``.
        v: ``[m, r]``.
        kernel: ``(in, height, width)`` that m stands for, where the file tells.
        rank: By which alpha is divided; None where nothing is low-rank.
    """

    u: Float[Tensor, "n r"]
    v: Float[Tensor, "m r"]
    kernel: tuple[int, ...] | None
    rank: int | None


def is_product(parts: Mapping[str, Tensor]) -> bool:
    """Whether a layer's tensors are those of LoHa or LoKr."""
    return any(part.startswith(("hada_", "lokr_")) for part in parts)


def product(layer: str, parts: Mapping[str, Tensor]) -> Product:
    """The factors of a layer.

    Raises:
        CosetError: One of its tensors is missing, or they do not fit together.
    """
    if "down" in parts or "up" in parts:
        raise CosetError(f"{layer} has factors of two kinds: {', '.join(parts)}")
    try:
        return _loha(parts) if any(part.startswith("hada_") for part in parts) else _lokr(parts)
    except KeyError as error:
        raise CosetError(f"{layer} has no {error.args[0]}, which goes with its other factors") from error
    except RuntimeError as error:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in parts.items())
        raise CosetError(f"{layer}: its factors do not fit together ({shapes})") from error


def _loha(parts: Mapping[str, Tensor]) -> Product:
    (a1, b1), (a2, b2) = ((parts[f"hada_w{i}_a"], parts[f"hada_w{i}_b"]) for i in (1, 2))
    if "hada_t1" in parts or "hada_t2" in parts:
        cores = parts["hada_t1"], parts["hada_t2"]
        made = [_tucker(t, a, b) for t, a, b in zip(cores, (a1, a2), (b1, b2), strict=True)]
        delta = made[0] * made[1]
        return Product(*_of_matrix(delta.flatten(1)), tuple(delta.shape[1:]), b1.size(0))
    u = torch.einsum("ni,nj->nij", a1, a2).flatten(1)
    v = torch.einsum("im,jm->mij", b1, b2).flatten(1)
    return Product(u, v, None, b1.size(0))


def _lokr(parts: Mapping[str, Tensor]) -> Product:
    first, _, rank1 = _side(parts, "lokr_w1", None)
    second, kernel, rank2 = _side(parts, "lokr_w2", parts.get("lokr_t2"))
    u, v = (torch.einsum("ai,bj->abij", a, b).flatten(2).flatten(0, 1) for a, b in zip(first, second, strict=True))
    if kernel is not None:
        kernel = (first[1].size(0) * kernel[0], *kernel[1:])
    return Product(u, v, kernel, rank2 if rank2 is not None else rank1)


def _side(
    parts: Mapping[str, Tensor], name: str, core: Tensor | None
) -> tuple[tuple[Tensor, Tensor], tuple[int, ...] | None, int | None]:
    """One of the two matrices of a Kronecker product: its factors, its kernel and its rank."""
    if name in parts:
        whole = parts[name]
        return _of_matrix(whole.flatten(1)), tuple(whole.shape[1:]) if whole.dim() > 2 else None, None
    a, b = parts[f"{name}_a"], parts[f"{name}_b"]
    if core is not None:
        whole = _tucker(core, a, b)
        return _of_matrix(whole.flatten(1)), tuple(whole.shape[1:]), b.size(0)
    return (a, b.mT), None, b.size(0)


def _tucker(core: Tensor, a: Float[Tensor, "r n"], b: Float[Tensor, "r m"]) -> Float[Tensor, "n m height width"]:
    return torch.einsum("ijkl,ip,jq->pqkl", core, a, b)


def _of_matrix(matrix: Float[Tensor, "n m"]) -> tuple[Float[Tensor, "n r"], Float[Tensor, "m r"]]:
    """Factors of a matrix as it is: itself and the identity, on the smaller side."""
    n, m = matrix.shape
    eye = torch.eye(min(n, m), dtype=matrix.dtype)
    return (eye, matrix.mT) if n <= m else (matrix, eye)
