"""The usual hand-written MONAI script for a small 3D dataset: learn within a budget, then segment the test cases.

    python monai_train.py CASES.json -o FOLDER --budget 1200 [--seed 0]

CASES.json: {"classes": 3, "train": [{"image": [FILE a channel], "label": FILE}], "test": [{"id": NAME, "image": [FILE]}]}.
The clock starts with the imports, and the learning rate is down when it is over; the predictions come on top. Leaves NAME.nii.gz
in the folder, and prints JSON.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402  the imports are on the clock
import json  # noqa: E402
import math  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from monai.data import CacheDataset, DataLoader, MetaTensor  # noqa: E402
from monai.inferers import sliding_window_inference  # noqa: E402
from monai.losses import DiceCELoss  # noqa: E402
from monai.networks.nets import UNet  # noqa: E402
from monai.transforms import (  # noqa: E402
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
    SaveImage,
    Spacingd,
    SpatialPadd,
)
from monai.utils import set_determinism  # noqa: E402

PATCH, SPACING_MM, BATCH, WORKERS, RATE = (40, 56, 40), (1.0, 1.0, 1.0), 7, 2, 1e-3
BOTH = ("image", "label")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    """Train, predict, say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=1200, help="seconds of wall clock until the end of training")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    cases = json.loads(asked.cases.read_text())
    set_determinism(seed=asked.seed)
    network = UNet(
        spatial_dims=3,
        in_channels=len(cases["train"][0]["image"]),
        out_channels=cases["classes"],
        channels=(16, 32, 64, 128),
        strides=(2, 2, 2),
        num_res_units=2,
        norm="INSTANCE",
    ).to(DEVICE)
    facts = train(network, cases["train"], asked.budget)
    began = time.perf_counter()
    predict(network, cases["test"], asked.out)
    print(json.dumps({**facts, "predict_s": time.perf_counter() - began}))


def preparation(keys: tuple[str, ...]) -> list[Any]:
    """Onto one grid, normalised, at least as large as a patch."""
    return [
        LoadImaged(keys),
        EnsureChannelFirstd(keys),
        Orientationd(keys, axcodes="RAS", labels=None),
        Spacingd(keys, pixdim=SPACING_MM, mode=("bilinear", "nearest")[: len(keys)]),
        NormalizeIntensityd("image", channel_wise=True),
        SpatialPadd(keys, spatial_size=PATCH),
    ]


def augmentation() -> list[Any]:
    """A patch that holds foreground every other time, moved and disturbed a little."""
    return [
        RandCropByPosNegLabeld(BOTH, label_key="label", spatial_size=PATCH, pos=1, neg=1, num_samples=1),
        RandAffined(
            BOTH,
            prob=0.5,
            rotate_range=(0.26,) * 3,
            scale_range=(0.1,) * 3,
            mode=("bilinear", "nearest"),
            padding_mode="border",
        ),
        *(RandFlipd(BOTH, prob=0.5, spatial_axis=axis) for axis in range(3)),
        RandGaussianNoised("image", prob=0.15, std=0.1),
        RandScaleIntensityd("image", factors=0.1, prob=0.5),
        RandShiftIntensityd("image", offsets=0.1, prob=0.5),
    ]


def train(network: torch.nn.Module, cases: list[dict[str, Any]], budget_s: float) -> dict[str, Any]:
    """Steps until the budget is over, the learning rate on a cosine over its elapsed share."""
    data = CacheDataset(cases, Compose(preparation(BOTH) + augmentation()), num_workers=WORKERS, progress=False)
    size = min(BATCH, len(cases))
    loader = DataLoader(
        data, batch_size=size, shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True
    )
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-5)
    batches, steps, waited_s = endless(loader), 0, 0.0
    network.train()
    while (share := (time.perf_counter() - STARTED) / budget_s) < 1 or steps == 0:
        asked = time.perf_counter()
        batch = next(batches)
        waited_s += time.perf_counter() - asked
        for group in optimiser.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * min(share, 1)))
        optimiser.zero_grad(set_to_none=True)
        value = loss(network(batch["image"].as_tensor().to(DEVICE)), batch["label"].as_tensor().to(DEVICE))
        value.backward()
        optimiser.step()
        steps += 1
    seconds = time.perf_counter() - STARTED
    return {"steps": steps, "seconds": seconds, "waiting": waited_s / seconds}


def endless(loader: DataLoader) -> Iterator[dict[str, Any]]:
    """Batches, epoch after epoch."""
    while True:
        yield from loader


def predict(network: torch.nn.Module, cases: list[dict[str, Any]], out: Path) -> None:
    """Masks on the scans' own grids."""
    before = Compose(preparation(("image",)))
    home = Compose(
        [Invertd("mask", transform=before, orig_keys="image", nearest_interp=False), AsDiscreted("mask", argmax=True)]
    )
    save = SaveImage(output_postfix="", separate_folder=False, resample=False, print_log=False, output_dtype="uint8")
    network.eval()
    out.mkdir(parents=True, exist_ok=True)
    for case in cases:
        read = before({"image": case["image"]})
        image = read["image"]
        with torch.no_grad():
            batch = image.as_tensor()[None].to(DEVICE)
            logits = sliding_window_inference(batch, PATCH, 4, network, overlap=0.5, mode="gaussian")[0].cpu()
        read["mask"] = MetaTensor(logits, meta=image.meta, applied_operations=image.applied_operations)
        save(home(read)["mask"], filename=str(out / case["id"]))


if __name__ == "__main__":
    main()
