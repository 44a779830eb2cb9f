"""Convolutional networks in small: one of each well-known way to wire channels."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from channel_models.source_export import Axes, Example, Source
from torch import nn

IMAGE: Axes = {"image": {0: "batch", 2: "height", 3: "width"}}
BATCH: Axes = {"image": {0: "batch"}}


def image(channels: int = 3, height: int = 16, width: int = 24) -> Example:
    return {"image": torch.randn(2, channels, height, width)}


class Images(nn.Module):
    """A network whose one input is called `image`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, image):
        return self.net(image)


def unit(
    i: int, o: int, k: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU
) -> nn.Sequential:
    """Convolution, BatchNorm, activation."""
    layers = [nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act()] if act else []))


def classifier(width: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


class Bottleneck(nn.Module):
    def __init__(self, i: int, mid: int, o: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(i, mid, 1), unit(mid, mid, 3, stride, groups), unit(mid, o, 1, act=None))
        self.skip = nn.Identity() if i == o and stride == 1 else unit(i, o, 1, stride, act=None)

    def forward(self, x):
        return F.relu(self.body(x) + self.skip(x))


def resnet() -> tuple[nn.Module, Example]:
    stem = [unit(3, 11, 7, 2), nn.MaxPool2d(3, 2, 1)]
    blocks = [Bottleneck(11, 7, 26, 1), Bottleneck(26, 7, 26, 1), Bottleneck(26, 13, 38, 2), Bottleneck(38, 13, 38, 1)]
    return Images(*stem, *blocks, classifier(38)), image()


def resnext() -> tuple[nn.Module, Example]:
    blocks = [Bottleneck(11, 12, 26, 1, 3), Bottleneck(26, 12, 26, 1, 3), Bottleneck(26, 20, 34, 2, 4)]
    return Images(unit(3, 11, 3, 2), *blocks, classifier(34)), image()


class Inverted(nn.Module):
    def __init__(self, i: int, mid: int, o: int, stride: int) -> None:
        super().__init__()
        self.add = i == o and stride == 1
        depthwise = unit(mid, mid, 3, stride, mid, nn.ReLU6)
        self.body = nn.Sequential(unit(i, mid, 1, act=nn.ReLU6), depthwise, unit(mid, o, 1, act=None))

    def forward(self, x):
        return x + self.body(x) if self.add else self.body(x)


def mobilenetv2() -> tuple[nn.Module, Example]:
    blocks = [Inverted(9, 21, 10, 1), Inverted(10, 23, 10, 1), Inverted(10, 25, 14, 2), Inverted(14, 33, 14, 1)]
    return Images(unit(3, 9, 3, 2, act=nn.ReLU6), *blocks, unit(14, 37, 1, act=nn.ReLU6), classifier(37)), image()


class ShuffleUnit(nn.Module):
    def __init__(self, width: int, mid: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.reduce, self.depthwise = unit(width, mid, 1, groups=groups), unit(mid, mid, 3, 1, mid, None)
        self.expand = unit(mid, width, 1, groups=groups, act=None)

    def forward(self, x):
        h = self.reduce(x)
        b, c, height, width = h.shape
        h = h.view(b, self.groups, c // self.groups, height, width).transpose(1, 2).reshape(b, c, height, width)
        return F.relu(x + self.expand(self.depthwise(h)))


class ShuffleV2Unit(nn.Module):
    """Half of the channels pass, half are worked on; both are shuffled together."""

    def __init__(self, width: int, mid: int) -> None:
        super().__init__()
        half = width // 2
        self.body = nn.Sequential(unit(half, mid, 1), unit(mid, mid, 3, 1, mid, None), unit(mid, half, 1))

    def forward(self, x):
        left, right = x.chunk(2, 1)
        return F.channel_shuffle(torch.cat([left, self.body(right)], 1), 2)


def shufflenet() -> tuple[nn.Module, Example]:
    return Images(unit(3, 24, 3, 2), ShuffleUnit(24, 18, 3), ShuffleUnit(24, 21, 3), classifier(24)), image()


def shufflenet_v2() -> tuple[nn.Module, Example]:
    return Images(
        unit(3, 22, 3, 2), ShuffleV2Unit(22, 13), ShuffleV2Unit(22, 9), unit(22, 27, 1), classifier(27)
    ), image()


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, mid: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, mid, 1), nn.Conv2d(mid, width, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.up(F.silu(self.down(x.mean((2, 3), keepdim=True)))))


class MBConv(nn.Module):
    def __init__(self, i: int, mid: int, o: int, stride: int, squeeze: int) -> None:
        super().__init__()
        self.add = i == o and stride == 1
        head = [unit(i, mid, 1, act=nn.SiLU), unit(mid, mid, 5, stride, mid, nn.SiLU)]
        self.body = nn.Sequential(*head, SqueezeExcite(mid, squeeze), unit(mid, o, 1, act=None))

    def forward(self, x):
        return x + self.body(x) if self.add else self.body(x)


def efficientnet() -> tuple[nn.Module, Example]:
    blocks = [MBConv(9, 21, 13, 1, 4), MBConv(13, 31, 13, 1, 6), MBConv(13, 29, 17, 2, 7)]
    return Images(unit(3, 9, 3, 2, act=nn.SiLU), *blocks, unit(17, 35, 1, act=nn.SiLU), classifier(35)), image()


class Gate(nn.Module):
    """MobileNetV3: hard swish, and a gate of hard sigmoid through linear layers."""

    def __init__(self, width: int, mid: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, mid), nn.Linear(mid, width)

    def forward(self, x):
        gate = F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1).flatten(1)))))
        return x * gate[:, :, None, None]


