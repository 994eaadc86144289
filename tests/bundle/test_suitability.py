from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from medseg.bundle.suitability import warnings
from medseg.io import raster
from medseg.preprocess import Config, Intensity, prepare
from medseg.volume import Geometry, Volume

HU = Intensity(kind="clip", low=-160, high=240, mean=40, std=80)
SHAPE = (20, 18, 16)


def volume(low: float = 0, high: float = 100, spacing_mm: Any = (1.0, 1.0, 2.0), channels: int = 1) -> Volume:
    array = np.random.default_rng(0).uniform(low, high, (channels, *SHAPE)).astype(np.float32)
    return Volume(array, Geometry(SHAPE, np.diag([*spacing_mm, 1.0])))


def said(scan: Volume, window: tuple[int, int, int] = (16, 16, 16), **changes: Any) -> tuple[str, ...]:
    config = Config(**{"spacing_mm": (1.0, 1.0, 2.0), "intensity": (Intensity(),) * scan.channels} | changes)
    return warnings(scan, prepare(scan, config).geometry, config, window)


def test_nothing_is_said_of_a_scan_like_those_of_the_training() -> None:
    assert said(volume()) == ()
    assert said(volume(-1000, 800), intensity=(HU,)) == ()
    assert said(volume(0, 9), intensity=(Intensity(kind="clip", low=0, high=20),)) == (), "SUV are no HU"


def test_what_the_reader_noticed_is_said() -> None:
    odd = "sform and qform disagree by up to 3.00 mm; the sform is used"
    assert said(volume().replace(meta={"notes": (odd,)})) == (odd,)
    assert said(volume().replace(meta={"notes": (raster.NOTE,)})) == (), "true of every picture"


def test_a_channel_of_one_value() -> None:
    assert said(volume(7, 7)) == ("the scan holds one value, 7, in all voxels",)
    two: npt.NDArray[Any] = np.array(volume(channels=2).array)
    two[1] = 0
    assert said(volume(channels=2).replace(array=two)) == ("channel 2 holds one value, 0, in all voxels",)


@pytest.mark.parametrize(("low", "high"), [(0, 2000), (-150, 200), (0, 1)])
def test_values_that_are_no_hounsfield_units(low: float, high: float) -> None:
    (line,) = said(volume(low, high), intensity=(HU,))
    assert line.startswith("the scan does not look like Hounsfield units: its values run from ")
    assert line.endswith("and the model looks at -160 to 240")


@pytest.mark.parametrize(
    ("spacing_mm", "far"),
    [
        ((1.0, 1.0, 2.0), False),
        ((3.9, 1.0, 2.0), False),
        ((4.1, 1.0, 2.0), True),
        ((0.11, 0.11, 2.0), False),
        ((1.0, 1.0, 0.19), True),
    ],
)
def test_voxels_of_another_size(spacing_mm: tuple[float, ...], far: bool) -> None:
    found = said(volume(spacing_mm=spacing_mm), (1, 1, 1))
    assert [line for line in found if "far from the 1 x 1 x 2 mm" in line] == list(found)
    assert bool(found) == far
    assert said(volume(spacing_mm=spacing_mm), (1, 1, 1), spacing_mm=(None, None, None)) == ()


def test_axes_are_compared_by_direction_and_not_by_order() -> None:
    scan = volume(spacing_mm=(1.0, 1.0, 9.0))
    turned = Volume(np.moveaxis(scan.array[0], 2, 0), Geometry((16, 20, 18), scan.geometry.affine[:, [2, 0, 1, 3]]))
    assert said(turned, (1, 1, 1)) == said(scan, (1, 1, 1)) != ()
    sideways = {"orientation": "SAR", "spacing_mm": (9.0, 1.0, 1.0)}
    assert said(turned, (1, 1, 1), **sideways) == said(scan, (1, 1, 1), **sideways) == ()


def test_a_scan_that_shows_little() -> None:
    assert said(volume(), (16, 16, 64)) == ()
    assert said(volume(), (16, 16, 65)) == (
        "the scan shows only 20 x 18 x 32 mm, and the model looks at 16 x 16 x 130 mm at once",
    )


@pytest.mark.parametrize(("degrees", "told"), [(0, False), (30, False), (41, True), (47, True), (60, False)])
def test_a_scan_half_way_between_two_axes(degrees: float, told: bool) -> None:
    a, grid = np.radians(degrees), volume().geometry
    turn = np.array([[np.cos(a), -np.sin(a), 0, 5], [np.sin(a), np.cos(a), 0, -3], [0, 0, 1, 0], [0, 0, 0, 1]])
    found = said(volume().replace(geometry=Geometry(SHAPE, turn @ grid.affine)))
    assert any("rotated by" in line for line in found) == told


@pytest.mark.parametrize(("own", "learned"), [("MR", "CT"), ("CT", "MRI"), ("PT", "ct")])
def test_a_scan_of_another_modality_than_the_model_s(own: str, learned: str) -> None:
    scan = volume().replace(meta={"modality": own})
    config = Config(spacing_mm=(1.0, 1.0, 2.0), intensity=(Intensity(),))
    (said_,) = warnings(scan, scan.geometry, config, (16, 16, 16), (learned,))
    assert said_ == f"the scan is {own}, by its DICOM files, and the model learned from {learned}"


@pytest.mark.parametrize(("own", "learned"), [("MR", "MRI"), ("CT", "image"), ("MR", "T1"), ("-", "CT"), ("", "CT")])
def test_modalities_that_agree_or_are_not_known_are_no_matter(own: str, learned: str) -> None:
    scan = volume().replace(meta={"modality": own})
    config = Config(spacing_mm=(1.0, 1.0, 2.0), intensity=(Intensity(),))
    assert not warnings(scan, scan.geometry, config, (16, 16, 16), (learned,))
