"""What holds for a whole sample changes every layer."""

import torch
from torch import Tensor, nn

__all__ = ["Modulation", "modulate"]


class Modulation(nn.Module):
    r"""Scales and shifts of the tokens after every layer, from a few numbers of a sample.

    .. math:: h \leftarrow (1 + \gamma_l(z))\, h + \beta_l(z)

    They are zero at first, so a model starts as one without modulation.

    Args:
        numbers: entries of z.
        hidden: channels inside the network that makes them.
        layers: number of layers l.
        width: channels of a token.

    Source: Perez et al., FiLM: visual reasoning with a general conditioning layer, 2018.
    """

    def __init__(self, numbers: int, hidden: int, layers: int, width: int) -> None:
        super().__init__()
        self.shape = (layers, 2, width)
        self.network = nn.Sequential(
            nn.Linear(numbers, hidden), nn.GELU(), nn.Linear(hidden, 2 * layers * width)
        )
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, z: Tensor) -> Tensor:
        r"""From z, [B, numbers], to :math:`\gamma, \beta`, [B, layers, 2, width]."""
        out: Tensor = self.network(z).unflatten(-1, self.shape)
        return out


def modulate(h: Tensor, factors: Tensor) -> Tensor:
    """Tokens [B, M, width] with the factors of a layer, [B, 2, width]."""
    scale, shift = factors.unbind(1)
    return torch.addcmul(h + shift[:, None], h, scale[:, None])
