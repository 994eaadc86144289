from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from medseg import io
from medseg.data import reading
from medseg.data.cases import Case, Dataset
from medseg.data.reading import discover_labels, each, label_values, read_case
from medseg.errors import DataError, GeometryError
from medseg.labels import Labels
from medseg.volume import Geometry, Volume

Make = Callable[..., Path]
SHAPE = (4, 3, 2)


def case(root: Path, name: str, mask: np.ndarray, shift_mm: float = 0) -> Case:
    moved = np.eye(4)
    moved[1, 3] = shift_mm
    io.write(Volume(np.full(SHAPE, 5, np.int16), Geometry(SHAPE, np.eye(4))), root / f"{name}.nii.gz")
    grid = Geometry(mask.shape[-3:], moved)  # type: ignore[arg-type]
    io.write(Volume(mask, grid, "image" if mask.dtype.kind == "f" else "labels"), root / f"{name}_mask.nii.gz")
    return Case(name, (root / f"{name}.nii.gz",), root / f"{name}_mask.nii.gz")


def values(*present: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask.flat[: len(present)] = present
    return mask


def dataset(*cases: Case) -> Dataset:
    return Dataset("set", "by hand", cases, None, ("CT",), Path())


# --- one case


def test_a_mask_takes_the_grid_of_its_image(tmp_path: Path) -> None:
    image, mask = read_case(case(tmp_path, "a", values(1), shift_mm=0.02))
    assert (image.kind, mask.kind) == ("image", "labels")
    assert image.geometry == mask.geometry


def test_a_mask_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        GeometryError, match=r"^label is 0\.8 mm off \(origin differs along j\)\. Run 'medseg check DATA --fix OUT'"
    ):
        read_case(case(tmp_path, "a", values(1), shift_mm=0.8))
    with pytest.raises(
        GeometryError, match=r"^label has 4x3x3 voxels instead of 4x3x2\. Run 'medseg check DATA --fix OUT'"
    ):
        read_case(case(tmp_path, "b", np.ones((4, 3, 3), np.uint8)))


# --- many cases


def peak(monkeypatch: pytest.MonkeyPatch, cases: list[Case], cores: int, free_bytes: float, channels: int = 1) -> int:
    """How many threads read cases."""
    asked: list[int] = []

    def spy(threads: int) -> ThreadPoolExecutor:
        asked.append(threads)
        return ThreadPoolExecutor(threads)

    monkeypatch.setattr("medseg.system.cores", lambda: cores)
    monkeypatch.setattr("medseg.memory.free_bytes", lambda: free_bytes)
    monkeypatch.setattr(reading, "ThreadPoolExecutor", spy)
    each(lambda case: case.id, cases, "reading", channels)
    return asked[0]


def test_no_more_cases_are_read_at_once_than_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case(tmp_path, "a", values(1))] * 12
    of_one = 4 * 3 * 2 * reading._BYTES
    assert peak(monkeypatch, cases, 3, 1e12) == 3
    assert peak(monkeypatch, cases, 64, 1e12) == 8
    assert peak(monkeypatch, cases, 64, 2 * 5 * of_one) == 5
    assert peak(monkeypatch, cases, 64, 2 * 5 * of_one, channels=2) == 2
    assert peak(monkeypatch, cases, 64, 0) == 1
    assert peak(monkeypatch, cases[:2], 64, 1e12) == 2


def test_scans_whose_size_is_unknown_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, folder = tmp_path / "a.nii.gz", tmp_path / "slices"
    broken.write_text("no scan")
    folder.mkdir()
    (folder / "1.dcm").write_bytes(bytes(1000))
    cases = [Case(name, (path,)) for name, path in (("a", broken), ("b", folder), ("c", tmp_path / "absent.nii"))]
    assert peak(monkeypatch, cases, 64, 1e12) > 1
    assert peak(monkeypatch, cases, 64, 2 * 1000 * reading._BYTES) == 1


def test_results_come_in_order(tmp_path: Path) -> None:
    cases = [Case(f"{n}", (tmp_path / "absent.nii",)) for n in range(9)]
    assert each(lambda case: case.id, cases, "reading") == [case.id for case in cases]


# --- what masks hold


def test_labels_are_discovered_in_the_masks(tmp_path: Path) -> None:
    found = label_values(dataset(case(tmp_path, "a", values(1)), case(tmp_path, "b", values(3, 1))))
    assert found == {"a": (frozenset({1}),), "b": (frozenset({1, 3}),)}
    assert discover_labels(found).names == ("label 1", "label 3")


def test_each_channel_of_a_mask_has_its_values(tmp_path: Path) -> None:
    found = label_values(dataset(case(tmp_path, "a", np.stack([values(1), values(), values(1, 9)]))))
    assert found == {"a": (frozenset({1}), frozenset(), frozenset({1, 9}))}


def test_a_mask_of_many_values_is_no_mask(tmp_path: Path) -> None:
    instances = np.arange(300, dtype=np.uint16).reshape(10, 10, 3)
    with pytest.raises(DataError, match=r"^a: the mask holds 300 distinct values.*instances"):
        label_values(dataset(case(tmp_path, "a", instances)))
    many = {f"{n}": (frozenset(range(1 + 100 * n, 101 + 100 * n)),) for n in range(3)}
    with pytest.raises(DataError, match=r"300 distinct values besides 0; at most 255"):
        discover_labels(many)


def test_negative_values_are_no_structures() -> None:
    masks = {"a": (frozenset({1}),), "b": (frozenset({1, -1}),), "c": (frozenset({2}), frozenset({-1024}))}
    with pytest.raises(
        DataError, match=r"^masks hold negative values \(-1024, -1\) in b, c; .*or declare the value as 'ig"
    ):
        discover_labels(masks)


def test_a_mask_of_fractions_is_no_mask(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^a: the mask has 24 voxels whose values are no labels.*whole numbers"):
        label_values(dataset(case(tmp_path, "a", np.full(SHAPE, 0.5, np.float32))))


def test_a_dataset_of_empty_masks_says_so_plainly(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no mask holds any label: all voxels of all 2 masks are 0\. Look at one"):
        label_values(dataset(case(tmp_path, "a", values()), case(tmp_path, "b", values())))


def test_masks_are_read_once_to_learn_labels_and_presence(
    tmp_path: Path, make_dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medseg.data import layouts
    from medseg.data.splits import presence

    read: list[Path] = []

    def spy(path: Path, kind: str = "image") -> Volume:
        read.append(path)
        return io.nifti.read(path, kind)  # type: ignore[arg-type]

    found = layouts.find(make_dataset(tmp_path))
    monkeypatch.setattr(io, "read", spy)
    masks = label_values(found)
    labels = discover_labels(masks)
    assert labels == Labels.of([1, 2])
    assert set(presence(masks, labels).values()) == {frozenset(labels.names)}
    assert sorted(read) == sorted(c.label for c in found.cases if c.label)
