"""Attention whose queries are known with derivatives."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["attend_with_slopes"]

# Scores at a time: what the cache of a core holds, or what keeps a GPU busy.
_SCORES = {"cpu": 2**18}
_SCORES_ELSEWHERE = 2**26

_Tile = tuple[slice, slice]


def attend_with_slopes(
    query: Tensor, slopes: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Softmax of the scores times the values, and its derivatives in D directions.

    With :math:`P = \operatorname{softmax}(q K^T)`, a direction in which the queries change by
    :math:`\dot q` changes the answer :math:`o = P V` by
    :math:`(P \circ \dot q K^T)\,V - \operatorname{rowsum}(P \circ \dot q K^T)\, o`. The matrices of
    scores are made a tile at a time and again in the backward pass, never kept.

    Args:
        query: [G, M, k].
        slopes: derivatives of the queries, [G, D, M, k].
        key: [G, N, k].
        value: [G, N, c].

    Returns:
        Answers [G, M, c] and their derivatives [G, D, M, c].

    Source: the tiles are those of Dao et al., FlashAttention, 2022.
    """
    found: tuple[Tensor, Tensor] = _AttendWithSlopes.apply(query, slopes, key, value)
    return found


class _AttendWithSlopes(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, slopes: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        out = value.new_empty(*query.shape[:2], value.shape[2])
        change = value.new_empty(*slopes.shape[:3], value.shape[2])
        drift = value.new_empty(*slopes.shape[:3], 1)
        log_sum = value.new_empty(*query.shape[:2], 1)
        for g, m in _tiles(slopes, key):
            keys, values = key[g].transpose(1, 2), value[g]
            score = query[g, m] @ keys
            top = score.amax(-1, keepdim=True)
            weight = score.sub_(top).exp_()
            total = weight.sum(-1, keepdim=True)
            log_sum[g, m] = top + total.log()
            weight.div_(total)
            out[g, m] = weight @ values
            moved = _by_direction(slopes[g, :, m], keys).mul_(weight[:, None])
            drift[g, :, m] = moved.sum(-1, keepdim=True)
            change[g, :, m] = _by_direction(moved, values)
        change.addcmul_(drift, out[:, None], value=-1)
        ctx.save_for_backward(query, slopes, key, value, out, drift, log_sum)
        return out, change

    @staticmethod
    def backward(ctx: Any, by_out: Tensor, by_change: Tensor) -> tuple[Tensor | None, ...]:
        query, slopes, key, value, out, drift, log_sum = ctx.saved_tensors
        if torch.is_grad_enabled():  # this pass is to be differentiated itself
            parts, needed = (query, slopes, key, value), ctx.needs_input_grad
            wanted = [part for part, need in zip(parts, needed, strict=True) if need]
            ways = (by_out, by_change)
            found = iter(torch.autograd.grad(_elementary(*parts), wanted, ways, create_graph=True))
            return tuple(next(found) if need else None for need in needed)
        by_out = by_out - (by_change * drift).sum(1)
        by_drift = -(by_change * out[:, None]).sum(-1, keepdim=True)
        by_query, by_slopes = torch.empty_like(query), torch.empty_like(slopes)
        by_key, by_value = torch.zeros_like(key), torch.zeros_like(value)
        for g, m in _tiles(slopes, key):
            keys, values = key[g].transpose(1, 2), value[g].transpose(1, 2)
            along, by_along = slopes[g, :, m], by_change[g, :, m]
            weight = (query[g, m] @ keys).sub_(log_sum[g, m]).exp_()
            moved = _by_direction(along, keys)
            by_moved = _by_direction(by_along, values).add_(by_drift[g, :, m])
            by_weight = by_out[g, m] @ values
            for d in range(slopes.shape[1]):
                by_weight.addcmul_(by_moved[:, d], moved[:, d])
            by_value[g] += weight.transpose(1, 2) @ by_out[g, m]
            by_value[g] += _over_directions(moved.mul_(weight[:, None]), by_along)
            by_moved.mul_(weight[:, None])
            by_slopes[g, :, m] = _by_direction(by_moved, key[g])
            by_key[g] += _over_directions(by_moved, along)
            by_score = by_weight.mul_(weight)
            by_score.sub_(weight.mul_(by_score.sum(-1, keepdim=True)))
            by_query[g, m] = by_score @ key[g]
            by_key[g] += by_score.transpose(1, 2) @ query[g, m]
        return by_query, by_slopes, by_key, by_value


def _elementary(query: Tensor, slopes: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The same, all scores at once."""
    weight = torch.softmax(query @ key.transpose(1, 2), dim=-1)
    moved = weight[:, None] * _by_direction(slopes, key.transpose(1, 2))
    out = weight @ value
    change = _by_direction(moved, value) - moved.sum(-1, keepdim=True) * out[:, None]
    return out, change


def _tiles(slopes: Tensor, key: Tensor) -> Iterator[_Tile]:
    """Groups and rows whose scores, with those of the directions, are made at a time."""
    groups, directions, rows, _ = slopes.shape
    most = _SCORES.get(slopes.device.type, _SCORES_ELSEWHERE)
    scores = (1 + directions) * max(1, key.shape[1])  # of a row
    height = max(1, min(rows, max(16, most // scores)))
    depth = max(1, most // (height * scores))
    for g in range(0, groups, depth):
        for m in range(0, rows, height):
            yield slice(g, g + depth), slice(m, m + height)


def _by_direction(rows: Tensor, matrix: Tensor) -> Tensor:
    """[G, D, M, a] times [G, a, b], [G, D, M, b]."""
    return (rows.flatten(1, 2) @ matrix).unflatten(1, rows.shape[1:3])


def _over_directions(left: Tensor, right: Tensor) -> Tensor:
    """Sum over directions and rows of [G, D, M, a] times [G, D, M, b], [G, a, b]."""
    return left.flatten(1, 2).transpose(1, 2) @ right.flatten(1, 2)
