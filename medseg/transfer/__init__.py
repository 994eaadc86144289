"""Weights that a run begins with, from a file in a layout that others use, or from a stored model of medseg.

A layout says which of our tensors each of theirs is, one file a family; what has the right shape then, or can be given it, is
taken, and the rest is left as it was. Nothing is downloaded, and no code of a file is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from medseg import files
from medseg.errors import BundleError, ConfigError
from medseg.models._backbones import Hidden, Stages, Trunk
from medseg.settings import Settings
from medseg.transfer import (
    _densenet,
    _hrnet,
    _inverted,
    _mobilenet,
    _nnunet,
    _resnet,
    _vgg,
    _wide_resnet,
    _xception,
    lineage,
)
from medseg.transfer._fitting import Inflate, as_shown, fitted
from medseg.transfer._reading import read as read
from medseg.transfer._rules import words
from medseg.wording import few

_Layouts = Mapping[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]]
_TRUNKS: _Layouts = {
    "ResNet": _resnet.translated,
    "VGG": _vgg.translated,
    "DenseNet": _densenet.translated,
    "MobileNetV2": _mobilenet.translated,
    "MobileNetV3": _inverted.mobilenet_v3,
    "EfficientNet": _inverted.efficientnet_b0,
    "HRNet": _hrnet.translated,
    "Xception": _xception.translated,
    "WideResNet": _wide_resnet.translated,
}
_WHOLE: _Layouts = {"nnU-Net": _nnunet.plain, "nnU-Net ResEnc": _nnunet.residual}
_PARTS: Mapping[type[nn.Module], str] = {Trunk: "", Stages: "stages.", Hidden: "hidden."}
_OWN = "medseg"


class Config(Settings):
    """What a run begins with.

    Args:
        source: `from` in files and commands: a .safetensors, .pt or .pth file, or the bundle or run of one model; None begins
            with random weights.
        inflate: how a 2D convolution becomes one in 3D: "mean" spreads it evenly over the slices, "centre" puts it in the
            middle one.
    """

    source: str | None = Field(default=None, alias="from")
    inflate: Inflate = "mean"


@dataclass(frozen=True, eq=False)
class Start:
    """The weights to begin with.

    Args:
        weights: by the names of the network.
        layout: that named most of them.
        origin: the file or model, in words that mean the same weights.
        share: of the network's weights that they are, 0 to 1.
        held: tensors that lie there.
        random: names of the network's tensors that begin with random values.
        foreign: most convolutions of the network's trunks begin so: the file may be of another one.
    """

    weights: Mapping[str, Tensor]
    layout: str
    origin: str
    share: float
    held: int
    random: Sequence[str]
    foreign: bool

    def __str__(self) -> str:
        """What it is, and how much of the network: the same words mean the same weights."""
        return (
            f"{self.layout} weights ({self.origin}), {len(self.weights)} of {self.held} tensors there, are {self.share:.1%} of "
            f"the network; random still: {few(self.random) or 'none'}"
        )


def find(config: Config, network: nn.Module) -> Start:
    """Read what a run begins with, and see what of it fits a network, which may be without values.

    Raises:
        BundleError: nothing usable lies there.
        ConfigError: nothing of it fits.
    """
    tensors, origin = _source(Path(config.source or ""))
    if broken := [name for name, tensor in tensors.items() if tensor.is_floating_point() and not _finite(tensor)]:
        raise BundleError(f"init.from: values of {broken[0]} are no finite numbers. Name another file.")
    return matched(tensors, network, origin, config.inflate)


def matched(tensors: Mapping[str, Tensor], network: nn.Module, origin: str, inflate: Inflate = "mean") -> Start:
    """The layout that gives a network most of its weights, and those weights.

    Raises:
        ConfigError: none gives it any.
    """
    state = network.state_dict()
    counted = {name: tensor.numel() for name, tensor in state.items() if tensor.is_floating_point()}

    def weight(found: tuple[str, dict[str, Tensor]]) -> int:
        return sum(counted.get(name, 0) for name in found[1])

    layout, weights = max(_attempts(tensors, network, inflate), key=weight)
    if not (taken := weight((layout, weights))):
        known = ", ".join([*_TRUNKS, *_WHOLE])
        raise ConfigError(
            f"init.from: none of the {len(tensors)} tensors there fits this network. Known layouts: {known}, and medseg's own; "
            "for a trunk's weights choose a model with that trunk, of its depth and width."
        )
    made = {name: tensor.to(state[name].dtype).contiguous() for name, tensor in weights.items()}
    random = [name for name in counted if name not in weights]
    # of convolutions: a file without the network's normalisation is no foreign one
    own = (name for kind, ours in _parts(network) if kind is not Hidden for name in ours.values())
    trunks = [name for name in own if name in counted and state[name].ndim > 2]
    foreign = layout in _TRUNKS and sum(name in weights for name in trunks) < len(trunks) / 2
    return Start(made, layout, origin, taken / sum(counted.values()), len(tensors), random, foreign)


def _attempts(
    tensors: Mapping[str, Tensor], network: nn.Module, inflate: Inflate
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """What each layout gives: onto the network by its own names and by nnU-Net's, and onto its trunks."""
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    yield _OWN, fitted(tensors, shapes, inflate)
    ours = words(network)
    for layout, whole in _WHOLE.items():
        named = {ours[said]: tensor for said, tensor in whole(tensors).items() if said in ours}
        yield layout, fitted(named, shapes, inflate)
    for layout, translated in _TRUNKS.items():
        theirs = {said: as_shown(tensor) for said, tensor in translated(tensors).items()}
        found: dict[str, Tensor] = {}
        for kind, ours in _parts(network):
            named = {ours[said]: tensor for said, tensor in theirs.items() if said in ours}
            own = {name: shapes[name] for name in ours.values() if name in shapes}
            found |= fitted(named, own, inflate, image=kind is not Hidden)
        yield layout, found


def _parts(network: nn.Module) -> Iterator[tuple[type[nn.Module], dict[str, str]]]:
    """The parts of a network that layouts of trunks name, and the names of their tensors by our words."""
    for place, part in network.named_modules():
        for kind, within in _PARTS.items():
            if isinstance(part, kind):
                ahead = f"{place}." if place else ""
                yield kind, {within + said: ahead + own for said, own in words(part).items()}


def _source(place: Path) -> tuple[Mapping[str, Tensor], str]:
    """The tensors of a file or of a stored model, and what they are in words, without a path."""
    if not place.is_dir():
        if (place.parent / "config.json").is_file() and (place.parent / "README.md").is_file():
            raise BundleError("init.from: that file is a part of a model. Name its folder, which says what it learned.")
        return read(place), f"SHA-256 {files.sha256(place)[:16]}..."
    model = lineage.find("init.from", str(place))
    if len(model.members) > 1:
        raise ConfigError(
            f"init.from: that model is an ensemble of {len(model.members)}. Name one of them, such as RUN/fold_0."
        )
    return model.members[0], str(model)


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.float()).all())  # types of 8 bits have no test of their own
