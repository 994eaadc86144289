"""Weights stored in fewer bytes than they compute in: half floats, or one byte and a scale an output channel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medseg.bundle.description import Stored

_SCALE = ".int8_scale"  # ends the name of the scale that belongs to a tensor
_LEVELS = 127


def packed(network: nn.Module, how: Stored) -> dict[str, Tensor]:
    """The state of a network, its convolutions and linear layers in fewer bytes; all else, which is little, as it is.

    Args:
        network: in float32.
        how: "fp16", or "int8": symmetric, rounded to the nearest of 255 levels, with a float32 scale for each output channel.
    """
    state = dict(network.state_dict())
    for name, axis in _output_axes(network).items():
        if how == "fp16":
            state[name] = state[name].half()
        elif how == "int8":
            state[name], state[name + _SCALE] = _rounded(state[name], axis)
    return state


def unpacked(state: Mapping[str, Tensor], how: Stored) -> dict[str, Tensor]:
    """The state that `packed` was given, as far as it was kept: what was stored in fewer bytes is float32 again."""
    if how == "fp32":
        return dict(state)
    if how == "fp16":
        return {name: x.float() if x.dtype == torch.float16 else x for name, x in state.items()}
    scales = {name.removesuffix(_SCALE): x for name, x in state.items() if name.endswith(_SCALE)}
    return {n: x * scales[n] if n in scales else x for n, x in state.items() if not n.endswith(_SCALE)}


def _output_axes(network: nn.Module) -> dict[str, int]:
    """Names of the weights of convolutions and linear layers, and which of their axes counts output channels."""
    axes = {}
    for name, part in network.named_modules():
        if isinstance(part, nn.modules.conv._ConvNd | nn.Linear):
            axes[f"{name}.weight".lstrip(".")] = int(getattr(part, "transposed", False))
    return axes


def _rounded(weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127, and the scale, of as many axes, that they are to be multiplied by."""
    others = [n for n in range(weight.ndim) if n != axis]
    scale = (weight.abs().amax(others, keepdim=True) / _LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight / scale).round().to(torch.int8), scale
