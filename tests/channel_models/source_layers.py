"""Recurrent, attention, audio and mixing networks in small, from plain PyTorch layers."""

from __future__ import annotations

import dataclasses
import functools

import torch
import torch.nn.functional as F
from channel_models.source_export import Axes, Example, Source
from torch import nn

TOKENS: Axes = {"tokens": {0: "batch", 1: "sequence"}}
FIXED: Axes = {"tokens": {0: "batch"}}
"""`torch.export` bakes the length into stacked recurrent layers."""
ROWS: Axes = {"rows": {0: "batch", 1: "sequence"}}
AUDIO: Axes = {"audio": {0: "batch", 2: "frames"}}


def tokens() -> Example:
    return {"tokens": torch.randint(0, 20, (2, 7))}


def rows(width: int = 18) -> Example:
    return {"rows": torch.randn(2, 7, width)}


class Tagger(nn.Module):
    """Embedding, recurrent layers, a tag per token."""

    def __init__(self, kind: type[nn.RNNBase], *, bidirectional: bool, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(57, 22)
        self.net = kind(22, 13, layers, batch_first=True, bidirectional=bidirectional)
        self.first, self.last = nn.Linear(13 * (1 + bidirectional), 19), nn.Linear(19, 5)

    def forward(self, tokens):
        return self.last(F.relu(self.first(self.net(self.embed(tokens))[0])))


class LastState(nn.Module):
    """What an LSTM holds at the end, both directions side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.net = nn.Embedding(57, 22), nn.LSTM(22, 13, batch_first=True, bidirectional=True)
        self.last = nn.Linear(26, 5)

    def forward(self, tokens):
        _, (h, _) = self.net(self.embed(tokens))
        return self.last(torch.cat([h[0], h[1]], 1))


def lstm_tagger() -> tuple[nn.Module, Example]:
    return Tagger(nn.LSTM, bidirectional=True), tokens()


def lstm_tagger_forward() -> tuple[nn.Module, Example]:
    return Tagger(nn.LSTM, bidirectional=False), tokens()


def gru_tagger() -> tuple[nn.Module, Example]:
    return Tagger(nn.GRU, bidirectional=True), tokens()


def gru_tagger_forward() -> tuple[nn.Module, Example]:
    return Tagger(nn.GRU, bidirectional=False), tokens()


def rnn_tagger() -> tuple[nn.Module, Example]:
    return Tagger(nn.RNN, bidirectional=False, layers=1), tokens()


def lstm_state() -> tuple[nn.Module, Example]:
    return LastState(), tokens()


class Separable(nn.Module):
    """Keyword spotting: 1-D convolutions, separable blocks with residual sums, mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(10, 19, 5, 2, 2), nn.BatchNorm1d(19), nn.ReLU())
        self.blocks = nn.ModuleList(self._block(19, 19, d) for d in (1, 2))
        self.widen, self.last = self._block(19, 27, 1), nn.Linear(27, 5)

    def _block(self, i: int, o: int, dilation: int) -> nn.Sequential:
        depthwise = nn.Conv1d(i, i, 3, padding=dilation, dilation=dilation, groups=i, bias=False)
        return nn.Sequential(depthwise, nn.Conv1d(i, o, 1, bias=False), nn.BatchNorm1d(o), nn.ReLU())

    def forward(self, audio):
        h = self.first(audio)
        for block in self.blocks:
            h = h + block(h)
        return self.last(self.widen(h).mean(-1))


