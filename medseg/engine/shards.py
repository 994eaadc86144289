"""Tensors that processes may have divided between them; tensors that are whole come through unchanged."""

from __future__ import annotations

from torch import Tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor with the parts of all processes, each of which must ask for it."""
    gathered: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered


def own(tensor: Tensor) -> Tensor:
    """This process's part, in the same memory, without its history."""
    tensor = tensor.detach()
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def divided_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor divided as another of its shape is; each process must ask, with the same tensor."""
    if not hasattr(other, "placements") or tensor.shape != other.shape:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(other, DTensor)
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)
