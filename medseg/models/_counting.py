"""What a network costs, counted on torch's meta device, where maps have shapes and no values: no weights, no computing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Of a network and one input.

    Args:
        parameters: all that learn.
        multiply_adds: of convolutions and matrix products, in evaluation; twice as many operations.
        kept_bytes: of the maps that training keeps from the way forward for the way back, in float32.
    """

    parameters: int
    multiply_adds: int
    kept_bytes: int


def parameters(make: Callable[[], nn.Module]) -> int:
    """How many numbers the network that is made learns. No random number is drawn."""
    with torch.random.fork_rng(devices=()), torch.device("meta"):
        return sum(weight.numel() for weight in make().parameters())


def cost(make: Callable[[], nn.Module], image: tuple[int, ...]) -> Cost:
    """Parameters, operations and memory for an image of `(C, *spatial)`."""
    with torch.device("meta"):
        net, x = make(), torch.empty(1, *image)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            net.eval()(x)
        weights = sum(weight.numel() for weight in net.parameters())
        return Cost(weights, counter.get_total_flops() // 2, _kept_bytes(net.train(), x))


def _kept_bytes(net: nn.Module, image: Tensor) -> int:
    """Bytes of all that autograd keeps, once each; neither weights nor the image."""
    own = {tensor.untyped_storage()._cdata for tensor in (image, *net.parameters(), *net.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = net(image)
    sizes = [tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own]
    del output  # until here the graph, and so every storage and its number, lives
    return sum(sizes)
