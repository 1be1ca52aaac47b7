r"""Heat conduction on closed surfaces.

.. math:: \partial_t u - \nabla_\Gamma \cdot (a \nabla_\Gamma u) = f \text{ on } \Gamma,\quad
          u(0) = u_0,

with a and f constant in time. Linear elements on triangles in space (order 2, gradients at points 1
or better), TR-BDF2 in time (order 2). Without f, :math:`\int u` is conserved to rounding; on the
unit sphere with a = 1, spherical harmonics of degree l decay as :math:`e^{-l(l+1)t}`.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.errors import SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.finite_elements import Coefficient
from cst_operator.solvers.linear_systems import factorize
from cst_operator.solvers.random_fields import FieldSampler, GaussianField
from cst_operator.solvers.semidiscrete import Semidiscrete, frame_times, rate_of_change, tr_bdf2
from cst_operator.solvers.surfaces import Sphere, surface_elements
from cst_operator.solvers.system import (
    INITIAL,
    A,
    DomainSampler,
    F,
    FixedDomain,
    Meshable,
    check_frames,
    mesh_domain,
    naming,
    sample_parameters,
    stream,
)

__all__ = ["SURFACE_HEAT_CHANNELS", "SurfaceHeat", "solve_surface_heat"]

Array = NDArray[np.float64]

SURFACE_HEAT_CHANNELS = ("f", "a")
"""Static fields of a sample, channels of ``Trajectory.mesh``."""


def solve_surface_heat(
    mesh: PointField,
    initial: Coefficient,
    times: torch.Tensor,
    *,
    dt: float,
    f: Coefficient = 0.0,
    a: Coefficient = 1.0,
) -> Trajectory:
    """Solve the heat equation on a closed surface.

    Args:
        mesh: field with ``cells["triangle"]`` in three dimensions.
        initial: value at ``times[0]``; a number, a function [n, 3] -> [n] or one value per point.
        times: frames to return, increasing, [T].
        dt: largest time step; every interval between frames is divided evenly.
        f: source.
        a: positive coefficient.

    Returns:
        Trajectory with channel "u", its tangential gradient [T, N, 1, 3] and time derivative,
        float64; f and a are channels of its mesh.

    Raises:
        MeshError: if the mesh is not a closed surface of triangles.
        InputError: if times, step or a coefficient do not fit.
        SolverError: if the solution is not finite.
    """
    elements = surface_elements(mesh)
    t = frame_times(times, dt)
    source, coefficient = elements.at_points(f, "f"), elements.at_points(a, "a")
    mass, everything = elements.mass(), np.arange(len(elements.points))
    system = Semidiscrete(
        mass, elements.stiffness(coefficient), mass @ source, everything, np.zeros(len(source))
    )
    u = tr_bdf2(system, elements.at_points(initial, "initial"), t, dt, factorize)
    rate = rate_of_change(system, u, factorize)
    if not (np.isfinite(u).all() and np.isfinite(rate).all()):
        raise SolverError("the solution is not finite")
    static = torch.from_numpy(np.stack([source, coefficient], axis=1))
    return Trajectory(
        mesh=mesh.with_values(static, SURFACE_HEAT_CHANNELS),
        times=torch.from_numpy(t),
        u=torch.from_numpy(u[:, :, None].copy()),
        channels=("u",),
        gradient=elements.nodal_gradient(u)[:, :, None].contiguous(),
        time_derivative=torch.from_numpy(np.ascontiguousarray(rate)[:, :, None].copy()),
    )


@dataclass(frozen=True, kw_only=True)
class SurfaceHeat:
    r"""Random heat conduction on closed surfaces.

    As it is, on the unit sphere with edges of .12: a log-normal, log a of standard deviation .5
    and length .6; f of standard deviation 1 and length .6; u(0) of standard deviation 1 and length
    .5, all smooth random functions of space; 11 frames up to time .2.

    Args:
        domain: what draws the surface.
        h: edge length of the mesh.
        f: what draws the source.
        a: what draws the coefficient.
        initial: what draws the initial value.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        dt: largest time step.
        name: name of the system.
    """

    domain: DomainSampler[Meshable] = FixedDomain(Sphere())
    h: float = 0.12
    f: FieldSampler = GaussianField(length_scale=0.6)
    a: FieldSampler = GaussianField(length_scale=0.6, std=0.5, log=True)
    initial: FieldSampler = GaussianField(length_scale=0.5)
    final_time: float = 0.2
    num_frames: int = 11
    dt: float = 0.005
    name: str = "heat_surface"

    def __post_init__(self) -> None:
        check_frames(self.num_frames, self.final_time, self.dt)

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        drawn = mesh_domain(self.domain, self.h, seed=seed, index=index, refine=refine)
        f, a, initial = (
            sampler.sample(stream(seed, index, drawn.attempt, purpose))
            for sampler, purpose in ((self.f, F), (self.a, A), (self.initial, INITIAL))
        )
        times = torch.linspace(0.0, self.final_time, self.num_frames, dtype=torch.float64)
        with naming(seed, index):
            solution = solve_surface_heat(drawn.mesh, initial, times, dt=self.dt, f=f, a=a)
        return replace(solution, parameters=sample_parameters(drawn, seed, index, refine, ()))
