r"""Fourier series on periodic boxes: points, wavenumbers, dealiasing, derivatives, random fields.

A field on a box is known at equidistant points and has the coefficients of
:math:`u(x) = \sum_k \hat u_k e^{ikx}`, :math:`k_i \in 2\pi \mathbb{Z} / L_i`, in the layout of
:func:`torch.fft.rfftn`. Values are [..., shape], with the points along all axes for "shape";
coefficients are [..., modes].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cst_operator.errors import InputError
from cst_operator.fields import PointField

__all__ = ["FourierSeries", "PeriodicBox", "PeriodicGaussianField", "spectral_gradient"]


@dataclass(frozen=True)
class PeriodicBox:
    """The box [0, L_1] x ... x [0, L_d], opposite sides identified, with equidistant points.

    Args:
        shape: number of points along every axis, d even numbers.
        lengths: length of every axis, d numbers.

    Raises:
        InputError: if a number does not fit.
    """

    shape: tuple[int, ...]
    lengths: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.shape or len(self.shape) != len(self.lengths):
            raise InputError(
                f"shape is {self.shape} and lengths {self.lengths}; expected one of each per axis"
            )
        if any(n < 4 or n % 2 for n in self.shape) or any(
            not length > 0 for length in self.lengths
        ):
            raise InputError(
                f"shape is {self.shape} and lengths {self.lengths}; "
                "expected even numbers of at least 4 points and positive lengths"
            )

    @property
    def dim(self) -> int:
        """Number of axes d."""
        return len(self.shape)

    @property
    def modes(self) -> tuple[int, ...]:
        """Shape of the coefficients."""
        return (*self.shape[:-1], self.shape[-1] // 2 + 1)

    def refined(self, refine: int) -> "PeriodicBox":
        """The same box with ``2**refine`` times the points along every axis."""
        if refine < 0:
            raise InputError(f"refine is {refine}; expected 0 or more doublings of the points")
        return PeriodicBox(tuple(n * 2**refine for n in self.shape), self.lengths)

    def points(
        self, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Coordinates, [N, d]; the last axis varies fastest."""
        axes = [
            torch.arange(n, dtype=dtype, device=device) * (length / n)
            for n, length in zip(self.shape, self.lengths, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, self.dim)

    def field(self) -> PointField:
        """The points with their weights, all the same, in float64."""
        pos = self.points()
        volume = math.prod(self.lengths)
        return PointField(pos=pos, weights=pos.new_full((len(pos),), volume / len(pos)))

    def wavenumbers(self, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """Angular wavenumbers of every axis in float64, d tensors that broadcast to [modes]."""
        return tuple(
            number * (2 * math.pi / length)
            for number, length in zip(self._numbers(device), self.lengths, strict=True)
        )

    def laplacian(self, device: torch.device | str = "cpu") -> Tensor:
        """Symbol of the Laplacian, minus the square of k, float64, [modes]."""
        result = torch.zeros(self.modes, dtype=torch.float64, device=device)
        for k in self.wavenumbers(device):
            result = result - k**2
        return result

    def kept(self, degree: int, device: torch.device | str = "cpu") -> Tensor:
        """Modes for which a product of ``degree`` factors is free of aliasing, bool, [modes].

        Factors cut off to these modes give a product whose coefficients of these modes are exact:
        less than ``shape / (degree + 1)`` periods along every axis (Orszag's two-thirds rule for
        degree 2).
        """
        result = torch.ones(self.modes, dtype=torch.bool, device=device)
        for number, n in zip(self._numbers(device), self.shape, strict=True):
            result = result & (number.abs() * (degree + 1) < n)
        return result

    def forward(self, u: Tensor) -> Tensor:
        """Coefficients of values."""
        return torch.fft.rfftn(u, dim=self._axes, norm="forward")

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Values of coefficients."""
        return torch.fft.irfftn(coefficients, s=self.shape, dim=self._axes, norm="forward")

    def tail(self, u: Tensor, degree: int) -> Tensor:
        """How well values are resolved: 0 is perfectly, above .01 hardly.

        Largest coefficient of the outer third of the modes of :meth:`kept`, relative to the
        largest of all but the mean.

        Args:
            u: values, [..., shape].
            degree: of the products in the equation.

        Returns:
            One ratio per field, [...].
        """
        size = self.forward(u).abs()
        inner = torch.ones(self.modes, dtype=torch.bool, device=u.device)
        varying = torch.zeros_like(inner)
        for number, n in zip(self._numbers(u.device), self.shape, strict=True):
            inner = inner & (number.abs() * (degree + 1) < n * 2 / 3)
            varying = varying | (number != 0)
        outer = (size * (self.kept(degree, u.device) & ~inner)).amax(self._axes)
        return outer / (size * varying).amax(self._axes).clamp_min(torch.finfo(size.dtype).tiny)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-self.dim, 0))

    def _numbers(self, device: torch.device | str) -> list[Tensor]:
        """Signed numbers of periods along every axis, float64, in broadcasting shape."""
        result = []
        for axis, n in enumerate(self.shape):
            make = torch.fft.rfftfreq if axis == self.dim - 1 else torch.fft.fftfreq
            numbers = make(n, d=1 / n, dtype=torch.float64, device=device)
            result.append(numbers.reshape(-1, *[1] * (self.dim - 1 - axis)))
        return result


def spectral_gradient(u: Tensor, box: PeriodicBox) -> Tensor:
    """Derivatives along every axis by Fourier series, [..., shape] -> [..., shape, d].

    Of a mode that changes sign from point to point only the sampled values are known: it is left
    out.
    """
    coefficients = box.forward(u)
    slopes = []
    for k, n, length in zip(box.wavenumbers(u.device), box.shape, box.lengths, strict=True):
        resolved = torch.where(k.abs() < math.pi * n / length * (1 - 1e-9), k, 0.0)
        slopes.append(box.inverse(coefficients * (1j * resolved).to(coefficients.dtype)))
    return torch.stack(slopes, dim=-1)


@dataclass(frozen=True, eq=False)
class FourierSeries:
    r"""A drawn function :math:`v(x) = m + \mathrm{Re} \sum_k c_k e^{ikx}` on a periodic box.

    Args:
        mean: the constant m.
        coefficients: c, [2K + 1, ...] complex, for -K, ..., K periods along every axis.
    """

    mean: float
    coefficients: Tensor

    def on(self, box: PeriodicBox) -> Tensor:
        """Values at the points of a box, [shape], float64.

        Raises:
            InputError: if the box has too few points for the function.
        """
        bound = (self.coefficients.shape[0] - 1) // 2
        if self.coefficients.dim() != box.dim or 2 * bound >= min(box.shape):
            raise InputError(
                f"a function of {self.coefficients.dim()} variables with up to {bound} periods "
                f"does not fit a box of {box.shape} points; use more than {2 * bound} an axis"
            )
        full = torch.zeros(box.shape, dtype=torch.complex128)
        places = [torch.arange(-bound, bound + 1) % n for n in box.shape]
        full[torch.meshgrid(*places, indexing="ij")] = self.coefficients
        return self.mean + torch.fft.ifftn(full, norm="forward").real


@dataclass(frozen=True, kw_only=True)
class PeriodicGaussianField:
    r"""Gaussian random field with covariance operator :math:`\sigma^2(-\Delta+\tau^2)^{-\alpha}`.

    Without its mean; on a box of volume V the variance at a point is
    :math:`\sum_{k \ne 0} \sigma^2 (|k|^2 + \tau^2)^{-\alpha} / V`. Coefficients are drawn one
    wavenumber after the other and cut off, so that the function does not depend on the points
    at which it is asked for.

    Args:
        scale: sigma.
        tau: inverse length from which on the spectrum decays, in units of 1 / length.
        alpha: smoothness.
        num_waves: largest number K of periods along an axis.
        mean: the constant that is added.
    """

    scale: float
    tau: float
    alpha: float
    num_waves: int
    mean: float = 0.0

    def __post_init__(self) -> None:
        if self.num_waves < 1 or not self.tau > 0 or self.scale < 0:
            raise InputError(
                f"num_waves is {self.num_waves}, tau {self.tau}, scale {self.scale}; "
                "expected at least 1, a positive number and one not below 0"
            )

    def sample(self, rng: np.random.Generator, lengths: Sequence[float]) -> FourierSeries:
        """Draw a function on the box of these lengths."""
        shape = (2 * self.num_waves + 1,) * len(lengths)
        real, imaginary = rng.normal(size=(2, *shape))
        axis = np.arange(-self.num_waves, self.num_waves + 1)
        waves = np.meshgrid(*(2 * np.pi * axis / length for length in lengths), indexing="ij")
        square = np.sum([k**2 for k in waves], axis=0)
        size = (square + self.tau**2) ** (-self.alpha / 2) * (
            self.scale / np.sqrt(np.prod(lengths))
        )
        size[(self.num_waves,) * len(lengths)] = 0.0
        return FourierSeries(self.mean, torch.from_numpy(size * (real + 1j * imaginary)))
