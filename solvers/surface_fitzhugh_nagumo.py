r"""The FitzHugh-Nagumo model of an excitable medium on closed surfaces.

.. math:: \partial_t u = D_u \Delta_\Gamma u + u - u^3 - k - v,\quad
          \partial_t v = D_v \Delta_\Gamma v + u - v \text{ on } \Gamma.

Linear elements on triangles in space (order 2), in time the implicit-explicit Runge-Kutta method
(2,2,2) of Ascher, Ruuth and Spiteri (1997; order 2, diffusion L-stable, reaction explicit), whose
step is halved until the solution changes no more. The kinetics are those of
:mod:`~cst_operator.solvers.periodic_fitzhugh_nagumo`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import SuperLU

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.linear_systems import factorize
from cst_operator.solvers.random_fields import FieldSampler, GaussianField
from cst_operator.solvers.semidiscrete import even_steps, frame_times
from cst_operator.solvers.surfaces import Sphere, SurfaceElements, surface_elements
from cst_operator.solvers.system import (
    INITIAL,
    DomainSampler,
    FixedDomain,
    Meshable,
    check_frames,
    mesh_domain,
    naming,
    sample_parameters,
    stream,
)

__all__ = ["SurfaceFitzHughNagumo", "solve_surface_reaction_diffusion"]

Array = NDArray[np.float64]
Reaction = Callable[[Array], Array]

_GAMMA = 1 - np.sqrt(0.5)
_DELTA = 1 - 1 / (2 * _GAMMA)


def solve_surface_reaction_diffusion(
    mesh: PointField,
    u0: Array,
    times: torch.Tensor,
    *,
    diffusion: Sequence[float],
    reaction: Reaction,
    dt: float,
    tolerance: float = 1e-3,
    max_halvings: int = 6,
) -> tuple[Array, Array]:
    r"""Solve :math:`\partial_t u_i = D_i \Delta_\Gamma u_i + R_i(u)` on a closed surface.

    Args:
        mesh: field with ``cells["triangle"]`` in three dimensions.
        u0: values at ``times[0]``, [c, N].
        times: frames to return, increasing, [T].
        diffusion: D of every channel, not negative.
        reaction: R, from values to rates, [c, N] -> [c, N].
        dt: largest time step; every interval between frames is divided evenly.
        tolerance: the step is halved until a third of the largest change of a value, relative to
            the largest value, is not above it.
        max_halvings: halvings after which the solution is given up.

    Returns:
        Values and time derivatives, [T, c, N] each.

    Raises:
        MeshError: if the mesh is not a closed surface of triangles.
        InputError: if a shape or number does not fit.
        SolverError: if the solution diverges or is not accurate enough.
    """
    elements = surface_elements(mesh)
    t = frame_times(times, dt)
    if u0.shape != (len(diffusion), len(elements.points)) or not min(diffusion) >= 0:
        raise InputError(
            f"u0 has shape {u0.shape} and diffusion is {tuple(diffusion)}; expected one row and "
            f"one number not below 0 a channel, and {len(elements.points)} columns"
        )
    if not tolerance > 0 or max_halvings < 1:
        raise InputError(f"tolerance is {tolerance}, max_halvings {max_halvings}; expected > 0")
    change = np.inf
    with np.errstate(over="ignore", invalid="ignore"):  # divergence is reported below
        coarse = _march(elements, u0, t, diffusion, reaction, dt)
        for halving in range(1, max_halvings + 1):
            fine = _march(elements, u0, t, diffusion, reaction, dt / 2**halving)
            change = float(np.abs(fine - coarse).max() / 3 / np.abs(fine).max())
            if change <= tolerance:  # false where it is not a number
                return fine, _rates(elements, fine, diffusion, reaction)
            coarse = fine
    if not np.isfinite(coarse).all():
        raise SolverError("the solution diverged; use a smaller dt or initial value")
    raise SolverError(
        f"with steps of {dt / 2**max_halvings:g} the error is still about {change:.1e}, above the "
        f"tolerance {tolerance:g}; use a smaller dt"
    )


def _march(
    elements: SurfaceElements,
    u0: Array,
    times: Array,
    diffusion: Sequence[float],
    reaction: Reaction,
    dt: float,
) -> Array:
    mass, stiffness = elements.mass(), elements.stiffness()
    known: dict[float, list[SuperLU]] = {}
    u = u0
    frames = [u]
    for count, step in even_steps(times, dt):
        if step not in known:
            known[step] = [factorize(mass + _GAMMA * step * d * stiffness) for d in diffusion]
        for _ in range(count):
            rate = reaction(u)
            middle = _solve(known[step], mass @ (u + step * _GAMMA * rate).T)
            spread = np.array(diffusion) * (stiffness @ middle.T)
            pushed = u + step * (_DELTA * rate + (1 - _DELTA) * reaction(middle))
            u = _solve(known[step], mass @ pushed.T - step * (1 - _GAMMA) * spread)
        frames.append(u)
    return np.stack(frames)


def _solve(factors: list[SuperLU], right: Array) -> Array:
    return np.stack(
        [f.solve(np.ascontiguousarray(r)) for f, r in zip(factors, right.T, strict=True)]
    )


def _rates(
    elements: SurfaceElements, u: Array, diffusion: Sequence[float], reaction: Reaction
) -> Array:
    stiffness, mass = elements.stiffness(), factorize(elements.mass())
    spread = [d * mass.solve(stiffness @ u[:, i].T).T for i, d in enumerate(diffusion)]
    return np.stack([reaction(frame) for frame in u]) - np.stack(spread, axis=1)


@dataclass(frozen=True, kw_only=True)
class SurfaceFitzHughNagumo:
    r"""Activator and inhibitor from random smooth fields on a closed surface.

    As it is, on the unit sphere with edges of .1, until time 8; initial values of both of standard
    deviation .6 and correlation length .3, smooth random functions of space.

    Args:
        domain: what draws the surface.
        h: edge length of the mesh.
        diffusion: D of u and v.
        k: the constant k.
        initial: what draws the initial values, each.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        dt: first time step, which is halved where needed.
        name: name of the system.
    """

    domain: DomainSampler[Meshable] = FixedDomain(Sphere())
    h: float = 0.1
    diffusion: tuple[float, float] = (5e-3, 2.5e-2)
    k: float = 5e-3
    initial: FieldSampler = GaussianField(length_scale=0.3, std=0.6)
    final_time: float = 8.0
    num_frames: int = 17
    dt: float = 0.1
    name: str = "fitzhugh_nagumo_surface"

    def __post_init__(self) -> None:
        if min(self.diffusion) < 0:
            raise InputError(f"diffusion is {self.diffusion}; expected numbers not below 0")
        check_frames(self.num_frames, self.final_time, self.dt)

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "1"

    def reaction(self, w: Array) -> Array:
        """The kinetics of u and v, [2, N] -> [2, N]."""
        u, v = w
        return np.stack([u - u**3 - self.k - v, u - v])

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        drawn = mesh_domain(self.domain, self.h, seed=seed, index=index, refine=refine)
        rng = stream(seed, index, drawn.attempt, INITIAL)
        x = np.asarray(drawn.mesh.pos)
        start = np.stack([self.initial.sample(rng)(x) for _ in range(2)])
        times = torch.linspace(0.0, self.final_time, self.num_frames, dtype=torch.float64)
        with naming(seed, index):
            u, rate = solve_surface_reaction_diffusion(
                drawn.mesh,
                start,
                times,
                diffusion=self.diffusion,
                reaction=self.reaction,
                dt=self.dt,
            )
        elements = surface_elements(drawn.mesh)
        slopes = [elements.nodal_gradient(u[:, i]) for i in range(2)]
        return Trajectory(
            mesh=drawn.mesh,
            times=times,
            u=torch.from_numpy(u).movedim(1, 2).contiguous(),
            channels=("u", "v"),
            gradient=torch.stack(slopes, dim=2),
            time_derivative=torch.from_numpy(rate).movedim(1, 2).contiguous(),
            parameters={**sample_parameters(drawn, seed, index, refine, ()), "k": self.k},
        )
