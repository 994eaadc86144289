"""The networks of a stored model: its architecture with its weights, or what it was exported to."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from medseg import bundle as bundles
from medseg import models
from medseg.bundle import Bundle
from medseg.bundle.runtimes import ENDINGS, Exported
from medseg.errors import BundleError


def load(folder: Path, described: Bundle, module: str | None = None) -> list[nn.Module]:
    """The networks in a bundle's folder, as they predict quickest.

    Args:
        folder: of the bundle.
        described: what `bundle.read` says of it.
        module: import path of the user's own module that may be trusted.

    Raises:
        BundleError: a file is missing or not what was saved, or as in `build`.
    """
    if described.runtime != "torch":
        paths, opened = bundles.stored_files(folder, described), ENDINGS[described.runtime][0]
        return [Exported(path, described.runtime) for path in paths if path.suffix == opened]
    return [fold_batch_norm(network) for network in build(*bundles.load(folder), module)]


def build(described: Bundle, members: Sequence[Mapping[str, Tensor]], module: str | None = None) -> list[nn.Module]:
    """The networks of a bundle.

    Args:
        described, members: as `bundle.load` gives them.
        module: import path of the user's own module that may be trusted.

    Raises:
        BundleError: another module is asked for, or the weights do not fit.
    """
    name, networks = str(described.model.get("name")), []
    if "." in name and name != module:
        raise BundleError(
            f"the model is a user's own module '{name}', and medseg runs no code from files. If you trust that module, "
            f"name it in Python: medseg.load(FOLDER, module='{name}'), and alike in medseg.export."
        )
    for weights in members:
        network = models.create_model(
            described.model,
            spatial_dims=described.spatial_dims,
            in_channels=len(described.channels),
            out_channels=described.labels.channels,
            dotted=name == module,
        )
        try:
            network.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise BundleError(
                "the weights do not fit the model that config.json describes. Copy the bundle again."
            ) from error
        networks.append(network)
    return networks


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Merge batch normalisation into the convolution before it, where the two follow each other in a `Sequential`."""
    for part in network.modules():
        if isinstance(part, nn.Sequential):
            for n, (first, second) in enumerate(itertools.pairwise(part)):
                fixed = isinstance(second, nn.modules.batchnorm._BatchNorm) and second.track_running_stats
                if fixed and isinstance(first, nn.Conv2d | nn.Conv3d):
                    part[n] = nn.utils.fusion.fuse_conv_bn_eval(first.eval(), second.eval())  # type: ignore[arg-type]
                    part[n + 1] = nn.Identity()
    return network
