"""Others' layouts, written down here a second time: as networks that compute, or as names with shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.models import _backbones, create_model
from medseg.transfer import _densenet, _hrnet, _mobilenet, _vgg, matched
from medseg.transfer._rules import words

pytestmark = pytest.mark.usefixtures("one_thread")


def upright(picture: Tensor) -> Tensor:
    """Rows and columns of a picture along J and I of RAS, both from their other ends, as `io.raster` reads them."""
    return picture.transpose(-1, -2).flip(-1, -2)


def xyz(array: Tensor) -> Tensor:
    """An array of SimpleITK, slices first, as medseg has it."""
    return array.permute(0, 1, *range(array.ndim - 1, 1, -1))


def shaken(network: nn.Module) -> nn.Module:
    """Every tensor random, so that none can stand for another; variances stay positive."""
    torch.manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else torch.randn_like(tensor) / 2)
    return network.eval()


class Block(nn.Module):
    """torchvision's BasicBlock, and with `wide` its Bottleneck."""

    def __init__(self, dims: int, inputs: int, width: int, stride: int, wide: bool) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        outputs = 4 * width if wide else width
        shapes = ((inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1))
        for n, (i, o, k, s) in enumerate(
            shapes if wide else ((inputs, width, 3, stride), (width, width, 3, 1)), start=1
        ):
            self.add_module(f"conv{n}", conv(i, o, k, s, k // 2, bias=False))
            self.add_module(f"bn{n}", norm(o))
        self.count, self.downsample = n, None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for n in range(1, self.count + 1):
            y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
            y = y.relu() if n < self.count else y
        return (y + (self.downsample(x) if self.downsample else x)).relu()


class ResNet(nn.Module):
    """torchvision's, and MedicalNet's where `dims` is 3, without its dilations."""

    def __init__(self, dims: int, channels: int, base: int, counts: tuple[int, ...], wide: bool) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.conv1, self.bn1 = conv(channels, base, 7, 2, 3, bias=False), norm(base)
        self.pool, inputs = (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(3, 2, 1), base
        for s, count in enumerate(counts):
            layer = nn.Sequential()
            for n in range(count):
                layer.append(Block(dims, inputs, base * 2**s, 2 if s and n == 0 else 1, wide))
                inputs = base * 2**s * (4 if wide else 1)
            self.add_module(f"layer{s + 1}", layer)
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.bn1(self.conv1(x)).relu())
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


@pytest.mark.parametrize(("dims", "depth", "counts"), [(2, 10, (1,) * 4), (3, 10, (1,) * 4), (2, 50, (3, 4, 6, 3))])
def test_resnets_compute_what_theirs_do(dims: int, depth: int, counts: tuple[int, ...]) -> None:
    theirs = shaken(ResNet(dims, 3, 4, counts, wide=depth >= 50)).double()
    ours = shaken(_backbones.resnet(dims, 3, depth, width=1 / 16)).double()
    start = matched({f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}, ours, "a file")
    ours.load_state_dict(start.weights, strict=False)
    image = torch.randn(1, 3, *[33] * (dims - 1), 65, dtype=torch.float64)
    turned = upright if dims == 2 else torch.Tensor.contiguous  # MedicalNet's arrays are in nibabel's order, as ours
    assert torch.allclose(ours(turned(image))[-1], turned(theirs(image)), rtol=1e-4, atol=1e-4)
    assert start.layout == "ResNet"
    assert start.share == 1
    assert not start.random


class Unit(nn.Module):
    """nnU-Net's ConvDropoutNormReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3, stride, 1), nn.InstanceNorm2d(outputs, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.norm(self.conv(x)), 0.01)


class Units(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.convs = nn.Sequential(Unit(inputs, outputs, stride), Unit(outputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class PlainConvUNet(nn.Module):
    """nnU-Net's, of three levels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Module(), nn.Module()
        levels = ((1, 4, 1), (4, 6, 2), (6, 8, 2))
        self.encoder.stages = nn.Sequential(*(nn.Sequential(Units(*level)) for level in levels))
        self.decoder.stages = nn.ModuleList([Units(12, 6), Units(8, 4)])
        self.decoder.transpconvs = nn.ModuleList([nn.ConvTranspose2d(8, 6, 2, 2), nn.ConvTranspose2d(6, 4, 2, 2)])
        self.decoder.seg_layers = nn.ModuleList([nn.Conv2d(6, 3, 1), nn.Conv2d(4, 3, 1)])

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for stage in self.encoder.stages:
            x = stage(x)
            skips.append(x)
        skips.pop()
        for up, stage in zip(self.decoder.transpconvs, self.decoder.stages, strict=True):
            x = stage(torch.cat((up(x), skips.pop()), 1))
        return self.decoder.seg_layers[-1](x)


def test_nnunet_computes_what_it_did() -> None:
    theirs, options = shaken(PlainConvUNet()), {"widths": (4, 6, 8), "strides": (1, 2, 2), "kernels": (3,) * 3}
    options |= {"blocks": (2,) * 3, "decoder_blocks": 2, "block": "plain", "bias": True}
    ours = shaken(create_model({"name": "unet", **options}, spatial_dims=2, in_channels=1, out_channels=3))
    start = matched(theirs.state_dict(), ours, "a file")
    ours.load_state_dict(start.weights, strict=False)
    image = torch.randn(1, 1, 16, 24)
    assert torch.allclose(ours(xyz(image)), xyz(theirs(image)), rtol=1e-4, atol=1e-4)
    assert start.layout == "nnU-Net"
    assert start.share == 1


def test_thick_slices_of_nnunet_fit_kernels_along_k() -> None:
    """Kernels (1, 3, 3) and strides (1, 2, 2) of slices, rows, columns are (3, 3, 1) and (2, 2, 1) along I, J, K."""
    options: dict[str, Any] = {"widths": (4, 6), "strides": (1, (2, 2, 1)), "kernels": ((3, 3, 1), 3), "blocks": (2, 2)}
    ours = create_model("unet", preset="nnunet", spatial_dims=3, in_channels=1, out_channels=2, **options)
    theirs = {"encoder.stages.0.0.convs.0.conv.weight": torch.randn(4, 1, 1, 3, 3)}
    theirs["decoder.transpconvs.0.weight"] = torch.randn(6, 4, 1, 2, 2)
    weights = matched(theirs, ours, "a file").weights
    assert torch.equal(weights["encoder.0.0.0.weight"], xyz(theirs["encoder.stages.0.0.convs.0.conv.weight"]))
    assert torch.equal(weights["ups.0.weight"], xyz(theirs["decoder.transpconvs.0.weight"]))


class ResidualBlock(nn.Module):
    """nnU-Net's BasicBlockD."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Unit(inputs, outputs, stride), Unit(outputs, outputs, 1)
        self.skip = nn.Sequential(*([nn.AvgPool2d(stride, stride)] if stride > 1 else []))
        if inputs != outputs:
            self.skip.append(Unit(inputs, outputs, 1))
            self.skip[-1].conv = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        past = x
        for part in self.skip:
            past = part.norm(part.conv(past)) if isinstance(part, Unit) else part(past)
        return nn.functional.leaky_relu(self.conv2.norm(self.conv2.conv(self.conv1(x))) + past, 0.01)


class ResidualEncoderUNet(PlainConvUNet):
    """nnU-Net's, of three levels with one, one and two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder.stem = nn.Module()
        self.encoder.stem.convs = nn.Sequential(Unit(1, 4, 1))
        levels = (((4, 4, 1),), ((4, 6, 2),), ((6, 8, 2), (8, 8, 1)))
        self.encoder.stages = nn.Sequential(*(Blocks(level) for level in levels))
        for stage in self.decoder.stages:
            del stage.convs[1]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.encoder.stem.convs(x))


class Blocks(nn.Module):
    def __init__(self, shapes: tuple[tuple[int, int, int], ...]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResidualBlock(*shape) for shape in shapes))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


