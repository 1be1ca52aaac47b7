"""What keeps its precision where a model runs in a lower one."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["full_precision"]


def full_precision(like: Tensor) -> AbstractContextManager[None]:
    """Within it no autocast: for geometry, places and scores, differences of large numbers."""
    if torch.is_autocast_enabled(like.device.type):
        return torch.autocast(like.device.type, enabled=False)
    return nullcontext()  # nothing for a compiler to trace
