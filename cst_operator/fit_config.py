"""How a model is trained, and the learning rate of every step."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from cst_operator.errors import ConfigError

__all__ = ["FitConfig", "learning_rate"]


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a model is trained."""

    steps: int = 2000
    """Number of optimizer steps."""
    batch_size: int = 16
    """Examples a step, over all processes."""
    accumulate: int = 1
    """Parts that each process cuts its examples of a step into; it adds up their gradients one
    after the other, which saves memory and leaves the mean over the step as it is."""
    bucket: int = 0
    """Batches that are sorted by number of points at a time, so that examples of a batch are of
    similar size and little is padded; 0 leaves the order random. Sizes are what a method
    ``numbers_of_points`` of the examples says, else measured once. The log says what is padded."""
    lr: float = 3e-3
    """Largest learning rate of AdamW."""
    muon_lr: float = 0.02
    """Largest learning rate of Muon, which trains the matrices that a model names with its method
    ``hidden_matrices``; 0 leaves them to AdamW."""
    weight_decay: float = 1e-4
    """Decoupled weight decay of matrices; biases, norms and scalars have none."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises linearly."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """What the learning rate does after the warm-up: it falls by half a "cosine" or on a "linear"
    path, stays "constant", or, in "wsd" (warm-up, stable, decay), stays and falls linearly at the
    end."""
    cooldown: float = 0.2
    """Share of the steps after the warm-up in which "wsd" falls."""
    floor: float = 0.01
    """Share of the largest learning rate at which a schedule that falls ends."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no limit."""
    ema: float = 0.999
    """Decay of the average of the weights; 0 for none."""
    balance: float = 0.0
    """Decay of the running means by which the terms of a loss are brought to the size of the first,
    so that all count as their weights say; 0 leaves the terms as they are."""
    seed: int = 0
    """Seed of the order of the examples and of every random number."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the forward pass; weights, their updates and derivatives with respect to
    coordinates stay in float32. With float16 the
    loss is scaled so that small gradients are not lost; steps whose gradient overflows are left
    out and the scale is lowered."""
    compile: bool = False
    """Compile the model with :func:`torch.compile` at the first steps, by its method ``compile``:
    that of :class:`~cst_operator.CSTOperator`, or the one that every module has. It stays compiled;
    its checkpoints hold a plain one. Derivatives with respect to coordinates are not compiled."""
    eval_every: int = 500
    """Steps between evaluations on the validation examples."""
    patience: int = 0
    """Stop after so many evaluations in a row that are no better than the best, by the mean
    relative L2 error, and give back the averaged weights of the best; 0 never stops early and gives
    back those of the last step."""
    save_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 50
    """Steps between records of the log; the device is waited for only then."""
    keep: int = 2
    """Newest checkpoints that are kept, at least 2."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; "auto" takes a GPU if there is one."""
    num_workers: int = 0
    """Processes that make examples, each two batches ahead; 0 makes them in this one."""

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1),
            ("batch_size", 1),
            ("accumulate", 1),
            ("bucket", 0),
            ("patience", 0),
            ("eval_every", 1),
            ("save_every", 1),
            ("log_every", 1),
            ("keep", 2),
            ("num_workers", 0),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} is {value!r}; expected an integer of at least {least}")
        if not isinstance(self.compile, bool):
            raise ConfigError(f"compile is {self.compile!r}; expected True or False")
        for name, fits, words in (
            ("lr", lambda x: 0 < x < math.inf, "a positive number"),
            ("muon_lr", lambda x: 0 <= x < math.inf, "a positive number, or 0 for AdamW alone"),
            ("weight_decay", lambda x: 0 <= x < math.inf, "zero or a positive number"),
            ("warmup", lambda x: 0 <= x < 1, "a share of the steps from 0 to below 1"),
            ("cooldown", lambda x: 0 < x <= 1, "a share of the steps from above 0 to 1"),
            ("floor", lambda x: 0 <= x <= 1, "a share of lr from 0 to 1"),
            ("clip", lambda x: 0 <= x < math.inf, "a positive number, or 0 for no limit"),
            ("ema", lambda x: 0 <= x < 1, "a number from 0 to below 1"),
            ("balance", lambda x: 0 <= x < 1, "a number from 0 to below 1"),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not fits(value):
                raise ConfigError(f"{name} is {value!r}; expected {words}")
        for name, allowed in (
            ("schedule", tuple(_SHAPES)),
            ("precision", ("float32", "bfloat16", "float16")),
            ("device", ("auto", "cpu", "cuda")),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; expected {' or '.join(map(repr, allowed))}"
                )


# Where the learning rate is between its floor (0) and its largest value (1), after a share of the
# steps after the warm-up.
_SHAPES: Mapping[str, Callable[[float, FitConfig], float]] = {
    "cosine": lambda done, config: (1 + math.cos(math.pi * done)) / 2,
    "linear": lambda done, config: 1 - done,
    "constant": lambda done, config: 1.0,
    "wsd": lambda done, config: min(1.0, (1 - done) / config.cooldown),
}


def learning_rate(step: int, config: FitConfig) -> float:
    """Learning rate of step number ``step``, counted from 0: a line up, then the schedule.

    Source: Loshchilov, Hutter, SGDR, ICLR 2017 ("cosine"); Hu et al., MiniCPM, 2024 ("wsd");
    Hägele et al., Scaling laws and compute-optimal training beyond fixed training durations, 2024
    (a cool-down of a fifth of the steps).
    """
    rising = round(config.warmup * config.steps)
    if step < rising:
        return config.lr * (step + 1) / rising
    done = (step - rising) / max(1, config.steps - 1 - rising)
    share = _SHAPES[config.schedule](done, config)
    return config.lr * (config.floor + (1 - config.floor) * share)