def mobilenetv3() -> tuple[nn.Module, Example]:
    act = nn.Hardswish
    body = [unit(9, 21, 1, act=act), unit(21, 21, 3, 2, 21, act), Gate(21, 6), unit(21, 13, 1, act=None)]
    return Images(unit(3, 9, 3, 2, act=act), *body, unit(13, 31, 1, act=act), classifier(31)), image()


class DenseLayer(nn.Module):
    def __init__(self, i: int, mid: int, growth: int) -> None:
        super().__init__()
        head = [nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, mid, 1, bias=False)]
        self.body = nn.Sequential(
            *head, nn.BatchNorm2d(mid), nn.ReLU(), nn.Conv2d(mid, growth, 3, padding=1, bias=False)
        )

    def forward(self, x):
        return torch.cat([x, self.body(x)], 1)


def densenet() -> tuple[nn.Module, Example]:
    first = [DenseLayer(10, 13, 6), DenseLayer(16, 13, 6), DenseLayer(22, 13, 6)]
    transition = [nn.BatchNorm2d(28), nn.ReLU(), nn.Conv2d(28, 15, 1, bias=False), nn.AvgPool2d(2)]
    second = [DenseLayer(15, 17, 7), DenseLayer(22, 17, 7), nn.BatchNorm2d(29), nn.ReLU()]
    return Images(nn.Conv2d(3, 10, 3, 2, 1, bias=False), *first, *transition, *second, classifier(29)), image()


class UNet(nn.Module):
    def __init__(self, up: str) -> None:
        super().__init__()
        double = lambda i, o: nn.Sequential(unit(i, o), unit(o, o))  # noqa: E731
        self.a, self.b, self.c = double(3, 9), double(9, 14), double(14, 22)
        self.up1 = nn.ConvTranspose2d(22, 13, 2, 2) if up == "transposed" else self._resize(22, 13)
        self.up2 = nn.ConvTranspose2d(15, 8, 2, 2) if up == "transposed" else self._resize(15, 8)
        self.d, self.e, self.out = double(13 + 14, 15), double(8 + 9, 11), nn.Conv2d(11, 4, 1)

    def _resize(self, i: int, o: int) -> nn.Sequential:
        return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(i, o, 3, padding=1))

    def forward(self, image):
        a = self.a(image)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        d = self.d(torch.cat([self.up1(c), b], 1))
        return self.out(self.e(torch.cat([self.up2(d), a], 1)))


