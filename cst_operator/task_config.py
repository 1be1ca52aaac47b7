"""What a model reads and what it is asked, as settings."""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cst_operator.datasets import Windows
from cst_operator.errors import ConfigError
from cst_operator.fields import Trajectory
from cst_operator.masking import (
    EquallySpacedFrames,
    FrameMask,
    LastFrames,
    Masking,
    RandomFrames,
    Subsampled,
)
from cst_operator.sampling import BOUNDARY
from cst_operator.tasks import Forecast, LeadTime, PointUpsampling, Steady, Task

__all__ = ["Kind", "Mask", "TaskConfig"]

# What a system gives and what is asked, where the configuration does not say.
_INPUTS = {
    "poisson": ("f", "distance"),
    "darcy": ("f", "a", "distance"),
    "poisson_mixed": ("f", "g", "flux", "distance", "distance_neumann"),
    "heat": ("f", "distance"),
}

Kind = Literal["auto", "steady", "forecast", "lead_time", "masking", "upsampling"]
"""Kinds of tasks."""

Mask = Literal["random", "last", "equally_spaced", "points"]
"""Which frames masking hides."""

_SIMPLICES = ("line", "triangle", "tetra")
_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What the model reads and what it is asked.

    Raises:
        ConfigError: if a number is negative.
    """

    kind: Kind = "auto"
    """"steady": static fields in, the solution out. "forecast": static fields and the first frame
    in, later frames out. "lead_time": static fields and some successive frames in, the frame a lead
    time later out, for rollouts. "masking": a part of a trajectory in, what is hidden of it out.
    "upsampling": some points of a frame in, the others out. "auto": forecast for data with several
    frames, else steady."""
    inputs: tuple[str, ...] = ()
    """Static channels and scalar parameters that are read; the system's channels if omitted.
    Masking and upsampling read none."""
    outputs: tuple[str, ...] = ()
    """Channels of the solution; all if omitted."""
    num_queries: int = 64
    """Ask at that many random points in training, drawn anew in every epoch; at all if 0."""
    num_sources: int = 0
    """Read at most that many random points in training, drawn anew in every epoch; all if 0."""
    resample: bool = True
    """Train a steady task on a new random sampling of every solution in every epoch, which makes
    the answer depend less on the mesh; only where all cells are triangles or tetrahedra."""
    boundary: bool = True
    """Let a steady task read the points of the mesh's boundary as well, with their own measure;
    only where the mesh has cells and a boundary."""
    fraction: float = 0.0
    """Share of the points that is read, for upsampling and masking; if 0, a tenth where hidden
    points are all that is asked, else 1."""
    window: int = 0
    """Make examples of all windows of that many successive frames; of whole trajectories if 0."""
    stride: int = 1
    """Frames from one window to the next."""
    mask: Mask = "random"
    """What masking hides: "random" frames, the "last" ones, all but "equally_spaced" ones, or
    random "points" alone."""
    hidden: int = 0
    """Frames of a window that masking hides; half of them if 0."""
    history: int = 1
    """Successive frames that a lead-time task reads."""
    leads: tuple[int, ...] = (1,)
    """How many frames after the last one that is read a lead-time task may ask."""

    def __post_init__(self) -> None:
        for name in ("num_queries", "num_sources", "fraction", "window", "hidden"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected zero or more")
        if self.stride < 1:
            raise ConfigError(f"stride is {self.stride}; expected at least 1")

    def resolve(
        self,
        *,
        system: str,
        num_frames: int,
        static: tuple[str, ...],
        solved: tuple[str, ...],
        cells: tuple[str, ...] = (),
        parameters: tuple[str, ...] = (),
        bounded: bool = False,
    ) -> "TaskConfig":
        """The same with every choice made, for data of this form.

        Args:
            system: name of the system that made the data; others than the library's own give all
                their static channels.
            num_frames: frames of a trajectory.
            static: static channels of the data.
            solved: channels of the solution.
            cells: types of the cells.
            parameters: scalar parameters of the trajectories, inputs if named.
            bounded: whether the cells have a boundary.

        Raises:
            ConfigError: if the data lack a channel or have too few frames, or a steady task has
                nothing to read.
        """
        kind = self.kind
        if kind == "auto":
            kind = "forecast" if num_frames > 1 else "steady"
        without = kind in ("masking", "upsampling")
        inputs = () if without else self.inputs or _INPUTS.get(system, static)
        outputs = self.outputs or solved
        for key, names, there in (
            ("inputs", inputs, (*static, *parameters)),
            ("outputs", outputs, solved),
        ):
            for name in names:
                if name not in there:
                    near = difflib.get_close_matches(name, there, n=1)
                    raise ConfigError(
                        f"task.{key} names {name!r}, which the data do not have; "
                        + (f"nearest: {near[0]!r}; " if near else "")
                        + f"choose from {', '.join(there) or 'none'}"
                    )
        simplices = bool(cells) and all(name in _SIMPLICES for name in cells)
        chosen = dataclasses.replace(
            self,
            kind=kind,
            inputs=inputs,
            outputs=outputs,
            resample=self.resample and simplices and kind == "steady",
            boundary=self.boundary and bounded and kind == "steady",
        )
        if kind == "steady" and not inputs and not chosen.boundary:
            raise ConfigError(
                "this steady task reads nothing: the data have no static channels; name those that "
                "are given with cst convert --static, or add the distance with --distance"
            )
        chosen._check_frames(num_frames)
        return chosen._with_mask(num_frames) if without else chosen

    def _check_frames(self, num_frames: int) -> None:
        """Whether the data have the frames that a resolved task needs."""
        if self.window > num_frames:
            raise ConfigError(
                f"task.window is {self.window} but the trajectories have {num_frames} frames; "
                "take a shorter window"
            )
        if self.window and self.kind == "steady":
            raise ConfigError(
                f"task.window is {self.window} but a steady task reads no frames; "
                "leave it out or choose another task.kind"
            )
        needed = {
            "forecast": 2,
            "lead_time": self.history + max(self.leads, default=1),
            "masking": 1 if self.mask == "points" else max(2, self.hidden + 1),
        }.get(self.kind, 1)
        if self.kind == "masking" and self.mask == "equally_spaced":
            needed = max(3, self.hidden + 2)
        available = self.window or num_frames
        if available < needed:
            raise ConfigError(
                f"this {self.kind} task needs at least {needed} frames, of which the "
                f"{'window has' if self.window else 'trajectories have'} {available}; "
                "ask for fewer or choose another task.kind"
            )

    def _with_mask(self, num_frames: int) -> "TaskConfig":
        """The same with the frames and points that are hidden."""
        if self.kind == "upsampling":
            return dataclasses.replace(self, fraction=self.fraction or _SHARE)
        window = self.window or num_frames
        points = self.mask == "points"
        return dataclasses.replace(
            self,
            window=window,
            hidden=0 if points else self.hidden or window // 2,
            fraction=self.fraction or (_SHARE if points else 1.0),
        )

    def at_all_points(self) -> "TaskConfig":
        """The same reading and asking at all points, as for scores."""
        return dataclasses.replace(self, num_queries=0, num_sources=0, resample=False)

    def windows(self, trajectories: Sequence[Trajectory]) -> Sequence[Trajectory]:
        """What a resolved task makes examples of: the trajectories, or their windows.

        Raises:
            InputError: if a trajectory has fewer frames than a window.
        """
        if not self.window:
            return trajectories
        return Windows(trajectories, self.window, stride=self.stride)

    def build(self, *, num_frames: int = 1) -> Task:
        """The task of a resolved configuration.

        Args:
            num_frames: frames of a trajectory; those of the window where there is one.

        Raises:
            ConfigError: if a value is out of range.
        """
        task = self._build(self.window or num_frames)
        if not self.num_sources:
            return task
        return Subsampled(task=task, num_sources=self.num_sources)

    def _build(self, num_frames: int) -> Task:
        match self.kind:
            case "upsampling":
                return PointUpsampling(
                    channels=self.outputs,
                    frames=tuple(range(num_frames)),
                    fraction=self.fraction,
                    num_queries=self.num_queries,
                )
            case "masking":
                return Masking(
                    channels=self.outputs,
                    frames=self._frame_mask(num_frames),
                    points=self.fraction,
                    num_queries=self.num_queries,
                )
            case "lead_time":
                return self.lead_time()
            case "forecast":
                return Forecast(
                    inputs=self.inputs, outputs=self.outputs, num_queries=self.num_queries
                )
            case _:
                return Steady(
                    inputs=self.inputs,
                    outputs=self.outputs,
                    num_queries=self.num_queries,
                    resample=self.resample,
                    boundary=self.boundary,
                )

    def lead_time(self) -> LeadTime:
        """The task of a resolved configuration of kind "lead_time", for rollouts.

        Raises:
            ConfigError: if the history or a lead is below 1.
        """
        return LeadTime(
            inputs=self.inputs,
            outputs=self.outputs,
            history=self.history,
            leads=self.leads,
            num_queries=self.num_queries,
        )

    def _frame_mask(self, num_frames: int) -> FrameMask | None:
        match self.mask:
            case "random":
                return RandomFrames(self.hidden)
            case "last":
                return LastFrames(self.hidden)
            case "equally_spaced":
                return EquallySpacedFrames(num_frames - self.hidden)
            case _:
                return None

    @property
    def source_channels(self) -> tuple[str, ...]:
        """What a resolved task's model reads, in its order."""
        match self.kind:
            case "upsampling" | "masking":
                return self.outputs
            case "lead_time":
                return self.lead_time().source_channels
            case "forecast":
                return (*self.inputs, *self.outputs)
            case _:
                return (*self.inputs, BOUNDARY) if self.boundary else self.inputs

    @property
    def transient(self) -> bool:
        """Whether time is a coordinate of a resolved task's points."""
        return self.kind in ("forecast", "masking")
