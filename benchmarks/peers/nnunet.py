"""nnU-Net without days of training: its own plan for a dataset that numbers describe, its trainer, and an untrained model.

Its planner looks at a fingerprint (sizes, spacings, intensities) and at no scan but one, for the kind of file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import medseg
from benchmarks._described import CT_HIGH, CT_LOW, CT_MEAN, CT_MINIMUM, CT_STD, Described

CONFIGURATION = "3d_fullres"
FOLDER = f"nnUNetTrainer__nnUNetPlans__{CONFIGURATION}"
_NAME = "Dataset001_Described"
_SEED = 0


def trainer(data: Described, folder: Path) -> Any:
    """nnU-Net's trainer with its planned network (random weights, the same ones each time), loss and optimiser, but no data.

    Args:
        data: to be planned for.
        folder: new; takes all its files.
    """
    settle(folder)
    content = _describe(data, folder)
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with contextlib.redirect_stdout(io.StringIO()):
        plans = ExperimentPlanner(_NAME).plan_experiment()
        made = nnUNetTrainer({**plans, "continue_training": False}, CONFIGURATION, "all", content, device)
    torch.manual_seed(_SEED)
    parts = (made.plans_manager, made.configuration_manager)
    heads = made.label_manager.num_segmentation_heads
    made.network = made.build_network_architecture(*parts, 1, heads, enable_deep_supervision=True).to(device)
    made.loss = made._build_loss()
    made.optimizer, made.lr_scheduler = made.configure_optimizers()
    return made


def settle(folder: Path) -> None:
    """Tell nnU-Net where its files are to lie."""
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / name)


def batch(made: Any) -> tuple[int, ...]:
    """Planned size of a batch `(B, 1, *patch)`."""
    how = made.configuration_manager
    return how.batch_size, 1, *how.patch_size


def step(made: Any, image: Tensor, target: Tensor) -> Callable[[], float]:
    """A step of its trainer, with targets at each resolution that its loss looks at; on a GPU compiled, as is its default.

    Args:
        made: the trainer.
        image: `(B, 1, *patch)`.
        target: classes `(B, *patch)`.
    """
    if made._do_i_compile():
        made.network = torch.compile(made.network)
    shares = made._get_deep_supervision_scales()  # of the patch along each axis, finest first
    sizes = [[round(n * s) for n, s in zip(target.shape[1:], share, strict=True)] for share in shares]
    targets = [torch.nn.functional.interpolate(target[:, None].float(), size, mode="nearest") for size in sizes]
    drawn = {"data": image, "target": [each.to(torch.int16) for each in targets]}
    return lambda: float(made.train_step(drawn)["loss"])


def model(data: Described, folder: Path) -> Path:
    """An untrained model as its commands take it."""
    made = trainer(data, folder)
    place = folder / "results" / _NAME / FOLDER
    files = {"plans.json": made.plans_manager.plans, "dataset.json": made.dataset_json}
    for name, content in files.items():
        (place / name).write_text(json.dumps(content))
    made.save_checkpoint(str(place / "fold_all" / "checkpoint_final.pth"))
    return place


def _describe(data: Described, folder: Path) -> dict[str, Any]:
    """Leave `dataset.json` with one tiny scan, and a fingerprint; its axes are k, j and i."""
    raw, prepared = (folder / part / _NAME for part in ("raw", "preprocessed"))
    prepared.mkdir(parents=True)
    scan = medseg.Volume(np.zeros((8, 8, 8), np.int16), medseg.Geometry((8, 8, 8), np.eye(4)))
    for part in ("imagesTr/one_0000", "labelsTr/one"):
        (raw / part).parent.mkdir(parents=True)
        medseg.write(scan, raw / f"{part}.nii.gz")
    content = {
        "channel_names": {"0": data.modality},
        "labels": {"background": 0, **{f"structure {n}": n for n in range(1, data.labels + 1)}},
        "numTraining": data.cases,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    inside = {"mean": CT_MEAN, "median": CT_MEAN, "std": CT_STD, "min": CT_MINIMUM, "max": CT_HIGH}
    inside |= {"percentile_00_5": CT_LOW, "percentile_99_5": CT_HIGH}
    found = {
        "spacings": [data.spacing_mm[::-1]] * data.cases,
        "shapes_after_crop": [data.shape[::-1]] * data.cases,
        "foreground_intensity_properties_per_channel": {"0": inside},
        "median_relative_size_after_cropping": 1.0,
    }
    (prepared / "dataset_fingerprint.json").write_text(json.dumps(found))
    return content