def unet() -> tuple[nn.Module, Example]:
    return UNet("transposed"), image()


def unet_resize() -> tuple[nn.Module, Example]:
    return UNet("resize"), image()


class C2f(nn.Module):
    """Split in two, a chain of bottlenecks on the second half, everything concatenated."""

    def __init__(self, i: int, mid: int, o: int, count: int) -> None:
        super().__init__()
        self.first, self.last = unit(i, 2 * mid, 1, act=nn.SiLU), unit((2 + count) * mid, o, 1, act=nn.SiLU)
        pair = lambda: nn.Sequential(unit(mid, mid, act=nn.SiLU), unit(mid, mid, act=nn.SiLU))  # noqa: E731
        self.chain = nn.ModuleList(pair() for _ in range(count))

    def forward(self, x):
        parts = list(self.first(x).chunk(2, 1))
        for block in self.chain:
            parts.append(parts[-1] + block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Sppf(nn.Module):
    def __init__(self, i: int, mid: int, o: int) -> None:
        super().__init__()
        self.first, self.last = unit(i, mid, 1, act=nn.SiLU), unit(4 * mid, o, 1, act=nn.SiLU)

    def forward(self, x):
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.last(torch.cat(parts, 1))


class Yolo(nn.Module):
    """Two scales, the upsampled one concatenated; boxes and classes split, decoded and joined in one output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.p3 = unit(3, 9, 3, 2, act=nn.SiLU), C2f(9, 7, 18, 2)
        self.down, self.p4, self.spp = unit(18, 21, 3, 2, act=nn.SiLU), C2f(21, 5, 22, 1), Sppf(22, 11, 25)
        self.neck = C2f(25 + 18, 8, 17, 1)
        self.heads = nn.ModuleList(nn.Sequential(unit(w, 13, act=nn.SiLU), nn.Conv2d(13, 4 + 3, 1)) for w in (17, 25))

    def forward(self, image):
        p3 = self.p3(self.stem(image))
        p4 = self.spp(self.p4(self.down(p3)))
        p3 = self.neck(torch.cat([F.interpolate(p4, scale_factor=2.0), p3], 1))
        maps = [head(x).flatten(2) for head, x in zip(self.heads, (p3, p4), strict=True)]
        boxes, classes = torch.cat(maps, 2).split((4, 3), 1)
        return torch.cat([F.softplus(boxes), classes.sigmoid()], 1)


def yolo() -> tuple[nn.Module, Example]:
    return Yolo(), image()


class Inception(nn.Module):
    def __init__(self, i: int) -> None:
        super().__init__()
        self.a, self.b = unit(i, 5, 1), nn.Sequential(unit(i, 7, 1), unit(7, 9))
        self.c, self.d = (
            nn.Sequential(unit(i, 4, 1), unit(4, 6, 5)),
            nn.Sequential(nn.AvgPool2d(3, 1, 1), unit(i, 8, 1)),
        )

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x), self.c(x), self.d(x)], 1)


def inception() -> tuple[nn.Module, Example]:
    return Images(unit(3, 11, 3, 2), Inception(11), nn.MaxPool2d(3, 2, 1), Inception(28), classifier(28)), image()


class OptionA(nn.Module):
    """The shortcut is subsampled and padded with zero channels on both sides."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.pad = (o - i) // 2
        self.body = nn.Sequential(unit(i, o, 3, 2), unit(o, o, 3, act=None))

    def forward(self, x):
        return F.relu(self.body(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)))


def resnet_padded() -> tuple[nn.Module, Example]:
    return Images(unit(3, 9), Bottleneck(9, 7, 9, 1), OptionA(9, 15), OptionA(15, 23), classifier(23)), image()


