"""MONAI's DynUNet: the plain U-Net that nnU-Net plans, with kernels and strides of each stage, and deep supervision.

Family: u-shape
Paper: Isensee, Jaeger, Kohl, Petersen, Maier-Hein 2021, nnU-Net: a self-configuring method for deep learning-based biomedical image
    segmentation, Nature Methods 18, arXiv:1904.08128
Needs: monai

Presets:
    nnunet: six stages of at most 320 channels.
    brats21: seven stages of 64 to 512 channels, as won BraTS 2021 (Futrega et al. 2021, arXiv:2110.03352).
    residual: six stages of residual blocks.
    tiny: three stages of residual blocks with few channels.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from medseg.models._blocks import Kernel, PerAxis, Positive, Share, Size, check_lengths, ntuple
from medseg.models._monai import NORMS, Adapted, MonaiNorm, monai
from medseg.settings import Settings


class Config(Settings):
    """Options of a DynUNet; the first three have one item a stage, from the finest to the coarsest.

    Args:
        channels: of at least three stages.
        stage_strides: by how much a stage coarsens what it gets, one number or one an axis; the first is 1.
        stage_kernels: sizes of convolutions, one number or one an axis.
        residual: blocks with a residual connection.
        norm: after each convolution.
        dropout: share of values dropped after each convolution, 0 to 1.
        aux: in training also the scores of the coarser stages but the two coarsest (deep supervision).
    """

    channels: Annotated[tuple[Positive, ...], Field(min_length=3)] = (32, 64, 128, 256, 320, 320)
    stage_strides: tuple[PerAxis, ...] = (1, 2, 2, 2, 2, 2)
    stage_kernels: tuple[Kernel, ...] = (3, 3, 3, 3, 3, 3)
    residual: bool = False
    norm: MonaiNorm = "instance"
    dropout: Share = 0.0
    aux: bool = False

    @model_validator(mode="after")
    def _fit(self) -> Self:
        check_lengths(len(self.channels), stage_strides=self.stage_strides, stage_kernels=self.stage_kernels)
        if self.stage_strides[0] not in (1, (1, 1), (1, 1, 1)):
            raise ValueError(f"expected a first stride of 1, so that the size is kept, got {self.stage_strides[0]}")
        return self


_BRATS21 = Config(channels=(64, 96, 128, 192, 256, 384, 512), stage_strides=(1, *[2] * 6), stage_kernels=(3,) * 7)
PRESETS = {
    "nnunet": Config(),
    "brats21": _BRATS21,
    "residual": Config(residual=True),
    "tiny": Config(channels=(4, 8, 12), stage_strides=(1, 2, 2), stage_kernels=(3, 3, 3), residual=True),
}


class DynUNet(nn.Module):
    """MONAI's parts in MONAI's order, with the scores of coarser stages at their own resolution.

    MONAI's own way forward holds the same parts a second time, which no weight file without pickle takes, and makes
    the coarser scores as large as the image.

    Args:
        net: MONAI's network; its weights' names stay as they are.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.input_block, self.downsamples, self.bottleneck = net.input_block, net.downsamples, net.bottleneck
        self.upsamples, self.output_block = net.upsamples, net.output_block
        self.deep_supervision_heads = net.deep_supervision_heads if net.deep_supervision else nn.ModuleList()

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        skips = [self.input_block(x)]
        for down in self.downsamples:
            skips.append(down(skips[-1]))
        x = self.bottleneck(skips[-1])
        maps: list[Tensor] = []
        for up, skip in zip(self.upsamples, reversed(skips), strict=True):
            x = up(x, skip)
            maps.insert(0, x)
        logits = self.output_block(x)
        if not self.training or not self.deep_supervision_heads:
            return logits
        pairs = zip(self.deep_supervision_heads, maps[1:], strict=True)
        return [logits, *(head(map_) for head, map_ in pairs)]


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """The parts of MONAI's DynUNet."""
    strides = [ntuple(stride, spatial_dims) for stride in config.stage_strides]
    net = monai("nets.dynunet").DynUNet(
        spatial_dims,
        in_channels,
        out_channels,
        kernel_size=[ntuple(kernel, spatial_dims) for kernel in config.stage_kernels],
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=config.channels,
        dropout=config.dropout or None,
        norm_name=NORMS[config.norm],
        deep_supervision=config.aux,
        deep_supr_num=max(len(strides) - 2, 1),
        res_block=config.residual,
    )
    return Adapted(DynUNet(net), spatial_dims, _product(strides))


def _product(strides: list[tuple[int, ...]]) -> Size:
    whole = strides[0]
    for stride in strides[1:]:
        whole = tuple(a * b for a, b in zip(whole, stride, strict=True))
    return whole
