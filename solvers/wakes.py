r"""Wakes: incompressible flow in time past random obstacles in a channel.

The equations, the discretisation and its orders are those of
:mod:`cst_operator.solvers.unsteady_navier_stokes`: velocities of order 3 in space, order 2 in time.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from cst_operator.errors import InputError
from cst_operator.fields import Trajectory
from cst_operator.solvers.finite_elements import VectorCoefficient
from cst_operator.solvers.geometry import RIGHT
from cst_operator.solvers.local_refinement import refine_near_holes
from cst_operator.solvers.navier_stokes import Inflow, channel_fields
from cst_operator.solvers.profiles import RandomProfile
from cst_operator.solvers.random_domains import RandomRectangle
from cst_operator.solvers.system import (
    PARAMETERS,
    mesh_domain,
    naming,
    sample_parameters,
    stream,
)
from cst_operator.solvers.taylor_hood import taylor_hood
from cst_operator.solvers.unsteady_navier_stokes import advance

__all__ = ["Wakes"]

_GROWTH = 10.0  # gaps of .12 beside obstacles raise the speed to less than 3 times the inflow's


@dataclass(frozen=True, kw_only=True)
class Wakes:
    r"""Flow past random obstacles, from rest to its wake.

    As it is: a channel of length 3 and height 1 with 1 or 2 elliptic obstacles in its first half.
    The fluid of density 1 rests; on the left it enters with the profile
    :math:`4 y (1 - y) (1 + s (2 y - 1))`, s uniform in [-.5, .5], times
    :math:`\sin^2(\pi t / 2)` until time 1, and constantly then. It sticks to walls and obstacles
    and leaves on the right. The viscosity is log-uniform in [.002, .005]: Reynolds numbers of the
    obstacles are about 30 to 120; some wakes become steady, others shed vortices. 61 frames up to
    time 6, in which the fluid crosses the channel twice.
    Meshes have half the edge length near the obstacles and a quarter close to them. ``refine``
    halves the time step too.

    Args:
        domain: what draws the channel.
        h: edge length of the mesh far from obstacles.
        near: distances from the obstacles up to which edges are h / 2 and h / 4.
        viscosity: smallest and largest viscosity.
        skew: largest skewness s of the inflow.
        ramp: time in which the inflow grows.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        dt: largest time step.
        name: name of the system.
    """

    domain: RandomRectangle | RandomProfile = RandomRectangle(
        width=3.0, num_holes=(1, 2), hole_radius=(0.08, 0.12), gap=0.12, outlet=1.5
    )
    h: float = 0.1
    near: tuple[float, ...] = (0.3, 0.1)
    viscosity: tuple[float, float] = (0.002, 0.005)
    skew: float = 0.5
    ramp: float = 1.0
    final_time: float = 6.0
    num_frames: int = 61
    dt: float = 0.02
    name: str = "wakes"

    def __post_init__(self) -> None:
        if not 0 < self.viscosity[0] <= self.viscosity[1]:
            raise InputError(f"viscosity is {self.viscosity}; expected (smallest, largest) > 0")
        if not 0 <= self.skew <= 1:
            raise InputError(f"skew is {self.skew}; expected 0 to 1, so that nothing flows back")
        if self.num_frames < 2 or not min(self.final_time, self.dt, self.ramp) > 0:
            raise InputError("expected num_frames of 2 or more, final_time, dt and ramp > 0")

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "2"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        drawn = mesh_domain(self.domain, self.h, seed=seed, index=index, refine=refine)
        for distance in self.near:
            mesh = refine_near_holes(drawn.mesh, drawn.geometry, distance)
            drawn = replace(drawn, mesh=mesh)
        rng = stream(seed, index, drawn.attempt, PARAMETERS)
        viscosity = float(np.exp(rng.uniform(*np.log(self.viscosity))))
        inflow = Inflow(height=self.domain.height, skew=float(rng.uniform(-self.skew, self.skew)))

        def velocity(t: float) -> VectorCoefficient:
            size = math.sin(math.pi / 2 * min(t / self.ramp, 1.0)) ** 2
            return lambda x: size * inflow.on_boundary(x), 0.0

        space = taylor_hood(drawn.mesh, outflow=(RIGHT,), geometry=drawn.geometry)
        dt = self.dt / 2**refine
        times = torch.linspace(0.0, self.final_time, self.num_frames, dtype=torch.float64)
        with naming(seed, index):
            flow = advance(
                space,
                drawn.mesh,
                (0.0, 0.0),
                times,
                dt=dt,
                viscosity=viscosity,
                velocity=velocity,
                body=(0.0, 0.0),
                growth=_GROWTH,
            )
        return replace(
            flow.trajectory,
            mesh=channel_fields(drawn, space, inflow, viscosity),
            parameters={
                **sample_parameters(drawn, seed, index, refine, ()),
                "dt": dt,
                "viscosity": viscosity,
                "skew": inflow.skew,
            },
        )
