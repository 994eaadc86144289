"""Recurrent layers over maps: a convolutional LSTM from slice to slice, and sweeps of a GRU along lines.

Slices lie along the last axis. In 2D a slice is a column of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Size


def in_plane(dims: int, kernel: Size) -> tuple[int, ...]:
    """A kernel or stride that leaves slices to themselves: that of the first axes, and 1 along the last."""
    return (*_blocks.ntuple(kernel, dims)[:-1], 1)


class ConvLSTM(nn.Module):
    """An LSTM whose state is a map, and whose gates are convolutions of a slice and of the state before it.

    Shi et al. 2015, Convolutional LSTM network, arXiv:1506.04214, equation 3 without its peepholes. The state begins at 0.

    Args:
        dims: spatial axes, of which the last is the sequence.
        inputs: channels in.
        hidden: channels of the state, and out.
        kernel: odd size of the convolutions; slices are mixed by the state alone.
        backward: go from the last slice to the first.
    """

    def __init__(self, dims: int, inputs: int, hidden: int, kernel: Size, *, backward: bool = False) -> None:
        super().__init__()
        plane = in_plane(dims, kernel)
        self.see = _blocks.conv(dims, inputs, 4 * hidden, plane)
        self.remember = _blocks.conv(dims, hidden, 4 * hidden, plane, bias=False)
        self.backward = backward

    def forward(self, x: Tensor) -> Tensor:
        seen = self.see(x).split(1, dim=-1)  # of each slice (B, 4 hidden, *plane, 1)
        states: list[Tensor] = []
        memory = torch.zeros_like(seen[0][:, : seen[0].shape[1] // 4])
        for now in reversed(seen) if self.backward else seen:
            gates = now + self.remember(states[-1]) if states else now
            forget, let_in, let_out, new = gates.chunk(4, dim=1)
            memory = let_in.sigmoid() * new.tanh() + forget.sigmoid() * memory
            states.append(let_out.sigmoid() * memory.tanh())
        return torch.cat(states[::-1] if self.backward else states, dim=-1)


class BothWays(nn.Module):
    """A convolutional LSTM up through the slices and one down, side by side: twice the hidden channels come out."""

    def __init__(self, dims: int, inputs: int, hidden: int, kernel: Size) -> None:
        super().__init__()
        self.up, self.down = (ConvLSTM(dims, inputs, hidden, kernel, backward=back) for back in (False, True))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.up(x), self.down(x)), dim=1)


class Sweeps(nn.Module):
    """GRUs along every axis, one axis after the other, each both ways: four sweeps of an image, six of a volume.

    Visin et al. 2015, ReNet, arXiv:1505.00393. After the first axis an element knows its line, after the last one everything.

    Args:
        dims: spatial axes.
        inputs: channels in.
        units: of each sweep; twice as many channels come out.
        patch: elements an axis of the blocks of which the first sweep sees each as one.
    """

    def __init__(self, dims: int, inputs: int, units: int, patch: int = 1) -> None:
        super().__init__()
        self.fill, self.patch = _blocks.Fill(dims, patch), patch
        widths = [inputs * patch**dims] + [2 * units] * (dims - 1)
        self.sweeps = nn.ModuleList(nn.GRU(n, units, batch_first=True, bidirectional=True) for n in widths)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fill(x)
        for axis in range(2, x.ndim) if self.patch > 1 else ():
            x = torch.cat(x.unflatten(axis, (-1, self.patch)).unbind(axis + 1), dim=1)
        for axis, sweep in enumerate(self.sweeps, start=2):
            lines = x.movedim((1, axis), (-1, -2))  # (B, *others, n, C)
            swept, _ = sweep(lines.flatten(0, -3))
            x = swept.unflatten(0, lines.shape[:-2]).movedim((-1, -2), (1, axis))
        return x
