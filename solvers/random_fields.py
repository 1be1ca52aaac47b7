r"""Random smooth functions of up to three coordinates that know nothing of meshes.

Gaussian random field with covariance :math:`\sigma^2 \exp(-|x-y|^2 / 2\ell^2)` as a sum of cosines
(random Fourier features; Rahimi and Recht 2007):

.. math:: v(x) = m + \frac{\sigma}{\sqrt K} \sum_{k=1}^{K} \alpha_k \cos\omega_k x
          + \beta_k \sin\omega_k x,\quad
          \omega_k \sim N(0, \ell^{-2} I),\ \alpha, \beta \sim N(0, 1).

Given the frequencies it is exactly Gaussian; over frequencies its covariance is exactly the above,
on a line, in the plane, in space and on surfaces alike: a restriction of such a field is one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cst_operator.errors import InputError

__all__ = [
    "Constant",
    "FieldSampler",
    "GaussianField",
    "Inclusions",
    "PiecewiseConstant",
    "SmoothField",
]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SmoothField:
    r"""A drawn function :math:`v(x)`, or :math:`e^{v(x)}`, with its gradient.

    Args:
        mean: the constant m.
        frequencies: angular frequencies, [K, 3].
        cosines: amplitudes of the cosines, [K].
        sines: amplitudes of the sines, [K].
        exponential: whether the value is the exponential of the sum.
    """

    mean: float
    frequencies: Array
    cosines: Array
    sines: Array
    exponential: bool = False

    def __call__(self, x: Array) -> Array:
        """Values at points, [n, d] -> [n], d from 1 to 3."""
        phase = self._phase(x)
        v = self.mean + (np.cos(phase) * self.cosines + np.sin(phase) * self.sines).sum(axis=1)
        return np.exp(v) if self.exponential else v

    def gradient(self, x: Array) -> Array:
        """Gradient at points, [n, d] -> [n, d]."""
        phase = self._phase(x)
        slope = np.cos(phase) * self.sines - np.sin(phase) * self.cosines
        result: Array = np.einsum("nk,kd->nd", slope, self.frequencies[:, : x.shape[1]])
        return result * self(x)[:, None] if self.exponential else result

    def _phase(self, x: Array) -> Array:
        # Sums in a fixed order: BLAS may order them by its number of threads, and a sample must
        # have the same bits in every worker.
        x = np.asarray(x, dtype=np.float64)
        phase: Array = x[:, :1] * self.frequencies[:, 0]
        for axis in range(1, x.shape[1]):
            phase = phase + x[:, axis : axis + 1] * self.frequencies[:, axis]
        return phase


class FieldSampler(Protocol):
    """Draws a function of up to three coordinates; all draws happen here, in a fixed order."""

    def sample(self, rng: np.random.Generator) -> Callable[[Array], Array]:
        """Draw a function [n, d] -> [n]."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same constant in every sample."""

    value: float = 0.0

    def sample(self, rng: np.random.Generator) -> SmoothField:
        """Draw the constant as a function."""
        return SmoothField(self.value, np.zeros((0, 3)), np.zeros(0), np.zeros(0))


@dataclass(frozen=True, kw_only=True)
class GaussianField:
    """Gaussian random field, optionally with a random mean or exponentiated (log-normal).

    Args:
        length_scale: correlation length, in units of the coordinates.
        std: standard deviation about the mean.
        mean: centre of the mean.
        mean_std: standard deviation of the mean from sample to sample.
        log: whether the field is the logarithm of the drawn function.
        num_modes: number K of frequencies.
    """

    length_scale: float = 0.3
    std: float = 1.0
    mean: float = 0.0
    mean_std: float = 0.0
    log: bool = False
    num_modes: int = 64

    def __post_init__(self) -> None:
        if not self.length_scale > 0:
            raise InputError(f"length_scale is {self.length_scale}; expected a positive number")
        if self.num_modes < 1:
            raise InputError(f"num_modes is {self.num_modes}; expected 1 or more")

    def sample(self, rng: np.random.Generator) -> SmoothField:
        """Draw a function."""
        mean = self.mean + self.mean_std * rng.normal()
        plane = rng.normal(0.0, 1.0 / self.length_scale, (self.num_modes, 2))
        # From a stream of its own: plane fields do not depend on whether there is a third axis.
        third = rng.spawn(1)[0].normal(0.0, 1.0 / self.length_scale, (self.num_modes, 1))
        frequencies = np.concatenate([plane, third], axis=1)
        cosines, sines = rng.normal(0.0, self.std / np.sqrt(self.num_modes), (2, self.num_modes))
        return SmoothField(mean, frequencies, cosines, sines, self.log)


@dataclass(frozen=True, eq=False)
class PiecewiseConstant:
    """A constant with disks of other values; of disks that overlap, the last counts.

    Args:
        background: value outside all disks.
        centres: of the disks, [k, 2].
        radii: of the disks, [k].
        inside: values in the disks, [k].
    """

    background: float
    centres: Array
    radii: Array
    inside: Array

    def __call__(self, x: Array) -> Array:
        """Values at points, [n, 2] -> [n]."""
        result = np.full(len(x), self.background)
        for centre, radius, value in zip(self.centres, self.radii, self.inside, strict=True):
            result[((x - centre) ** 2).sum(axis=1) < radius**2] = value
        return result


@dataclass(frozen=True, kw_only=True)
class Inclusions:
    """Piecewise constant: disks of another material at random places.

    Meshes do not follow the disks: quadrature points on either side of an interface take the value
    of their side, so that of the triangles it cuts a part of order h counts to the wrong side.
    Solutions are of order 1 and their gradients of order 1/2, whatever the degree of the elements.

    Args:
        number: smallest and largest number of disks.
        radius: smallest and largest radius.
        inside: smallest and largest value in a disk, log-uniform for each, positive.
        background: value outside, positive.
        box: lower and upper corner of the box that the centres are uniform in.
    """

    number: tuple[int, int] = (2, 6)
    radius: tuple[float, float] = (0.06, 0.15)
    inside: tuple[float, float] = (0.1, 10.0)
    background: float = 1.0
    box: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        if not 0 <= self.number[0] <= self.number[1]:
            raise InputError(f"number is {self.number}; expected (smallest, largest)")
        for name in ("radius", "inside"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InputError(f"{name} is {(low, high)}; expected (smallest, largest) > 0")
        if not self.background > 0:
            raise InputError(f"background is {self.background}; expected a positive number")

    def sample(self, rng: np.random.Generator) -> PiecewiseConstant:
        """Draw a function."""
        count = int(rng.integers(self.number[0], self.number[1] + 1))
        centres = rng.uniform(self.box[0], self.box[1], (count, 2))
        radii = rng.uniform(self.radius[0], self.radius[1], count)
        low, high = np.log(self.inside)
        inside = np.exp(rng.uniform(low, high, count))
        return PiecewiseConstant(self.background, centres, radii, inside)
