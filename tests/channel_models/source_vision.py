"""Convolutional networks that classify, in small: one of each well-known way to wire channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from channel_models.source_export import Axes, Example, Source, batch_norm_kept, spelled_otherwise
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
        "inception": Source(make=inception, axes=IMAGE, about="four branches of different width concatenated"),
        "cbam": Source(make=cbam, axes=IMAGE, about="channel and spatial attention, mean and max over channels"),
        "eca": Source(make=eca, axes=IMAGE, about="1-D convolution across channels pins them"),
        "focus": Source(make=focus, axes=IMAGE, about="space to depth"),
        "prelu": Source(
            make=prelu, axes=IMAGE, about="PReLU per channel and shared, InstanceNormalization, reflect Pad"
        ),
        "vgg": Source(make=vgg, axes=BATCH, about="channel becomes a block of features at Flatten"),
        "siamese": Source(
            make=siamese,
            axes={name: {0: "batch", 2: "height", 3: "width"} for name in ("left", "right")},
            about="one tower for two inputs",
        ),
        "repvgg": Source(make=repvgg, axes=IMAGE, about="parallel branches, one of them BatchNorm alone"),
        "ghostnet": Source(
            make=ghostnet, axes=IMAGE, about="concat of a value and its depthwise image, cut by a slice"
        ),
    }
    for name in ("resnet", "mobilenetv2", "densenet", "repvgg", "efficientnet", "shufflenet", "resnext"):
        table[f"{name}_batch_norm"] = batch_norm_kept(table[name])
    for name in ("shufflenet", "prelu"):
        table[f"{name}_torchscript"] = spelled_otherwise(table[name])
    return table
