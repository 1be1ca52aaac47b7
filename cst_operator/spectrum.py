"""The frequency of a nearly periodic field, and time as a phase."""

import math

import torch
from torch import Tensor

from cst_operator.errors import ConfigError, FieldError

__all__ = ["dominant_frequency", "harmonic_basis", "phase_coordinates", "phase_weights"]


def dominant_frequency(
    u: Tensor,
    times: Tensor,
    *,
    harmonics: int = 1,
    bounds: tuple[float, float] | None = None,
    per_resolution: int = 20,
) -> float:
    r"""Base frequency whose harmonics explain most of a sampled field, by least squares.

    Minimizes :math:`\sum_i \lVert u(t_i) - c_0 - \sum_{k=1}^{H} a_k \cos 2\pi k f t_i
    + b_k \sin 2\pi k f t_i\rVert^2` over a grid of frequencies with ``per_resolution`` points per
    1 / duration, then by a parabola through the best three. Harmonics may lie above the highest
    frequency that even samples resolve; the base frequency may not.

    Args:
        u: samples, [T, ...].
        times: their times, increasing, not necessarily even, [T].
        harmonics: number of harmonics H.
        bounds: least and largest frequency; by default one period in the duration, and half a
            period in the median step.
        per_resolution: fineness of the grid.

    Returns:
        The frequency, per unit of time.

    Raises:
        ConfigError: if the bounds do not increase from above zero.
        FieldError: if there are too few samples for so many harmonics, or the field is constant.
    """
    if harmonics < 1 or len(times) < 2 * harmonics + 3:
        raise FieldError(
            f"{len(times)} samples do not determine a frequency with {harmonics} harmonics; "
            f"give at least {2 * harmonics + 3} samples or fewer harmonics"
        )
    t = (times - times.mean()).double()
    y = u.reshape(len(t), -1).double()
    energy = float((y - y.mean(0)).square().sum())
    if energy <= 1e-24 * float(y.square().sum()):
        raise FieldError("the field does not change in time, so it has no frequency")
    duration = float(t[-1] - t[0])
    low, high = bounds or (1 / duration, 0.5 / float(t.diff().median()))
    if not 0 < low < high:
        raise ConfigError(f"bounds are ({low:g}, {high:g}); expected 0 < least < largest")
    # The Gram matrix of the samples is all that projections need, however many points there are.
    gram = y @ y.T
    step = 1 / (duration * per_resolution)
    grid = torch.arange(low, high, step, dtype=torch.float64)

    def explained(frequency: float) -> float:
        basis = torch.linalg.qr(harmonic_basis(t, frequency, harmonics))[0]
        return float((basis * (gram @ basis)).sum())

    best = float(grid[max(range(len(grid)), key=lambda i: explained(float(grid[i])))])
    for width in (step, step / 10):
        left, middle, right = (explained(best + k * width) for k in (-1, 0, 1))
        bend = left - 2 * middle + right
        if bend < 0:
            shift = (left - right) / (2 * bend)
            best += width * max(-1.0, min(1.0, shift))
    return best


def harmonic_basis(times: Tensor, frequency: float, harmonics: int) -> Tensor:
    """One, and the cosines and sines of the first harmonics, [T] -> [T, 1 + 2 H]."""
    order = torch.arange(1, harmonics + 1, dtype=times.dtype, device=times.device)
    angle = 2 * math.pi * frequency * times[:, None] * order
    return torch.cat([torch.ones_like(times)[:, None], angle.cos(), angle.sin()], dim=1)


def phase_coordinates(times: Tensor, frequency: float, radius: float = 1.0) -> Tensor:
    """Time as a place on a circle, [...] -> [..., 2]: equal phases are equal places.

    Args:
        times: times, [...].
        frequency: periods per unit of time.
        radius: radius of the circle, in the units of the coordinates it stands beside.
    """
    angle = 2 * math.pi * frequency * times
    return radius * torch.stack([angle.cos(), angle.sin()], dim=-1)


def phase_weights(times: Tensor, frequency: float) -> Tensor:
    """Each sample's share of a period: half the arcs to its neighbours in phase, [T] -> [T].

    They sum to one: quadrature weights of the periodic trapezoidal rule.
    """
    phase = (frequency * times.double()) % 1.0
    order = phase.argsort()
    ahead = (phase[order].roll(-1) - phase[order]) % 1.0
    if len(times) == 1:
        ahead = torch.ones_like(ahead)
    weights = torch.empty_like(phase)
    weights[order] = (ahead + ahead.roll(1)) / 2
    return weights.to(times)
