"""What a solver offers to the data set generator, and how samples get their random numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.finite_elements import Discretization, discretize
from cst_operator.solvers.random_domains import RandomDomain

__all__ = [
    "Domain",
    "DomainSampler",
    "FixedDomain",
    "Meshable",
    "MeshedDomain",
    "System",
    "check_frames",
    "check_smoothing",
    "mesh_domain",
    "stream",
]

_ATTEMPTS = 3


@runtime_checkable
class System(Protocol):
    """Everything that draws one problem and solves it.

    Any object with these three members works; a frozen dataclass is best, because its fields are
    then written to the manifest of a generated set and compared when a run continues.
    """

    @property
    def name(self) -> str:
        """Short name, for files and tables."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever the same seed and index would give other numbers."""
        ...

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve problem number ``index``.

        Args:
            seed: seed of the whole set.
            index: number of the sample; the result depends on (seed, index, refine) only.
            refine: 1 gives the same problem on an independent mesh of half the edge length, ...

        Raises:
            SolverError: naming seed and index, if the problem cannot be meshed or solved.
        """
        ...


class Meshable(Protocol):
    """A geometry that can be meshed: a plane domain, a solid or a surface."""

    @property
    def measures(self) -> dict[str, float]:
        """Numbers to record with a sample, such as the area or the volume."""
        ...

    def mesh(self, h: float, rng: np.random.Generator) -> PointField:
        """Mesh it with edges of about ``h``.

        Raises:
            InputError: if ``h`` does not fit the geometry.
            SolverError: if it cannot be meshed.
        """
        ...


class Domain(Meshable, Protocol):
    """A geometry with a boundary: a plane domain or a solid."""

    @property
    def parts(self) -> tuple[int, ...]:
        """Markers of all parts of the boundary."""
        ...

    def project(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points of the boundary that belong to points near it, [n, d]."""
        ...


_D = TypeVar("_D", bound=Meshable)
_D_co = TypeVar("_D_co", bound=Meshable, covariant=True)


class DomainSampler(Protocol[_D_co]):
    """Draws a geometry."""

    def sample(self, rng: np.random.Generator) -> _D_co:
        """Draw a geometry; raises SolverError if there is none."""
        ...


@dataclass(frozen=True)
class FixedDomain(Generic[_D_co]):
    """The same geometry in every sample (the meshes still differ)."""

    geometry: _D_co

    def sample(self, rng: np.random.Generator) -> _D_co:
        """The geometry."""
        return self.geometry


def stream(seed: int, index: int, attempt: int, purpose: int) -> np.random.Generator:
    """Random numbers of one purpose in one attempt at one sample, independent of all others."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, attempt, purpose)))


def check_frames(num_frames: int, final_time: float, dt: float) -> None:
    """Refuse what makes no trajectory.

    Raises:
        InputError: if there are fewer than two frames, or a time is not positive.
    """
    if num_frames < 2 or not final_time > 0 or not dt > 0:
        raise InputError(
            f"num_frames is {num_frames}, final_time {final_time} and dt {dt}; expected 2 or more "
            "frames and positive times"
        )


def check_smoothing(smoothing: float) -> None:
    """Refuse a length that smooths nothing.

    Raises:
        InputError: if it is not positive.
    """
    if not smoothing > 0:
        raise InputError(f"smoothing is {smoothing}; expected a positive length")


# Purposes of :func:`stream`; meshes use the numbers from 100 on.
_GEOMETRY, A, F, G, FLUX, PARTS, INITIAL, PARAMETERS, VELOCITY = range(9)
_MESH = 100


@dataclass(frozen=True)
class MeshedDomain(Generic[_D_co]):
    """A drawn geometry with its mesh.

    Args:
        geometry: the domain.
        mesh: its mesh.
        attempt: number of the attempt that succeeded, from 0: draws before it were rejected.
    """

    geometry: _D_co
    mesh: PointField
    attempt: int

    def discretize(self: "MeshedDomain[Domain]") -> Discretization:
        """Elements as random problems have them: degree 3 in the plane and 2 in space, curved."""
        degree = 3 if self.mesh.dim == 2 else 2
        return discretize(self.mesh, degree=degree, geometry=self.geometry)


def mesh_domain(
    domain: DomainSampler[_D], h: float, *, seed: int, index: int, refine: int = 0
) -> MeshedDomain[_D]:
    """Draw a geometry and mesh it with edges of about ``h / 2**refine``.

    A geometry is accepted if it could be drawn and meshed with ``h``, whatever ``refine`` is, so
    that all refinements have the same geometry. At most 3 draws.

    Raises:
        InputError: if ``refine`` is negative.
        SolverError: if all draws failed.
    """
    if refine < 0:
        raise InputError(f"refine is {refine}; expected 0 or more halvings of the edge length")
    reasons: list[str] = []
    for attempt in range(_ATTEMPTS):
        try:
            geometry = domain.sample(stream(seed, index, attempt, _GEOMETRY))
            mesh = geometry.mesh(h, stream(seed, index, attempt, _MESH))
        except SolverError as error:
            reasons.append(str(error))
            continue
        if refine:
            mesh = _fine_mesh(geometry, h, seed, index, attempt, refine)
        return MeshedDomain(geometry, mesh, attempt)
    raise _failure(seed, index, reasons)


def _fine_mesh(
    geometry: Meshable, h: float, seed: int, index: int, attempt: int, refine: int
) -> PointField:
    reasons: list[str] = []
    for trial in range(_ATTEMPTS):  # another lattice, never another geometry
        purpose = _MESH + _ATTEMPTS * refine + trial
        try:
            return geometry.mesh(h / 2**refine, stream(seed, index, attempt, purpose))
        except SolverError as error:
            reasons.append(str(error))
    raise _failure(seed, index, reasons)


@contextmanager
def naming(seed: int, index: int) -> Iterator[None]:
    """Let a failure of the solver name the sample."""
    try:
        yield
    except SolverError as error:
        raise SolverError(f"sample {index} of seed {seed}: {error}") from error


def _failure(seed: int, index: int, reasons: Sequence[str]) -> SolverError:
    return SolverError(
        f"sample {index} of seed {seed} could not be meshed in {len(reasons)} attempts: "
        + "; ".join(reasons)
    )


def sample_parameters(
    drawn: MeshedDomain[Meshable], seed: int, index: int, refine: int, neumann: Sequence[int]
) -> dict[str, float]:
    """What a sample on a drawn domain records: numbers of the draw, measures, Neumann markers."""
    return {
        "seed": float(seed),
        "index": float(index),
        "refine": float(refine),
        "attempts": float(drawn.attempt + 1),
        **drawn.geometry.measures,
        **{f"neumann_{marker}": 1.0 for marker in neumann},
    }


DEFAULT_DOMAIN = RandomDomain()
