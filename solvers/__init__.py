"""Solvers that make training data; one equation a file, its order stated and tested."""

from cst_operator.solvers.advection_diffusion import (
    ADVECTION_CHANNELS,
    AdvectionDiffusion,
    solve_advection_diffusion,
)
from cst_operator.solvers.allen_cahn import AllenCahn
from cst_operator.solvers.burgers import Burgers, solve_burgers_on_mesh
from cst_operator.solvers.distmesh import mesh_geometry, triangle_quality
from cst_operator.solvers.elasticity import (
    ELASTICITY_CHANNELS,
    SOLID_CHANNELS,
    Elasticity,
    Material,
    solve_elasticity,
)
from cst_operator.solvers.etdrk4 import CheckedStep, FixedStep, Semilinear, TimeStep
from cst_operator.solvers.fitzhugh_nagumo import FitzHughNagumo
from cst_operator.solvers.geometry import Geometry, disk, rectangle
from cst_operator.solvers.gray_scott import GrayScott
from cst_operator.solvers.heat import Heat, solve_heat
from cst_operator.solvers.helmholtz import HELMHOLTZ_CHANNELS, Helmholtz, solve_helmholtz
from cst_operator.solvers.integral_equations import (
    FixedPoint,
    FunctionOfTime,
    solve_integral_equation,
    solve_integro_differential,
)
from cst_operator.solvers.integral_spirals import IntegralSpirals
from cst_operator.solvers.korteweg_de_vries import KortewegDeVries, solve_korteweg_de_vries
from cst_operator.solvers.kuramoto_sivashinsky import (
    KuramotoSivashinsky,
    solve_kuramoto_sivashinsky,
)
from cst_operator.solvers.local_refinement import refine_near_holes, refine_triangles
from cst_operator.solvers.lorenz96 import Lorenz96, solve_lorenz96
from cst_operator.solvers.navier_stokes import (
    CHANNEL_CHANNELS,
    Flow,
    NavierStokes,
    solve_navier_stokes,
)
from cst_operator.solvers.ordinary import solve_ordinary, time_trajectory
from cst_operator.solvers.periodic_allen_cahn import PeriodicAllenCahn
from cst_operator.solvers.periodic_burgers import PeriodicBurgers, solve_burgers
from cst_operator.solvers.periodic_fitzhugh_nagumo import PeriodicFitzHughNagumo
from cst_operator.solvers.periodic_gray_scott import PeriodicGrayScott, solve_periodic_gray_scott
from cst_operator.solvers.periodic_navier_stokes import (
    PeriodicNavierStokes,
    diagonal_force,
    solve_vorticity,
)
from cst_operator.solvers.poisson import POISSON_CHANNELS, Poisson, poisson_inputs, solve_poisson
from cst_operator.solvers.profiles import RandomProfile, naca_profile
from cst_operator.solvers.random_domains import RandomDomain, RandomRectangle
from cst_operator.solvers.random_fields import (
    Constant,
    FieldSampler,
    GaussianField,
    Inclusions,
    PiecewiseConstant,
    SmoothField,
)
from cst_operator.solvers.random_solids import RandomBox, RandomSolid
from cst_operator.solvers.reaction_diffusion import solve_reaction_diffusion
from cst_operator.solvers.reactions_on_meshes import (
    ReactingMedium,
    ReactingSystem,
    Reaction,
    solve_reactions,
)
from cst_operator.solvers.shallow_water import (
    SHALLOW_WATER_CHANNELS,
    ShallowWater,
    solve_shallow_water,
)
from cst_operator.solvers.solids import Box, StarBody, tetrahedron_quality
from cst_operator.solvers.spectral import (
    FourierSeries,
    PeriodicBox,
    PeriodicGaussianField,
    spectral_gradient,
)
from cst_operator.solvers.surface_fitzhugh_nagumo import (
    SurfaceFitzHughNagumo,
    solve_surface_reaction_diffusion,
)
from cst_operator.solvers.surface_heat import (
    SURFACE_HEAT_CHANNELS,
    SurfaceHeat,
    solve_surface_heat,
)
from cst_operator.solvers.surfaces import ClosedSurface, Sphere, surface_elements
from cst_operator.solvers.system import DomainSampler, FixedDomain, System
from cst_operator.solvers.unsteady_navier_stokes import UnsteadyFlow, solve_unsteady_navier_stokes
from cst_operator.solvers.user_geometry import geometry_of_mesh, read_geometry
from cst_operator.solvers.wakes import Wakes
from cst_operator.solvers.wave import Wave, solve_wave

