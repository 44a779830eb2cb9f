"""Convolutional networks that make images and maps, in small."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from channel_models.source_export import Example, Source, batch_norm_kept, spelled_otherwise
from channel_models.source_vision import IMAGE, image, unit
from torch import nn


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
        "unet": Source(make=unet, axes=IMAGE, about="ConvTranspose, skip connections by concat"),
        "unet_resize": Source(make=unet_resize, axes=IMAGE, about="bilinear Resize, skip connections by concat"),
        "yolo": Source(make=yolo, axes=IMAGE, about="C2f, SPPF, upsample, two scales, joined detection output"),
        "edsr": Source(make=edsr, axes=IMAGE, about="PixelShuffle super-resolution, long skip"),
        "diffusion": Source(
            make=diffusion,
            axes=IMAGE | {"times": {0: "batch"}},
            about="GroupNorm U-Net, time embedding, self-attention",
        ),
        "deconv": Source(
            make=deconv, axes={"code": {0: "batch"}}, about="vector to map, plain and grouped ConvTranspose"
        ),
    }
    for name in ("deconv", "unet"):
        table[f"{name}_batch_norm"] = batch_norm_kept(table[name])
    about = table["diffusion"].about + ": operators of opset 23"
    table["diffusion_opset23"] = dataclasses.replace(table["diffusion"], opset=23, about=about)
    for name in ("diffusion", "edsr", "yolo"):
        table[f"{name}_torchscript"] = spelled_otherwise(table[name])
    return table