def test_nnunets_residual_encoder_computes_what_it_did() -> None:
    theirs = shaken(ResidualEncoderUNet())
    ours = shaken(create_model("resenc_unet", preset="tiny", spatial_dims=2, in_channels=1, out_channels=3))
    start = matched(theirs.state_dict(), ours, "a file")
    ours.load_state_dict(start.weights, strict=False)
    image = torch.randn(1, 1, 16, 24)
    assert torch.allclose(ours(xyz(image)), xyz(theirs(image)), rtol=1e-4, atol=1e-4)
    assert start.layout == "nnU-Net ResEnc"
    assert start.share == 1


def conv(name: str, *shape: int, bias: bool = False) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {})


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}


def vgg11(bn: bool) -> dict[str, tuple[int, ...]]:
    """Configuration A of torchvision's vgg.py, at a sixteenth of its width."""
    found, number, inputs = {}, 0, 3
    for width in (4, "M", 8, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"):
        if width == "M":
            number += 1
        else:
            found |= conv(f"features.{number}", width, inputs, 3, 3, bias=True)
            found |= norm(f"features.{number + 1}", width) if bn else {}
            number, inputs = number + 2 + bn, width
    return found | {"classifier.0.weight": (4096, 7)}


def densenet() -> dict[str, tuple[int, ...]]:
    """torchvision's densenet.py with a layer a block, a stem of 16 channels and a growth of 8."""
    found = conv("features.conv0", 16, 3, 7, 7) | norm("features.norm0", 16)
    width = 16
    for n in range(1, 5):
        layer = f"features.denseblock{n}.denselayer1"
        found |= norm(f"{layer}.norm1", width) | conv(f"{layer}.conv1", 32, width, 1, 1)
        found |= norm(f"{layer}.norm2", 32) | conv(f"{layer}.conv2", 8, 32, 3, 3)
        width += 8
        if n < 4:
            ahead = f"features.transition{n}"
            found |= norm(f"{ahead}.norm", width) | conv(f"{ahead}.conv", width // 2, width, 1, 1)
            width //= 2
    return found | norm("features.norm5", width)


_ROWS = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))


