"""Solvers that make training data; one equation a file, its order stated and tested."""

from cst_operator.solvers.advection_diffusion import (
    ADVECTION_CHANNELS,
    AdvectionDiffusion,
    solve_advection_diffusion,
)
from cst_operator.solvers.distmesh import mesh_geometry, triangle_quality
from cst_operator.solvers.elasticity import (
    ELASTICITY_CHANNELS,
    Elasticity,
    Material,
    solve_elasticity,
)
from cst_operator.solvers.geometry import Geometry, disk, rectangle
from cst_operator.solvers.heat import Heat, solve_heat
from cst_operator.solvers.helmholtz import HELMHOLTZ_CHANNELS, Helmholtz, solve_helmholtz
from cst_operator.solvers.local_refinement import refine_near_holes, refine_triangles
from cst_operator.solvers.navier_stokes import (
    CHANNEL_CHANNELS,
    Flow,
    NavierStokes,
    solve_navier_stokes,
)
from cst_operator.solvers.poisson import POISSON_CHANNELS, Poisson, poisson_inputs, solve_poisson
from cst_operator.solvers.random_domains import RandomDomain, RandomRectangle
from cst_operator.solvers.random_fields import Constant, FieldSampler, GaussianField, SmoothField
from cst_operator.solvers.system import DomainSampler, FixedDomain, System
from cst_operator.solvers.unsteady_navier_stokes import (
    UnsteadyFlow,
    solve_unsteady_navier_stokes,
)
from cst_operator.solvers.wave import Wave, solve_wave

__all__ = [
    "ADVECTION_CHANNELS",
    "CHANNEL_CHANNELS",
    "POISSON_CHANNELS",
    "SYSTEMS",
    "AdvectionDiffusion",
    "Constant",
    "DomainSampler",
    "FieldSampler",
    "FixedDomain",
    "GaussianField",
    "Flow",
    "Geometry",
    "HELMHOLTZ_CHANNELS",
    "Heat",
    "Helmholtz",
    "Elasticity",
    "ELASTICITY_CHANNELS",
    "Material",
    "refine_near_holes",
    "refine_triangles",
    "solve_advection_diffusion",
    "solve_elasticity",
    "NavierStokes",
    "Poisson",
    "RandomDomain",
    "RandomRectangle",
    "SmoothField",
    "System",
    "UnsteadyFlow",
    "Wave",
    "disk",
    "mesh_geometry",
    "poisson_inputs",
    "rectangle",
    "solve_heat",
    "solve_helmholtz",
    "solve_navier_stokes",
    "solve_poisson",
    "solve_unsteady_navier_stokes",
    "solve_wave",
    "triangle_quality",
]

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        Poisson(),
        Poisson.darcy(),
        Poisson.mixed(),
        Heat(),
        Wave(),
        AdvectionDiffusion(),
        Helmholtz(),
        Elasticity(),
        NavierStokes(),
        NavierStokes.stokes(),
    )
}
"""Systems by the name under which ``cst generate`` knows them."""
