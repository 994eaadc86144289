"""The Attention U-Net of the authors' CT-150 experiments: gates that coarser levels open, and scores of all levels in one.

Oktay et al. 2018, arXiv:1804.03999, figures 1 and 2; Schlemper et al. 2019, arXiv:1808.08114.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import NormName, Size
from medseg.models._resizing import resize_like
from medseg.models._ushape import Levels, convs


class GridGate(nn.Module):
    """skip * sigmoid(psi(relu(theta skip + phi gating))), compared at the coarser size and stretched to the skip's.

    Args:
        dims: spatial axes.
        channels: of the skip.
        gating: channels of the gating map.
        stride: by how much the skip is coarsened to be compared.
        norm: normalisation of what comes out.
    """

    def __init__(self, dims: int, channels: int, gating: int, stride: Size, norm: NormName) -> None:
        super().__init__()
        self.theta = _blocks.strided(dims, channels, channels, stride, bias=False)
        self.phi, self.psi = _blocks.conv(dims, gating, channels, 1), _blocks.conv(dims, channels, 1, 1)
        self.mix = nn.Sequential(_blocks.conv(dims, channels, channels, 1), _blocks.norm(norm, channels))

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        seen = self.theta(skip)
        share = self.psi((seen + resize_like(self.phi(gating), seen)).relu()).sigmoid()  # (B, 1, *coarser)
        return self.mix(skip * resize_like(share, skip))


class MultiGate(nn.Module):
    """Two gates of one skip, mixed: each may look for something else."""

    def __init__(self, dims: int, channels: int, gating: int, stride: Size, norm: NormName) -> None:
        super().__init__()
        self.gates = nn.ModuleList(GridGate(dims, channels, gating, stride, norm) for _ in range(2))
        self.mix = convs(dims, 2 * channels, channels, kernel=1, norm=norm)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        return self.mix(torch.cat([gate(skip, gating) for gate in self.gates], dim=1))


class GridAttentionUNet(nn.Module):
    """The network of given parts; all lists but the encoder begin with the coarsest, and the finest skip has no gate."""

    def __init__(
        self,
        encoder: Sequence[nn.Module],
        signal: nn.Module,
        gates: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        scores: Sequence[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.encoder, self.signal, self.gates = nn.ModuleList(encoder), signal, nn.ModuleList(gates)
        self.ups, self.decoder = nn.ModuleList(ups), nn.ModuleList(decoder)
        self.scores, self.head = nn.ModuleList(scores), head

    def forward(self, image: Tensor) -> Tensor:
        x, skips = image, []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        skips.pop()
        gating, scores = self.signal(x), []
        for level, (up, stage, score) in enumerate(zip(self.ups, self.decoder, self.scores, strict=True)):
            skip = skips.pop()
            gated = self.gates[level](skip, gating) if level < len(self.gates) else skip
            gating = x = stage(_blocks.join(gated, up(x)))
            scores.append(resize_like(score(x), image))
        return self.head(torch.cat(scores[::-1], dim=1))


def grid_attention_unet(levels: Levels, dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """The network of the given levels."""
    widths = levels.widths

    def stage(inputs: int, outputs: int) -> nn.Sequential:
        return convs(dims, inputs, outputs, outputs, kernel=levels.kernel, norm=levels.norm)

    encoder = [stage(in_channels, widths[0])]
    gates, ups, decoder, scores = (list[nn.Module]() for _ in range(4))
    gating = widths[-2]
    for level in reversed(range(len(levels.strides))):
        fine, coarse, stride = widths[level], widths[level + 1], levels.strides[level]
        encoder.insert(1, nn.Sequential(_blocks.max_pool(dims, stride), stage(fine, coarse)))
        if level:
            gates.append(MultiGate(dims, fine, gating, stride, levels.norm))
        ups.append(_blocks.upsample(dims, stride, linear=True))
        decoder.append(stage(fine + coarse, fine))
        scores.append(_blocks.conv(dims, fine, out_channels, 1))
        gating = fine
    signal = convs(dims, widths[-1], widths[-2], kernel=1, norm=levels.norm)
    head = _blocks.conv(dims, len(scores) * out_channels, out_channels, 1)
    return GridAttentionUNet(encoder, signal, gates, ups, decoder, scores, head)
