"""Ragged examples and a small CST that the tests of the interoperation share."""

import torch
from torch_geometric.data import Batch

from cst_operator.fields import Example, PointField
from cst_operator.interop import CST

__all__ = ["SMALL", "cloud", "clouds", "joined", "small_cst"]

SMALL = {"width": 32, "depth": 2, "heads": 2, "hidden": 32, "interpolant_radius": 0.4}


def small_cst(seed: int, **changes: object) -> CST:
    """A CST of two layers in two dimensions, one channel to one channel unless changed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings = {"dim": 2, "in_channels": 1, "out_channels": 1, **SMALL, **changes}
        return CST(**settings)


def cloud(generator: torch.Generator, num_points: int) -> Example:
    """Random points of the unit square with uneven weights; the answer is a function of place."""
    pos = torch.rand(num_points, 2, generator=generator)
    weights = 0.5 + torch.rand(num_points, generator=generator)
    scale = 1 + torch.rand(1, generator=generator)
    u = 3 + scale * torch.sin(3 * pos.sum(1, keepdim=True))
    f = scale * torch.cos(3 * pos.sum(1, keepdim=True))
    return Example(
        PointField(pos, f, weights / weights.sum()), PointField(pos, u, weights / weights.sum())
    )


def clouds(generator: torch.Generator, count: int, least: int = 12) -> list[Example]:
    """Examples with different numbers of points."""
    sizes = torch.randint(least, 2 * least, (count,), generator=generator)
    return [cloud(generator, int(size)) for size in sizes]


def joined(examples: list[Example]) -> Example:
    """Examples as one batch, as PyG's loader makes it."""
    return Example(*(Batch.from_data_list([e[i] for e in examples]) for i in range(2)))
