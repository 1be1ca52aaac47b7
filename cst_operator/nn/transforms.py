"""Which derivatives are being taken."""

import torch
from torch.autograd import forward_ad

__all__ = ["in_transform"]


def in_transform() -> bool:
    """Whether forward-mode differentiation or a transform of torch.func is running.

    Fused kernels have no forward mode, or one that is wrong when it is itself differentiated.
    Within a transform everything is made of elementary operations. Torch has no public way to ask:
    the tangent of a tensor is hidden by transforms inside of it.
    """
    if torch.compiler.is_compiling():
        return False
    level: int = forward_ad._current_level
    return level >= 0 or torch._C._functorch.maybe_current_level() is not None
