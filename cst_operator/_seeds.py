"""Seeds that depend on several numbers."""

import numpy as np

__all__ = ["mix"]


def mix(*numbers: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
