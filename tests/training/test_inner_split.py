from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medseg import io
from medseg.bundle import Bundle
from medseg.data.cases import Case
from medseg.errors import MedsegError
from medseg.inference import sliding
from medseg.inference.sliding import Stream
from medseg.inference.windows import Config as Inference
from medseg.labels import Labels
from medseg.preprocess import Config as Preprocess
from medseg.preprocess import Intensity
from medseg.training.inner_split import InnerSplit
from medseg.training.prepared import Prepared
from medseg.volume import Geometry, Volume

SHAPE = (8, 8, 6)
GEOMETRY = Geometry(SHAPE, np.eye(4))
ONE = Labels.of({"background": 0, "bright": 1})
TWO = Labels.of({"background": 0, "whole": [1, 2], "core": [2]})


class Threshold(nn.Module):
    """Logit of a structure: the image above a weight. What the weights are is what is found."""

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels))

    def forward(self, x: Tensor) -> Tensor:
        found = 10 * (x - self.levels[None, :, None, None, None])
        return torch.cat([torch.zeros_like(x), found], 1) if len(self.levels) == 1 else found


def inner(labels: Labels, cases: list[Prepared], levels: tuple[float, ...]) -> InnerSplit:
    described = Bundle(
        name="hand-made",
        model={"name": "unet"},
        spatial_dims=3,
        channels=("MRI",),
        labels=labels,
        preprocess=Preprocess(intensity=(Intensity(kind="none"),), crop_empty=False),
        inference=Inference(window=(4, 4, 4)),
    )
    return InnerSplit(described, Threshold(levels), cases)


def prepared(image: np.ndarray, target: np.ndarray) -> Prepared:
    return Prepared("a", GEOMETRY, image[None].astype(np.float32), target.astype(np.int16), {})


def weights(*levels: float) -> dict[str, Tensor]:
    return {"levels": torch.tensor(levels)}


@pytest.fixture
def image() -> np.ndarray:
    """16 voxels of 1, of which 4 are 2."""
    array = np.zeros(SHAPE)
    array[2:6, 2:6, 3] = 1
    array[2:4, 2:4, 3] = 2
    return array


def test_dice_of_the_given_weights(image: np.ndarray) -> None:
    judge = inner(ONE, [prepared(image, (image > 0)[None])], (0.5,))
    assert judge.dice(weights(0.5)) == 1
    assert judge.dice(weights(1.5)) == pytest.approx(2 * 4 / (4 + 16))
    assert judge.dice(weights(5.0)) == 0
    assert judge.dice(weights(0.5)) == 1


def test_the_network_in_training_is_left_alone(image: np.ndarray) -> None:
    network = Threshold((0.5,)).train()
    judge = inner(ONE, [prepared(image, (image > 0)[None])], (0.5,))
    judge = InnerSplit(judge.predictor.bundle, network, judge.cases)
    judge.dice(weights(9.0))
    assert network.levels.item() == 0.5
    assert network.training


def test_voxels_that_nobody_annotated_do_not_count(image: np.ndarray) -> None:
    target = (image > 0).astype(np.int16)
    target[2:4, 2:4, 3] = -1
    judge = inner(ONE, [prepared(image, target[None])], (0.5,))
    assert judge.dice(weights(0.5)) == 1
    assert judge.dice(weights(1.5)) == 0  # what is found lies there alone


def test_absent_structures_are_left_out_and_invented_ones_are_worst(image: np.ndarray) -> None:
    full, empty = prepared(image, (image > 0)[None]), prepared(image * 0, np.zeros((1, *SHAPE)))
    assert inner(ONE, [full, empty], (0.5,)).dice(weights(0.5)) == 1
    invented = prepared(image, np.zeros((1, *SHAPE)))
    assert inner(ONE, [full, invented], (0.5,)).dice(weights(0.5)) == 0.5
    assert inner(ONE, [empty], (0.5,)).dice(weights(0.5)) == 0


def test_what_lies_outside_of_the_part_counts_as_missed(image: np.ndarray) -> None:
    """Else a first stage that finds half of a structure would be praised for it."""
    case = prepared(image, (image > 0)[None])
    assert inner(ONE, [replace(case, missed_ml=(8e-3,))], (0.5,)).dice(weights(0.5)) == pytest.approx(
        2 * 16 / (16 + 24)
    )
    gone = replace(prepared(image * 0, np.zeros((1, *SHAPE))), missed_ml=(8e-3,))
    assert inner(ONE, [case, gone], (0.5,)).dice(weights(0.5)) == 0.5
    two = replace(prepared(image, np.stack([image > 0, image > 1])), missed_ml=(0.0, 4e-3))
    assert inner(TWO, [two], (0.5, 1.5)).dice(weights(0.5, 1.5)) == pytest.approx((1 + 2 * 4 / (4 + 8)) / 2)


