"""Meshes of the unit square and cube that several tests share."""

import itertools

import torch
from torch import Tensor

__all__ = ["box", "ring"]


def box(kind: str, n: int, *, bend: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
    """The unit square or cube in n cells a side, in float64.

    Args:
        kind: a cell type, or ``"mixed2"`` and ``"mixed3"``: half quadrilaterals, half triangles;
            half hexahedra, half wedges.
        n: cells a side, even for mixed meshes.
        bend: moves inner points smoothly, so that no cell is a parallelogram.
    """
    dim = {"line": 1, "triangle": 2, "quad": 2, "mixed2": 2}.get(kind, 3)
    sides = [torch.linspace(0, 1, n + 1, dtype=torch.float64)] * dim
    pos = torch.stack(torch.meshgrid(*sides, indexing="ij"), -1).reshape(-1, dim)
    number = torch.arange(len(pos)).view([n + 1] * dim)

    def corner(*shift: int) -> Tensor:
        return number[tuple(slice(s, n + s) for s in shift)].flatten()

    if dim == 1:
        cells = {"line": torch.stack([corner(0), corner(1)], 1)}
    elif dim == 2:
        quads = torch.stack([corner(0, 0), corner(1, 0), corner(1, 1), corner(0, 1)], 1)
        half = {"quad": len(quads), "triangle": 0, "mixed2": len(quads) // 2}[kind]
        rest = quads[half:]
        cells = {"quad": quads[:half], "triangle": torch.cat([rest[:, :3], rest[:, [0, 2, 3]]])}
    else:
        round_ = [(0, 0), (1, 0), (1, 1), (0, 1)]
        hexes = torch.stack([corner(*c, z) for z in (0, 1) for c in round_], 1)
        upper = torch.arange(len(hexes)) // n**2 >= n // 2  # the first coordinate counts slowest
        wedge = [[0, 1, 2, 4, 5, 6], [0, 2, 3, 4, 6, 7]]
        if kind == "hexahedron":
            cells = {"hexahedron": hexes}
        elif kind == "wedge":
            cells = {"wedge": torch.cat([hexes[:, w] for w in wedge])}
        elif kind == "mixed3":
            cells = {
                "hexahedron": hexes[~upper],
                "wedge": torch.cat([hexes[upper][:, w] for w in wedge]),
            }
        elif kind == "tetra":  # Kuhn: one along every monotone path from corner 0 to corner 6
            paths = []
            for order in itertools.permutations(range(3)):
                at = [0, 0, 0]
                path = [corner(*at)]
                for axis in order:
                    at[axis] = 1
                    path.append(corner(*at))
                odd = order in ((0, 2, 1), (1, 0, 2), (2, 1, 0))
                if odd:
                    path[2], path[3] = path[3], path[2]
                paths.append(torch.stack(path, 1))
            cells = {"tetra": torch.cat(paths)}
        elif kind == "pyramid":  # six around every centre
            centre = len(pos) + torch.arange(len(hexes))
            pos = torch.cat([pos, pos[hexes].mean(1)])
            faces = [
                (0, 1, 2, 3),
                (4, 7, 6, 5),
                (0, 4, 5, 1),
                (1, 5, 6, 2),
                (2, 6, 7, 3),
                (3, 7, 4, 0),
            ]
            cells = {
                "pyramid": torch.cat([torch.cat([hexes[:, f], centre[:, None]], 1) for f in faces])
            }
        else:
            raise ValueError(kind)
    inner = (torch.pi * pos).sin().prod(dim=1, keepdim=True)
    shift = bend * inner * torch.tensor([1.0, -0.7, 0.5], dtype=torch.float64)[:dim]
    return pos + shift, {k: i for k, i in cells.items() if len(i)}


def ring(n: int, *, inner: float = 0.5) -> tuple[Tensor, dict[str, Tensor]]:
    """A disc of radius 1 with a concentric hole: n quadrilaterals round, n // 6 across."""
    across = max(1, n // 6)
    radius = torch.linspace(inner, 1, across + 1, dtype=torch.float64)[:, None]
    angle = torch.arange(n, dtype=torch.float64) * (2 * torch.pi / n)
    pos = torch.stack([radius * angle.cos(), radius * angle.sin()], -1).reshape(-1, 2)
    number = torch.arange((across + 1) * n).view(across + 1, n)
    after = number.roll(-1, dims=1)
    quads = torch.stack([number[:-1], number[1:], after[1:], after[:-1]], -1).reshape(-1, 4)
    return pos, {"quad": quads}
