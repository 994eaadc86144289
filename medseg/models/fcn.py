"""FCN: a classifier that scores every place, and coarse scores refined by those of finer maps.

Family: fcn
Paper: Long, Shelhamer, Darrell 2015, Fully convolutional networks for semantic segmentation, arXiv:1411.4038

Presets:
    8s: VGG16, whose fully connected layers became convolutions of 7x7 and 1x1; scores of strides 32, 16 and 8 are added up:
        134,489,759 parameters for 3 channels and 21 classes in 2D.
    16s: without the scores of stride 8.
    32s: scores of stride 32 alone.
    alexnet: AlexNet in place of VGG16, as 32s.
    resnet50: the present form: a dilated ResNet-50 of stride 8 and one head; 32,957,013 parameters for 21 classes.
    resnet101: the same on the deeper trunk; with the auxiliary head 54,314,346 parameters.
    tiny: 8s with one narrow convolution a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import Hidden, OutputStride, Trunk, alexnet, resnet, vgg
from medseg.models._blocks import NormName, Output, Positive, Share, Width
from medseg.models._convs import relu, sliding_max
from medseg.models._resizing import BilinearUp
from medseg.models._segmenter import Segmenter, fcn_head
from medseg.settings import Settings


class Config(Settings):
    """Options of an FCN.

    Args:
        trunk: what makes the maps.
        stride: of the finest scores: 8, 16 or 32; of a ResNet, that of its last map.
        width: of the trunk, 1 for the paper's.
        hidden: channels of the convolutions in place of fully connected layers; a ResNet has none.
        norm: of a ResNet; the others have none.
        dropout: share of values dropped before the scores, 0 to 1.
        aux: in training also coarser scores: of a ResNet those of its last map but one, else those that are added up.
    """

    trunk: Literal["alexnet", "vgg8", "vgg11", "vgg16", "resnet50", "resnet101"] = "vgg16"
    stride: OutputStride = 8
    width: Width = 1.0
    hidden: Positive = 4096
    norm: NormName = "batch"
    dropout: Share = 0.5
    aux: bool = False


PRESETS = {
    "8s": Config(),
    "16s": Config(stride=16),
    "32s": Config(stride=32),
    "alexnet": Config(trunk="alexnet", stride=32),
    "resnet50": Config(trunk="resnet50", dropout=0.1),
    "resnet101": Config(trunk="resnet101", dropout=0.1),
    "tiny": Config(trunk="vgg8", width=1 / 16, hidden=6, dropout=0.1),
}


class FCN(nn.Module):
    """The network of given parts.

    Args:
        trunk: maps before their poolings.
        pool: of each map.
        classifier: from the coarsest pooled map to scores.
        scores: of finer pooled maps, coarsest first.
        ups: steps up by 2 before each sum, then the one to the image.
        aux: in training, give the scores of each sum too.
    """

    def __init__(
        self,
        trunk: Trunk,
        pool: nn.Module,
        classifier: nn.Module,
        scores: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        *,
        aux: bool,
    ) -> None:
        super().__init__()
        self.trunk, self.pool, self.classifier, self.aux = trunk, pool, classifier, aux
        self.scores, self.ups = nn.ModuleList(scores), nn.ModuleList(ups)

    def forward(self, x: Tensor) -> Tensor | Output:
        maps = list(self.trunk(x))
        sums = [self.classifier(self.pool(maps.pop()))]
        *ups, last = self.ups
        for up, score in zip(ups, self.scores, strict=True):
            finer = score(self.pool(maps.pop()))
            sums.insert(0, finer + _blocks.crop_like(up(sums[0]), finer))
        logits = _blocks.crop_like(last(sums[0]), x)
        return Output(logits, tuple(sums)) if self.aux and self.training else logits


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """An FCN on the trunk that the configuration names."""
    dims, width, kind = spatial_dims, config.width, config.trunk
    if kind.startswith("resnet"):
        return _on_resnet(config, dims, in_channels, out_channels)
    if kind == "alexnet":
        trunk, kernel, pool = alexnet(dims, in_channels, width=width), 6, sliding_max(dims, 2)
    else:
        trunk, kernel = vgg(dims, in_channels, int(kind.removeprefix("vgg")), width=width), 7
        pool = _blocks.max_pool(dims)
    *finer, coarsest = trunk.channels
    hidden, steps = config.hidden, {8: 2, 16: 1, 32: 0}[config.stride]
    shapes = ((coarsest, hidden, kernel), (hidden, hidden, 1))
    classifier = nn.Sequential(
        Hidden(*(_whole(dims, *shape, config.dropout) for shape in shapes)),
        _blocks.conv(dims, hidden, out_channels, 1),
    )
    scores = [_blocks.conv(dims, channels, out_channels, 1) for channels in finer[::-1][:steps]]
    ups = [BilinearUp(dims, out_channels, stride) for stride in (*[2] * steps, config.stride)]
    return _blocks.initialise(FCN(trunk, pool, classifier, scores, ups, aux=config.aux))


def _whole(dims: int, inputs: int, outputs: int, kernel: int, dropout: float) -> nn.Sequential:
    """What was a fully connected layer: it keeps the size, with the odd voxel of an even kernel at the far end."""
    pad = (nn.ZeroPad2d if dims == 2 else nn.ZeroPad3d)(((kernel - 1) // 2, kernel // 2) * dims)  # type: ignore[arg-type]
    conv = (nn.Conv2d if dims == 2 else nn.Conv3d)(inputs, outputs, kernel)
    return nn.Sequential(pad, conv, relu(), nn.Dropout(dropout))


def _on_resnet(config: Config, dims: int, inputs: int, outputs: int) -> nn.Module:
    depth = int(config.trunk.removeprefix("resnet"))
    trunk = resnet(dims, inputs, depth, width=config.width, norm=config.norm, output_stride=config.stride)
    last, auxiliary = (
        fcn_head(dims, index, trunk.channels[index], outputs, norm=config.norm, dropout=config.dropout)
        for index in (-1, -2)
    )
    return _blocks.initialise(Segmenter(trunk, last, [auxiliary] if config.aux else []))
