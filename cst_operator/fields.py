"""The types that flow through the library: ``PointField``, ``Trajectory`` and ``Example``.

Legend of shapes, used in every docstring: B samples, N source points, M query points, d space
dimensions, c channels, T frames, L layers, h heads, k head width.
"""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from cst_operator.errors import FieldError

__all__ = ["Example", "PointField", "Trajectory", "trapezoid_weights"]

# Per-point attributes: whatever selects points selects all of them.
_PER_POINT = ("pos", "time", "u", "weights", "gradient", "time_derivative")
_PER_CHANNEL = ("u", "gradient", "time_derivative")
_MESH = ("cells", "facets", "facet_markers")
_VALUES = (*_PER_POINT, *_MESH)


class PointField(Data):
    r"""A field known through points: coordinates, samples and quadrature weights.

    The weights make sums over the points approximate integrals,
    :math:`\sum_i w_i f(x_i) \approx \int f`, over whatever the points stand for: a volume, a
    surface, or a piece of space-time.

    Args:
        pos: coordinates, [N, d], in the user's units.
        u: samples, [N, c]; omitted for bare query points (then c = 0).
        weights: quadrature weights, [N], in units of volume; omitted where no integral is needed.
        time: time of every point, [N]; zeros if omitted.
        channels: name of every channel of ``u``, c strings; ``("u0", "u1", ...)`` if omitted.
        units: unit of every channel, c strings; empty strings if omitted.
        gradient: known derivatives in space, [N, c, d].
        time_derivative: known derivative in time, [N, c].
        cells: vertex numbers of the cells by meshio's cell type, e.g. ``{"triangle": [n, 3]}``.
        facets: boundary facets in the same form, e.g. ``{"line": [n, 2]}``.
        facet_markers: one integer per boundary facet, by the same keys, [n].

    Raises:
        FieldError: if shapes disagree or a value is not finite.
    """

    def __init__(
        self,
        pos: Tensor | None = None,
        u: Tensor | None = None,
        weights: Tensor | None = None,
        *,
        time: Tensor | None = None,
        channels: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        gradient: Tensor | None = None,
        time_derivative: Tensor | None = None,
        cells: Mapping[str, Tensor] | None = None,
        facets: Mapping[str, Tensor] | None = None,
        facet_markers: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        if pos is None:  # PyG builds empty objects and fills them when it collates
            return
        self._fill(
            pos=pos,
            u=u,
            weights=weights,
            time=time,
            channels=channels,
            units=units,
            gradient=gradient,
            time_derivative=time_derivative,
            cells=cells,
            facets=facets,
            facet_markers=facet_markers,
        )
        self._check()

    def _fill(self, pos: Tensor, **attributes: Any) -> "PointField":
        """Set the attributes that are given, and those that every field has."""
        if pos.dim() != 2:
            raise FieldError(f"pos has shape {tuple(pos.shape)}; expected [points, dimensions]")
        self.pos = pos
        for name, value in attributes.items():
            if value is not None and not (name in _MESH and not value):
                self[name] = dict(value) if name in _MESH else value
        if "time" not in self:
            self.time = pos.new_zeros(len(pos))
        if "u" not in self:
            self.u = pos.new_zeros(len(pos), 0)
        if self.u.dim() != 2:
            raise FieldError(
                f"u has shape {tuple(self.u.shape)}; expected [points, channels], "
                "so write u[:, None] for one channel"
            )
        c = self.u.shape[1]
        self.channels = tuple(self.get("channels", (f"u{i}" for i in range(c))))
        self.units = tuple(self.get("units", ("",) * c))
        return self

    def __contains__(self, key: str) -> bool:
        """Whether there is such an attribute; PyG's own answer lists them all first."""
        return key in self._store

    def _check(self, changed: Collection[str] = _VALUES) -> None:
        """Shapes agree and, of the attributes that changed, every value can be used."""
        n, d = self.pos.shape
        c = self.u.shape[1]
        expected = {"time": (n,), "u": (n, c), "weights": (n,), "time_derivative": (n, c)}
        expected["gradient"] = (n, c, d)
        for name, shape in expected.items():
            if name not in self:
                continue
            value = self[name]
            if value.shape[:1] != shape[:1]:
                raise FieldError(
                    f"{name} has {len(value)} rows but pos has {n} points; "
                    "give one row for every point"
                )
            if tuple(value.shape) != shape:
                raise FieldError(f"{name} has shape {tuple(value.shape)}; expected {shape}")
        for name in ("channels", "units"):
            if len(self[name]) != c:
                raise FieldError(f"{len(self[name])} {name} were named but u has {c} channels")
        if len(set(self.channels)) != c:
            raise FieldError(f"channel names must differ, got {', '.join(self.channels)}")
        for name in _PER_POINT:
            if name in changed and name in self:
                axes = ("at point", "in channel") if name in _PER_CHANNEL else ("at point",)
                _check_finite(name, self[name], axes, self.channels)
        for name in ("cells", "facets"):
            for kind, index in self.get(name, {}).items() if name in changed else ():
                if len(index) and (int(index.min()) < 0 or int(index.max()) >= n):
                    bad = int(index.max() if int(index.max()) >= n else index.min())
                    raise FieldError(
                        f"{name} of type {kind} name point {bad} "
                        f"but there are {n} points, numbered from 0"
                    )
        marked = "facet_markers" in changed or "facets" in changed
        for kind, marks in self.get("facet_markers", {}).items() if marked else ():
            count = len(self.get("facets", {}).get(kind, ()))
            if len(marks) != count:
                raise FieldError(
                    f"there are {len(marks)} facet_markers of type {kind} but {count} facets; "
                    "give one marker for every facet"
                )

    @property
    def num_points(self) -> int:
        """Number of points N."""
        return int(self.pos.shape[0])

    @property
    def dim(self) -> int:
        """Number of space dimensions d."""
        return int(self.pos.shape[1])

    def select(self, *names: str) -> "PointField":
        """The same points with only the named channels, in that order.

        Raises:
            FieldError: if a channel does not exist.
        """
        for name in names:
            if name not in self.channels:
                raise FieldError(
                    f"there is no channel {name!r}; "
                    f"the field has {', '.join(self.channels) or 'none'}"
                )
        index = [self.channels.index(name) for name in names]
        known = {key: self[key][:, index] for key in ("gradient", "time_derivative") if key in self}
        return self._with(
            u=self.u[:, index],
            channels=names,
            units=[self.units[i] for i in index],
            gradient=known.get("gradient"),
            time_derivative=known.get("time_derivative"),
        )

    def with_channels(
        self, u: Tensor, channels: Sequence[str], units: Sequence[str] | None = None
    ) -> "PointField":
        """The same points with further channels appended; drops known derivatives.

        Args:
            u: samples, [N, new c].
            channels: their names.
            units: their units.
        """
        units = ("",) * len(channels) if units is None else units
        return self._with(
            u=torch.cat([self.u, u.to(self.u)], dim=1),
            channels=[*self.channels, *channels],
            units=[*self.units, *units],
            gradient=None,
            time_derivative=None,
        )

    def with_values(
        self,
        u: Tensor,
        channels: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        *,
        gradient: Tensor | None = None,
        time_derivative: Tensor | None = None,
    ) -> "PointField":
        """The same points and cells with other samples, [N, c]."""
        return self._with(
            u=u,
            channels=channels,
            units=units,
            gradient=gradient,
            time_derivative=time_derivative,
        )

    def subset(self, index: Tensor) -> "PointField":
        """Some of the points, without cells; weights are scaled to keep their sum.

        Args:
            index: point numbers, [n], or a mask, [N].
        """
        parts = {key: self[key][index] for key in _PER_POINT if key in self}
        if "weights" in self and len(parts["weights"]):
            parts["weights"] = parts["weights"] * (self.weights.sum() / parts["weights"].sum())
        return PointField()._fill(channels=self.channels, units=self.units, **parts)

    def _with(self, **changes: Any) -> "PointField":
        """The same field with some attributes exchanged, or left out where None."""
        keys = (*_VALUES, "channels", "units")
        kept = {key: self[key] for key in keys if key in self}
        field = PointField()._fill(**{**kept, **changes})
        field._check(changes)
        return field

    def apply(self, func: Callable[..., Any], *args: str) -> "PointField":
        """Apply a function to every tensor, in place; what ``to`` and ``clone`` are made of."""
        # PyG makes lists of tuples on the way; names stay as they are.
        names = {key: self[key] for key in ("channels", "units") if key in self}
        super().apply(func, *args)
        for key, value in names.items():
            self[key] = value
        return self

    # How PyG joins fields into one batch: vertex numbers move by the points before them.
    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Shift of vertex numbers from one sample of a batch to the next."""
        if key in self.get("cells", {}) or key in self.get("facets", {}):
            is_index = torch.is_tensor(value) and value.dim() == 2
            return self.num_points if is_index else 0
        return super().__inc__(key, value, *args, **kwargs)

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Every attribute is joined along its first dimension."""
        return 0


class Example(NamedTuple):
    """What a model is trained on: where it reads, and where and what it must answer.

    PyG's ``DataLoader`` collates examples with different numbers of points as they are.
    """

    source: PointField
    """The known field: N points with input channels and quadrature weights."""
    target: PointField
    """The query points: M points with the wanted values, and their derivatives where known."""

    def to(self, device: str | torch.device, *, non_blocking: bool = False) -> "Example":
        """The same on a device; these fields stay where they are, unlike PyG's own ``to``."""
        return Example(*(copy.copy(side).to(device, non_blocking=non_blocking) for side in self))


def _check_finite(name: str, value: Tensor, axes: Sequence[str], channels: Sequence[str]) -> None:
    """Every value is finite; else the first that is not is named by what its first axes count."""
    finite = torch.isfinite(value)
    if bool(finite.all()):
        return
    first = (~finite).nonzero()[0].tolist()
    place = " ".join(
        f"{axis} {channels[i]!r}" if axis == "in channel" else f"{axis} {i}"
        for axis, i in zip(axes, first, strict=False)
    )
    raise FieldError(
        f"{name} has {int((~finite).sum())} values that are not finite, the first {place}; "
        "remove or fill them beforehand"
    )


def trapezoid_weights(times: Tensor) -> Tensor:
    """Weights of the trapezoidal rule at increasing times, [T]; one time has weight 1."""
    if len(times) == 1:
        return torch.ones_like(times)
    step = times.diff()
    if bool((step <= 0).any()):
        first = int((step <= 0).nonzero()[0])
        pair = f"{float(times[first]):.10g} and {float(times[first + 1]):.10g}"
        raise FieldError(
            f"times must increase strictly, but frames {first} and {first + 1} are at {pair} (in "
            f"{str(times.dtype).removeprefix('torch.')}); sort the frames, remove repeated ones, "
            "or read them in a higher precision"
        )
    half = step / 2
    return torch.cat([half[:1], half[1:] + half[:-1], half[-1:]])


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Frames of one solution on one mesh; a steady solution has one frame.

    What does not change in time is in ``mesh``, what is solved for is in ``u``.

    Args:
        mesh: the points, their weights and cells; its channels are the static fields of the
            sample (coefficients, forcing, distance to the boundary).
        times: time of every frame, increasing, [T].
        u: samples, [T, N, c].
        channels: name of every channel, c strings.
        units: unit of every channel, c strings; empty strings if omitted.
        gradient: known derivatives in space, [T, N, c, d].
        time_derivative: known derivatives in time, [T, N, c].
        parameters: scalar parameters of the sample, e.g. ``{"viscosity": 0.01, "seed": 3}``.

    Raises:
        FieldError: if shapes disagree, times do not increase or a value is not finite.
    """

    mesh: PointField
    times: Tensor
    u: Tensor
    channels: tuple[str, ...]
    units: tuple[str, ...] = ()
    gradient: Tensor | None = None
    time_derivative: Tensor | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.units:
            object.__setattr__(self, "units", ("",) * len(self.channels))
        if self.times.dim() != 1 or not len(self.times):
            raise FieldError(
                f"times has shape {tuple(self.times.shape)}; expected [frames], at least one"
            )
        shape = (len(self.times), self.mesh.num_points, len(self.channels))
        for name, axes, expected in (
            ("u", "[frames, points, channels]", shape),
            ("gradient", "[frames, points, channels, dimensions]", (*shape, self.mesh.dim)),
            ("time_derivative", "[frames, points, channels]", shape),
        ):
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != expected:
                raise FieldError(
                    f"{name} has shape {tuple(value.shape)}; expected {axes} = {expected}"
                )
        if len(self.units) != len(self.channels):
            raise FieldError(
                f"{len(self.units)} units were named but there are {len(self.channels)} channels; "
                "give one for every channel, an empty one where it is not known"
            )
        if len(set(self.channels)) != len(self.channels):
            raise FieldError(f"channel names must differ, got {', '.join(self.channels)}")
        for name in ("times", "u", "gradient", "time_derivative"):
            value = getattr(self, name)
            if value is not None:
                _check_finite(name, value, ("in frame", "at point", "in channel"), self.channels)
        trapezoid_weights(self.times)

    @classmethod
    def of(cls, field: PointField, time: float = 0.0) -> "Trajectory":
        """One field as the only frame, all its channels solved for."""
        derivatives = ("gradient", "time_derivative")
        known = {name: field[name][None] for name in derivatives if name in field}
        return cls(
            mesh=field.select(),
            times=field.pos.new_tensor([time]),
            u=field.u[None],
            channels=tuple(field.channels),
            units=tuple(field.units),
            **known,
        )

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return len(self.times)

    def to(self, dtype: torch.dtype) -> "Trajectory":
        """The same in another precision."""
        mesh = self.mesh.clone()
        for key in _PER_POINT:
            if key in mesh:
                mesh[key] = mesh[key].to(dtype)
        changes: dict[str, Any] = {"mesh": mesh}
        for key in ("times", "u", "gradient", "time_derivative"):
            value = getattr(self, key)
            changes[key] = None if value is None else value.to(dtype)
        return replace(self, **changes)

    def window(self, frames: range) -> "Trajectory":
        """Some successive frames; times stay as they are."""
        cut = slice(frames.start, frames.stop, frames.step)
        return replace(self, times=self.times[cut], u=self.u[cut], **self._known(cut))

    def frame(self, index: int) -> PointField:
        """One frame as a field on the mesh; its weights integrate over space.

        Raises:
            FieldError: if there is no such frame.
        """
        if not -self.num_frames <= index < self.num_frames:
            raise FieldError(
                f"there is no frame {index}; the trajectory has {self.num_frames}, numbered from 0"
            )
        n = self.mesh.num_points
        return PointField(
            pos=self.mesh.pos,
            u=self.u[index],
            weights=self.mesh.get("weights"),
            time=self.times[index].to(self.mesh.pos).expand(n).clone(),
            channels=self.channels,
            units=self.units,
            cells=self.mesh.get("cells"),
            facets=self.mesh.get("facets"),
            facet_markers=self.mesh.get("facet_markers"),
            **self._known(index),
        )

    def _known(self, frames: slice | int) -> dict[str, Any]:
        """Derivatives of some frames, those that are known."""
        known = {"gradient": self.gradient, "time_derivative": self.time_derivative}
        return {name: value[frames] for name, value in known.items() if value is not None}

    def space_time(self, frames: Tensor | Sequence[int]) -> PointField:
        """Some frames as one set of points in space-time, frame after frame, without cells.

        The weights integrate over space and time: cell weight times trapezoidal weight among the
        chosen frames.

        Args:
            frames: frame numbers, increasing, [t].
        """
        frames = torch.as_tensor(frames)
        fields = [self.frame(int(i)) for i in frames]
        joined: dict[str, Any] = {
            key: torch.cat([f[key] for f in fields]) for key in _PER_POINT if key in fields[0]
        }
        if "weights" in joined:
            per_frame = trapezoid_weights(self.times[frames]).to(joined["weights"])
            joined["weights"] = joined["weights"] * per_frame.repeat_interleave(
                self.mesh.num_points
            )
        return PointField(channels=self.channels, units=self.units, **joined)