class Cbam(nn.Module):
    """Channel attention from mean and maximum through a shared perceptron, then spatial attention over channels."""

    def __init__(self, width: int, mid: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(width, mid, 1, bias=False), nn.ReLU(), nn.Conv2d(mid, width, 1, bias=False))
        self.space = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x):
        x = x * torch.sigmoid(self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(x.amax((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.space(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


class Eca(nn.Module):
    """A 1-D convolution across channels: no channel may go."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        gate = self.mix(x.mean((2, 3))[:, None]).transpose(1, 2)[..., None]
        return x * torch.sigmoid(gate)


def cbam() -> tuple[nn.Module, Example]:
    return Images(unit(3, 13, 3, 2), Cbam(13, 6), unit(13, 19), Cbam(19, 7), unit(19, 23), classifier(23)), image()


def eca() -> tuple[nn.Module, Example]:
    return Images(unit(3, 13, 3, 2), Eca(), unit(13, 19), Eca(), unit(19, 23), classifier(23)), image()


class Edsr(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        block = lambda: nn.Sequential(nn.Conv2d(13, 17, 3, padding=1), nn.ReLU(), nn.Conv2d(17, 13, 3, padding=1))  # noqa: E731
        self.first, self.blocks, self.last = (
            nn.Conv2d(3, 13, 3, padding=1),
            nn.ModuleList([block(), block()]),
            nn.Conv2d(13, 13, 3, padding=1),
        )
        self.up = nn.Sequential(nn.Conv2d(13, 44, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(11, 3, 3, padding=1))

    def forward(self, image):
        x = h = self.first(image)
        for block in self.blocks:
            h = h + 0.1 * block(h)
        return self.up(x + self.last(h))


def edsr() -> tuple[nn.Module, Example]:
    return Edsr(), image()


class SpaceToDepth(nn.Module):
    def forward(self, x):
        return F.pixel_unshuffle(x, 2)


def focus() -> tuple[nn.Module, Example]:
    return Images(unit(3, 7), SpaceToDepth(), unit(28, 13), SpaceToDepth(), unit(52, 17, 1), classifier(17)), image()


def prelu() -> tuple[nn.Module, Example]:
    norm = lambda w: nn.InstanceNorm2d(w, affine=True)  # noqa: E731
    body = [nn.Conv2d(3, 11, 3, padding=1), norm(11), nn.PReLU(11), nn.Conv2d(11, 18, 3, 2, 1), norm(18), nn.PReLU(18)]
    return Images(*body, nn.ReflectionPad2d(1), nn.Conv2d(18, 21, 3), nn.PReLU(), classifier(21)), image()


def vgg() -> tuple[nn.Module, Example]:
    body = [
        unit(3, 9),
        nn.MaxPool2d(2),
        unit(9, 14),
        nn.MaxPool2d(2),
        unit(14, 19),
        nn.AdaptiveAvgPool2d((2, 3)),
        nn.Flatten(),
    ]
    head = [nn.Linear(19 * 6, 31), nn.ReLU(), nn.Dropout(), nn.Linear(31, 27), nn.ReLU(), nn.Linear(27, 5)]
    return Images(*body, *head), image()


class Attend(nn.Module):
    """Self-attention on the pixels of a map, heads split from channels; pre-norm by groups."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(3, width)
        self.qkv, self.out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, 3, self.heads, c // self.heads, h * w).unbind(1)
        weight = torch.softmax(q.transpose(-1, -2) @ k / (c // self.heads) ** 0.5, -1)
        return x + self.out((weight @ v.transpose(-1, -2)).transpose(-1, -2).reshape(b, c, h, w))


class TimeBlock(nn.Module):
    """Residual block with group norms; the time embedding shifts (and scales) its channels."""

    def __init__(self, i: int, o: int, groups: tuple[int, int], time: int) -> None:
        super().__init__()
        self.n1, self.c1 = nn.GroupNorm(groups[0], i), nn.Conv2d(i, o, 3, padding=1)
        self.n2, self.c2 = nn.GroupNorm(groups[1], o), nn.Conv2d(o, o, 3, padding=1)
        self.time, self.skip = nn.Linear(time, 2 * o), nn.Conv2d(i, o, 1) if i != o else nn.Identity()

    def forward(self, x, t):
        h = self.c1(F.silu(self.n1(x)))
        scale, shift = self.time(F.silu(t))[:, :, None, None].chunk(2, 1)
        return self.skip(x) + self.c2(F.silu(self.n2(h) * (1 + scale) + shift))


class Diffusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        time = 22
        self.time = nn.Sequential(nn.Linear(10, time), nn.SiLU(), nn.Linear(time, time))
        self.stem, self.a, self.down = (
            nn.Conv2d(3, 12, 3, padding=1),
            TimeBlock(12, 15, (4, 5), time),
            nn.Conv2d(15, 15, 3, 2, 1),
        )
        self.b, self.attend, self.c = TimeBlock(15, 18, (3, 6), time), Attend(18, 2), TimeBlock(18, 18, (6, 3), time)
        self.d, self.norm, self.out = (
            TimeBlock(18 + 15, 14, (11, 7), time),
            nn.GroupNorm(2, 14),
            nn.Conv2d(14, 3, 3, padding=1),
        )

    def forward(self, image, times):
        angles = times[:, None] * torch.exp(-torch.arange(5, dtype=torch.float32))
        t = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        a = self.a(self.stem(image), t)
        h = self.c(self.attend(self.b(self.down(a), t)), t)
        h = self.d(torch.cat([F.interpolate(h, scale_factor=2.0), a], 1), t)
        return self.out(F.silu(self.norm(h)))


def diffusion() -> tuple[nn.Module, Example]:
    return Diffusion(), image() | {"times": torch.rand(2)}


class Siamese(nn.Module):
    """One tower for two inputs, compared."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            unit(3, 11, 3, 2), unit(11, 18, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(18, 13)
        )
        self.head = nn.Linear(26, 3)

    def forward(self, left, right):
        a, b = self.tower(left), self.tower(right)
        return self.head(torch.cat([(a - b).abs(), a * b], 1)), F.cosine_similarity(a, b)


def siamese() -> tuple[nn.Module, Example]:
    return Siamese(), {"left": image()["image"], "right": image()["image"]}


class RepVgg(nn.Module):
    """Three parallel branches of which one is the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b, self.c = unit(width, width, 3, act=None), unit(width, width, 1, act=None), nn.BatchNorm2d(width)

    def forward(self, x):
        return F.relu(self.a(x) + self.b(x) + self.c(x))


def repvgg() -> tuple[nn.Module, Example]:
    return Images(unit(3, 11, 3, 2), RepVgg(11), unit(11, 17, 3, 2), RepVgg(17), classifier(17)), image()


class Ghost(nn.Module):
    """Half of the channels are computed from the other half; the sum is cut to the width by a slice."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.o, half = o, (o + 1) // 2
        self.first, self.cheap = unit(i, half, 1), unit(half, half, 3, 1, half)

    def forward(self, x):
        h = self.first(x)
        return torch.cat([h, self.cheap(h)], 1)[:, : self.o]


def ghostnet() -> tuple[nn.Module, Example]:
    return Images(
        unit(3, 10, 3, 2), Ghost(10, 17), unit(17, 17, 3, 2, 17, None), Ghost(17, 23), classifier(23)
    ), image()


class Deconv(nn.Module):
    """Decoder from a vector: linear, view as a map, transposed convolutions, one of them grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(13, 18 * 6)
        self.a, self.n = nn.ConvTranspose2d(18, 14, 4, 2, 1), nn.BatchNorm2d(14)
        self.b, self.c = (
            nn.ConvTranspose2d(14, 10, 3, 2, 1, output_padding=1, groups=2),
            nn.ConvTranspose2d(10, 3, 3, 1, 1),
        )

    def forward(self, code):
        h = F.relu(self.first(code)).view(-1, 18, 2, 3)
        return torch.tanh(self.c(F.leaky_relu(self.b(F.relu(self.n(self.a(h)))), 0.2)))


def deconv() -> tuple[nn.Module, Example]:
    return Deconv(), {"code": torch.randn(2, 13)}


def sources() -> dict[str, Source]:
    """Sources by name; `NAME_batch_norm` keeps its BatchNormalization operators."""
    table = {
        "resnet": Source(make=resnet, axes=IMAGE, about="bottleneck blocks, residual sums, projection shortcuts"),
        "resnet_padded": Source(make=resnet_padded, axes=IMAGE, about="shortcut subsampled, padded with zero channels"),
        "resnext": Source(make=resnext, axes=IMAGE, about="grouped 3x3 convolutions in bottlenecks"),
        "mobilenetv2": Source(make=mobilenetv2, axes=IMAGE, about="inverted residuals, depthwise convolutions, Clip"),
        "mobilenetv3": Source(make=mobilenetv3, axes=IMAGE, about="hard swish, gate through linear layers and views"),
        "shufflenet": Source(make=shufflenet, axes=IMAGE, about="grouped 1x1 convolutions and channel shuffle"),
        "shufflenet_v2": Source(make=shufflenet_v2, axes=IMAGE, about="channel split, concat, shuffle"),
        "efficientnet": Source(make=efficientnet, axes=IMAGE, about="squeeze and excite in inverted residuals"),
        "densenet": Source(make=densenet, axes=IMAGE, about="BatchNorm before Relu on growing concatenations"),
        "unet": Source(make=unet, axes=IMAGE, about="ConvTranspose, skip connections by concat"),
        "unet_resize": Source(make=unet_resize, axes=IMAGE, about="bilinear Resize, skip connections by concat"),
        "yolo": Source(make=yolo, axes=IMAGE, about="C2f, SPPF, upsample, two scales, joined detection output"),
        "inception": Source(make=inception, axes=IMAGE, about="four branches of different width concatenated"),
        "cbam": Source(make=cbam, axes=IMAGE, about="channel and spatial attention, mean and max over channels"),
        "eca": Source(make=eca, axes=IMAGE, about="1-D convolution across channels pins them"),
        "edsr": Source(make=edsr, axes=IMAGE, about="PixelShuffle super-resolution, long skip"),
        "focus": Source(make=focus, axes=IMAGE, about="space to depth"),
        "prelu": Source(
            make=prelu, axes=IMAGE, about="PReLU per channel and shared, InstanceNormalization, reflect Pad"
        ),
        "vgg": Source(make=vgg, axes=BATCH, about="channel becomes a block of features at Flatten"),
        "diffusion": Source(
            make=diffusion,
            axes=IMAGE | {"times": {0: "batch"}},
            about="GroupNorm U-Net, time embedding, self-attention",
        ),
        "siamese": Source(
            make=siamese,
            axes={name: {0: "batch", 2: "height", 3: "width"} for name in ("left", "right")},
            about="one tower for two inputs",
        ),
        "repvgg": Source(make=repvgg, axes=IMAGE, about="parallel branches, one of them BatchNorm alone"),
        "ghostnet": Source(
            make=ghostnet, axes=IMAGE, about="concat of a value and its depthwise image, cut by a slice"
        ),
        "deconv": Source(
            make=deconv, axes={"code": {0: "batch"}}, about="vector to map, plain and grouped ConvTranspose"
        ),
    }
    for name in (
        "resnet",
        "mobilenetv2",
        "densenet",
        "repvgg",
        "efficientnet",
        "shufflenet",
        "deconv",
        "resnext",
        "unet",
    ):
        about = table[name].about + "; BatchNormalization kept"
        table[f"{name}_batch_norm"] = dataclasses.replace(table[name], exporter="batch-norm", opset=17, about=about)
    about = table["diffusion"].about + ": operators of opset 23"
    table["diffusion_opset23"] = dataclasses.replace(table["diffusion"], opset=23, about=about)
    for name in ("shufflenet", "diffusion", "edsr", "prelu", "yolo"):
        about = table[name].about + ": spelled otherwise"
        table[f"{name}_torchscript"] = dataclasses.replace(table[name], exporter="torchscript", opset=17, about=about)
    return table
