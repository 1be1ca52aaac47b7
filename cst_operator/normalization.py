"""Affine maps between the user's units and the unit scale a network works in."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from cst_operator.errors import FieldError
from cst_operator.fields import Example

__all__ = ["Normalization"]


class Normalization(nn.Module):
    r"""Box of the coordinates, and mean and spread of every channel, kept as buffers.

    Space is shifted and scaled by one number, so that the longest side of the training box becomes
    [-1, 1] and shapes stay as they are; time is scaled by itself. Channels become zero-mean and
    unit-variance in the quadrature weights. Fitted on training data alone and saved with the
    model, it lets every public function speak the user's units.

    Args:
        dim: space dimensions d.
        in_channels: channels of the source field.
        out_channels: channels of the answer.
    """

    pos_center: Tensor
    pos_scale: Tensor
    time_center: Tensor
    time_scale: Tensor
    in_mean: Tensor
    in_std: Tensor
    out_mean: Tensor
    out_std: Tensor

    def __init__(self, dim: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        for name, value in (
            ("pos_center", torch.zeros(dim)),
            ("pos_scale", torch.ones(1)),
            ("time_center", torch.zeros(1)),
            ("time_scale", torch.ones(1)),
            ("in_mean", torch.zeros(in_channels)),
            ("in_std", torch.ones(in_channels)),
            ("out_mean", torch.zeros(out_channels)),
            ("out_std", torch.ones(out_channels)),
        ):
            self.register_buffer(name, value)

    @torch.no_grad()
    def fit(self, examples: Iterable[Example]) -> "Normalization":
        """Measure training examples, one pass, without keeping them.

        Args:
            examples: unbatched examples; both sides need quadrature weights.

        Raises:
            FieldError: if there are no examples, or weights are missing.
        """
        lower = upper = None
        moments: dict[str, Tensor] = {}
        for example in examples:
            for side, field in (("in", example.source), ("out", example.target)):
                if "weights" not in field:
                    raise FieldError(
                        "normalization needs quadrature weights; "
                        "set them with cst_operator.with_weights(field)"
                    )
                s = torch.cat([field.pos, field.time[:, None]], dim=1).double()
                least, most = s.amin(0), s.amax(0)
                # Sums, not lists: small tensors kept among large ones that go fragment the memory.
                lower = least if lower is None else torch.minimum(lower, least)
                upper = most if upper is None else torch.maximum(upper, most)
                w, u = field.weights.double(), field.u.double()
                found = torch.stack([w.sum().expand(u.shape[1]), w @ u, w @ u**2])
                moments[side] = moments[side] + found if side in moments else found
        if lower is None or upper is None:
            raise FieldError("normalization needs at least one example, got none")
        center, half = (lower + upper) / 2, (upper - lower) / 2
        self.pos_center.copy_(center[:-1])
        self.pos_scale.copy_(_or_one(half[:-1].amax(keepdim=True)))
        self.time_center.copy_(center[-1:])
        self.time_scale.copy_(_or_one(half[-1:]))
        for side, mean, std in (
            ("in", self.in_mean, self.in_std),
            ("out", self.out_mean, self.out_std),
        ):
            mass, first, second = moments[side]
            average = first / mass
            variance = (second / mass - average**2).clamp_min(0)
            # Rounding leaves about 1e-16 of the second moment where a channel is constant.
            constant = variance <= 1e-12 * (second / mass)
            mean.copy_(average)
            std.copy_(torch.where(constant, torch.ones_like(variance), variance.sqrt()))
        return self

    def coordinates(self, pos: Tensor, time: Tensor | None) -> Tensor:
        """Unit-scale coordinates, [..., d] or, with time, [..., d + 1]."""
        s = (pos - self.pos_center) / self.pos_scale
        if time is None:
            return s
        return torch.cat([s, ((time - self.time_center) / self.time_scale)[..., None]], dim=-1)

    def coordinate_scale(self, transient: bool) -> Tensor:
        """The user's units in one unit of every coordinate, [d] or [d + 1]."""
        scale = self.pos_scale.expand(len(self.pos_center))
        return torch.cat([scale, self.time_scale]) if transient else scale

    def encode(self, u: Tensor) -> Tensor:
        """Source samples at unit scale."""
        return (u - self.in_mean) / self.in_std

    def decode(self, u: Tensor) -> Tensor:
        """Answers in the user's units."""
        return u * self.out_std + self.out_mean

    def decode_derivatives(self, orders: Sequence[Tensor], transient: bool) -> list[Tensor]:
        """Answers and their derivatives in the user's units, by the chain rule.

        Args:
            orders: answers at unit scale, [..., c], and their derivatives in unit-scale
                coordinates, [..., c, D], [..., c, D, D] and so on.
            transient: whether the last coordinate is time.
        """
        scale = self.coordinate_scale(transient)
        out = [self.decode(orders[0])]
        for k, tensor in enumerate(orders[1:], start=1):
            for axis in range(k):
                tensor = tensor / scale.view(-1, *(1,) * axis)
            out.append(tensor * self.out_std.view(-1, *(1,) * k))
        return out


def _or_one(value: Tensor) -> Tensor:
    return torch.where(value > 0, value, torch.ones_like(value))
