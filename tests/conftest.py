"""Fixtures that every test may use."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Ctrl-C works here and in processes started from here, also if the suite is in the background.

    A shell without job control starts what is in the background with SIGINT ignored, which children
    inherit.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def seed() -> int:
    """The one seed of the suite."""
    return 20230123


@pytest.fixture
def generator(seed: int) -> torch.Generator:
    """A seeded torch generator."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def seeded(seed: int) -> Iterator[None]:
    """Torch's own generator begins with the seed, and is afterwards as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """A seeded numpy generator."""
    return np.random.default_rng(seed)


@pytest.fixture
def shared_data() -> Path:
    """Folder of third-party data: ``CST_DATA``, else ``../shared/data`` beside the repository."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("CST_DATA", root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"third-party data is not at {folder}; set CST_DATA to where it is")
    return folder
