"""What counts as a defect of a mesh: one definition for the report and for the repair."""

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from cst_operator._cells import cell_dim

__all__ = ["first_of", "inverted", "is_oriented", "repeated"]


def is_oriented(kind: str, dim: int) -> bool:
    """Whether the sign of a cell's volume means something in so many dimensions."""
    return kind != "line" and cell_dim(kind) == dim


def inverted(kind: str, sign: Tensor, dim: int) -> Tensor:
    """Cells of one type that are oriented against most others, [n]; none where undefined.

    Args:
        kind: meshio cell type.
        sign: sign of every cell, 0 for a degenerate one, [n].
        dim: number of coordinates.
    """
    if not is_oriented(kind, dim):
        return torch.zeros_like(sign, dtype=torch.bool)
    negative, positive = sign < 0, sign > 0
    return negative if int(negative.sum()) <= int(positive.sum()) else positive


def repeated(number: Tensor) -> Tensor:
    """Places of a vector that hold a number which an earlier one has, [n]."""
    order = number.argsort(stable=True)
    again = torch.zeros_like(number, dtype=torch.bool)
    again[order[1:]] = number[order].diff() == 0
    return again


def first_of(pos: Tensor) -> Tensor:
    """The first point that coincides with each within the rounding of the coordinates, [N]."""
    reach = 4 * torch.finfo(pos.dtype).eps * float(pos.abs().max())
    x = pos.detach().cpu().double().numpy()
    pairs = cKDTree(x).query_pairs(reach, output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(x), len(x)))
    group = connected_components(links, directed=False)[1]
    first = np.unique(group, return_index=True)[1][group]
    return torch.from_numpy(first).to(pos.device, torch.int64)
