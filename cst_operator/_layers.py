"""The layers of a model, made from its configuration."""

from collections.abc import Iterator
from functools import partial

from cst_operator.cst_config import CSTConfig
from cst_operator.nn import (
    Attention,
    Block,
    FlowingAttention,
    HiddenFlow,
    PointLaplacian,
    QuadratureAttention,
    make_attention,
    make_flow,
)

__all__ = ["make_layers"]


def make_layers(config: CSTConfig) -> Iterator[Block | HiddenFlow]:
    """Blocks, first to last, each followed by a flow of the tokens if there is one."""
    for layer in range(config.depth):
        attention = make_attention(
            config.attention[layer % len(config.attention)],
            config.width,
            config.heads,
            dim=config.coordinates,
            count=config.sites,
            max_turns=config.max_turns,
            radii=config.radii,
        )
        # Before the anchors are chosen, a flow would cost the square of the number of points.
        if config.flow_of == "attention" and not (config.anchors and layer == 0):
            attention = _flowing(config, attention)
        yield Block(attention, width=config.width, hidden=config.hidden)
        if config.flow != "none" and config.flow_of == "hidden":
            flow = make_flow(config.flow, steps=config.flow_steps, groups=1, dim=config.coordinates)
            yield HiddenFlow(flow, config.flow_radius)


def _flowing(config: CSTConfig, attention: Attention) -> Attention:
    if config.flow == "none" or not isinstance(attention, QuadratureAttention):
        return attention
    flow = make_flow(
        config.flow, steps=config.flow_steps, groups=config.heads, dim=config.coordinates
    )
    return FlowingAttention(attention, flow, partial(PointLaplacian, radius=config.flow_radius))