__all__ = [
    "ADVECTION_CHANNELS",
    "AdvectionDiffusion",
    "AllenCahn",
    "Burgers",
    "Box",
    "CHANNEL_CHANNELS",
    "CheckedStep",
    "ClosedSurface",
    "Constant",
    "DomainSampler",
    "ELASTICITY_CHANNELS",
    "Elasticity",
    "FieldSampler",
    "FitzHughNagumo",
    "FixedDomain",
    "FixedPoint",
    "FixedStep",
    "Flow",
    "FourierSeries",
    "FunctionOfTime",
    "GaussianField",
    "Geometry",
    "GrayScott",
    "HELMHOLTZ_CHANNELS",
    "Heat",
    "Helmholtz",
    "Inclusions",
    "IntegralSpirals",
    "KortewegDeVries",
    "KuramotoSivashinsky",
    "Lorenz96",
    "Material",
    "NavierStokes",
    "POISSON_CHANNELS",
    "PeriodicAllenCahn",
    "PeriodicBox",
    "PeriodicBurgers",
    "PeriodicFitzHughNagumo",
    "PeriodicGaussianField",
    "PeriodicGrayScott",
    "PeriodicNavierStokes",
    "PiecewiseConstant",
    "Poisson",
    "RandomBox",
    "RandomDomain",
    "RandomProfile",
    "RandomRectangle",
    "ReactingMedium",
    "ReactingSystem",
    "Reaction",
    "RandomSolid",
    "SHALLOW_WATER_CHANNELS",
    "SOLID_CHANNELS",
    "SURFACE_HEAT_CHANNELS",
    "SYSTEMS",
    "Semilinear",
    "ShallowWater",
    "SmoothField",
    "Sphere",
    "StarBody",
    "SurfaceFitzHughNagumo",
    "SurfaceHeat",
    "System",
    "TimeStep",
    "UnsteadyFlow",
    "Wakes",
    "Wave",
    "diagonal_force",
    "disk",
    "geometry_of_mesh",
    "mesh_geometry",
    "naca_profile",
    "poisson_inputs",
    "read_geometry",
    "rectangle",
    "refine_near_holes",
    "refine_triangles",
    "solve_advection_diffusion",
    "solve_burgers",
    "solve_burgers_on_mesh",
    "solve_elasticity",
    "solve_heat",
    "solve_helmholtz",
    "solve_integral_equation",
    "solve_integro_differential",
    "solve_korteweg_de_vries",
    "solve_kuramoto_sivashinsky",
    "solve_lorenz96",
    "solve_navier_stokes",
    "solve_ordinary",
    "solve_periodic_gray_scott",
    "solve_poisson",
    "solve_reaction_diffusion",
    "solve_reactions",
    "solve_shallow_water",
    "solve_surface_heat",
    "solve_surface_reaction_diffusion",
    "solve_unsteady_navier_stokes",
    "solve_vorticity",
    "solve_wave",
    "spectral_gradient",
    "surface_elements",
    "tetrahedron_quality",
    "time_trajectory",
    "triangle_quality",
]

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        *(Poisson(), Poisson.darcy(), Poisson.inclusions(), Poisson.mixed()),
        Heat(),
        *(Wave(), AdvectionDiffusion(), Helmholtz(), Helmholtz.open(), Elasticity()),
        *(Burgers(), AllenCahn(), FitzHughNagumo(), GrayScott()),
        ShallowWater(),
        *(NavierStokes(), NavierStokes.stokes(), Wakes()),
        *(Poisson.solid(), Heat.solid(), Elasticity.solid()),
        *(SurfaceHeat(), SurfaceFitzHughNagumo()),
        *(PeriodicBurgers(), KortewegDeVries(), KuramotoSivashinsky(), PeriodicNavierStokes()),
        *(PeriodicGrayScott(), PeriodicAllenCahn(), PeriodicFitzHughNagumo()),
        *(Lorenz96(), IntegralSpirals()),
    )
}
"""Systems by the name under which ``cst generate`` knows them."""
