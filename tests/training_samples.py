"""A tiny model, loss and examples for tests of training, all of which draw random numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cst_operator import checkpoint
from cst_operator.fields import Example, PointField
from cst_operator.normalization import Normalization
from cst_operator.sobolev import LossTerms
from cst_operator.training import FitConfig, Run, fit

__all__ = [
    "CONFIG",
    "Balanced",
    "Doubles",
    "Exact",
    "MeanSquare",
    "Net",
    "NetConfig",
    "Samples",
    "Terms",
    "plain_net",
    "same",
    "stop_after",
    "train",
    "untimed",
    "weights",
]


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """Configuration of the stand-in."""

    width: int = 8
    noise: float = 0.1


class Net(nn.Module):
    """Pointwise network that draws noise in training, with a buffer that training moves."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self.normalization = Normalization(2, 1, 1)
        self.layers = nn.Sequential(
            nn.Linear(2, config.width),
            nn.BatchNorm1d(config.width),
            nn.Tanh(),
            nn.Linear(config.width, 1),
        )
        self.dropout = nn.Dropout(0.1)

    def fit_normalization(self, examples: Any) -> "Net":
        self.normalization.fit(examples)
        return self

    def forward(self, source: PointField, target: PointField) -> Tensor:
        x = self.normalization.coordinates(target.pos, None)
        if self.training:
            x = x + self.config.noise * torch.randn_like(x)
        return self.normalization.decode(self.dropout(self.layers(x)))


checkpoint.register("net", NetConfig, Net)


@dataclass(frozen=True)
class Terms:
    total: Tensor
    terms: Mapping[str, Tensor]


@dataclass(frozen=True)
class MeanSquare:
    """A loss that draws as well."""

    weight: float = 1.0

    def __call__(
        self, model: nn.Module, batch: Example, *, generator: torch.Generator | None = None
    ) -> Terms:
        error = model(batch.source, batch.target) - batch.target.u
        pick = torch.rand(error.shape, generator=generator, device=error.device)
        plain = (error**2).mean()
        drawn = (pick * error**2).mean()
        return Terms(plain + self.weight * drawn, {"plain": plain, "drawn": drawn})


class Samples:
    """Examples made when asked for, which draw from the epoch's and from torch's numbers."""

    def __init__(self, count: int = 10, poison: int | None = None) -> None:
        self.count = count
        self.poison = poison
        self.epoch = 0
        self.seen: list[tuple[int, int]] = []

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        self.seen.append((self.epoch, index))
        generator = torch.Generator().manual_seed(1000 * self.epoch + index)
        pos = torch.rand(3 + index, 2, generator=generator)
        u = torch.sin(3 * pos[:, :1]) + 0.01 * torch.randn(len(pos), 1)
        field = PointField(pos, u, torch.full((len(pos),), 1 / len(pos)))
        if index == self.poison:
            field.u = field.u * float("nan")
        return Example(field, field)


@dataclass(frozen=True)
class Exact:
    """Relative error per sample in double precision; nothing is drawn."""

    def __call__(self, model: nn.Module, batch: Example, **_: Any) -> Terms:
        error = (model(batch.source, batch.target) - batch.target.u).square()
        per_sample = [e.mean() for e in error.split(batch.target.ptr.diff().tolist())]
        total = torch.stack(per_sample).mean()
        return Terms(total, {"square": total})


@dataclass(frozen=True)
class Balanced:
    """Two terms of very different sizes that are means over the samples, in double precision."""

    def __call__(self, model: nn.Module, batch: Example, **_: Any) -> LossTerms:
        error = (model(batch.source, batch.target) - batch.target.u).abs()
        samples = error.split(batch.target.ptr.diff().tolist())
        terms = {
            "mean": torch.stack([e.mean() for e in samples]).mean(),
            "large": 1e3 * torch.stack([e.square().mean() for e in samples]).mean(),
        }
        return LossTerms(terms["mean"] + terms["large"], terms, {"mean": 1.0, "large": 1.0})


def plain_net(noise: float = 0.0) -> Net:
    """A stand-in in double precision, without batch statistics; without noise nothing is drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Net(NetConfig(noise=noise))
    model.layers[1] = nn.Identity()
    if not noise:
        model.dropout = nn.Identity()  # type: ignore[assignment]
    return model.double()


class Doubles(Samples):
    """Examples in double precision that depend on epoch and index alone."""

    def __getitem__(self, index: int) -> Example:
        generator = torch.Generator().manual_seed(1000 * self.epoch + index)
        pos = torch.rand(3 + index, 2, generator=generator, dtype=torch.float64)
        field = PointField(pos, torch.sin(3 * pos[:, :1]), torch.full_like(pos[:, 0], 0.1))
        return Example(field, field)


CONFIG = FitConfig(
    steps=12,
    batch_size=3,
    lr=0.01,
    warmup=0.25,
    ema=0.9,
    log_every=5,
    eval_every=4,
    save_every=2,
    device="cpu",
)


def train(
    out: Path | None = None, config: FitConfig = CONFIG, seed: int = 1, **arguments: Any
) -> Run:
    """Train a fresh stand-in."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Net(NetConfig())
    return fit(
        arguments.pop("model", model),
        arguments.pop("train", Samples()),
        arguments.pop("validation", Samples(4)),
        loss=arguments.pop("loss", MeanSquare()),
        config=config,
        out=out,
        progress=False,
        **arguments,
    )


def stop_after(steps: int) -> Callable[[], bool]:
    left = steps

    def stop() -> bool:
        nonlocal left
        left -= 1
        return left <= 0

    return stop


def weights(run: Run) -> dict[str, Tensor]:
    return run.model.state_dict()


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def untimed(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k != "steps_per_second"} for r in history]
