"""How unsure a network is: mean and variance of its probabilities over answers that dropout makes differ (Monte Carlo dropout).

Gal, Ghahramani 2016, Dropout as a Bayesian approximation, arXiv:1506.02142, section 4; of segmentation: Kendall, Badrinarayanan,
Cipolla 2017, Bayesian SegNet, arXiv:1511.02680, section 4. Members of an ensemble are further samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from medseg.errors import ConfigError
from medseg.settings import Settings

_LEAST = 1e-7  # of a mean: logits of less would decide alone where windows are averaged


class Config(Settings):
    """How uncertainty is sampled.

    Args:
        samples: passes of each network that has dropout.
        seed: of the dropout; other random numbers of the program are not touched.
    """

    samples: Annotated[int, Field(ge=2)] = 20
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class Sampler:
    """Networks whose dropout goes on; all else of them, batch normalisation above all, stays as in evaluation.

    Args:
        networks: in evaluation mode. Without dropout each of them gives one sample.
        config: how often each is asked.
        exclusive: of all channels one is right; else each is a yes or no.

    Raises:
        ConfigError: there is a single sample, since nothing is dropped.
    """

    def __init__(self, networks: Sequence[nn.Module], config: Config, *, exclusive: bool) -> None:
        layers = [layer for network in networks for layer in dropouts(network)]
        if not layers and len(networks) == 1:
            raise ConfigError(
                "uncertainty: expected a model with dropout, or an ensemble (--fold all); this one has none, or lost it in an "
                "export, and answers the same each time. Leave uncertainty out, or train with dropout, such as model.dropout=0.2."
            )
        for layer in layers:
            layer.train()
        self.rounds, self.seed, self.exclusive = config.samples if layers else 1, config.seed, exclusive

    def __call__(
        self, compute: Callable[[nn.Module], Tensor], networks: Sequence[nn.Module], device: torch.device
    ) -> Tensor:
        """Logits of the mean, and behind them variances, `(B, 2 K, *window)`; see `summary`.

        Each call drops the same values, so that what is computed for a window does not depend on those before.

        Args:
            compute: of a network its logits `(B, K, *window)`.
            networks: those that it was made for.
            device: on which they compute.
        """
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            return summary((compute(network) for network in networks for _ in range(self.rounds)), self.exclusive)


def dropouts(network: nn.Module) -> list[nn.Module]:
    """The layers of a network that drop something in training."""
    return [part for part in network.modules() if isinstance(part, _DropoutNd) and part.p > 0]


def summary(samples: Iterable[Tensor], exclusive: bool) -> Tensor:
    """Samples added up as they come (Welford 1962): two maps are held, however many there are.

    Args:
        samples: logits `(B, K, *window)`, one at least.
        exclusive: as in `Sampler`.

    Returns:
        `(B, 2 K, *window)`: logits whose softmax (or sigmoid) is the mean of the samples' probabilities, then the variance of those
        probabilities, 0 to 1/4: the mean square of what they are off their mean.
    """
    mean, squares, count = torch.zeros(()), torch.zeros(()), 0
    for count, logits in enumerate(samples, 1):
        likely = logits.softmax(1) if exclusive else logits.sigmoid()
        off = likely - mean
        mean = mean + off / count
        squares = squares + off * (likely - mean)
    score = mean.clamp(min=_LEAST).log() if exclusive else mean.logit(_LEAST)
    return torch.cat([score, squares / count], 1)
