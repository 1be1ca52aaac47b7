"""Memory of a process."""

from pathlib import Path

__all__ = ["peak_memory"]


def peak_memory() -> float:
    """Most resident memory this process has had, in MB of 2**20 bytes.

    From Linux's ``VmHWM``, which begins with the program; ``ru_maxrss`` would begin with what the
    process that started this one held then.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
