"""A predictor of two stages: the first finds where to look at low resolution, the second looks there alone."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from medseg import bundle, cohort, io, preprocess
from medseg import geometry as geo
from medseg.bundle import Bundle
from medseg.data.scans import Scan
from medseg.errors import BundleError, MedsegError
from medseg.geometry.region import Region, crop
from medseg.inference import autotuning
from medseg.inference.windows import Config as Inference
from medseg.labels import Labels
from medseg.postprocess import Config as Postprocess
from medseg.predictor import Predictor
from medseg.preprocess import Config as Preprocess
from medseg.preprocess import Intensity
from medseg.volume import Geometry, Volume

Array = npt.NDArray[Any]
Make = Callable[..., Path]
AXCODES = ["".join(c) for p in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*p)]
PLAIN = (Intensity(kind="none"),)
MASK = Labels.of({"bright": 3})
AROUND = Region(margin_mm=3, least_mm=(10, 10, 10))


class Threshold(nn.Module):
    """Class 1 where the image is above a value, and what it was shown."""

    def __init__(self, value: float = 0.5) -> None:
        super().__init__()
        self.value = value
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown += [*x]
        logit = (x[:, :1] - self.value) * 10
        return torch.cat([-logit, logit], 1)


def model(network: nn.Module, locator: Predictor | None = None, **changes: Any) -> Predictor:
    known: dict[str, Any] = {
        "name": "hand-made",
        "model": {"name": "unet"},
        "spatial_dims": 3,
        "channels": ("MR",),
        "labels": MASK,
        "preprocess": Preprocess(intensity=PLAIN, crop_empty=False),
        "inference": Inference(window=(8, 8, 8)),
        "locate": AROUND if locator else None,
    }
    return Predictor.of(Bundle(**known | changes), [network], device="cpu", locator=locator)


def coarse(value: float = 0.2, **changes: Any) -> Predictor:
    """Sees 4 mm at a time, which leaves little of a small structure's values."""
    prepared = Preprocess(intensity=PLAIN, crop_empty=False, spacing_mm=(4, 4, 4))
    return model(Threshold(value), **{"preprocess": prepared, **changes})


def both(fine: nn.Module | None = None, **changes: Any) -> Predictor:
    return model(fine or Threshold(), coarse(), **changes)


def phantom(geometry: Geometry | None = None, at: tuple[float, float, float] = (33, 12, 28)) -> Volume:
    """Two balls of 6 and 4 mm in a scan of 44 x 48 x 40 mm, 0 elsewhere."""
    geometry = geometry or Geometry((44, 48, 20), np.diag([1.0, 1, 2, 1]))
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1)
    far = [np.linalg.norm(geometry.to_world(index) - np.add(at, off), axis=-1) for off in ((0, 0, 0), (-3, 9, 2))]
    array = np.maximum(*(np.clip((mm - distance) / 2 + 0.5, 0, 1) for mm, distance in zip((6, 4), far, strict=True)))
    return Volume(array.astype(np.float32), geometry)


def same(found: Predictor, scan: Volume) -> None:
    """Two stages say what the second one alone says of the whole scan."""
    alone = model(Threshold(), preprocess=found.bundle.preprocess, inference=found.bundle.inference)(scan)
    two = found(scan)
    assert alone.mask.array.any()
    assert two.mask.geometry == scan.geometry
    assert two.warnings == alone.warnings
    np.testing.assert_array_equal(two.mask.array, alone.mask.array)


# --- the same mask, from a part of the scan


@pytest.mark.parametrize("axcodes", AXCODES)
def test_the_mask_is_that_of_the_whole_scan_in_every_orientation(axcodes: str) -> None:
    same(both(), geo.reorient(phantom(), axcodes))


def test_a_part_of_the_scan_is_computed() -> None:
    network, alone = Threshold(), Threshold()
    whole = model(alone)(phantom())
    found = both(network)
    ready = found.prepare(phantom())
    voxels = np.prod([s.stop - s.start for s in ready.box]) / np.prod(ready.mask_grid.shape)
    assert voxels < 0.25
    np.testing.assert_array_equal(found.segment(ready).mask.array, whole.mask.array)
    assert len(network.shown) < 0.3 * len(alone.shown)


