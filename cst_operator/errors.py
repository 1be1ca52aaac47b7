"""Named exceptions.

Every message is one line that says what, what was expected, what came, and the remedy.
The command line prints the message of an :class:`InputError` and exits with status 2.
"""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "FieldError",
    "InputError",
    "MeshError",
    "SolverError",
    "TrainingError",
]


class InputError(ValueError):
    """Something the caller handed over cannot be used as it is."""


class FieldError(InputError):
    """A point field is inconsistent or lacks what an operation needs."""


class MeshError(InputError):
    """A mesh or mesh file is unreadable, inconsistent or degenerate."""


class ConfigError(InputError):
    """A configuration has an unknown key, a wrong type or a value out of range."""


class CheckpointError(InputError):
    """A checkpoint is missing, incomplete, damaged or does not fit."""


class SolverError(RuntimeError):
    """A solver diverged, did not converge or could not mesh its geometry."""


class TrainingError(RuntimeError):
    """Training produced a loss or gradient that is not finite."""
