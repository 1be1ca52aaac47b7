r"""The shallow water equations over uneven ground, between walls.

.. math:: \partial_t h + \nabla \cdot (h u) = 0,\quad
          \partial_t (h u) + \nabla \cdot (h u \otimes u) + \tfrac{g}{2} \nabla h^2
          = -g h \nabla z \text{ in } \Omega,\quad u \cdot n = 0 \text{ on } \partial\Omega,

with depth h, velocity u, gravity g and bed z, in any units that agree: g is a length over a time
squared. Finite volumes around the vertices
(:mod:`~cst_operator.solvers.finite_volumes`): surface h + z and velocity are reconstructed at the
middles of the edges with limited slopes (MUSCL), where the bed is linear between the ends, so that
water at rest stays at rest (the hydrostatic reconstruction of Audusse et al. 2004, on a continuous
bed). Fluxes are those of HLL, with what moves along a face carried by the mass (HLLC; Toro 2001).
Two stages in time (SSP-RK2), the step at most ``cfl`` times the largest that a scheme of first
order allows, anew at every step. The volume of water is conserved to rounding. Order 2 in space and
time for smooth waves, 1 (in the mean) with bores; everywhere there must be water.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.basins import Basin, integrate_water
from cst_operator.solvers.finite_elements import (
    Coefficient,
    Discretization,
    VectorCoefficient,
    discretize,
    static_fields,
)
from cst_operator.solvers.finite_volumes import median_dual
from cst_operator.solvers.geometry import Geometry
from cst_operator.solvers.periodic import frame_times as even_times
from cst_operator.solvers.random_fields import FieldSampler, GaussianField
from cst_operator.solvers.semidiscrete import frame_times, smooth_without_flux
from cst_operator.solvers.system import (
    DEFAULT_DOMAIN,
    INITIAL,
    A,
    DomainSampler,
    check_smoothing,
    mesh_domain,
    naming,
    sample_parameters,
    stream,
)
from cst_operator.solvers.triangulation import require_plane

__all__ = ["SHALLOW_WATER_CHANNELS", "ShallowWater", "solve_shallow_water"]

Array = NDArray[np.float64]

SHALLOW_WATER_CHANNELS = ("bed", "gravity", "distance")
"""Static fields of a sample, channels of ``Trajectory.mesh``."""

_SOLUTION = ("h", "u_x", "u_y")


def solve_shallow_water(
    mesh: PointField,
    surface: Coefficient,
    times: torch.Tensor,
    *,
    velocity: VectorCoefficient = (0.0, 0.0),
    bed: Coefficient = 0.0,
    gravity: float = 1.0,
    cfl: float = 0.5,
) -> Trajectory:
    """Solve the shallow water equations on any triangular mesh whose boundary is a wall.

    Args:
        mesh: field with ``cells["triangle"]``, see
            :func:`~cst_operator.solvers.poisson.solve_poisson`.
        surface: height of the surface at ``times[0]``, above the level from which ``bed`` counts.
        times: frames to return, increasing, [T].
        velocity: at ``times[0]``.
        bed: height z of the ground, below the surface everywhere.
        gravity: g, positive.
        cfl: Courant number, in (0, 1].

    Returns:
        Trajectory with channels "h", "u_x" and "u_y", their gradients and time derivatives,
        float64; the static fields are channels of its mesh. Of its parameters, "mass" is the volume
        of water in the first frame, "energy" its kinetic energy and what its potential energy is
        above that of a level surface; "mass_change" and "energy_change" are those to the last
        frame (without bores the energy should stay), "steps" is the number of time steps.

    Raises:
        MeshError: if the mesh cannot carry the problem.
        InputError: if times or a coefficient do not fit, or the bed reaches the surface.
        SolverError: if ground falls dry or the solution is not finite.
    """
    require_plane(mesh)
    _check_numbers(gravity, cfl)
    space = discretize(mesh, degree=1)
    ground = space.at_dofs(bed)
    depth = space.at_dofs(surface) - ground
    if not depth.min() > 0:
        place = ", ".join(f"{x:g}" for x in space.locations[int(depth.argmin())])
        raise InputError(
            f"the bed reaches the surface at ({place}), where the depth is {depth.min():g}; give "
            "water everywhere"
        )
    start = np.stack([depth, *(space.at_dofs(component) for component in velocity)], axis=1)
    return _trajectory(mesh, space, start, times, ground, gravity, cfl, {})


def _trajectory(
    mesh: PointField,
    space: Discretization,
    start: Array,
    times: torch.Tensor,
    bed: Array,
    gravity: float,
    cfl: float,
    parameters: dict[str, float],
) -> Trajectory:
    """From depth and velocity at the vertices, [N, 3]."""
    t = frame_times(times, 1.0)
    basin = Basin(median_dual(space), bed, gravity)
    momentum = start[:, :1] * start[:, 1:]
    states, steps = integrate_water(basin, np.column_stack([start[:, :1], momentum]), t, cfl)
    u = np.concatenate([states[..., :1], states[..., 1:] / states[..., :1]], axis=-1)
    rate = np.stack([basin.rate(state) for state in states])
    rate[..., 1:] = (rate[..., 1:] - u[..., 1:] * rate[..., :1]) / u[..., :1]
    if not (np.isfinite(u).all() and np.isfinite(rate).all()):
        raise SolverError("the solution is not finite")
    mass = [float(basin.dual.area @ state[:, 0]) for state in (states[0], states[-1])]
    energy = [basin.energy(state) for state in (states[0], states[-1])]
    boundary = sorted(set(space.markers.tolist()))
    return Trajectory(
        mesh=static_fields(mesh, space, {"bed": bed, "gravity": gravity}, {"distance": boundary}),
        times=torch.from_numpy(t),
        u=torch.from_numpy(u),
        channels=_SOLUTION,
        gradient=torch.from_numpy(np.stack([basin.dual.slope(frame) for frame in u])),
        time_derivative=torch.from_numpy(rate),
        parameters={
            **parameters,
            "gravity": gravity,
            "mass": mass[0],
            "mass_change": mass[1] - mass[0],
            "energy": energy[0],
            "energy_change": energy[1] - energy[0],
            "steps": float(steps),
        },
    )


def _check_numbers(gravity: float, cfl: float) -> None:
    if not gravity > 0 or not 0 < cfl <= 1:
        raise InputError(
            f"gravity is {gravity} and cfl {cfl}; expected a positive gravity and a Courant "
            "number above 0, up to 1"
        )


@dataclass(frozen=True, kw_only=True)
class ShallowWater:
    r"""Random waves over random ground in random basins.

    The water rests at first. Its surface is made of a Gaussian random field q by
    :math:`(1 - s^2 \Delta)^2 \eta = q` with vanishing normal derivative, about the level 0.

    As it is: q of correlation length .2 and standard deviation .1, s = .05; the bed a Gaussian
    random field of length .3 and standard deviation .15 about -1; gravity 1; 21 frames up to
    time 1, in which waves cross a basin about once. With depths in units of a mean depth H and
    coordinates in units of a length L, times are in units of :math:`L / \sqrt{gH}`.

    Args:
        domain: what draws the geometry; all of its boundary is a wall.
        h: edge length of the mesh.
        bed: what draws the height of the ground.
        initial: what draws q.
        smoothing: the length s.
        gravity: g.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        cfl: Courant number.
        name: name of the system.
    """

    domain: DomainSampler[Geometry] = DEFAULT_DOMAIN
    h: float = 0.025
    bed: FieldSampler = GaussianField(length_scale=0.3, std=0.15, mean=-1.0)
    initial: FieldSampler = GaussianField(length_scale=0.2, std=0.1)
    smoothing: float = 0.05
    gravity: float = 1.0
    final_time: float = 1.0
    num_frames: int = 21
    cfl: float = 0.5
    name: str = "shallow_water"

    def __post_init__(self) -> None:
        even_times(self.final_time, self.num_frames)
        check_smoothing(self.smoothing)
        _check_numbers(self.gravity, self.cfl)

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        drawn = mesh_domain(self.domain, self.h, seed=seed, index=index, refine=refine)
        ground = self.bed.sample(stream(seed, index, drawn.attempt, A))
        q = self.initial.sample(stream(seed, index, drawn.attempt, INITIAL))
        space = discretize(drawn.mesh, degree=1)
        with naming(seed, index):
            surface = smooth_without_flux(drawn.discretize(), q, self.smoothing)
            bed = space.at_dofs(ground)
            still = np.zeros((len(bed), 2))
            return _trajectory(
                drawn.mesh,
                space,
                np.column_stack([surface[: len(bed)] - bed, still]),
                even_times(self.final_time, self.num_frames),
                bed,
                self.gravity,
                self.cfl,
                sample_parameters(drawn, seed, index, refine, ()),
            )
