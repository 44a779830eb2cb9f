"""Twenty-eight small modules, each one way in which channels are tied together."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from channel_models.source_export import Source
from torch import nn


class Net(nn.Module):
    """A forward function over named layers: `Net(lambda n, x: n.b(n.a(x)), a=..., b=...)`."""

    def __init__(self, function: Callable, **layers) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, -1, h, w)


def heads(t: torch.Tensor) -> torch.Tensor:
    return t.view(2, 5, 4, 4).transpose(1, 2)


def residual(n, x):
    h = n.a(x)
    return n.c(F.relu(h + n.b(h)))


def same_twice(n, x):
    h = F.relu(n.a(x))
    return n.c(torch.cat([h, h], 1))


def misaligned(n, x):
    left, right = torch.cat([n.a(x), n.b(x)], 1).split([10, 14], 1)
    return n.c(left) + n.d(right)


def strided(n, x):
    h = n.a(x)
    return n.c(h[:, ::2]) + n.d(h[:, 1::2])


def glu_chunk(n, x):
    value, gate = n.a(x).chunk(2, -1)
    return n.c(value * torch.sigmoid(gate))


def squeeze_excite(n, x):
    h = F.relu(n.a(x))
    return n.c(h * torch.sigmoid(n.g(h.mean((2, 3)))).view(2, -1, 1, 1))


def packed_attention(n, x):
    q, k, v = (heads(t) for t in n.a(x).chunk(3, -1))
    return n.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 5, 16))


def three(n, x):
    return n.c(F.relu(n.b(F.relu(n.a(x)))))


def cases() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """Name -> (module in inference mode, example input with batch 2)."""
    torch.manual_seed(0)
    conv, linear = nn.Conv2d, nn.Linear
    image, row, sequence = torch.randn(2, 3, 8, 8), torch.randn(2, 16), torch.randn(2, 5, 16)
    table = {
        "residual": (Net(residual, a=conv(3, 16, 3, padding=1), b=conv(16, 16, 3, padding=1), c=conv(16, 4, 1)), image),
        "concat_distinct": (
            Net(
                lambda n, x: n.c(torch.cat([F.relu(n.a(x)), F.relu(n.b(x))], 1)),
                a=conv(3, 16, 1),
                b=conv(3, 8, 1),
                c=conv(24, 4, 1),
            ),
            image,
        ),
        "concat_same_twice": (Net(same_twice, a=conv(3, 16, 1), c=conv(32, 4, 1)), image),
        "concat_then_split_misaligned": (
            Net(misaligned, a=conv(3, 16, 1), b=conv(3, 8, 1), c=conv(10, 4, 1), d=conv(14, 4, 1)),
            image,
        ),
        "flatten_linear": (
            Net(lambda n, x: n.c(F.relu(n.a(x)).flatten(1)), a=conv(3, 16, 1), c=linear(16 * 64, 4)),
            image,
        ),
        "unflatten_linear_conv": (
            Net(lambda n, x: n.c(F.relu(n.a(x)).view(2, 8, 4, 4)), a=linear(16, 128), c=conv(8, 4, 1)),
            row,
        ),
        "depthwise": (Net(three, a=conv(3, 16, 1), b=conv(16, 16, 3, groups=16), c=conv(16, 4, 1)), image),
        "depthwise_multiplier_2": (Net(three, a=conv(3, 16, 1), b=conv(16, 32, 3, groups=16), c=conv(32, 4, 1)), image),
        "grouped_conv": (Net(three, a=conv(3, 16, 1), b=conv(16, 32, 3, groups=4), c=conv(32, 4, 1)), image),
        "channel_shuffle": (
            Net(lambda n, x: n.c(shuffle(F.relu(n.a(x)), 4)), a=conv(3, 16, 1), c=conv(16, 4, 1)),
            image,
        ),
        "pixel_shuffle": (
            Net(lambda n, x: n.c(F.relu(F.pixel_shuffle(n.a(x), 2))), a=conv(3, 32, 1), c=conv(8, 4, 1)),
            image,
        ),
        "strided_slice": (Net(strided, a=conv(3, 16, 1), c=conv(8, 4, 1), d=conv(8, 4, 1)), image),
        "glu_chunk": (Net(glu_chunk, a=linear(16, 32), c=linear(16, 4)), sequence),
        "glu_function": (Net(lambda n, x: n.c(F.glu(n.a(x), -1)), a=linear(16, 32), c=linear(16, 4)), sequence),
        "group_norm": (
            Net(lambda n, x: n.c(F.relu(n.n(n.a(x)))), a=conv(3, 16, 1), n=nn.GroupNorm(4, 16), c=conv(16, 4, 1)),
            image,
        ),
        "conv_transpose": (Net(three, a=conv(3, 16, 1), b=nn.ConvTranspose2d(16, 8, 2, 2), c=conv(8, 4, 1)), image),
        "conv_transpose_grouped": (
            Net(three, a=conv(3, 16, 1), b=nn.ConvTranspose2d(16, 8, 2, 2, groups=4), c=conv(8, 4, 1)),
            image,
        ),
        "einsum_parameter": (
            Net(
                lambda n, x: n.c(torch.einsum("btc,oc->bto", n.a(x), n.w)),
                a=linear(16, 24),
                w=nn.Parameter(torch.randn(8, 24)),
                c=linear(8, 4),
            ),
            sequence,
        ),
        "matmul_parameter": (
            Net(
                lambda n, x: n.c(F.relu(n.a(x)) @ n.w),
                a=linear(16, 24),
                w=nn.Parameter(torch.randn(24, 8)),
                c=linear(8, 4),
            ),
            sequence,
        ),
        "tied_embedding": (
            Net(lambda n, x: F.linear(n.a(n.e(x)), n.e.weight), e=nn.Embedding(20, 16), a=linear(16, 16)),
            torch.randint(0, 20, (2, 5)),
        ),
        "channels_last_linear": (
            Net(lambda n, x: n.c(n.a(x).permute(0, 2, 3, 1)), a=conv(3, 16, 1), c=linear(16, 4)),
            image,
        ),
        "squeeze_excite": (Net(squeeze_excite, a=conv(3, 16, 1), g=linear(16, 16), c=conv(16, 4, 1)), image),
        "lstm": (Net(lambda n, x: n.c(n.r(x)[0]), r=nn.LSTM(16, 12, batch_first=True), c=linear(12, 4)), sequence),
        "gru_input": (
            Net(
                lambda n, x: n.c(n.r(n.a(x))[0]), a=linear(16, 24), r=nn.GRU(24, 12, batch_first=True), c=linear(12, 4)
            ),
            sequence,
        ),
        "stack_mean": (
            Net(
                lambda n, x: n.c(torch.stack([n.a(x), n.b(x)], 1).mean(1)),
                a=conv(3, 16, 1),
                b=conv(3, 16, 1),
                c=conv(16, 4, 1),
            ),
            image,
        ),
        "packed_attention": (Net(packed_attention, a=linear(16, 48), o=linear(16, 4)), sequence),
        "weight_norm": (
            Net(
                lambda n, x: n.c(F.relu(n.a(x))),
                a=nn.utils.parametrizations.weight_norm(conv(3, 16, 1)),
                c=conv(16, 4, 1),
            ),
            image,
        ),
        "dynamic_matmul": (
            Net(lambda n, x: n.c(n.a(x).transpose(1, 2) @ n.b(x)), a=linear(16, 12), b=linear(16, 10), c=linear(10, 4)),
            sequence,
        ),
    }
    return {name: (module.eval(), example) for name, (module, example) in table.items()}


ABOUT = {
    "residual": "two convolutions meet in an addition",
    "concat_distinct": "concatenation of two widths",
    "concat_same_twice": "a value concatenated with itself",
    "concat_then_split_misaligned": "split not where the concatenation was",
    "flatten_linear": "a channel becomes a block of features",
    "unflatten_linear_conv": "a block of features becomes a channel",
    "depthwise": "depthwise convolution",
    "depthwise_multiplier_2": "depthwise convolution, two outputs per channel",
    "grouped_conv": "grouped convolution",
    "channel_shuffle": "channels permuted by Reshape, Transpose, Reshape",
    "pixel_shuffle": "channels become space",
    "strided_slice": "every second channel",
    "glu_chunk": "gated linear unit through Split",
    "glu_function": "gated linear unit as exported from F.glu",
    "group_norm": "group normalization",
    "conv_transpose": "transposed convolution",
    "conv_transpose_grouped": "grouped transposed convolution",
    "einsum_parameter": "Einsum with a weight",
    "matmul_parameter": "MatMul with a bare parameter",
    "tied_embedding": "embedding shared with the output projection",
    "channels_last_linear": "convolution, Transpose, linear",
    "squeeze_excite": "channels scaled by a gate of their means",
    "lstm": "LSTM",
    "gru_input": "linear before a GRU",
    "stack_mean": "mean over a stack of two branches",
    "packed_attention": "attention with packed queries, keys, values",
    "weight_norm": "computed weight",
    "dynamic_matmul": "product of two activations",
}


def sources() -> dict[str, Source]:
    """Sources of `micro_NAME`."""
    return {f"micro_{name}": Source(make=functools.partial(_case, name), about=about) for name, about in ABOUT.items()}


def _case(name: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    module, example = cases()[name]
    return module, {"x": example}
