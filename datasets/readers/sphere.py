"""Points on the sphere: longitude and latitude as coordinates in space."""

import torch
from torch import Tensor

from cst_operator.errors import InputError

__all__ = ["sphere_coordinates"]


def sphere_coordinates(longitude: Tensor, latitude: Tensor, *, radius: float = 1.0) -> Tensor:
    r"""Points :math:`r(\cos\varphi\cos\lambda, \cos\varphi\sin\lambda, \sin\varphi)`, [N, 3].

    Neighbours across the date line and around the poles are neighbours in these coordinates, and
    distances do not shrink towards the poles.

    Args:
        longitude: in degrees, of any branch (-180 to 180, 0 to 360), [N].
        latitude: in degrees north, [N].
        radius: of the sphere; 6371 gives kilometres on the Earth.

    Raises:
        InputError: if a latitude is beyond a pole.
    """
    if bool((latitude.abs() > 90.0 + 1e-4).any()):
        raise InputError(
            f"latitudes reach {float(latitude.abs().max()):g} degrees; expected -90 to 90 "
            "(are longitude and latitude exchanged, or are these metres?)"
        )
    east, north = torch.deg2rad(longitude), torch.deg2rad(latitude)
    ring = north.cos()
    return radius * torch.stack([ring * east.cos(), ring * east.sin(), north.sin()], dim=-1)
