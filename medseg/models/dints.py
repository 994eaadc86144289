"""MONAI's DiNTS: cells on a grid of blocks and resolutions, joined by the paths that a search has chosen.

The search itself is MONAI's `TopologySearch`; its answer is given here as `paths` and `operations`.

Family: search
Paper: He, Yang, Roth, Zhao, Xu 2021, DiNTS: differentiable neural network topology search for 3D medical image segmentation,
    arXiv:2103.15954
Needs: monai
Without: torch.compile, ONNX, strategy=fsdp (MONAI asks tensors which paths there are)

Presets:
    all: every path of MONAI's grid of 6 blocks and 3 resolutions, a full convolution in each cell.
    large: every path of the paper's grid of 12 blocks and 4 resolutions.
    tiny: every path of 2 blocks and 2 resolutions, of 4 channels.
"""

from __future__ import annotations

import contextlib
import io
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from torch import nn

from medseg.errors import ConfigError
from medseg.models._blocks import Times
from medseg.models._monai import Adapted, monai
from medseg.settings import Settings

Bit = Annotated[int, Field(ge=0, le=1)]
Operation = Annotated[int, Field(ge=0, le=4)]
_FULL = 1  # the convolution along all axes


class Config(Settings):
    """Options of a DiNTS.

    A block has 3 * depths - 2 paths, in this order: to the finest resolution from itself and from the next, to the second from
    the finest, itself and the next, and so on.

    Args:
        blocks: one after the other.
        depths: resolutions, the finest half the image's.
        width: 1 for 32 channels at the image's resolution; each coarser one doubles them.
        paths: for each block, 1 for each path that there is, else 0; empty for all.
        operations: for each block, that of each path's cell: 0 nothing, 1 a full convolution, in 3D also 2 to 4: one along the first
            two axes, the outer two, the last two, then one along the other. Empty for full convolutions.
    """

    blocks: Times = 6
    depths: Annotated[int, Field(ge=2, le=16)] = 3
    width: Annotated[float, Field(ge=1 / 32, le=100)] = 1.0
    paths: tuple[tuple[Bit, ...], ...] = ()
    operations: tuple[tuple[Operation, ...], ...] = ()

    @model_validator(mode="after")
    def _fit(self) -> Self:
        count = 3 * self.depths - 2
        for name, rows in (("paths", self.paths), ("operations", self.operations)):
            if rows and (len(rows) != self.blocks or any(len(row) != count for row in rows)):
                raise ValueError(f"expected {self.blocks} rows of {count} in {name}, got rows of {[*map(len, rows)]}")
        if not all(map(any, self.paths)):
            raise ValueError("expected at least one path in each block, got a row of 0")
        return self


PRESETS = {
    "all": Config(),
    "large": Config(blocks=12, depths=4),
    "tiny": Config(blocks=2, depths=2, width=1 / 8),
}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """MONAI's TopologyInstance in MONAI's DiNTS."""
    dints, size = monai("nets.dints"), (config.blocks, 3 * config.depths - 2)
    paths = np.array(config.paths or np.ones(size), dtype=int)
    operations = np.array(config.operations or np.full(size, _FULL))
    if spatial_dims == 2 and operations.max() > _FULL:
        raise ConfigError(f"model.operations: images have 0 and 1 alone, got {operations.max()}")
    with contextlib.redirect_stdout(io.StringIO()):  # MONAI prints which sizes fit
        space = dints.TopologyInstance(
            [paths, operations],
            config.width,
            num_blocks=config.blocks,
            num_depths=config.depths,
            spatial_dims=spatial_dims,
        )
    net = dints.DiNTS(space, in_channels, out_channels, spatial_dims=spatial_dims, node_a=_nodes(paths, space))
    return Adapted(net, spatial_dims, 2**config.depths)


def _nodes(paths: npt.NDArray[np.int_], space: nn.Module) -> npt.NDArray[np.bool_]:
    """Which resolutions have a map: those that the first block's paths come from, then those that each block's go to."""
    from_, to = (np.array(getattr(space, f"arch_code2{end}")) for end in ("in", "out"))
    rows = [from_[paths[0] == 1], *(to[row == 1] for row in paths)]
    return np.array([np.isin(np.arange(to.max() + 1), row) for row in rows])