def test_a_prediction_tells_the_work_of_its_second_stage() -> None:
    """As often as a voxel of the part was computed: the windows that were shown, over the part."""
    network = Threshold()
    found = both(network)
    ready = found.prepare(phantom())
    assert found.segment(ready).passes == pytest.approx(len(network.shown) * 8**3 / ready.image[0].numel())


ROTATED = np.array([[0.8, -0.6, 0, -3], [0.6, 0.8, 0, 5], [0, 0, 2, -40], [0, 0, 0, 1]])
TILTED = np.array([[1.0, 0, 0, -16], [0, 1.0, 0.7, -20], [0, 0, 2.5, -15], [0, 0, 0, 1]])


@pytest.mark.parametrize("affine", [ROTATED, ROTATED @ np.diag([-1, 1, -1, 1])], ids=["oblique", "flipped"])
def test_oblique_scans(affine: Array) -> None:
    geometry = Geometry((44, 48, 20), affine)
    same(both(), phantom(geometry, tuple(geometry.to_world((30.3, 12.2, 13.1)))))


@pytest.mark.parametrize("spacing", [None, 1.4])
def test_tilted_scans_and_other_grids(spacing: float | None) -> None:
    """Grids of a part and of the whole lie half a voxel apart, and masks differ by as much."""
    geometry = Geometry((40, 44, 16), TILTED)
    scan = phantom(geometry, tuple(geometry.to_world((26, 14, 8))))
    prepared = Preprocess(intensity=PLAIN, crop_empty=False, spacing_mm=(spacing,) * 3)
    masks = [m(scan).mask.array > 0 for m in (both(preprocess=prepared), model(Threshold(), preprocess=prepared))]
    assert 2 * (masks[0] & masks[1]).sum() / sum(mask.sum() for mask in masks) > 0.95


@pytest.mark.parametrize("at", [(0, 0, 0), (43, 47, 38), (0, 24, 38), (22, 47, 0)])
def test_structures_on_the_border(at: tuple[float, float, float]) -> None:
    same(both(), phantom(at=at))


def test_a_mask_is_cleaned_where_it_lies() -> None:
    scan = phantom()
    array = scan.array.copy()
    array[0, 27:29, 4:6, 8:10] = 1  # a speck within the part that is looked at
    found = both(postprocess=Postprocess(largest_component=("bright",)))(scan.replace(array=array))
    np.testing.assert_array_equal(found.mask.array > 0, model(Threshold())(scan).mask.array > 0)


def test_the_first_stage_is_cleaned_too() -> None:
    """Else a false speck in a corner would have all of the scan computed."""
    array = phantom().array.copy()
    array[0, :4, 44:, :2] = 1
    scan = phantom().replace(array=array)
    clean = Postprocess(largest_component=("bright",))
    boxes = [model(Threshold(), coarse(postprocess=how)).prepare(scan).box for how in (Postprocess(), clean)]
    assert boxes[1] == both().prepare(phantom()).box != boxes[0]


def test_labels_of_the_stages_may_differ() -> None:
    class Two(Threshold):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return torch.cat([logits, logits[:, 1:] - 100], 1)

    locator = coarse(labels=Labels.of({"whole": [1, 2], "core": [2]}))
    found = model(Two(), locator, labels=Labels.of({"bright": 3, "dark": 7}))(phantom())
    np.testing.assert_array_equal(found.mask.array, np.where(phantom().array > 0.5, 3, 0))


def test_slices_may_be_found_and_looked_at() -> None:
    flat = Inference(window=(8, 8, 1))
    same(model(Threshold(), coarse(spatial_dims=2, inference=flat)), phantom())
    same(both(spatial_dims=2, inference=flat), phantom())


# --- what the second stage sees