def mobilenet(timm: bool) -> dict[str, tuple[int, ...]]:
    """MobileNetV2 in full width, as torchvision's mobilenetv2.py or timm's mobilenetv2_100 has it."""
    stem = ("conv_stem", "bn1") if timm else ("features.0.0", "features.0.1")
    found, inputs, number = conv(stem[0], 32, 3, 3, 3) | norm(stem[1], 32), 32, 1
    for stage, (expansion, width, repeats) in enumerate(_ROWS):
        for n in range(repeats):
            wide = expansion * inputs
            names = [f"blocks.{stage}.{n}.{part}" for part in ("conv_pw", "conv_dw", "conv_pwl")]
            norms = [f"blocks.{stage}.{n}.bn{k}" for k in (1, 2, 3)]
            if not timm:
                ahead = f"features.{number}.conv"
                names, norms = (
                    [f"{ahead}.0.0", f"{ahead}.1.0", f"{ahead}.2"],
                    [f"{ahead}.{k}" for k in ("0.1", "1.1", "3")],
                )
            shapes = [(wide, inputs, 1, 1), (wide, 1, 3, 3), (width, wide, 1, 1)]
            if expansion == 1:
                shapes = shapes[1:]
                names = [f"blocks.0.0.{p}" for p in ("conv_dw", "conv_pw")] if timm else [names[0], f"{ahead}.1"]
                norms = norms[:2] if timm else [norms[0], f"{ahead}.2"]
            for name, normed, shape in zip(names, norms, shapes, strict=True):
                found |= conv(name, *shape) | norm(normed, shape[0])
            inputs, number = width, number + 1
    return found | conv("conv_head" if timm else "features.18.0", 1280, 320, 1, 1)