def test_regions_are_judged_one_by_one(image: np.ndarray) -> None:
    judge = inner(TWO, [prepared(image, np.stack([image > 0, image > 1]))], (0.5, 1.5))
    assert judge.dice(weights(0.5, 1.5)) == 1
    assert judge.dice(weights(0.5, 9.0)) == 0.5


def test_a_cleaning_that_helps_is_chosen(image: np.ndarray, tmp_path: Path) -> None:
    """Four cases with a false speck each, which the largest component removes."""
    cases: list[Case] = []
    for number in range(4):
        noisy: Any = image.copy()
        noisy[0, 0, 0] = 1
        io.write(Volume(noisy.astype(np.float32), GEOMETRY), tmp_path / f"{number}.nii.gz")
        io.write(Volume((image > 0).astype(np.uint8), GEOMETRY, "labels"), tmp_path / f"{number}_mask.nii.gz")
        cases.append(Case(str(number), (tmp_path / f"{number}.nii.gz",), tmp_path / f"{number}_mask.nii.gz"))
    chosen = inner(ONE, [], (0.5,)).postprocess(weights(0.5), cases)
    assert chosen.largest_component == ("bright",) or "bright" in chosen.minimum_ml
    clean = inner(ONE, [], (0.5,)).postprocess(weights(5.0), cases)
    assert clean.largest_component == ()


def ramp() -> Prepared:
    image = np.linspace(0, 1, 48)[:, None, None] * np.ones((48, 8, 6))
    return Prepared("a", Geometry((48, 8, 6), np.eye(4)), image[None].astype(np.float32), (image > 0.5)[None] * 1, {})


def test_candidates_are_quicker_than_planned_and_fit_the_memory() -> None:
    chooser = inner(ONE, [ramp()], (0.5,))
    planned = chooser.predictor.bundle.inference
    found = chooser.candidates(voxels=8 * 8 * 8)
    assert list(found.values()) == sorted(found.values())
    assert max(found.values()) <= 0.9
    for config, share in found.items():
        assert {type(n) for n in config.window} == {int}, "a bundle holds plain numbers"
        assert share == pytest.approx(config.cost((48, 8, 6)) / planned.cost((48, 8, 6)))
        assert np.prod(config.window) * config.batch <= max(8**3, np.prod(planned.window) * planned.batch)
        assert config.overlap <= planned.overlap
    assert (8, 8, 8) in {config.window for config in found}


def test_scans_that_fit_one_window_leave_nothing_to_choose() -> None:
    small = Geometry((4, 3, 4), np.eye(4))
    chooser = inner(ONE, [Prepared("a", small, np.zeros((1, 4, 3, 4)), np.zeros((1, 4, 3, 4)), {})], (0.5,))
    assert chooser.candidates(voxels=1e9) == {}


def test_the_quickest_windows_are_taken_where_nothing_is_lost() -> None:
    chooser = inner(ONE, [ramp()], (0.5,))
    candidates = chooser.candidates(voxels=512)
    chooser.choose_windows(weights(0.5), chooser.dice(weights(0.5)), candidates)
    assert chooser.predictor.bundle.inference == next(iter(candidates))


def test_planned_windows_stay_where_quicker_ones_lose() -> None:
    chooser = inner(ONE, [ramp()], (0.5,))
    planned = chooser.predictor.bundle.inference
    chooser.choose_windows(weights(0.5), chooser.dice(weights(0.5)) + 0.002, chooser.candidates(voxels=512))
    assert chooser.predictor.bundle.inference == planned


def test_values_that_are_no_numbers_end_a_run(image: np.ndarray) -> None:
    judge = inner(ONE, [prepared(image, (image > 0)[None])], (0.5,))
    with pytest.raises(MedsegError, match=r"not numbers on the inner split.*train\.precision=fp32"):
        judge.dice(weights(float("nan")))


def test_memory_follows_regions(image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    regions: list[Any] = []
    stream = Stream.__call__
    monkeypatch.setattr(sliding, "_SUMS_BYTES", 1000)

    def watched(self: Stream, region: Any) -> Any:
        regions.append(region)
        return stream(self, region)

    monkeypatch.setattr(Stream, "__call__", watched)
    judge = inner(TWO, [prepared(image, np.stack([image > 0, image > 1]))], (0.5, 1.5))
    assert judge.dice(weights(0.5, 1.5)) == 1
    assert len(regions) > 1
