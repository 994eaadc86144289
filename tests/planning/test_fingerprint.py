from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg import io
from medseg.data.cases import Case
from medseg.errors import DataError
from medseg.geometry.region import Region
from medseg.labels import Labels
from medseg.planning.fingerprint import take
from medseg.volume import Geometry, Volume

LABELS = Labels.of({"background": 0, "big": 1, "small": 2})


def case(
    root: Path,
    name: str,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 2.0),
    inside: float = 100,
    small: bool = True,
    codes: tuple[int, int, int] = (1, 1, 1),
    shape: tuple[int, int, int] = (8, 6, 4),
) -> Case:
    """Structure 1 fills 24 voxels of value `inside`, structure 2 eight of the value above; elsewhere -5."""
    mask = np.zeros(shape, np.uint8)
    mask[:4, :3, :2] = 1
    mask[6:, 4:, :2] = 2 * small
    image = np.where(mask > 0, inside + (mask == 2), -5).astype(np.float32)
    geometry = Geometry(shape, np.diag([*np.multiply(spacing_mm, codes), 1]))
    io.write(Volume(image, geometry), root / f"{name}.nii.gz")
    io.write(Volume(mask, geometry, "labels"), root / f"{name}_mask.nii.gz")
    return Case(name, (root / f"{name}.nii.gz",), root / f"{name}_mask.nii.gz")


def test_numbers_by_hand(tmp_path: Path) -> None:
    cases = [
        case(tmp_path, "a", (1, 1, 2), 100),
        case(tmp_path, "b", (1, 1, 3), 100),
        case(tmp_path, "c", (2, 1, 4), 100, small=False),
    ]
    found = take(cases, LABELS, ["MRI"])
    assert found.cases == 3
    assert found.shape == (8, 6, 4)
    assert found.spacing_mm == (1, 1, 3)
    assert found.thick_spacing_mm == pytest.approx((1, 1, 2.2))
    assert found.label_ml["big"] == pytest.approx(24 * 3e-3)
    assert found.label_ml["small"] == pytest.approx(8 * np.median([2e-3, 3e-3]))
    (channel,) = found.channels
    values = np.array([100.0] * 72 + [101.0] * 16)
    assert (channel.name, channel.minimum) == ("MRI", -5)
    assert channel.mean == pytest.approx(values.mean(), abs=1e-3)
    assert channel.std == pytest.approx(values.std(), abs=1e-3)
    assert (channel.low, channel.high) == (100, 101)


def test_axes_are_compared_by_direction_not_by_their_order_in_files(tmp_path: Path) -> None:
    plain = take([case(tmp_path, "a")], LABELS, ["MRI"])
    flipped = take([case(tmp_path, "b", codes=(-1, 1, -1))], LABELS, ["MRI"])
    assert plain == flipped


def test_a_structure_that_no_case_has(tmp_path: Path) -> None:
    found = take([case(tmp_path, "a", small=False)], LABELS, ["MRI"])
    assert "small" not in found.label_ml


def test_no_more_than_one_label_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = Labels.of({f"{n}": n for n in range(1, 9)})
    held: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []
    mask = Labels.mask

    def spy(*args: Any) -> np.ndarray:
        alive.append(sum(one() is not None for one in held))
        held.append(weakref.ref(found := mask(*args)))
        return found

    monkeypatch.setattr(Labels, "mask", spy)
    take([case(tmp_path, "a")], labels, ["MRI"])
    assert len(held) == 8
    assert max(alive) <= 1


def test_regions_are_measured_as_a_whole(tmp_path: Path) -> None:
    labels = Labels.of({"background": 0, "all": [1, 2], "core": [2]})
    found = take([case(tmp_path, "a")], labels, ["MRI"])
    assert found.label_ml == {"all": pytest.approx(32 * 2e-3), "core": pytest.approx(8 * 2e-3)}


def test_of_what_lies_around_the_structures(tmp_path: Path) -> None:
    """Sizes are those of the part; whether it is CT is seen by the air that may lie elsewhere."""
    big = case(tmp_path, "a", shape=(30, 26, 14))
    whole, part = (take([big], LABELS, ["MRI"], region) for region in (None, Region(margin_mm=3)))
    assert (whole.shape, whole.margin_mm, whole.shown) == ((30, 26, 14), None, "scan")
    assert part.shape == (30, 26, 4)  # the small structure fills what is left
    assert (part.margin_mm, part.shown) == (3, "part of a scan around the structures")
    one = Labels.of({"background": 0, "big": 1, "ignore": 2})
    part = take([big], one, ["MRI"], Region(margin_mm=3))
    assert part.shape == (4 + 3, 3 + 3, 2 + 2)
    assert part.channels[0].minimum == whole.channels[0].minimum == -5
    assert part.spacing_mm == whole.spacing_mm


def test_channels_without_a_name_are_numbered(tmp_path: Path) -> None:
    one = case(tmp_path, "a")
    two = Case("a", one.images * 2, one.label)
    assert [channel.name for channel in take([two], LABELS, ["T1"]).channels] == ["T1", "channel 1"]


def test_many_cases_are_sampled(tmp_path: Path) -> None:
    assert take([case(tmp_path, "a")] * 250, LABELS, ["MRI"]).cases == 100


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "b.nii.gz").write_text("no"), "b: "),
        (lambda root: (root / "b_mask.nii.gz").unlink(), "b: "),
        (lambda root: case(root, "b_mask", shape=(8, 8, 8)), "b: label has 8x8x8 voxels instead of 8x6x4"),
        (lambda root: case(root, "b_mask", spacing_mm=(1.0, 1.0, 3.0)), r"b: label is up to 3 mm off \(spacing"),
    ],
)
def test_the_case_is_named(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    cases = [case(tmp_path, "a"), case(tmp_path, "b")]
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        take(cases, LABELS, ["MRI"])
