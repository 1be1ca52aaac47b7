"""What makes a CSTOperator, apart from its weights."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from cst_operator.errors import ConfigError
from cst_operator.nn import ATTENTION, FLOWS, LINEAR_FLOWS

__all__ = ["ARCHITECTURES", "Architecture", "CSTConfig"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of the transformer; what it reads and answers comes from the data.

    Lengths (``radii``, ``interpolant_radius``) and turns are per unit of normalized coordinates,
    in which the longest side of the training box is 2.
    """

    form: Literal["operator", "joint"] = "operator"
    """"operator": queries attend to the source only. "joint" (the paper): to one another too."""
    width: int = 64
    """Channels of a token."""
    depth: int = 4
    """Number of layers L."""
    attention: tuple[str, ...] = ("full",)
    """Kinds of attention of the layers, first to last and over again; see
    :data:`~cst_operator.nn.kinds.ATTENTION`."""
    sites: int = 64
    """Number of latents, landmarks, slices or random features of the kinds that have them."""
    heads: int = 4
    """Number of heads h."""
    hidden: int = 128
    """Channels inside the pointwise networks."""
    fourier_features: int = 32
    """Number of Fourier features of a coordinate."""
    fourier_scale: float = 1.0
    """Standard deviation of their frequencies."""
    max_turns: float = 4.0
    """Largest initial frequency of the rotary encoding."""
    radii: tuple[float, float] = (0.15, 3.0)
    """Initial radii of the most local and the most global head."""
    interpolant_radius: float = 0.12
    """Radius of the interpolant that gives query tokens their values: about the spacing of the
    coarsest training samples, or more."""
    anchors: int = 0
    """Points that carry the layers: so many that each stand for an equal share of the source, which
    they and the queries read in the first layer; all source points if 0."""
    aggregation_radius: float = 0.3
    """Radius of the neighbourhood over which every anchor averages the source's tokens, with a
    smooth kernel that is zero beyond it: about the spacing of the anchors, or more."""
    aggregate_at_queries: bool = False
    """Whether queries are told that average too, over the points that are interpolated."""
    interpolant_points: int = 1024
    """At most so many source points, of equal shares, are interpolated: cost linear in the rest."""
    query_depth: int = 0
    """Layers that queries go through, the last ones; all if 0. Fewer make many queries cheap."""
    recompute: bool = False
    """Compute layers again in the backward pass instead of keeping them: memory for time."""
    flow: str = "none"
    """Equation by which attention or tokens flow over the points in pseudo-time, "none" or a key of
    :data:`~cst_operator.nn.flows.FLOWS`. With anchors, it acts among them."""
    flow_of: Literal["attention", "hidden"] = "attention"
    """What flows: the attention (the paper; full attention and linear flows), or the tokens after
    every layer (its code)."""
    flow_steps: int = 1
    """Steps of the flow in every layer."""
    flow_radius: float = 0.15
    """Radius of the Laplacian: how far a step goes."""
    modulators: tuple[str, ...] = ()
    """Source channels, by name, whose mean over the sample also scales and shifts the tokens after
    every layer: scalar parameters, such as a viscosity or a lead time, that hold everywhere."""
    noise: float = 0.0
    """Standard deviation of the noise on source samples in training, at unit scale."""
    coordinate_noise: float = 0.0
    """Standard deviation of the noise on coordinates in training, at unit scale."""

    def __post_init__(self) -> None:
        for name in (
            "width",
            "depth",
            "heads",
            "hidden",
            "sites",
            "interpolant_points",
            "flow_steps",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.form not in ("operator", "joint"):
            raise ConfigError(f"form is {self.form!r}; expected 'operator' or 'joint'")
        unknown = [kind for kind in self.attention if kind not in ATTENTION]
        if unknown or not self.attention:
            raise ConfigError(
                f"attention lists {', '.join(unknown) or 'nothing'}; "
                f"expected kinds among {', '.join(ATTENTION)}"
            )
        if self.anchors < 0:
            raise ConfigError(f"anchors is {self.anchors}; expected zero or more")
        if self.aggregate_at_queries and not self.anchors:
            raise ConfigError(
                "aggregate_at_queries is set without anchors, whose average it shares; "
                "expected anchors of one or more"
            )
        if not 0 <= self.query_depth <= self.depth:
            raise ConfigError(
                f"query_depth is {self.query_depth}; expected between 0 and depth {self.depth}"
            )
        if self.fourier_features % 2 or self.fourier_features < 0:
            raise ConfigError(
                f"fourier_features is {self.fourier_features}; expected an even number"
            )
        if self.width % self.heads:
            raise ConfigError(
                f"width {self.width} is not a multiple of heads {self.heads}; change one of them"
            )
        for name in (
            "fourier_scale",
            "max_turns",
            "interpolant_radius",
            "aggregation_radius",
            "radii",
            "flow_radius",
        ):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,)) <= 0:
                raise ConfigError(f"{name} is {value}; expected a positive number")
        for name in ("noise", "coordinate_noise"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected zero or more")
        self._check_flow()

    def _check_flow(self) -> None:
        if self.flow not in ("none", *FLOWS):
            raise ConfigError(f"flow is {self.flow!r}; expected none, {', '.join(FLOWS)}")
        if self.flow_of not in ("attention", "hidden"):
            raise ConfigError(f"flow_of is {self.flow_of!r}; expected 'attention' or 'hidden'")
        if self.flow == "none" or self.flow_of == "hidden":
            return
        remedy = 'choose flow_of="hidden"'
        if self.flow not in LINEAR_FLOWS:
            raise ConfigError(
                f"flow {self.flow!r} of the attention is not linear and would need the whole "
                f"matrix; {remedy} or one of {', '.join(LINEAR_FLOWS)}"
            )
        if set(self.attention) != {"full"}:
            raise ConfigError(
                f"attention lists {', '.join(self.attention)}; a flow of the attention acts on the "
                f"kind 'full' alone, so {remedy}"
            )
        if self.anchors and self.depth == 1:
            raise ConfigError(
                "depth is 1 with anchors, where no layer reads anchors and no attention flows; "
                f"expected at least 2, or {remedy}"
            )

    def build(
        self, *, dim: int, in_names: tuple[str, ...], out_names: tuple[str, ...], transient: bool
    ) -> "CSTConfig":
        """The configuration of a model for data of this form.

        Raises:
            ConfigError: if sizes do not fit one another.
        """
        return CSTConfig(
            dim=dim,
            in_channels=len(in_names),
            out_channels=len(out_names),
            in_names=in_names,
            out_names=out_names,
            transient=transient,
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(Architecture)},
        )


