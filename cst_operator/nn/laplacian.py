"""Laplacians on points: of a point set with weights, of a mesh, of a sequence."""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.sparse import coo_array
from torch import Tensor
from torch.nn.functional import pad

from cst_operator.differentiation import gradient_operator
from cst_operator.errors import FieldError
from cst_operator.fields import PointField
from cst_operator.nn.attention import Memory, attend, join_heads, split_heads
from cst_operator.quadrature import node_weights

__all__ = ["CellLaplacian", "Laplacian", "PathLaplacian", "PointLaplacian"]


class Laplacian(ABC):
    r"""A discrete Laplacian, the generator of a random walk on the points.

    A step of the walk from a point goes some length :math:`\rho` far: the radius of a point set,
    the longest edge of a mesh, 1 on a path. It is zero on constants. With a drift t, shorter than
    1, the walk leans towards t, which adds the advection :math:`(2 / \rho)\, t \cdot \nabla v`.
    """

    bound: float
    """No eigenvalue of the negative Laplacian is larger. With or without a drift, a coefficient up
    to its inverse makes an explicit step an average, except on meshes with obtuse angles."""

    @abstractmethod
    def apply(self, v: Tensor) -> Tensor:
        """Laplacian of values at the points, [B, N, c] -> [B, N, c]."""

    @abstractmethod
    def drifting(self, drift: Tensor) -> Self:
        """The same with a drift.

        Args:
            drift: one vector shorter than 1 for each of g equal groups of channels, [g, D].
        """

    def hold(self, before: Tensor, after: Tensor) -> Tensor:
        """Values after a step, where points that are held have those before it."""
        return after