def hrnet() -> dict[str, tuple[int, ...]]:
    """HRNet's hrnet.py (timm's has the same names): one module a stage of two blocks, finest stream of 16 channels."""
    found = conv("conv1", 64, 3, 3, 3) | norm("bn1", 64) | conv("conv2", 64, 64, 3, 3) | norm("bn2", 64)
    for n, shape in enumerate(((32, 64, 1, 1), (32, 32, 3, 3), (128, 32, 1, 1)), start=1):
        found |= conv(f"layer1.0.conv{n}", *shape) | norm(f"layer1.0.bn{n}", shape[0])
    found |= conv("layer1.0.downsample.0", 128, 64, 1, 1) | norm("layer1.0.downsample.1", 128)
    found |= conv("transition1.0.0", 16, 128, 3, 3) | norm("transition1.0.1", 16)
    for s in (1, 2, 3):
        new, old = 16 * 2**s, 128 if s == 1 else 16 * 2 ** (s - 1)
        found |= conv(f"transition{s}.{s}.0.0", new, old, 3, 3) | norm(f"transition{s}.{s}.0.1", new)
        for i in range(s + 1):
            width = 16 * 2**i
            for b in (0, 1):
                for n in (1, 2):
                    ahead = f"stage{s + 1}.0.branches.{i}.{b}"
                    found |= conv(f"{ahead}.conv{n}", width, width, 3, 3) | norm(f"{ahead}.bn{n}", width)
            for j in range(s + 1):
                ahead, source = f"stage{s + 1}.0.fuse_layers.{i}.{j}", 16 * 2**j
                if j > i:
                    found |= conv(f"{ahead}.0", width, source, 1, 1) | norm(f"{ahead}.1", width)
                for step in range(i - j):
                    target = width if step == i - j - 1 else source
                    found |= conv(f"{ahead}.{step}.0", target, source, 3, 3) | norm(f"{ahead}.{step}.1", target)
    return found | conv("incre_modules.0.0.conv1", 32, 16, 1, 1)


@pytest.mark.parametrize(
    ("layout", "theirs", "trunk"),
    [
        (_vgg, vgg11(bn=False), ("vgg", 11, {"width": 1 / 16})),
        (_vgg, vgg11(bn=True), ("vgg", 11, {"width": 1 / 16, "norm": "batch", "output_stride": 8, "pool": 3})),
        (_densenet, densenet(), ("densenet", 13, {"width": 1 / 4, "output_stride": 16})),
        (_mobilenet, mobilenet(timm=False), ("mobilenet_v2", {})),
        (_mobilenet, mobilenet(timm=True), ("mobilenet_v2", {"output_stride": 16})),
        (_hrnet, hrnet(), ("hrnet", "w18_small_v1", {})),
    ],
    ids=["vgg", "vgg_bn", "densenet", "mobilenet_torchvision", "mobilenet_timm", "hrnet"],
)
def test_every_tensor_of_a_trunk_has_its_name(layout: Any, theirs: dict[str, Any], trunk: Any) -> None:
    name, *arguments, options = trunk
    with torch.device("meta"):
        ours = getattr(_backbones, name)(2, 3, *arguments, **options)
        named = layout.translated({name: torch.empty(shape) for name, shape in theirs.items()})
    state = ours.state_dict()
    wanted = {said: state[own].shape for said, own in words(ours).items() if "num_batches" not in said}
    assert {said: named[said].shape for said in wanted} == wanted


def test_a_file_for_no_trunk_here_is_refused() -> None:
    network = create_model("unet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny")
    with pytest.raises(ConfigError, match="none of the 1 tensors there fits this network"):
        matched({"conv1.weight": torch.zeros(64, 3, 7, 7)}, network, "a file")


def test_a_deeper_trunk_takes_the_blocks_that_there_are() -> None:
    theirs = ResNet(2, 3, 4, (1, 1, 1, 1), wide=False)
    start = matched(theirs.state_dict(), _backbones.resnet(2, 1, 18, width=1 / 16), "a file")
    assert "stages.2.1.body.0.0.weight" in start.random
    assert "stages.2.0.body.0.0.weight" in start.weights
    assert "random still: " in str(start)
    assert "more" in str(start)


def test_stages_that_a_network_runs_itself_begin_as_a_trunk_does() -> None:
    theirs = ResNet(2, 3, 4, (1, 1, 1, 1), wide=False)
    network = create_model("layer_cascade", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny")
    start = matched(theirs.state_dict(), network, "a file")
    assert start.layout == "ResNet"
    assert start.random
    assert all(name.startswith("exits.") for name in start.random)
