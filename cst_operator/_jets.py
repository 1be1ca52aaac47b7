"""Values with their derivatives in several directions, which torch's functions pass on."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from cst_operator._jet_attention import attend_with_slopes

__all__ = ["Jet"]

_CONSTANTS = (
    *("detach", "dim", "element_size", "is_floating_point", "new_ones", "new_zeros", "numel"),
    *("ge", "gt", "le", "lt", "ones_like", "size", "zeros_like"),
)
_LINEAR = (
    *("__getitem__", "__neg__", "chunk", "contiguous", "double", "expand", "expand_as", "flatten"),
    *("float", "gather", "mean", "movedim", "neg", "permute", "repeat_interleave"),
    *("reshape", "split", "squeeze", "sum", "to", "transpose", "unbind", "unflatten", "unsqueeze"),
    "view",
)


class Jet:
    """A value and its derivatives in D directions.

    What takes a tensor takes a jet: a function of torch that meets one applies its rule of
    differentiation. Values are computed once for all directions, by fused kernels where there are
    any, and what does not depend on the coordinates is left alone. A function without a rule here
    is differentiated by :func:`torch.func.jvp`, once for every direction.

    Args:
        value: any tensor.
        slopes: its derivatives, D tensors of the same shape.
    """

    __slots__ = ("slopes", "value")

    def __init__(self, value: Tensor, slopes: Sequence[Tensor]) -> None:
        self.value = value
        self.slopes = tuple(_full(slope, value) for slope in slopes)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Torch's functions and methods of tensors end here."""
        rule = _RULES.get(function.__name__, _general)
        return rule(function, *args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        """Methods of tensors, and what they say of themselves."""
        if callable(method := getattr(Tensor, name)):
            return partial(self._call, method)
        if name in ("T", "mT"):
            return _linear(Tensor.transpose, self, -1, -2)
        return getattr(self.value, name)

    def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        return self.__torch_function__(method, (), (self, *args), kwargs)

    def __getitem__(self, index: Any) -> "Jet":
        return _linear(Tensor.__getitem__, self, index)

    def __neg__(self) -> "Jet":
        return _linear(torch.neg, self)

    def __add__(self, other: Any) -> "Jet":
        return _add(torch.add, self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Jet":
        return _subtract(torch.sub, self, other)

    def __rsub__(self, other: Any) -> "Jet":
        return _subtract(torch.sub, other, self)

    def __mul__(self, other: Any) -> "Jet":
        return _product(torch.mul, self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Jet":
        return _divide(torch.div, self, other)

    def __rtruediv__(self, other: Any) -> "Jet":
        return _divide(torch.div, other, self)

    def __matmul__(self, other: Any) -> "Jet":
        return _product(torch.matmul, self, other)

    def __rmatmul__(self, other: Any) -> "Jet":
        return _product(torch.matmul, other, self)

    def __pow__(self, exponent: Any) -> Any:
        return self._call(Tensor.pow, exponent)

    def __lt__(self, other: Any) -> Any:
        return _constant(torch.lt, self, other)

    def __le__(self, other: Any) -> Any:
        return _constant(torch.le, self, other)

    def __gt__(self, other: Any) -> Any:
        return _constant(torch.gt, self, other)

    def __ge__(self, other: Any) -> Any:
        return _constant(torch.ge, self, other)


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Jet) else x


def _full(slope: Tensor, value: Tensor) -> Tensor:
    return slope if slope.shape == value.shape else slope.expand(value.shape)


def _constant(function: Any, *args: Any, **kwargs: Any) -> Any:
    """What has no derivative."""
    return function(*map(_value, args), **kwargs)


def _linear(function: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """What is linear in its first argument, and may have several results."""
    args = tuple(map(_value, args))
    value = function(_value(x), *args, **kwargs)
    if not isinstance(x, Jet):  # another argument is a jet, e.g. of ``x.to(jet)``
        return value
    slopes = [function(slope, *args, **kwargs) for slope in x.slopes]
    if isinstance(value, Tensor):
        return Jet(value, slopes)
    return tuple(Jet(part, moved) for part, *moved in zip(value, *slopes, strict=True))


def _affine(function: Any, x: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    """``linear``, whose bias does not change."""
    return Jet(function(x.value, weight, bias), [function(slope, weight) for slope in x.slopes])


def _pad(function: Any, x: Jet, size: Any, mode: str = "constant", value: Any = None) -> Jet:
    """``pad``, whose margin does not change."""
    slopes = [function(slope, size, mode) for slope in x.slopes]
    return Jet(function(x.value, size, mode, value), slopes)


def _add(function: Any, a: Any, b: Any, *, alpha: float = 1.0) -> Jet:
    b = b if alpha == 1 else alpha * b
    value = _value(a) + _value(b)
    if not isinstance(a, Jet):
        a, b = b, a
    if not isinstance(b, Jet):
        return Jet(value, a.slopes)
    return Jet(value, [x + y for x, y in zip(a.slopes, b.slopes, strict=True)])


def _subtract(function: Any, a: Any, b: Any, *, alpha: float = 1.0) -> Jet:
    return _add(function, a, -b, alpha=alpha)


def _product(function: Any, *args: Any) -> Jet:
    """What is linear in each of its arguments; ``einsum`` has its equation first."""
    values = list(map(_value, args))
    parts = []
    for i, x in enumerate(args):
        if isinstance(x, Jet):
            parts.append([function(*values[:i], slope, *values[i + 1 :]) for slope in x.slopes])
    return Jet(function(*values), [sum(alike[1:], alike[0]) for alike in zip(*parts, strict=True)])


def _divide(function: Any, a: Any, b: Any) -> Jet:
    below = _value(b)
    value = _value(a) / below
    if not isinstance(b, Jet):
        return Jet(value, [slope / below for slope in a.slopes])
    above = a.slopes if isinstance(a, Jet) else (0,) * len(b.slopes)
    pairs = zip(above, b.slopes, strict=True)
    return Jet(value, [(up - value * down) / below for up, down in pairs])


def _add_product(function: Any, x: Any, a: Any, b: Any, *, value: float = 1.0) -> Any:
    return x + a * b if value == 1 else x + value * a * b


def _add_matmul(
    function: Any, x: Any, a: Any, b: Any, *, beta: float = 1.0, alpha: float = 1.0
) -> Any:
    """``baddbmm``."""
    return (x if beta == 1 else beta * x) + (a if alpha == 1 else alpha * a) @ b


def _join(function: Any, parts: Sequence[Any], dim: int = 0) -> Jet:
    """``cat`` and ``stack``; tensors among the jets do not change."""
    value = function([_value(part) for part in parts], dim)
    directions = next(len(part.slopes) for part in parts if isinstance(part, Jet))
    still = [part if isinstance(part, Jet) else torch.zeros_like(part) for part in parts]
    return Jet(
        value,
        [
            function([part.slopes[d] if isinstance(part, Jet) else part for part in still], dim)
            for d in range(directions)
        ],
    )


def _pointwise(slope: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Jet]:
    """The rule of a function of one number, from its slope as a function of argument and value."""

    def rule(function: Any, x: Jet) -> Jet:
        value = function(x.value)
        factor = slope(x.value, value)
        return Jet(value, [factor * way for way in x.slopes])

    return rule


def _silu(function: Any, x: Jet, inplace: bool = False) -> Jet:
    """From elementary operations: the slope of torch's silu has no forward mode of its own."""
    gate = x.value.sigmoid()
    value = x.value * gate
    factor = gate + value * (1 - gate)
    return Jet(value, [factor * slope for slope in x.slopes])


def _gelu(function: Any, x: Jet, approximate: str = "none") -> Jet:
    if approximate != "none":
        return cast(Jet, _general(function, x, approximate=approximate))
    share = (1 + torch.erf(x.value * math.sqrt(0.5))) / 2
    density = torch.exp(-x.value.square() / 2) / math.sqrt(2 * math.pi)
    factor = share + x.value * density
    return Jet(x.value * share, [factor * slope for slope in x.slopes])


def _softmax(function: Any, x: Jet, dim: int, **options: Any) -> Jet:
    value = function(x.value, dim, **options)
    parts = [value * slope for slope in x.slopes]
    return Jet(value, [part - value * part.sum(dim, keepdim=True) for part in parts])


def _clamp_max(function: Any, x: Jet, limit: float) -> Jet:
    below = x.value <= limit
    return Jet(function(x.value, limit), [below * slope for slope in x.slopes])


def _normalize(
    function: Any,
    x: Jet,
    shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Jet:
    """``layer_norm``; torch's own rule is wrong when it is differentiated itself."""
    axes = tuple(range(-len(shape), 0))
    centred = x.value - x.value.mean(axes, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(axes, keepdim=True) + eps)
    normal = centred * scale
    slopes = []
    for slope in x.slopes:
        change = slope - slope.mean(axes, keepdim=True)
        slopes.append((change - normal * (normal * change).mean(axes, keepdim=True)) * scale)
    out = Jet(normal, slopes)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def _attend(function: Any, query: Jet, key: Tensor, value: Tensor, *, scale: float) -> Jet:
    """Attention of queries [B, h, M, k] to keys and values that do not change."""
    asked = (query.value * scale).flatten(0, 1) if scale != 1 else query.value.flatten(0, 1)
    slopes = torch.stack(query.slopes, 2).flatten(0, 1)
    slopes = slopes * scale if scale != 1 else slopes
    out, change = attend_with_slopes(asked, slopes, key.flatten(0, 1), value.flatten(0, 1))
    heads = query.shape[:2]
    return Jet(out.unflatten(0, heads), change.unflatten(0, heads).unbind(2))


def _general(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Any other function, by torch's own forward mode."""
    leaves, form = tree_flatten((args, kwargs))
    where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Jet)]
    jets = [leaves[i] for i in where]

    def call(*values: Tensor) -> Any:
        filled = list(leaves)
        for i, value in zip(where, values, strict=True):
            filled[i] = value
        args, kwargs = tree_unflatten(filled, form)
        return function(*args, **kwargs)

    values = tuple(jet.value.contiguous() for jet in jets)  # dual numbers refuse expanded tensors
    found = []
    for slopes in zip(*(jet.slopes for jet in jets), strict=True):
        way = tuple(
            slope.contiguous() for slope in slopes
        )  # not expanded, which dual numbers refuse
        found.append(tree_flatten(torch.func.jvp(call, values, way)[1])[0])
    value, form_out = tree_flatten(call(*values))
    return tree_unflatten(
        [Jet(part, moved) for part, *moved in zip(value, *found, strict=True)], form_out
    )


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_CONSTANTS, _constant),
    **dict.fromkeys(_LINEAR, _linear),
    **dict.fromkeys(("add", "__add__", "__radd__"), _add),
    **dict.fromkeys(("sub", "__sub__"), _subtract),
    **dict.fromkeys(
        ("mul", "__mul__", "__rmul__", "matmul", "__matmul__", "__rmatmul__", "einsum"), _product
    ),
    **dict.fromkeys(("div", "__truediv__"), _divide),
    **dict.fromkeys(("cat", "stack"), _join),
    "addcmul": _add_product,
    "baddbmm": _add_matmul,
    "clamp_max": _clamp_max,
    "gelu": _gelu,
    "softmax": _softmax,
    "pad": _pad,
    "linear": _affine,
    "layer_norm": _normalize,
    "scaled_dot_product_attention": _attend,
    "silu": _silu,
    "sin": _pointwise(lambda x, y: x.cos()),
    "cos": _pointwise(lambda x, y: -x.sin()),
    "exp": _pointwise(lambda x, y: y),
    "exp2": _pointwise(lambda x, y: math.log(2) * y),
    "reciprocal": _pointwise(lambda x, y: -y.square()),
    "square": _pointwise(lambda x, y: 2 * x),
    "sigmoid": _pointwise(lambda x, y: y * (1 - y)),
}
