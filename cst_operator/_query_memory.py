"""How many queries fit into a limit of memory."""

from cst_operator.cst_config import CSTConfig
from cst_operator.errors import ConfigError, InputError

__all__ = ["fitting_chunk", "numbers_per_query"]

# glibc keeps freed blocks for requests that fit into them: measured, the peak of a process rises by
# up to three times what is alive.
_ALLOWANCE = 3.5


def numbers_per_query(config: CSTConfig) -> int:
    """Numbers that are alive at once for every query point while it is answered, at most.

    The largest of what the steps keep: interpolation, embedding, attention, pointwise network,
    flow. Attention to points takes nothing that grows with them, because no scores are kept; the
    average over a neighbourhood keeps its kernel, kernels and slices their features.
    """
    dim, width, hidden = config.coordinates, config.width, config.hidden
    features = config.heads * config.sites * bool({"kernel", "slice"} & set(config.attention))
    return dim + max(
        8 * (dim + 1) * (dim + config.in_channels + 1),
        3 * config.fourier_features + 2 * (dim + config.in_channels + hidden),
        7 * width,
        4 * width + 3 * features,
        3 * width + 4 * hidden,
        (3 * config.interpolant_points + 4 * width) * config.aggregate_at_queries,
        10 * width * (config.flow != "none" and config.flow_of == "hidden"),
    )


def fitting_chunk(config: CSTConfig, num_queries: int, itemsize: int, limit: int) -> int:
    """Number of queries that can be answered at a time within a limit.

    Args:
        config: of the model.
        num_queries: queries in all, whose answers are kept.
        itemsize: bytes of a number.
        limit: bytes that the queries may take.

    Raises:
        ConfigError: if the form of the model answers all queries at once.
        InputError: if the limit is too small for the answers and one query.
    """
    if config.form == "joint":
        raise ConfigError(
            "the joint form answers all queries at once, whatever memory that takes; "
            "leave out memory_limit, or use the operator form"
        )
    answers = 4 * config.out_channels * itemsize * num_queries
    each = int(_ALLOWANCE * itemsize * numbers_per_query(config))
    if limit < answers + each:
        raise InputError(
            f"memory_limit is {limit} bytes; the answers to {num_queries} queries need "
            f"{answers + each} at least, so raise it or ask for fewer at a time"
        )
    return (limit - answers) // each
