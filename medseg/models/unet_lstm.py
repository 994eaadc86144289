"""U-Net, then LSTM: what a U-Net finds in each slice is corrected by what it finds in all others.

Family: recurrent
Paper: Li, Li, Lin, Qian 2019, Pancreas segmentation via spatial context based U-net and bidirectional LSTM, arXiv:1903.00832

Slices lie along the last axis, which is not coarsened. In 2D a slice is a column: of use for a time axis alone.

Presets:
    paper: figure 1: a U-Net of 64 to 1024 channels that sees each slice between its neighbours, and a convolutional LSTM both ways
        through its probabilities; 32 hidden channels each way are ours.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Output, Positive, Size
from medseg.models._recurrent import BothWays, in_plane
from medseg.models._ushape import Levels, convs, u_shape


class Config(Levels):
    """Options of a U-Net refined by an LSTM: levels, whose strides and kernel hold within the slices, and

    Args:
        hidden: channels of the LSTM each way.
        deep_supervision: in training, the U-Net's own logits too.
    """

    hidden: Positive = 32
    deep_supervision: bool = True


PRESETS = {"paper": Config(), "tiny": Config(widths=(4, 6, 8), strides=(2, 2), hidden=4)}


class Neighbours(nn.Module):
    """Each slice between the one before and the one after; at the ends it is its own neighbour."""

    def forward(self, x: Tensor) -> Tensor:
        before = torch.cat((x[..., :1], x[..., :-1]), dim=-1)
        after = torch.cat((x[..., 1:], x[..., -1:]), dim=-1)
        return torch.cat((before, x, after), dim=1)


class UNetLSTM(nn.Module):
    """The network of given parts; the LSTM sees probabilities: of classes, or of a single label."""

    def __init__(self, unet: nn.Module, lstm: nn.Module, head: nn.Module, *, deep_supervision: bool) -> None:
        super().__init__()
        self.unet, self.lstm, self.head, self.deep_supervision = unet, lstm, head, deep_supervision

    def forward(self, x: Tensor) -> Tensor | Output:
        found = self.unet(x)
        logits = self.head(self.lstm(found.softmax(dim=1) if found.shape[1] > 1 else found.sigmoid()))
        return Output(logits, (found,)) if self.training and self.deep_supervision else logits


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A U-Net of the slices, and an LSTM across its answers."""
    dims, plane = spatial_dims, in_plane(spatial_dims, config.kernel)
    strides = tuple(in_plane(dims, stride) for stride in config.strides)
    levels = Levels(widths=config.widths, strides=strides)

    def unit(inputs: int, outputs: int) -> nn.Module:
        return convs(dims, inputs, outputs, outputs, kernel=plane, norm=config.norm)

    def up(inputs: int, outputs: int, stride: Size) -> nn.Module:
        return _blocks.transposed(dims, inputs, outputs, stride)

    unet = nn.Sequential(Neighbours(), u_shape(levels, dims, 3 * in_channels, out_channels, unit=unit, up=up))
    lstm = BothWays(dims, out_channels, config.hidden, plane)
    head = _blocks.conv(dims, 2 * config.hidden, out_channels, 1)
    return _blocks.initialise(UNetLSTM(unet, lstm, head, deep_supervision=config.deep_supervision))
