"""The large parts of a model that compute one after the other: units of recomputation, and of division over processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def stages(model: nn.Module) -> list[nn.Module]:
    """The parts of a model that are made of parts themselves: its children, and the items of its lists.

    Single layers are left out: they have nothing to forget. A model around a single child is that child.
    """
    children, lists = list(model.children()), (nn.ModuleList, nn.ModuleDict)
    if len(children) == 1 and not isinstance(model, lists):
        return stages(children[0])
    found = []
    for child in children:
        if isinstance(child, lists):
            found += stages(child)
        elif any(True for _ in child.children()):
            found.append(child)
    return found


def recompute(model: nn.Module) -> None:
    """Let each stage forget in the forward pass what it computed inside, and compute it again in the backward pass.

    Memory for time: Chen et al. 2016, Training deep nets with sublinear memory cost, arXiv:1604.06174. Results, gradients and
    the names of weights stay the same; so do the running figures of normalisation, which see each batch once, and dropout.
    """
    for stage in stages(model):
        contexts = partial(_contexts, stage)
        stage.forward = partial(checkpoint, stage.forward, use_reentrant=False, context_fn=contexts)


def _contexts(
    stage: nn.Module,
) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    """Around the first computation, and around the second."""
    return contextlib.nullcontext(), _as_before(stage, [buffer.clone() for buffer in stage.buffers()])


@contextlib.contextmanager
def _as_before(stage: nn.Module, before: Sequence[Tensor]) -> Iterator[None]:
    """With the buffers of the first computation, and then with those that it left: they have seen the batch already."""
    now = [buffer.clone() for buffer in stage.buffers()]
    _set(stage, before)
    try:
        yield
    finally:
        _set(stage, now)


def _set(stage: nn.Module, values: Sequence[Tensor]) -> None:
    for buffer, value in zip(stage.buffers(), values, strict=True):
        buffer.copy_(value)