class WaveNet(nn.Module):
    """Gated dilated causal convolutions: tanh of one half times sigmoid of the other, skip sums."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(10, 14, 1)
        self.gates = nn.ModuleList(nn.Conv1d(14, 34, 2, dilation=d) for d in (1, 2, 4))
        self.residuals, self.skips = (nn.ModuleList(nn.Conv1d(17, w, 1) for _ in range(3)) for w in (14, 21))
        self.last = nn.Conv1d(21, 6, 1)

    def forward(self, audio):
        h, total = self.first(audio), 0.0
        for gate, residual, skip in zip(self.gates, self.residuals, self.skips, strict=True):
            value, control = gate(F.pad(h, (gate.dilation[0], 0))).chunk(2, 1)
            z = torch.tanh(value) * torch.sigmoid(control)
            h, total = h + residual(z), total + skip(z)
        return self.last(F.relu(total))


def separable_audio() -> tuple[nn.Module, Example]:
    return Separable(), {"audio": torch.randn(2, 10, 18)}


def wavenet() -> tuple[nn.Module, Example]:
    return WaveNet(), {"audio": torch.randn(2, 10, 18)}


def normed(*, spectral: bool = True) -> tuple[nn.Module, Example]:
    norm = nn.utils.parametrizations.weight_norm

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (
                norm(nn.Conv1d(10, 19, 3, padding=1)),
                norm(nn.Conv1d(19, 21, 3, padding=1, groups=1), dim=2),
            )
            self.c, self.d = nn.Conv1d(21, 13, 1), norm(nn.Linear(13, 5))
            if spectral:
                nn.utils.parametrizations.spectral_norm(self.c)

        def forward(self, audio):
            h = F.elu(self.b(F.relu(self.a(audio))))
            return self.d(F.leaky_relu(self.c(h)).transpose(1, 2))

    return Net(), {"audio": torch.randn(2, 10, 18)}


class Mixer(nn.Module):
    """MLP-Mixer: tokens are mixed along the axis of patches, channels along theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, width, patches = nn.Conv2d(3, 21, 4, 4), 21, 24
        mlp = lambda w, mid: nn.Sequential(nn.Linear(w, mid), nn.GELU(), nn.Linear(mid, w))  # noqa: E731
        self.tokens, self.channels = (
            nn.ModuleList(mlp(w, m) for _ in range(2)) for w, m in ((patches, 17), (width, 37))
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.last = nn.Linear(width, 5)

    def forward(self, image):
        h = self.patch(image).flatten(2).transpose(1, 2)
        for i, (token, channel) in enumerate(zip(self.tokens, self.channels, strict=True)):
            h = h + token(self.norms[2 * i](h).transpose(1, 2)).transpose(1, 2)
            h = h + channel(self.norms[2 * i + 1](h))
        return self.last(self.norms[4](h).mean(1))


def mixer() -> tuple[nn.Module, Example]:
    return Mixer(), {"image": torch.randn(2, 3, 16, 24)}


class Experts(nn.Module):
    """A soft mixture of gated perceptrons: SwiGLU, packed GLU, and experts stacked in one batched weight."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = (
            nn.Linear(18, 29, bias=False),
            nn.Linear(18, 29, bias=False),
            nn.Linear(29, 18, bias=False),
        )
        self.packed, self.unpack, self.router = nn.Linear(18, 46), nn.Linear(23, 18), nn.Linear(18, 3)
        self.w1, self.w2 = nn.Parameter(torch.randn(3, 18, 25)), nn.Parameter(torch.randn(3, 25, 18))
        self.norm, self.last = nn.RMSNorm(18), nn.Linear(18, 5)

    def forward(self, rows):
        h = rows + self.down(F.silu(self.gate(rows)) * self.up(rows))
        h = h + self.unpack(F.glu(self.packed(h), -1))
        each = F.gelu(torch.einsum("bsd,edf->besf", self.norm(h), self.w1))
        mixed = torch.einsum("besf,efd,bse->bsd", each, self.w2, torch.softmax(self.router(h), -1))
        return self.last(h + mixed)


def experts() -> tuple[nn.Module, Example]:
    return Experts(), rows()


class Encoder(nn.Module):
    """torch's own encoder layers, with packed input projections."""

    def __init__(self, *, norm_first: bool) -> None:
        super().__init__()
        make = lambda act: nn.TransformerEncoderLayer(18, 3, 31, 0.0, act, batch_first=True, norm_first=norm_first)  # noqa: E731
        self.first, self.second, self.last = make("relu"), make("gelu"), nn.Linear(18, 5)

    def forward(self, rows):
        return self.last(self.second(self.first(rows)))


def encoder_layers() -> tuple[nn.Module, Example]:
    return Encoder(norm_first=False), rows()


def encoder_layers_prenorm() -> tuple[nn.Module, Example]:
    return Encoder(norm_first=True), rows()


class Decoder(nn.Module):
    """torch's own decoder layer: self-attention, cross-attention with another width of keys, perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(18, 3, 31, 0.0, batch_first=True)
        self.cross, self.last = nn.MultiheadAttention(18, 2, kdim=14, vdim=14, batch_first=True), nn.Linear(18, 5)
        self.memory = nn.Linear(14, 18)

    def forward(self, rows, memory):
        h = self.layer(rows, self.memory(memory))
        mixed, weights = self.cross(h, memory, memory)
        return self.last(h + mixed), weights


def decoder_layer() -> tuple[nn.Module, Example]:
    return Decoder(), rows() | {"memory": torch.randn(2, 6, 14)}


class Conformer(nn.Module):
    """Half-step perceptrons around attention and a gated depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        w = 18
        mlp = lambda: nn.Sequential(nn.LayerNorm(w), nn.Linear(w, 31), nn.SiLU(), nn.Linear(31, w))  # noqa: E731
        self.first, self.second, self.attend = mlp(), mlp(), nn.MultiheadAttention(w, 3, batch_first=True)
        self.n1, self.n2, self.n3 = nn.LayerNorm(w), nn.LayerNorm(w), nn.LayerNorm(w)
        self.up, self.down, self.last = nn.Conv1d(w, 42, 1), nn.Conv1d(21, w, 1), nn.Linear(w, 5)
        self.depthwise, self.norm = nn.Conv1d(21, 21, 3, padding=1, groups=21), nn.BatchNorm1d(21)

    def forward(self, rows):
        h = rows + 0.5 * self.first(rows)
        y = self.n1(h)
        h = h + self.attend(y, y, y, need_weights=False)[0]
        y = F.glu(self.up(self.n2(h).transpose(1, 2)), 1)
        h = h + self.down(F.silu(self.norm(self.depthwise(y)))).transpose(1, 2)
        return self.last(self.n3(h + 0.5 * self.second(h)))


def conformer() -> tuple[nn.Module, Example]:
    return Conformer(), rows()


class Retriever(nn.Module):
    """Sentence embedding: masked mean of tokens, made to length one. The output itself is what one may want narrower."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(57, 18), nn.TransformerEncoderLayer(18, 3, 31, 0.0, batch_first=True)
        self.last = nn.Linear(18, 23)

    def forward(self, tokens, mask):
        h = self.layer(self.embed(tokens), src_key_padding_mask=mask == 0)
        keep = mask[..., None].to(h.dtype)
        return F.normalize(self.last((h * keep).sum(1) / keep.sum(1)), dim=1)


def sentence_embedding() -> tuple[nn.Module, Example]:
    return Retriever(), tokens() | {"mask": torch.ones(2, 7, dtype=torch.int64)}


class TextCnn(nn.Module):
    """Convolutions of three lengths over embeddings, maxima over time, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(57, 22)
        self.convolutions = nn.ModuleList(nn.Conv1d(22, w, k, padding=k // 2) for w, k in ((9, 1), (13, 3), (17, 5)))
        self.last = nn.Linear(39, 5)

    def forward(self, tokens):
        h = self.embed(tokens).transpose(1, 2)
        return self.last(torch.cat([F.relu(c(h)).amax(-1) for c in self.convolutions], 1))


def text_cnn() -> tuple[nn.Module, Example]:
    return TextCnn(), tokens()


class Recommender(nn.Module):
    """DLRM: embeddings and a perceptron meet in all pairwise products."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, 19) for n in (20, 23, 26))
        self.bottom = nn.Sequential(nn.Linear(11, 27), nn.ReLU(), nn.Linear(27, 19), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(16 + 19, 31), nn.ReLU(), nn.Linear(31, 1))

    def forward(self, dense, items):
        x = self.bottom(dense)
        t = torch.stack([x, *(table(items[:, i]) for i, table in enumerate(self.tables))], 1)
        return self.top(torch.cat([x, (t @ t.transpose(1, 2)).flatten(1) / 19], 1))


def recommender() -> tuple[nn.Module, Example]:
    return Recommender(), {"dense": torch.randn(2, 11), "items": torch.randint(0, 20, (2, 3))}


class Point(nn.Module):
    """PointNet: a shared perceptron over points, the maximum joined back to each, a learned 3x3 transform."""

    def __init__(self) -> None:
        super().__init__()
        self.align = nn.Sequential(nn.Linear(3, 17), nn.ReLU(), nn.Linear(17, 9))
        self.local, self.wide = nn.Linear(3, 14), nn.Linear(14, 26)
        self.head = nn.Sequential(nn.Linear(14 + 26, 21), nn.LayerNorm(21), nn.ReLU(), nn.Linear(21, 5))

    def forward(self, rows):
        points = rows @ (self.align(rows).amax(1).view(-1, 3, 3))
        local = F.relu(self.local(points))
        whole = F.relu(self.wide(local)).amax(1, keepdim=True).expand(-1, rows.shape[1], -1)
        return self.head(torch.cat([local, whole], -1))


def pointnet() -> tuple[nn.Module, Example]:
    return Point(), rows(3)


class Linear(nn.Module):
    """Attention without Softmax: keys meet values first, so that the inner product runs over time."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(18, 21), nn.Linear(18, 21), nn.Linear(18, 24)
        self.out, self.norm, self.last = nn.Linear(24, 18), nn.LayerNorm(18), nn.Linear(18, 5)

    def forward(self, rows):
        split = lambda x, h=3: x.unflatten(-1, (h, -1)).transpose(1, 2)  # noqa: E731
        q, k, v = F.elu(split(self.q(rows))) + 1, F.elu(split(self.k(rows))) + 1, split(self.v(rows))
        mixed = q @ (k.transpose(-1, -2) @ v) / (q * k.sum(2, keepdim=True)).sum(-1, keepdim=True)
        return self.last(self.norm(rows + self.out(mixed.transpose(1, 2).flatten(2))))


def linear_attention() -> tuple[nn.Module, Example]:
    return Linear(), rows()


class Packed(nn.Module):
    """Queries, keys and values from one projection, split by a view of five axes, a permutation and an index."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(18), nn.Linear(18, 3 * 3 * 7), nn.Linear(21, 18)
        self.scale, self.last = nn.Parameter(torch.ones(18)), nn.Linear(18, 5)

    def forward(self, rows):
        b, s, _ = rows.shape
        q, k, v = self.qkv(self.norm(rows)).reshape(b, s, 3, 3, 7).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = torch.softmax((q * 7**-0.5) @ k.transpose(-2, -1), -1) @ v
        return self.last(rows + self.scale * self.out(mixed.transpose(1, 2).reshape(b, s, 21)))


def packed_view() -> tuple[nn.Module, Example]:
    return Packed(), rows()


class Reused(nn.Module):
    """A layer called twice, a weight used as it is and transposed, and a residual stream of two unequal halves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.tied = nn.Linear(18, 22), nn.Linear(22, 22), nn.Linear(22, 13, bias=False)
        self.left, self.right, self.last = nn.Linear(22, 9), nn.Linear(22, 13), nn.Linear(22, 5)

    def forward(self, rows):
        h = F.relu(self.first(rows))
        h = h + F.relu(self.again(h + F.relu(self.again(h))))
        h = h + F.relu(self.tied(h)) @ self.tied.weight
        return self.last(h + torch.cat([self.left(h), self.right(h)], -1))


def reused() -> tuple[nn.Module, Example]:
    return Reused(), rows()


class Spread(nn.Module):
    """Rows cut by a learned width in ways that pin: Softmax, cumulative sum, TopK and ArgMax over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(18, w) for w in (11, 13, 15, 17))
        self.free, self.last = nn.Linear(18, 23), nn.Linear(11 + 13 + 4 + 23, 5)

    def forward(self, rows):
        softmax, sums = torch.softmax(self.a(rows), -1), torch.cumsum(self.b(rows), -1)
        top, best = self.c(rows).topk(4, -1).values, self.d(rows).argmax(-1)
        return self.last(torch.cat([softmax, sums, top, F.relu(self.free(rows))], -1)), best


def pinned() -> tuple[nn.Module, Example]:
    return Spread(), rows()


def sources() -> dict[str, Source]:
    """Sources by name."""
    both = {"tokens": {0: "batch", 1: "sequence"}, "mask": {0: "batch", 1: "sequence"}}
    table = {
        "lstm_tagger": Source(make=lstm_tagger, axes=FIXED, about="two bidirectional LSTM layers on an embedding"),
        "lstm_tagger_forward": Source(make=lstm_tagger_forward, axes=FIXED, about="two LSTM layers in one direction"),
        "gru_tagger": Source(make=gru_tagger, axes=FIXED, about="two bidirectional GRU layers"),
        "gru_tagger_forward": Source(make=gru_tagger_forward, axes=FIXED, about="two GRU layers in one direction"),
        "rnn_tagger": Source(make=rnn_tagger, axes=FIXED, about="plain recurrent layer"),
        "lstm_state": Source(make=lstm_state, axes=TOKENS, about="last states of both directions concatenated"),
        "separable_audio": Source(
            make=separable_audio, axes=AUDIO, about="depthwise-separable, dilated 1-D convolutions"
        ),
        "wavenet": Source(make=wavenet, axes=AUDIO, about="gated causal convolutions, residual and skip sums"),
        "weight_norm": Source(
            make=normed, axes=AUDIO, about="weight and spectral normalization, folded by the exporter"
        ),
        "mixer": Source(make=mixer, axes={"image": {0: "batch"}}, about="perceptrons along patches and along channels"),
        "experts": Source(make=experts, axes=ROWS, about="SwiGLU, packed GLU, batched expert weights, Einsum"),
        "encoder_layers": Source(
            make=encoder_layers, axes=ROWS, about="nn.TransformerEncoderLayer, packed projections"
        ),
        "encoder_layers_prenorm": Source(make=encoder_layers_prenorm, axes=ROWS, about="the same with the norm first"),
        "decoder_layer": Source(
            make=decoder_layer,
            axes=ROWS | {"memory": {0: "batch", 1: "source"}},
            about="nn.TransformerDecoderLayer, nn.MultiheadAttention with its own key width, attention weights as output",
        ),
        "conformer": Source(
            make=conformer, axes=ROWS, about="attention, gated depthwise convolution, half-step perceptrons"
        ),
        "sentence_embedding": Source(
            make=sentence_embedding, axes=both, about="masked mean, L2 normalization of the output"
        ),
        "text_cnn": Source(make=text_cnn, axes=TOKENS, about="parallel 1-D convolutions, maxima over time"),
        "recommender": Source(
            make=recommender,
            axes={"dense": {0: "batch"}, "items": {0: "batch"}},
            about="pairwise products of embeddings",
        ),
        "pointnet": Source(make=pointnet, axes=ROWS, about="shared perceptron, expanded maximum, learned transform"),
        "linear_attention": Source(make=linear_attention, axes=ROWS, about="keys meet values, heads of unequal widths"),
        "packed_view": Source(make=packed_view, axes=ROWS, about="QKV through a view of five axes, permuted, indexed"),
        "reused": Source(make=reused, axes=ROWS, about="a layer called twice, a weight and its transpose"),
        "pinned": Source(make=pinned, axes=ROWS, about="Softmax, CumSum, TopK and ArgMax over channels"),
    }
    table["weight_norm_computed"] = Source(
        make=functools.partial(normed, spectral=False),
        axes=AUDIO,
        exporter="batch-norm",
        opset=17,
        about="weight normalization left as operators: computed weights",
    )
    # nn.MultiheadAttention writes its sizes into the file through this exporter, the batch too.
    for name, axes in (
        *(
            (name, TOKENS)
            for name in ("lstm_tagger", "lstm_tagger_forward", "gru_tagger", "gru_tagger_forward", "rnn_tagger")
        ),
        ("encoder_layers", {}),
        ("decoder_layer", {}),
    ):
        about = table[name].about + ": spelled otherwise"
        table[f"{name}_torchscript"] = dataclasses.replace(
            table[name], exporter="torchscript", opset=17, axes=axes, about=about
        )
    about = table["packed_view"].about + ": spelled otherwise"
    table["packed_view_torchscript"] = dataclasses.replace(
        table["packed_view"], exporter="torchscript", opset=17, about=about
    )
    for name in ("encoder_layers", "experts"):
        about = table[name].about + ": Attention, RMSNormalization as operators"
        table[f"{name}_opset23"] = dataclasses.replace(table[name], opset=23, about=about)
    return table
