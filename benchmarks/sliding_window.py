"""A network over a scan by overlapping windows, to a label map: stitching alone, and with a real U-Net."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import medseg
from benchmarks import _operation as operation
from benchmarks._operation import Variant
from medseg import system
from medseg.inference import autotuning
from medseg.inference.ensemble import Ensemble
from medseg.inference.windows import window_starts

_OVERLAP = 0.5
_BATCH = 4  # windows at once, medseg's default


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__)
    made.add_argument("--shape", type=int, nargs=3, default=(192, 192, 480), help="of the scan for stitching alone")
    made.add_argument("--network-shape", type=int, nargs=3, default=(192, 192, 160), help="of the scan for the U-Net")
    made.add_argument("--window", type=int, default=96, help="edge of the cubic window")
    made.add_argument("--classes", type=int, default=16)
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    operation.main("sliding_window", parser(), sections, arguments, lambda _, asked: _agreement(asked))


def sections(asked: argparse.Namespace) -> operation.Sections:
    """Stitching around a network that costs next to nothing, and around one that costs what networks do."""
    alone = Task(tuple(asked.shape), asked.window, asked.classes, Products)
    whole = Task(tuple(asked.network_shape), asked.window, asked.classes, unet)
    no_monai = operation.missing("monai")
    return {
        f"stitching alone, {_size(alone)}": {
            "medseg": Variant(partial(ours, alone)),
            "medseg, logits kept": Variant(partial(ours, alone, reduce=None)),
            **_peers(alone),
            "windows alone": Variant(partial(windows_alone, alone)),
        },
        f"MONAI's UNet, {_size(whole)}": {
            "medseg": Variant(partial(ours, whole), left_out=no_monai),
            "medseg, as its predictor computes": Variant(
                partial(ours, whole, chosen=True), partial(way, whole), left_out=no_monai
            ),
            **_peers(whole),
            "windows alone": Variant(partial(windows_alone, whole), left_out=no_monai),
        },
    }


def _peers(task: Task) -> dict[str, Variant]:
    no_monai = operation.missing("monai")
    return {
        "monai, 1 window at once": Variant(partial(monai, task, 1), left_out=no_monai),
        f"monai, {_BATCH} windows at once": Variant(partial(monai, task, _BATCH), left_out=no_monai),
        "nnunetv2": Variant(partial(nnunet, task), left_out=operation.missing("monai", "nnunetv2")),
    }


@dataclass(frozen=True)
class Task:
    """A scan of noise, a network, and windows of half an overlap.

    Args:
        shape: voxels of the scan.
        window: edge of the cubic window.
        classes: outputs of the network.
        network: makes it.
    """

    shape: tuple[int, ...]
    window: int
    classes: int
    network: Callable[[int], nn.Module]

    def ready(self) -> tuple[Tensor, nn.Module]:
        """Scan `(1, 1, I, J, K)` and network, the same ones each time, on the device."""
        torch.manual_seed(0)
        network = self.network(self.classes).to(operation.device()).eval()
        return torch.randn(1, 1, *self.shape).to(operation.device()), network


class Products(nn.Module):
    """The one channel times a number for each class."""

    factors: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("factors", torch.linspace(-1, 1, classes).view(1, -1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 1, *spatial)` -> `(B, K, *spatial)`."""
        return x * self.factors


def unet(classes: int) -> nn.Module:
    """A small residual U-Net of MONAI's."""
    from monai.networks.nets import UNet

    widths = (16, 32, 64, 128)
    return UNet(3, 1, classes, channels=widths, strides=(2, 2, 2), num_res_units=2, norm="INSTANCE")


def ours(task: Task, *, chosen: bool = False, reduce: Any = "argmax") -> Callable[[], Tensor]:
    """medseg's public function.

    Args:
        task: scan, network, windows.
        chosen: compute the network in the way that was measured to be quickest here, as a `Predictor` does, not in plain fp32.
        reduce: as of `medseg.sliding_window`.
    """
    image, network = task.ready()
    used: Any = Ensemble([network], image.device, quickest(task, image, network)) if chosen else network
    window = (task.window,) * 3
    return lambda: medseg.sliding_window(image, used, window, overlap=_OVERLAP, batch=_BATCH, reduce=reduce)


def quickest(task: Task, image: Tensor, network: nn.Module) -> autotuning.Way:
    """How the network is computed quickest here; measured in the first process, and remembered for the others."""
    precisions = ("bf16", "fp32") if system.has_bf16(image.device) else ("fp32",)
    example = torch.randn(_BATCH, 1, *(task.window,) * 3, device=image.device)
    name = f"{type(network).__name__}, {task.classes} classes"
    return autotuning.choose(network, example, "benchmark", [name], precisions)


def way(task: Task, result: Tensor) -> dict[str, str]:
    """The quickest one, as a fact."""
    return {"computed in": str(quickest(task, *task.ready()))}


def monai(task: Task, batch: int, *, logits: bool = False) -> Callable[[], Tensor]:
    """MONAI's function, and the label map of its logits."""
    from monai.inferers import sliding_window_inference

    image, network = task.ready()

    def run() -> Tensor:
        with torch.inference_mode():
            window = (task.window,) * 3
            found: Any = sliding_window_inference(image, window, batch, network, overlap=_OVERLAP, mode="gaussian")
            return found if logits else found.argmax(1)

    return run


def nnunet(task: Task) -> Callable[[], Tensor]:
    """nnU-Net's predictor without mirrors, and the label map of its (half precision) logits."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    image, network = task.ready()
    predictor = nnUNetPredictor(1 - _OVERLAP, use_mirroring=False, device=image.device, allow_tqdm=False)
    predictor.network = network
    predictor.configuration_manager = SimpleNamespace(patch_size=[task.window] * 3)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=task.classes)

    def run() -> Tensor:
        with torch.inference_mode():
            return predictor.predict_sliding_window_return_logits(image[0]).argmax(0)

    return run


def windows_alone(task: Task) -> Callable[[], None]:
    """The network over all windows, and nothing made of what it says: the floor."""
    image, network = task.ready()
    starts = [window_starts(n, task.window, _OVERLAP) for n in task.shape]

    def run() -> None:
        with torch.inference_mode():
            for i, j, k in itertools.product(*starts):
                network(image[:, :, i : i + task.window, j : j + task.window, k : k + task.window])

    return run


def _agreement(asked: argparse.Namespace) -> str:
    """How far logits are from MONAI's, on a scan where both put their windows at the same places."""
    if without := operation.missing("monai"):
        return f"logits were compared with nothing: {without}"
    lines = []
    for title, network in (("stitching alone", Products), ("MONAI's UNet", unet)):
        task = Task((asked.window * 3 // 2,) * 3, asked.window, asked.classes, network)
        difference = float((ours(task, reduce=None)() - monai(task, 1, logits=True)()).abs().max())
        lines.append(f"largest difference of logits to MONAI's, {title}, {_size(task)}: {difference:.1e}")
    return "\n".join(lines)


def _size(task: Task) -> str:
    return f"{'x'.join(map(str, task.shape))}, {task.classes} classes"


if __name__ == "__main__":
    main()
