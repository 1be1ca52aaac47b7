"""Trained models for other programs: a folder with weights, a traced program and a model card.

The traced program answers for one sample with any numbers of points, without this library::

    u = program(source_pos, source_u, source_weights, query_pos)

with the shapes [N, d], [N, c], [N] and [M, d], in the user's units; for a transient model, the
times of the source and of the queries follow, [N] and [M].
"""

import io
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from cst_operator import checkpoint
from cst_operator.errors import CheckpointError, ConfigError
from cst_operator.fields import PointField
from cst_operator.model_card import model_card

__all__ = ["PACKAGE_FILE", "PROGRAM_FILE", "SingleSample", "export", "trace"]

PROGRAM_FILE = "program.pt2"
"""What ``torch.export.load`` reads."""
PACKAGE_FILE = "package.pt2"
"""What AOTInductor's loaders read, in Python or C++, on this kind of machine."""
_CARD_FILE = "README.md"
# Sizes that no other dimension has, so that none of them is taken for another.
_NUM_SOURCE, _NUM_QUERIES = 53, 37


class SingleSample(nn.Module):
    """A model as a function of plain tensors, for one sample.

    Args:
        model: ``model(source, target)``; it is put into eval mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(
        self,
        source_pos: Tensor,
        source_u: Tensor,
        source_weights: Tensor,
        query_pos: Tensor,
        source_time: Tensor | None = None,
        query_time: Tensor | None = None,
    ) -> Tensor:
        """Answer, [M, c].

        Args:
            source_pos: places of the source points, [N, d].
            source_u: their samples, [N, c].
            source_weights: their quadrature weights, [N].
            query_pos: places that are asked for, [M, d].
            source_time: times of the source points, [N]; zeros if omitted.
            query_time: times that are asked for, [M]; zeros if omitted.
        """
        source, target = _field(source_pos, source_time), _field(query_pos, query_time)
        source.u, source.weights = source_u, source_weights
        answer: Tensor = self.model(source, target)
        return answer


def _field(pos: Tensor, time: Tensor | None) -> PointField:
    """Points without the checks of a constructor, which cannot be traced."""
    field = PointField()
    field.pos = pos
    field.time = torch.zeros_like(pos[:, 0]) if time is None else time
    return field


def trace(model: nn.Module) -> ExportedProgram:
    """The program of a model, with dynamic numbers of source and query points.

    Args:
        model: a model whose configuration says ``dim``, ``in_channels`` and ``transient``.

    Raises:
        ConfigError: if the model cannot be traced.
    """
    config: Any = getattr(model, "config", None)
    if any(not hasattr(config, name) for name in ("dim", "in_channels")):
        raise ConfigError(
            f"{type(model).__name__} does not say how many dimensions and channels it reads; "
            "expected a config with dim and in_channels"
        )
    like = next(model.parameters())
    sizes = (_NUM_SOURCE, _NUM_SOURCE, _NUM_SOURCE, _NUM_QUERIES, _NUM_SOURCE, _NUM_QUERIES)
    widths = ((config.dim,), (config.in_channels,), (), (config.dim,), (), ())
    used = 6 if getattr(config, "transient", False) else 4
    generator = torch.Generator().manual_seed(0)
    arguments = tuple(
        torch.rand(size, *width, generator=generator).to(like)
        for size, width in zip(sizes[:used], widths[:used], strict=True)
    )
    dynamic = tuple({0: torch.export.Dim.DYNAMIC} for _ in arguments) + (None,) * (6 - used)
    program = SingleSample(model)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of one part of torch about another
        try:
            return torch.export.export(
                program, arguments, dynamic_shapes=dynamic[:used], strict=False
            )
        except Exception as error:  # whatever torch or the model says
            raise ConfigError(
                f"{type(model).__name__} cannot be traced by torch.export "
                f"({str(error).splitlines()[0]}); export a CSTOperator, or use the checkpoint"
            ) from error


def export(path: str | Path, out: str | Path, *, package: bool = False) -> Path:
    """Write a model for other programs, completely or not at all.

    The folder holds the checkpoint without the state of its training (``model.safetensors``,
    ``config.json``, ``manifest.json``; :func:`~cst_operator.load` takes it), ``program.pt2``, and
    a model card, ``README.md``.

    Args:
        path: a checkpoint or run folder.
        out: folder to make.
        package: whether ``package.pt2`` is made too: the program compiled by AOTInductor for this
            kind of processor, which needs a C++ compiler and takes a minute or more.

    Raises:
        CheckpointError: if there is no valid checkpoint, or ``out`` exists.
        ConfigError: if the model cannot be traced or compiled.
        OSError: if the disk refuses the program.
    """
    out = Path(out)
    if out.exists():
        raise CheckpointError(f"{out} exists already; export to another folder or remove it first")
    found = checkpoint.read(path)
    model = checkpoint.load(found.path)
    program = trace(model)
    building = checkpoint.aside(out)
    try:
        checkpoint.save(model, building, metadata=found.metadata)
        (building / _CARD_FILE).write_text(model_card(found), encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            # Not by torch's own writer of files, which ends the process where the disk is full.
            content = io.BytesIO()
            torch.export.save(program, content)
            (building / PROGRAM_FILE).write_bytes(content.getvalue())
            if package:
                _compile(program, building / PACKAGE_FILE)
        os.rename(building, out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return out


def _compile(program: ExportedProgram, file: Path) -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise ConfigError(
            "AOTInductor needs a C++ compiler and g++ was not found; install it, name another in "
            "the environment variable CXX, or export without a package"
        )
    from torch._inductor import aoti_compile_and_package

    aoti_compile_and_package(program, package_path=str(file.resolve()))