def test_values_are_those_of_the_part_alone() -> None:
    """As in training: a z-score by the part's own mean."""
    scan = phantom()
    scored = Preprocess(intensity=(Intensity(kind="z_score"),), crop_empty=False)
    ready = both(preprocess=scored).prepare(scan)
    expected = preprocess.prepare(crop(scan, ready.box), scored)
    np.testing.assert_array_equal(ready.image, expected.array)
    assert ready.grid == expected.geometry
    assert ready.mask_grid == scan.geometry


def test_nothing_found_is_no_empty_mask() -> None:
    scan = phantom()
    found = model(Threshold(), coarse(value=2.0))(scan)
    np.testing.assert_array_equal(found.mask.array, model(Threshold())(scan).mask.array)
    assert found.mask.array.any()
    assert found.warnings == (
        "the first stage found nothing: the second one saw the whole scan, which it was not trained for",
    )
    empty = both()(scan.replace(array=scan.array * 0.0))
    assert len(empty.warnings) == 3
    assert empty.warnings[1:] == (found.warnings[0], "nothing was found: the mask is empty")


def test_background_is_certain_elsewhere() -> None:
    found, scan = both(), phantom()
    prediction, whole = (m(scan, probabilities=True) for m in (found, model(Threshold())))
    assert prediction.probabilities is not None
    assert whole.probabilities is not None
    likely, inside = prediction.probabilities.array, np.zeros(scan.geometry.shape, bool)
    inside[found.prepare(scan).box] = True
    assert prediction.probabilities.geometry == scan.geometry
    np.testing.assert_array_equal(likely[:, ~inside], np.array([[1.0], [0.0]]).repeat((~inside).sum(), 1))
    np.testing.assert_allclose(likely[:, inside], whole.probabilities.array[:, inside], atol=1e-6)


def test_overlapping_labels_are_absent_elsewhere() -> None:
    labels = Labels.of({"whole": [1, 2], "core": [2]})

    class Inside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([(x - 0.3) * 10, (x - 0.7) * 10], 1)

    found, scan = model(Inside(), coarse(), labels=labels), phantom()
    prediction = found(scan, probabilities=True)
    np.testing.assert_array_equal(prediction.mask.array, np.concatenate([scan.array > 0.3, scan.array > 0.7]))
    assert prediction.probabilities is not None
    outside = np.ones(scan.geometry.shape, bool)
    outside[found.prepare(scan).box] = False
    assert not prediction.probabilities.array[:, outside].any()


# --- around it


def test_out_of_memory_in_either_stage(caplog: pytest.LogCaptureFixture) -> None:
    class Large(Threshold):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    locator = coarse()
    locator.ensemble.networks[0].forward = Large(0.2).forward  # type: ignore[method-assign]
    two = model(Large(), locator)
    np.testing.assert_array_equal(two(phantom()).mask.array, model(Threshold())(phantom()).mask.array)
    assert caplog.text.count("out of memory on cpu") == 2


def test_a_folder_of_scans(tmp_path: Path) -> None:
    """The next scan is located and read while one is segmented; a bad one stops none."""
    scans, expected = [], {}
    for number in range(3):
        scan = phantom(at=(10.0 + 10 * number, 12, 28))
        io.write(scan, tmp_path / f"{number}.nii.gz")
        scans.append(Scan(f"{number}", (tmp_path / f"{number}.nii.gz",)))
        expected[number] = np.where(scan.array > 0.5, 3, 0)
    io.write(phantom().replace(array=phantom().array * 0.3), tmp_path / "faint.nii.gz")
    (tmp_path / "bad.nii.gz").write_text("x")
    scans[1:1] = [Scan(name, (tmp_path / f"{name}.nii.gz",)) for name in ("bad", "faint")]
    outcomes = cohort.predict(both(), scans, tmp_path / "masks")
    assert [bool(outcome.error) for outcome in outcomes] == [False, True, False, False, False]
    for number, array in expected.items():
        np.testing.assert_array_equal(io.read(tmp_path / f"masks/{number}.nii.gz").array, array)
    with (tmp_path / "masks/volumes.csv").open(newline="") as stream:
        notes = {row["case"]: row["note"] for row in csv.DictReader(stream)}
    assert "nothing was found: the mask is empty" in notes["faint"]