@dataclass(frozen=True)
class PointLaplacian(Laplacian):
    r"""Laplacian of a weighted point set, over a neighbourhood of fixed physical size.

    .. math::

        L v_i = \frac{2}{r^2} \Bigl(
        \frac{\sum_j w_j\, e^{-|s_i - s_j|^2 / 2 r^2}\, v_j}
             {\sum_j w_j\, e^{-|s_i - s_j|^2 / 2 r^2}} - v_i \Bigr).

    The weights make it independent of where the points are dense; under refinement it has a limit,
    which for small r is the Laplacian with no flux through the boundary. The Gaussian is positive
    definite, so the eigenvalues of -L lie between 0 and :math:`2 / r^2`. The average is evaluated
    by a fused attention kernel: O(N^2) operations, no matrix.

    Args:
        coordinates: places of the points, [B, N, D].
        log_weights: logarithms of their quadrature weights, [B, N]; padding has -1e4.
        radius: the radius r.
        readers: places at which the Laplacian is taken, [B, M, D]; the points if omitted.
        drift: see :meth:`Laplacian.drifting`.

    Source: Coifman and Lafon, Diffusion maps, 2006, with quadrature weights for the density.
    """

    coordinates: Tensor
    log_weights: Tensor
    radius: float
    readers: Tensor | None = None
    drift: Tensor | None = None

    @property
    def bound(self) -> float:  # type: ignore[override]
        r""":math:`2 / r^2`."""
        return 2 / self.radius**2

    def apply(self, v: Tensor, own: Tensor | None = None) -> Tensor:
        """Laplacian of values.

        Args:
            v: values at the points, [B, N, c].
            own: values at the readers, [B, M, c]; ``v`` if omitted.

        Returns:
            [B, M, c].
        """
        own = v if own is None else own
        s = self.coordinates / self.radius
        x = s if self.readers is None else self.readers / self.radius
        drift = s.new_zeros(1, s.shape[-1]) if self.drift is None else self.drift.to(s)
        x = x[:, None] + drift[:, None]  # [B, g, M, D]
        measure = self.log_weights.to(s) - s.square().sum(-1) / 2
        key = torch.cat([s, measure[..., None]], dim=-1)[:, None].expand(-1, len(drift), -1, -1)
        query = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
        value = split_heads(v.to(s), len(drift))
        wide = max(value.shape[-1], key.shape[-1])
        query, key, value = (pad(x, (0, wide - x.shape[-1])) for x in (query, key, value))
        mean = attend(query, Memory(key, value))
        mean = join_heads(mean[..., : v.shape[-1] // len(drift)])
        return (self.bound * (mean - own.to(mean))).to(v)

    def at(self, readers: Tensor) -> "PointLaplacian":
        """The same, taken at other places, [B, M, D]."""
        return dataclasses.replace(self, readers=readers)

    def drifting(self, drift: Tensor) -> "PointLaplacian":
        """The walk leaves from a place shifted by ``drift`` radii."""
        return dataclasses.replace(self, drift=drift)


@dataclass(frozen=True, kw_only=True)
class CellLaplacian(Laplacian):
    r"""Laplacian of linear elements with lumped mass, :math:`-M^{-1} S`, as a sum over edges.

    .. math:: L v_i = \sum_j c_{ij} (v_j - v_i), \qquad c_{ij} = -S_{ij} / m_i .

    The boundary condition is the natural one, no flux. Conductances are negative across obtuse
    angles; steps within :attr:`bound` then still damp every mode, but may overshoot.

    Args:
        edges: points i and j of every edge, in both directions, [2, E].
        conductance: :math:`c_{ij}`, [E].
        direction: :math:`s_j - s_i` over the length of the longest edge, [E, D].
        bound: by Gershgorin's circles.
        drift: see :meth:`Laplacian.drifting`.
    """

    edges: Tensor
    conductance: Tensor
    direction: Tensor
    bound: float
    drift: Tensor | None = None

    @classmethod
    def of(cls, field: PointField) -> "CellLaplacian":
        """The Laplacian of a field's mesh.

        Raises:
            MeshError: if a cell is degenerate.
            FieldError: if the field has no cells.
        """
        if not field.get("cells"):
            raise FieldError("the field has no cells; use PointLaplacian, which needs none")
        gradient = gradient_operator(field).to("cpu")
        where, values = gradient.matrix.indices().numpy(), gradient.matrix.values().detach().numpy()
        matrix = coo_array((values, where), shape=gradient.matrix.shape).tocsr()
        volumes = gradient.weights.detach().repeat_interleave(field.pos.shape[1]).numpy()
        stiffness = (matrix.T @ (matrix * volumes[:, None])).tocoo()
        off = stiffness.row != stiffness.col
        edges = torch.from_numpy(np.stack([stiffness.row[off], stiffness.col[off]])).long()
        edges = edges.to(field.pos.device)
        mass = node_weights(field.pos, field.cells)
        conductance = -torch.from_numpy(stiffness.data[off]).to(mass) / mass[edges[0]]
        offset = field.pos[edges[1]] - field.pos[edges[0]]
        size = conductance.new_zeros(len(mass)).index_add(0, edges[0], conductance.abs())
        return cls(
            edges=edges,
            conductance=conductance,
            direction=offset / offset.norm(dim=1).max(),
            bound=2 * float(size.max()),
        )

    def apply(self, v: Tensor) -> Tensor:
        """Sum of the flows along the edges."""
        i, j = self.edges
        flow = (v[:, j] - v[:, i]) * self.conductance.to(v)[:, None]
        if self.drift is not None:
            lean = self.direction.to(v) @ self.drift.to(v).T  # [E, g]
            flow = flow * (1 + lean.repeat_interleave(v.shape[-1] // len(self.drift), dim=1))
        return torch.zeros_like(v).index_add(1, i, flow)

    def drifting(self, drift: Tensor) -> "CellLaplacian":
        """Edges along the drift conduct more, those against it less."""
        return dataclasses.replace(self, drift=drift)


@dataclass(frozen=True, kw_only=True)
class PathLaplacian(Laplacian):
    """Second difference along a sequence, whose first and last value stay as they are.

    Args:
        drift: see :meth:`Laplacian.drifting`; it adds twice its multiple of the central difference.

    Source: Zhang and Zhou, arXiv 2505.20666.
    """

    drift: Tensor | None = None
    bound: float = 4.0

    def apply(self, v: Tensor) -> Tensor:
        """Three-point stencil, [B, N, c] -> [B, N, c]."""
        ahead, here, behind = v[:, 2:], v[:, 1:-1], v[:, :-2]
        out = ahead - 2 * here + behind
        if self.drift is not None:
            lean = self.drift.to(v)[:, 0].repeat_interleave(v.shape[-1] // len(self.drift))
            out = out + lean * (ahead - behind)
        return pad(out, (0, 0, 1, 1)) if v.shape[1] > 1 else torch.zeros_like(v)

    def hold(self, before: Tensor, after: Tensor) -> Tensor:
        """The first and last value stay."""
        return torch.cat([before[:, :1], after[:, 1:-1], before[:, 1:][:, -1:]], dim=1)

    def drifting(self, drift: Tensor) -> "PathLaplacian":
        """The neighbour ahead counts more than the one behind."""
        return dataclasses.replace(self, drift=drift)
