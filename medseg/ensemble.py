"""Networks over a prepared image: the mean of their logits, on one device, within the memory that there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from medseg import progress, system
from medseg.errors import DataError
from medseg.inference import Stream
from medseg.windows import Config

T = TypeVar("T")


class Ensemble:
    """Members of an ensemble, or a single network.

    Args:
        networks: they are moved to the device, and no longer learn.
        device: to compute on, until its memory does not suffice.
        bf16: compute in bf16 where that is safe; logits are float32 always.
    """

    def __init__(self, networks: Sequence[nn.Module], device: torch.device, *, bf16: bool = False) -> None:
        self.networks, self.device, self.bf16 = [network.to(device).eval() for network in networks], device, bf16

    def __call__(self, windows: Tensor) -> Tensor:
        """Mean logits `(B, K, *window)` of windows `(B, C, *window)`."""
        windows = windows.to(self.device, non_blocking=True)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            total = self.networks[0](windows).float()
            for network in self.networks[1:]:
                total += network(windows).float()
        return total / len(self.networks) if len(self.networks) > 1 else total

    def stream(self, image: Tensor, use: Callable[[Stream], T], config: Config, *, mirrors: bool = False) -> T:
        """Give the logits of an image to a function that takes them as they come.

        Out of memory is a plan: the batch is halved, then the window, and then everything goes to the CPU. The function
        is called again from the start then, so that all of an image is computed in one way.

        Args:
            image: `(C, I, J, K)`.
            use: takes the stream of slabs; may be called several times.
            config: windows, to begin with.
            mirrors: average over the flips that `config` allows.

        Returns:
            What `use` returns.

        Raises:
            DataError: the smallest window does not fit on the CPU either.
        """
        tried = config
        while True:
            try:
                return use(Stream(image, self, tried, mirrors))
            except (MemoryError, RuntimeError) as error:
                if not system.is_out_of_memory(error):
                    raise
            tried = self._smaller(tried) or config  # not above: the error holds on to what was computed when it came

    def _smaller(self, config: Config) -> Config | None:
        """Windows that take less memory; None to begin anew on the CPU."""
        torch.cuda.empty_cache()
        if less := config.smaller():
            progress.warn(f"out of memory on {self.device}: going on with {less}, {less.batch} at once")
            return less
        if self.device.type == "cpu":
            raise DataError(f"out of memory with {config}, one at once. Close other programs.")
        progress.warn(f"out of memory on {self.device} with {config}, one at once: going on with the CPU")
        self.device = torch.device("cpu")
        self.bf16 = self.bf16 and system.has_bf16(self.device)
        self.networks = [network.cpu() for network in self.networks]
        return None