def test_memory_between_the_stages_is_that_of_the_part() -> None:
    ready = both().prepare(phantom())
    assert ready.image.untyped_storage().nbytes() == 4 * ready.image.numel() < phantom().array.nbytes / 4


# --- stored


@pytest.fixture
def stored(make_bundle: Make, tmp_path: Path) -> Path:
    """Untrained: the first stage of two labels at 4 mm, the second beside it."""
    make_bundle(tmp_path / "model/locator", seed=5, preprocess={"spacing_mm": (4, 4, 4)}, labels=Labels.of([1, 2]))
    return make_bundle(tmp_path / "model", locate=AROUND.model_dump())


def test_one_folder_holds_both(stored: Path, tmp_path: Path) -> None:
    shutil.copytree(stored, tmp_path / "elsewhere")
    shutil.rmtree(stored)
    found = Predictor(tmp_path / "elsewhere", device="cpu", precision="fp32")
    assert found.bundle.locate == AROUND
    assert found.locator is not None
    assert found.locator.bundle.preprocess.spacing_mm == (4, 4, 4)
    assert found.locator.locator is None
    first = Predictor(tmp_path / "elsewhere/locator", device="cpu", precision="fp32")
    scan = phantom()
    box = AROUND.around(*first.find(scan), scan.geometry)
    assert found.prepare(scan).box == box


def test_both_stages_compute_as_asked(stored: Path) -> None:
    found = Predictor(stored, device="cpu", precision="bf16")
    assert found.locator is not None
    assert found.locator.ensemble.way.precision == found.ensemble.way.precision == "bf16"


def test_both_stages_are_measured_on_first_use(stored: Path) -> None:
    found = Predictor(stored, device="cpu")
    assert not autotuning.remembered()
    found(phantom())
    assert len(autotuning.remembered()) == 2


def test_the_card_names_both_stages(stored: Path) -> None:
    text = (stored / "README.md").read_text()
    assert "Two stages: the model in `locator/`" in text
    assert "a margin of 3 mm and 10 x 10 x 10 mm at least" in text
    assert "Two stages" not in (stored / "locator/README.md").read_text()


def test_a_model_of_one_stage_has_none(make_bundle: Make, tmp_path: Path) -> None:
    """Those that were stored before there were two too."""
    folder = make_bundle(tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    for name in ("locate", "locator", "checksum"):
        content.pop(name)
    (folder / "config.json").write_text(json.dumps(content))
    found = Predictor(folder, device="cpu")
    assert found.locator is None
    assert found.bundle.locate is None


def test_a_first_stage_that_is_missing(stored: Path) -> None:
    shutil.rmtree(stored / "locator")
    with pytest.raises(BundleError, match=r"^the model lacks its first stage, the folder 'locator'\. Copy the whole"):
        Predictor(stored)


def test_a_first_stage_that_is_another(stored: Path, make_bundle: Make) -> None:
    make_bundle(stored / "locator", seed=6)
    with pytest.raises(BundleError, match=r"^'locator' is not the first stage that was saved \(its checksum differs\)"):
        Predictor(stored)


@pytest.mark.parametrize("content", ["[", "[]", "{}"])
def test_a_first_stage_that_is_damaged(stored: Path, content: str) -> None:
    (stored / "locator/config.json").write_text(content)
    with pytest.raises(MedsegError) as caught:
        Predictor(stored)
    assert "\n" not in str(caught.value)


def test_weights_of_the_first_stage_are_checked(stored: Path) -> None:
    data = bytearray((stored / "locator/model.safetensors").read_bytes())
    data[-1] ^= 1
    (stored / "locator/model.safetensors").write_bytes(data)
    with pytest.raises(BundleError, match="is not the file that was saved"):
        Predictor(stored)


def test_scores_are_added_without_touching_the_first_stage(stored: Path) -> None:
    before = (stored / "locator/config.json").read_bytes()
    bundle.describe(stored, bundle.read(stored).model_copy(update={"scores": {"held_out_dice": 0.9}}))
    assert (stored / "locator/config.json").read_bytes() == before
    assert Predictor(stored, device="cpu").bundle.scores == {"held_out_dice": 0.9}
