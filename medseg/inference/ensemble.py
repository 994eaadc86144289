"""Networks over a prepared image: the mean of their logits, on one device, within the memory that there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from medseg import memory, progress, system
from medseg.errors import DataError, MedsegError
from medseg.inference.autotuning import PLAIN, Way
from medseg.inference.sliding import Stream
from medseg.inference.uncertainty import Config as Sampling
from medseg.inference.uncertainty import Sampler
from medseg.inference.windows import Config

T = TypeVar("T")


class Ensemble:
    """Members of an ensemble, or a single network.

    Args:
        networks: they are moved to the device, and no longer learn.
        device: to compute on, until its memory does not suffice.
        way: how they are computed.
        background: what is given for each channel where there is only air; see `windows.Config.air`.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        device: torch.device,
        way: Way = PLAIN,
        background: Sequence[float] | None = None,
    ) -> None:
        self.networks = [network.to(device).eval() for network in networks]
        self.device, self.background = device, background
        self.fitted: dict[Config, Config] = {}  # windows that were asked for, and those that memory sufficed for
        self.compiled = False
        self.sampler: Sampler | None = None
        self.compute_in(way)

    def sample(self, config: Sampling, *, exclusive: bool) -> None:
        """Give mean and variance of samples from now on, as in `uncertainty.summary`, instead of mean logits.

        Raises:
            ConfigError: nothing makes samples differ.
        """
        self.sampler = Sampler(self.networks, config, exclusive=exclusive)
        self.background = None if self.background is None else [*self.background, *(0.0 for _ in self.background)]

    def compute_in(self, way: Way) -> None:
        """Compute in another way from now on."""
        self.way = way
        for network in self.networks:
            way.lay(network)

    def compile(self, window: Tensor) -> None:
        """Compute by compiled networks from now on, one window at once: another batch would be compiled anew.

        Args:
            window: one of the size that will come, `(1, C, *window)`.

        Raises:
            MedsegError: they cannot be compiled here.
        """
        how: dict[str, bool | int | str | Callable[..., object]] = {"freezing": True}
        made = [torch.compile(network, dynamic=False, options=how) for network in self.networks]
        self.networks, self.compiled = cast(list[nn.Module], made), True
        try:
            self(window)
        except Exception as error:  # a compiler's own, of any kind
            reason = f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
            raise MedsegError(f"the model cannot be compiled here ({reason}). Leave compile out.") from error

    def __call__(self, windows: Tensor) -> Tensor:
        """Mean logits `(B, K, *window)` of windows `(B, C, *window)`; of samples what `uncertainty.summary` gives."""
        windows = windows.to(self.device, non_blocking=True)
        if self.sampler:
            return self.sampler(lambda network: self.way.compute(network, windows), self.networks, self.device)
        total = self.way.compute(self.networks[0], windows)
        for network in self.networks[1:]:
            total += self.way.compute(network, windows)
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
        config = config.model_copy(update={"batch": 1}) if self.compiled else config
        tried = self.fitted.get(config, config)
        while True:
            try:
                return use(Stream(image, self, tried, mirrors, background=self.background))
            except (MemoryError, RuntimeError) as error:
                if not memory.is_out_of_memory(error):
                    raise
            tried = self._smaller(tried) or config  # not above: the error holds on to what was computed when it came
            self.fitted[config] = tried

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
        self.networks = [network.cpu() for network in self.networks]
        self.compute_in(self.way if system.has_bf16(self.device) else PLAIN)
        return None
