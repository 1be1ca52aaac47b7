"""A page that says what a trained model is, made from its checkpoint alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cst_operator.checkpoint import Checkpoint

__all__ = ["model_card"]

_HEADER = """---
library_name: cst_operator
tags:
- neural-operator
- partial-differential-equations
- {name}
---
"""


def model_card(checkpoint: Checkpoint) -> str:
    """A README in Markdown: what the model reads and answers, how it was trained, how to use it.

    Args:
        checkpoint: of a run, to have its training described, or of a model alone.
    """
    return "\n".join(_lines(checkpoint)) + "\n"


def _lines(checkpoint: Checkpoint) -> Iterator[str]:
    config: Any = checkpoint.config
    weights = checkpoint.weights
    yield _HEADER.format(name=checkpoint.name)
    yield f"# A `{checkpoint.name}` model\n"
    reads, answers = (getattr(config, name, ()) for name in ("in_names", "out_names"))
    yield from _table(
        {
            "reads": ", ".join(reads) or f"{getattr(config, 'in_channels', '?')} channels",
            "answers": ", ".join(answers) or f"{getattr(config, 'out_channels', '?')} channels",
            "space dimensions": getattr(config, "dim", "?"),
            "time is a coordinate": getattr(config, "transient", False),
            "numbers in it": f"{sum(tensor.numel() for tensor in weights.values()):,}",
        }
    )
    if {"normalization.pos_center", "normalization.pos_scale"} <= set(weights):
        center = weights["normalization.pos_center"]
        scale = weights["normalization.pos_scale"]
        corners = (
            "(" + ", ".join(f"{x:.4g}" for x in corner.tolist()) + ")"
            for corner in (center - scale, center + scale)
        )
        yield "\n## Where it holds\n"
        yield (
            f"The training points lie in the box from {next(corners)} to {next(corners)}, in the "
            "units of the data; outside of it, answers are extrapolated. Nothing is known of "
            "other equations, boundary conditions or parameters than those of the training data."
        )
    yield "\n## Use\n"
    yield "```python\nimport cst_operator as cst\n"
    yield 'model = cst.load("FOLDER")  # this folder\nu = model(source, target)\n```\n'
    yield (
        "`source` is a `cst.PointField` with the channels above and quadrature weights, `target` "
        "one with the query points; `u` has a row for every query point."
    )
    if checkpoint.training is not None:
        yield from _training(checkpoint.training.values)
    yield "\n## Configuration\n"
    yield from _table({name: getattr(config, name) for name in config.__dataclass_fields__})
    yield "\n## Made with\n"
    yield from _table(checkpoint.versions)


def _training(values: Mapping[str, Any]) -> Iterator[str]:
    yield "\n## Training\n"
    yield f"{values['step']} steps."
    scores = [record for record in values["history"] if "validation" in record]
    if scores:
        record = _of_the_weights(scores, values)
        errors = ", ".join(f"{k} {v:.4g}" for k, v in record["validation"].items())
        yield f"\nMean error on the validation examples after step {record['step']}: {errors}.\n"
    yield from _table(values["identity"])


def _of_the_weights(scores: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> Any:
    """The last evaluation; the best, of which the weights are, where early stopping has ended."""
    errors = [record["validation"]["relative_l2"] for record in scores]
    best = errors.index(min(errors))
    patience = values["identity"]["patience"]
    ended = values["step"] == values["identity"]["steps"] or len(errors) - 1 - best >= patience
    return scores[best] if patience and ended else scores[-1]


def _table(rows: Mapping[str, Any]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for key, value in rows.items():
        text = str(value).replace("|", "\\|").replace("\n", " ")
        yield f"| {key} | {text} |"
