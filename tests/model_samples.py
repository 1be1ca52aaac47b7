"""Tiny models and fields that several tests share, in float64 and with nothing trivially zero."""

import torch
from torch import Tensor
from torch_geometric.data import Batch

from cst_operator.cst_config import CSTConfig
from cst_operator.fields import Example, PointField
from cst_operator.model import CSTOperator
from cst_operator.nn import ATTENTION, FLOWS

__all__ = ["KINDS", "joined", "known_field", "queries_in", "tiny_model"]

KINDS: dict[str, dict[str, object]] = {
    "operator": {},
    "joint": {"form": "joint"},
    "anchors": {"anchors": 12},
    "aggregating": {"anchors": 12, "aggregate_at_queries": True, "aggregation_radius": 1.0},
    **{kind: {"attention": (kind,), "sites": 9} for kind in ATTENTION if kind != "full"},
    "thin": {"anchors": 12, "interpolant_points": 14, "query_depth": 1},
    "wave": {"flow": "wave", "flow_steps": 3, "flow_radius": 0.3},
    "implicit": {"flow": "implicit_diffusion", "flow_radius": 0.3},
    "advection": {"flow": "advection_diffusion", "flow_steps": 2, "flow_radius": 0.3},
    **{
        f"hidden_{flow}": {
            "flow": flow,
            "flow_of": "hidden",
            "flow_steps": 2,
            "flow_radius": 0.3,
        }
        for flow in FLOWS
        if flow != "diffusion"
    },
    "flowing_anchors": {"anchors": 12, "flow": "diffusion", "flow_radius": 0.3},
    "modulated": {"in_names": ("u0", "u1"), "modulators": ("u1",)},
    "mixed": {"attention": ("full", "kernel"), "depth": 3, "anchors": 12},
}
"""Settings of models of every kind, for what must hold for all of them."""


def tiny_model(seed: int, **changes: object) -> CSTOperator:
    """A model of width 32 with two layers and two heads, perturbed, in evaluation mode."""
    settings: dict[str, object] = {
        "dim": 2,
        "in_channels": 2,
        "out_channels": 2,
        "width": 32,
        "depth": 2,
        "heads": 2,
        "hidden": 32,
        "fourier_features": 8,
        "radii": (0.3, 2.0),
        "interpolant_radius": 0.3,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CSTOperator(CSTConfig(**(settings | changes))).double()  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
            for name, buffer in model.normalization.named_buffers():
                buffer += 0.3 * torch.rand_like(buffer) if "frequencies" not in name else 0
    return model.eval()


def known_field(
    generator: torch.Generator, num_points: int, *, channels: int = 2, transient: bool = False
) -> PointField:
    """Random samples with uneven weights in the square from -1 to 1."""
    pos = 2 * _uniform(generator, num_points, 2) - 1
    return PointField(
        pos=pos,
        u=torch.randn(num_points, channels, generator=generator, dtype=pos.dtype),
        weights=0.2 + _uniform(generator, num_points),
        time=_uniform(generator, num_points) if transient else None,
    )


def queries_in(
    generator: torch.Generator, num_points: int, *, transient: bool = False
) -> PointField:
    """Bare query points in the square from -1 to 1."""
    pos = 2 * _uniform(generator, num_points, 2) - 1
    return PointField(pos=pos, time=_uniform(generator, num_points) if transient else None)


def joined(*examples: Example) -> Example:
    """Examples as one batch, as PyG's loader makes it."""
    sides = (Batch.from_data_list([e[i] for e in examples]) for i in range(2))
    return Example(*sides)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)
