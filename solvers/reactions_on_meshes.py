r"""Reaction and diffusion on irregular meshes, without flux through the boundary.

.. math:: \partial_t u_i = D_i \Delta u_i + R_i(u, x, t) \text{ in } \Omega,\quad
          \partial_n u_i = 0 \text{ on } \partial\Omega.

Lagrange elements of degree p in space, with the reaction interpolated by the same functions
(order p + 1 for values and time derivatives, p for gradients; random problems are solved with
p = 3), the implicit-explicit method of :mod:`cst_operator.solvers.implicit_explicit` in time
(order 3). What the reactions turn into one another, such as u + v, is conserved to rounding.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import block_diag

from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.etdrk4 import CheckedStep, FixedStep
from cst_operator.solvers.finite_elements import (
    Coefficient,
    Discretization,
    discretize,
    static_fields,
)
from cst_operator.solvers.geometry import Geometry
from cst_operator.solvers.implicit_explicit import SplitSystem, integrate_split, split_rates
from cst_operator.solvers.periodic import frame_times as even_times
from cst_operator.solvers.semidiscrete import (
    frame_times,
    nodal_trajectory,
    smooth_without_flux,
)
from cst_operator.solvers.system import (
    DomainSampler,
    check_smoothing,
    mesh_domain,
    naming,
    sample_parameters,
)

__all__ = ["Reaction", "ReactingMedium", "ReactingSystem", "solve_reactions"]

Array = NDArray[np.float64]
Reaction = Callable[[Array, Array, float], Array]
"""Rates [c, n] of components [c, n] at places [n, 2] and a time."""


def solve_reactions(
    mesh: PointField,
    initial: Sequence[Coefficient],
    times: torch.Tensor,
    *,
    diffusion: Sequence[float],
    reaction: Reaction,
    step: FixedStep | CheckedStep,
    channels: Sequence[str] = ("u", "v"),
    degree: int = 2,
    geometry: Geometry | None = None,
) -> Trajectory:
    """Solve a system of reaction and diffusion on any triangular mesh.

    Args:
        mesh: field with ``cells["triangle"]``, see
            :func:`~cst_operator.solvers.poisson.solve_poisson`.
        initial: value of every component at ``times[0]``; c of them.
        times: frames to return, increasing, [T].
        diffusion: D of every component, positive.
        reaction: R, from components [c, n], places [n, 2] and a time to rates [c, n].
        step: what chooses the time step.
        channels: names of the components.
        degree: of the elements, 1, 2 or 3.
        geometry: curved domain behind the mesh, or the mesh is the domain.

    Returns:
        Trajectory with the components, their gradients and time derivatives, float64. Its
        parameters are the largest time step, "dt", and the estimate of the relative error in
        time, "time_error".

    Raises:
        MeshError: if the mesh cannot carry the problem.
        InputError: if times or numbers of components do not fit.
        SolverError: if the solution diverges or is not accurate enough in time.
    """
    if not len(initial) == len(diffusion) == len(channels) > 0:
        raise InputError(
            f"{len(initial)} initial values, {len(diffusion)} numbers of diffusion and "
            f"{len(channels)} channels; give one of each for every component"
        )
    space = discretize(mesh, degree=degree, geometry=geometry)
    start = np.stack([space.at_dofs(value) for value in initial])
    medium = ReactingMedium(tuple(diffusion), reaction)
    return _trajectory(space, mesh, medium, start, times, step, tuple(channels), {})


@dataclass(frozen=True, eq=False)
class ReactingMedium:
    """Diffusion of every component, and the reaction."""

    diffusion: tuple[float, ...]
    reaction: Reaction


def _split(space: Discretization, medium: ReactingMedium) -> SplitSystem:
    if not min(medium.diffusion) > 0:
        raise InputError(f"diffusion is {medium.diffusion}; expected positive numbers")
    count, size = len(medium.diffusion), space.basis.N
    mass, stiffness, places = space.mass(), space.stiffness(1.0), space.locations

    def forcing(time: float, u: Array) -> Array:
        rates = medium.reaction(u.reshape(count, size), places, time)
        return np.concatenate([mass @ rate for rate in rates])

    return SplitSystem(
        mass=block_diag([mass] * count, format="csr"),
        stiffness=block_diag([d * stiffness for d in medium.diffusion], format="csr"),
        forcing=forcing,
        parts=(size,) * count,
    )


def _trajectory(
    space: Discretization,
    mesh: PointField,
    medium: ReactingMedium,
    start: Array,
    times: torch.Tensor,
    step: FixedStep | CheckedStep,
    channels: tuple[str, ...],
    parameters: dict[str, float],
) -> Trajectory:
    t = frame_times(times, step.dt)
    system = _split(space, medium)
    frames = integrate_split(system, start.ravel(), t, step)
    shape = (len(t), *start.shape)
    return nodal_trajectory(
        space,
        static_fields(mesh, space, {}, {"distance": sorted(set(space.markers.tolist()))}),
        t,
        frames.u.reshape(shape),
        split_rates(system, frames.u, t).reshape(shape),
        channels,
        {**parameters, "dt": frames.dt, "time_error": frames.error},
    )


@dataclass(frozen=True, kw_only=True)
class ReactingSystem(ABC):
    r"""Random reactions on random domains: what is drawn, the mesh and the frames.

    Subclasses draw functions q and the medium. The initial value of every component solves
    :math:`(1 - s^2 \Delta)^2 u_0 = q` with vanishing normal derivative, so that it fits the
    boundary and is the same on every mesh of the same domain.

    Args:
        domain: what draws the geometry.
        h: edge length of the mesh; elements are of degree 3.
        smoothing: the length s.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        step: what chooses the time step.
        name: name of the system.
    """

    domain: DomainSampler
    h: float
    smoothing: float
    final_time: float
    num_frames: int
    step: CheckedStep
    name: str

    channels: ClassVar[tuple[str, ...]] = ("u", "v")

    def __post_init__(self) -> None:
        even_times(self.final_time, self.num_frames)
        check_smoothing(self.smoothing)

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "1"

    @abstractmethod
    def draw(
        self, seed: int, index: int, attempt: int, extent: tuple[Array, Array]
    ) -> tuple[Sequence[Coefficient], ReactingMedium, dict[str, float]]:
        """Draw a function q for every component, the medium and the parameters to record.

        Args:
            seed: seed of the set.
            index: number of the sample.
            attempt: number of the attempt, for :func:`~cst_operator.solvers.system.stream`.
            extent: lower and upper corner of the domain, [2] each.
        """

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        drawn = mesh_domain(self.domain, self.h, seed=seed, index=index, refine=refine)
        functions, medium, parameters = self.draw(seed, index, drawn.attempt, drawn.geometry.bounds)
        space = drawn.discretize()
        walls = drawn.geometry.parts
        with naming(seed, index):
            start = np.stack([smooth_without_flux(space, q, self.smoothing) for q in functions])
            return _trajectory(
                space,
                drawn.mesh,
                medium,
                start,
                even_times(self.final_time, self.num_frames),
                self.step,
                self.channels,
                {**sample_parameters(drawn, seed, index, refine, walls), **parameters},
            )