@dataclass(frozen=True, kw_only=True)
class CSTConfig(Architecture):
    """Everything that makes a :class:`~cst_operator.CSTOperator`, apart from its weights.

    The fields of :class:`Architecture`, and what the model reads and answers.
    """

    dim: int
    """Space dimensions d."""
    in_channels: int
    """Channels of the source field."""
    out_channels: int
    """Channels of the answer."""
    transient: bool = False
    """Whether time is a coordinate."""
    in_names: tuple[str, ...] = ()
    """Names of the source channels, checked against the data where given."""
    out_names: tuple[str, ...] = ()
    """Names of the answer's channels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dim", "in_channels", "out_channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.width // self.heads < self.coordinates + 3:
            raise ConfigError(
                f"a head has {self.width // self.heads} channels; {self.coordinates} coordinates "
                f"need at least {self.coordinates + 3}, so widen the model or use fewer heads"
            )
        unknown = [name for name in self.modulators if name not in self.in_names]
        if unknown:
            raise ConfigError(
                f"modulators names {', '.join(unknown)}, which the model does not read; choose "
                f"from in_names: {', '.join(self.in_names) or 'none, so name the channels'}"
            )
        for names, count in (("in_names", self.in_channels), ("out_names", self.out_channels)):
            if getattr(self, names) and len(getattr(self, names)) != count:
                raise ConfigError(
                    f"{names} lists {len(getattr(self, names))} channels; expected {count}"
                )

    @property
    def coordinates(self) -> int:
        """Number of coordinates D: space, and time if transient."""
        return self.dim + int(self.transient)


ARCHITECTURES: dict[str, Architecture] = {
    "tiny": Architecture(width=32, depth=3, heads=2, hidden=64),
    "small": Architecture(),
    "base": Architecture(width=128, depth=6, heads=8, hidden=256, fourier_features=64),
    "large": Architecture(
        width=256, depth=10, heads=16, hidden=512, fourier_features=64, anchors=1024
    ),
}
"""Named sizes; benchmarks/scaling has their parameters, memory and cost."""
