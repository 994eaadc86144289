"""Which channels of a network belong together: followed through one pass, whatever its architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medseg.errors import ConfigError


class Run:
    """Neighbouring channels that one layer makes. Those that are summed with others have one head together."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._parent = self

    @property
    def head(self) -> Run:
        """The one that stands for all that belong together."""
        return self if self._parent is self else self._parent.head

    def join(self, other: Run) -> None:
        """From now on both belong together."""
        other.head._parent = self.head


class Use(NamedTuple):
    """What a layer does with channels.

    Args:
        name: of a tensor in the network's `state_dict`.
        axis: along which the channels lie.
        runs: the channels, in order.
        role: the tensor "makes" them (a convolution), "scales" them (scale and shift of a normalisation) or "reads" them.
    """

    name: str
    axis: int
    runs: tuple[Run, ...]
    role: Literal["makes", "scales", "reads"]


def follow(network: nn.Module, image: Tensor) -> list[Use]:
    """Every use of channels in one pass of a network.

    Args:
        network: in training mode, so that nothing is left out; parameters and image may be on the meta device.
        image: `(1, C, *spatial)`, large enough for two elements or more at the coarsest level.

    Raises:
        ConfigError: a layer mixes channels in another way than by a convolution, a concatenation or a sum of equal parts, or
            shares its weights with another one.
    """
    with _Follower(network, image) as follower:
        network(image)
    return follower.uses


class _Follower(TorchFunctionMode):
    """Sees every function of torch that a network calls, with what is given to it and what comes out."""

    def __init__(self, network: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.names = {id(tensor): name for name, tensor in network.state_dict(keep_vars=True).items()}
        # With the tensors themselves: a number of a tensor that is gone would be given to another one.
        self.known: dict[int, tuple[Tensor, tuple[Run, ...]]] = {}
        self._learn(image, (Run(image.shape[1]),))
        self.uses: list[Use] = []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "")
        given = [*args, *(kwargs or {}).values()]
        if isinstance(result, Tensor) and result.ndim > 2:
            if name.startswith("conv"):
                self._convolution(given, result, into=0 if "transpose" in name else 1)
            elif name == "cat":
                self._learn(result, sum((self._runs(part) for part in given[0]), ()))
            else:
                self._each_alone(given, result, normalises="norm" in name)
        return result

    def _convolution(self, given: Sequence[Any], result: Tensor, into: int) -> None:
        """New channels out of old ones, which lie along axis `into` of the weight."""
        image, weight, bias = given[:3]
        made = (Run(result.shape[1]),)
        self._use(weight, into, self._runs(image), "reads")
        self._use(weight, 1 - into, made, "makes")
        if bias is not None:
            self._use(bias, 0, made, "makes")
        self._learn(result, made)

    def _each_alone(self, given: Sequence[Any], result: Tensor, normalises: bool) -> None:
        """Channels that stay what they are: normalised, rectified, resized, or summed with as many others."""
        tensors = [item for item in given if isinstance(item, Tensor)]
        known = [
            runs for item in tensors if item.ndim == result.ndim and _size(runs := self._runs(item)) == result.shape[1]
        ]
        if not known:
            return
        first, *others = known
        for other in others:
            if [run.size for run in other] != [run.size for run in first]:
                raise _lost()
            for a, b in zip(first, other, strict=True):
                a.join(b)
        for item in tensors:
            if id(item) in self.names:
                role: Literal["scales", "reads"] = "reads"
                if normalises and isinstance(item, nn.Parameter):
                    role = "scales"
                self._use(item, 0, first, role)
        self._learn(result, first)

    def _use(self, tensor: Tensor, axis: int, runs: tuple[Run, ...], role: Literal["makes", "scales", "reads"]) -> None:
        name = self.names.get(id(tensor))
        twice = any(use[:2] == (name, axis) for use in self.uses)  # two layers share it
        if name is None or twice or tensor.shape[axis] != _size(runs):
            raise _lost()
        self.uses.append(Use(name, axis, runs, role))

    def _runs(self, tensor: Tensor) -> tuple[Run, ...]:
        return self.known[id(tensor)][1] if id(tensor) in self.known else ()

    def _learn(self, tensor: Tensor, runs: tuple[Run, ...]) -> None:
        self.known[id(tensor)] = (tensor, runs)


def _size(runs: Iterable[Run]) -> int:
    return sum(run.size for run in runs)


def _lost() -> ConfigError:
    return ConfigError("its channels cannot be followed through the network")
