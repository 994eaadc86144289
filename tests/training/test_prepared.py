from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from medseg import files, io, preprocess
from medseg.data.cases import Case
from medseg.errors import DataError, GeometryError, RunError
from medseg.geometry.region import Place, Region
from medseg.labels import Labels
from medseg.preprocess import Intensity
from medseg.training import prepared
from medseg.training.prepared import empty, prepare_cases
from medseg.volume import Geometry, Volume

Array = npt.NDArray[Any]
SHAPE = (12, 10, 8)
PLAIN = preprocess.Config(intensity=(Intensity(kind="none"),))
LABELS = Labels.of({"a": 1, "b": 2})


def scan(seed: int) -> Array:
    return np.random.default_rng(seed).integers(1, 1000, SHAPE).astype(np.int16)


def mask(seed: int) -> Array:
    array = np.zeros(SHAPE, np.uint8)
    array[2:5, 3:6, 1:4], array[7:9, 3:6, 2 + seed % 3] = 1, 2
    return array


def write(folder: Path, name: str, seed: int, suffix: str = ".nii.gz", shift_mm: float = 0) -> Case:
    affine, moved = np.diag([1.0, 1.5, 2, 1]), np.diag([1.0, 1.5, 2, 1])
    moved[2, 3] = shift_mm
    image, label = folder / f"{name}{suffix}", folder / f"{name}_label{suffix}"
    io.write(Volume(scan(seed), Geometry(SHAPE, affine)), image)
    io.write(Volume(mask(seed), Geometry(SHAPE, moved), "labels"), label)
    return Case(name, (image,), label)


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return [write(tmp_path / "data", f"case_{n}", n) for n in range(3)]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def entries(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.is_dir()}


def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases that are really prepared from now on."""
    names: list[str] = []
    store = prepared._store

    def spy(entry: Path, case: prepared.Prepared) -> None:
        names.append(case.id)
        store(entry, case)

    monkeypatch.setattr(prepared, "_store", spy)
    return names


def test_prepared_cases_are_what_prepare_gives_in_order(cases: list[Case], cache: Path) -> None:
    for number, found in enumerate(prepare_cases(cases, PLAIN, LABELS, cache)):
        assert found.id == f"case_{number}"
        np.testing.assert_array_equal(found.image[0], scan(number))
        np.testing.assert_array_equal(found.target[0], mask(number))
        assert (found.image.dtype, found.target.dtype) == (np.float32, np.int16)
        assert found.geometry == Geometry(SHAPE, np.diag([1.0, 1.5, 2, 1]))
        assert sorted(found.points) == [1, 2]
        for value, points in found.points.items():
            np.testing.assert_array_equal(points, np.argwhere(mask(number) == value))


def test_a_second_start_redoes_nothing(cases: list[Case], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare_cases(cases[:2], PLAIN, LABELS, cache)
    names = made(monkeypatch)
    second = prepare_cases(cases, PLAIN, LABELS, cache)
    assert names == ["case_2"]
    for before, after in zip(first, second[:2], strict=True):
        np.testing.assert_array_equal(before.image, after.image)
        assert isinstance(after.image, np.memmap)
        assert not after.image.flags.writeable
    assert prepare_cases(cases[::-1], PLAIN, LABELS, cache)[0].id == "case_2"
    assert names == ["case_2"]


def test_content_counts_and_names_do_not(cases: list[Case], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_cases(cases[:1], PLAIN, LABELS, cache)
    names = made(monkeypatch)
    folder = cases[0].images[0].parent
    moved = Case("renamed", (folder / "x.nii.gz",), folder / "y.nii.gz")
    shutil.copy(cases[0].images[0], moved.images[0])
    shutil.copy(cases[0].label, moved.label)  # type: ignore[type-var, arg-type]
    assert prepare_cases([moved], PLAIN, LABELS, cache)[0].id == "renamed"
    assert names == []
    shutil.copy(cases[1].label, moved.label)  # type: ignore[type-var, arg-type]
    np.testing.assert_array_equal(prepare_cases([moved], PLAIN, LABELS, cache)[0].target[0], mask(1))
    assert names == ["renamed"]


def test_every_option_counts(cases: list[Case], cache: Path) -> None:
    configs = [
        PLAIN,
        PLAIN.model_copy(update={"spacing_mm": (1.0, 1.0, 1.0)}),
        PLAIN.model_copy(update={"orientation": "LPS"}),
    ]
    for config in configs:
        prepare_cases(cases[:1], config, LABELS, cache)
    prepare_cases(cases[:1], PLAIN, Labels.of({"both": [1, 2]}), cache)
    assert len(entries(cache)) == 4


def test_what_lies_around_the_mask(cases: list[Case], cache: Path) -> None:
    near = Region(margin_mm=1.5)
    (found,) = prepare_cases(cases[:1], PLAIN, LABELS, cache, region=near)
    np.testing.assert_array_equal(found.image[0], scan(0)[0:11, 2:7, 0:5])
    np.testing.assert_array_equal(found.target[0], mask(0)[0:11, 2:7, 0:5])
    np.testing.assert_allclose(found.geometry.to_world((0, 0, 0)), (0, 3, 0))
    assert found.missed_ml == ()


def test_a_place_that_was_found_otherwise(cases: list[Case], cache: Path) -> None:
    box = (slice(3, 12), slice(0, 10), slice(2, 4))
    places = {"case_1": Place(box, 0.5, (1.0, 2.0), (0.5, 0.25), 3.0)}
    plain, found = prepare_cases(cases[:2], PLAIN, LABELS, cache, region=Region(margin_mm=1.5), places=places)
    np.testing.assert_array_equal(found.image[0], scan(1)[box])
    np.testing.assert_array_equal(found.target[0], mask(1)[box])
    assert (plain.missed_ml, found.missed_ml) == ((), (0.5, 0.25))


def test_parts_are_entries_of_their_own(cases: list[Case], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = (slice(3, 12), slice(0, 10), slice(2, 4))
    ways: list[dict[str, Any]] = [
        {},
        {"region": Region(margin_mm=1.5)},
        {"region": Region(margin_mm=2.5)},
        {"region": Region(margin_mm=1.5, least_mm=(9, 0, 0))},
        {"places": {"case_0": Place(box, 0.5, (), (), 1.0)}},
    ]
    for number, way in enumerate(ways, 1):
        prepare_cases(cases[:1], PLAIN, LABELS, cache, **way)
        assert len(entries(cache)) == number
    names = made(monkeypatch)
    for way in ways:
        prepare_cases(cases[:1], PLAIN, LABELS, cache, **way)
    prepare_cases(cases[:1], PLAIN, LABELS, cache, places={"case_0": Place(box, 0.6, (), (1.0, 1.0), 9.0)})
    assert names == []


def test_an_empty_mask_shows_the_whole_scan(tmp_path: Path, cache: Path) -> None:
    case = write(tmp_path, "a", 0)
    assert case.label is not None
    grid = io.read_geometry(case.label)
    io.write(Volume(np.zeros(SHAPE, np.uint8), grid, "labels"), case.label)
    (found,) = prepare_cases([case], PLAIN, LABELS, cache, region=Region(margin_mm=1.5))
    assert found.geometry == grid


def test_voxels_to_ignore_are_no_structure(tmp_path: Path, cache: Path) -> None:
    case, labels = write(tmp_path, "a", 0), Labels.of({"a": 1, "ignore": 2})
    (found,) = prepare_cases([case], PLAIN, labels, cache, region=Region(margin_mm=0))
    assert found.image.shape == (1, 3, 3, 3)  # around the first structure alone


@pytest.mark.parametrize("suffix", [".hdr", ".mhd", ".nhdr"])
def test_headers_alike_with_other_voxels_beside_them(tmp_path: Path, cache: Path, suffix: str) -> None:
    """Two scans of one protocol have the same `.hdr` byte for byte."""
    pair = [write(tmp_path / f"{n}", "case", n, ".nii.gz") for n in range(2)]
    for case in pair:
        for path in (case.images[0], case.label):
            _detach(path, suffix)  # type: ignore[arg-type]
    found = [
        Case(f"{n}", (c.images[0].with_name(f"case{suffix}"),), c.images[0].with_name(f"case_label{suffix}"))
        for n, c in enumerate(pair)
    ]
    for number, case in enumerate(prepare_cases(found, PLAIN, LABELS, cache)):
        np.testing.assert_array_equal(np.sort(case.image.ravel()), np.sort(scan(number).ravel()))
    assert len(entries(cache)) == 2


def _detach(path: Path, suffix: str) -> None:
    """Write a NIfTI file as a header with its voxels beside it."""
    target = path.with_name(path.name.removesuffix(".nii.gz") + suffix)
    if suffix == ".hdr":
        import nibabel as nib

        image: Any = nib.load(path)
        nib.save(nib.Nifti1Pair(np.asarray(image.dataobj), image.affine), target)
    else:
        import SimpleITK as sitk

        sitk.WriteImage(sitk.ReadImage(str(path)), str(target))


def test_voxels_under_another_name_than_their_header(tmp_path: Path, cache: Path) -> None:
    made = []
    for number in range(2):
        case = write(tmp_path / f"{number}", "case", number)
        _detach(case.images[0], ".mhd")
        header = case.images[0].with_name("case.mhd")
        (header.parent / "raw").mkdir()
        header.with_name("case.raw").rename(header.parent / "raw/voxels.raw")
        header.write_text(header.read_text().replace("case.raw", "raw/voxels.raw"))
        label = write(tmp_path / f"{number}", "mask", 0).label
        made.append(Case(f"{number}", (header,), label))
    for number, found in enumerate(prepare_cases(made, PLAIN, LABELS, cache)):
        np.testing.assert_array_equal(np.sort(found.image.ravel()), np.sort(scan(number).ravel()))
    assert len(entries(cache)) == 2


def test_a_label_off_its_image_is_refused_with_millimetres(tmp_path: Path, cache: Path) -> None:
    case = write(tmp_path, "case_7", 0, shift_mm=0.8)
    with pytest.raises(
        GeometryError,
        match=r"^case_7: label is 0\.8 mm off \(origin differs along k\)\. Run 'medseg check DATA --fix OUT'",
    ):
        prepare_cases([case], PLAIN, LABELS, cache)
    assert entries(cache) == set()


def test_a_label_that_drifted_by_rounding_takes_the_images_grid(tmp_path: Path, cache: Path) -> None:
    (found,) = prepare_cases([write(tmp_path, "a", 0, shift_mm=0.02)], PLAIN, LABELS, cache)
    np.testing.assert_array_equal(found.target[0], mask(0))


def test_mistakes_name_the_case(cases: list[Case], cache: Path) -> None:
    with pytest.raises(DataError, match=r"^case_0: label values \[2\] are not declared"):
        prepare_cases(cases, PLAIN, Labels.of({"a": 1}), cache)
    with pytest.raises(DataError, match=r"^case_0: the model expects 2 channel"):
        prepare_cases(cases, preprocess.Config(intensity=(Intensity(), Intensity())), LABELS, cache)
    cases[1].images[0].unlink()
    with pytest.raises(DataError, match=r"^case_1: no such file or folder: the image$"):
        prepare_cases(cases, PLAIN, LABELS, cache)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (OSError("100 requested and 13 written"), "100 requested and 13 written"),  # as numpy says it
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    cases: list[Case], cache: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str
) -> None:
    save = np.save

    def full(path: Path, array: Array) -> None:
        save(path, array)
        if path.name == "points.npy":
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(
            DataError, match=rf"^case_0: cannot write the cache of prepared cases: {words}\. Free space"
        ):
            prepare_cases(cases, PLAIN, LABELS, cache)
    assert entries(cache) == set()
    assert len(prepare_cases(cases, PLAIN, LABELS, cache)) == 3


def test_an_interrupted_store_leaves_nothing(cases: list[Case], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_cases(cases, PLAIN, LABELS, cache)
    assert entries(cache) == set()


def test_what_a_killed_process_left_is_cleared(cases: list[Case], cache: Path) -> None:
    left = cache / ".making-abc"
    left.mkdir(parents=True)
    (left / "image.npy").write_bytes(b"half a patient")
    prepare_cases(cases[:1], PLAIN, LABELS, cache)
    assert not left.exists()


@pytest.mark.parametrize(
    ("name", "kept"), [("image.npy", 0), ("image.npy", 500), ("points.npy", 0), ("affine.npy", 9), ("target.npy", None)]
)
def test_a_damaged_entry_is_made_again(
    cases: list[Case], cache: Path, caplog: pytest.LogCaptureFixture, name: str, kept: int | None
) -> None:
    prepare_cases(cases[:1], PLAIN, LABELS, cache)
    (entry,) = entries(cache)
    damaged = cache / entry / name
    damaged.unlink() if kept is None else os.truncate(damaged, kept)
    found = prepare_cases(cases, PLAIN, LABELS, cache)
    np.testing.assert_array_equal(found[0].image[0], scan(0))
    np.testing.assert_array_equal(found[0].target[0], mask(0))
    assert caplog.text.count("case_0: the cache of prepared cases is damaged; preparing it again") == 1
    assert "case_1" not in caplog.text


def test_a_cache_that_cannot_be_made(cases: list[Case], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        prepare_cases(cases, PLAIN, LABELS, tmp_path / "file" / "cache")


def test_the_oldest_of_other_runs_go_first(cases: list[Case], cache: Path) -> None:
    for number, case in enumerate(cases[:2]):
        before = entries(cache) if cache.exists() else set()
        prepare_cases([case], PLAIN, LABELS, cache)
        (new,) = entries(cache) - before
        os.utime(cache / new, (1000 + number, 1000 + number))
    size = sum(f.stat().st_size for f in (cache / new).iterdir())
    theirs = cache / ("x" * 32)  # a folder that is none of ours
    theirs.mkdir()
    (theirs / "thesis.txt").write_bytes(b"0" * 10 * size)
    prepare_cases(cases[2:], PLAIN, LABELS, cache, limit_gb=2.5 * size / 1e9)
    assert new in entries(cache)
    assert len(entries(cache)) == 3
    prepare_cases(cases[2:], PLAIN, LABELS, cache, limit_gb=0)
    assert len(entries(cache)) == 2, "what this run needs stays, whatever the limit"
    assert (theirs / "thesis.txt").exists()


def test_nobody_evicts_between_making_and_loading(
    cases: list[Case], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[bool] = []

    def watch(name: str) -> None:
        wrapped = getattr(prepared, name)

        def spy(*args: Any, **more: Any) -> Any:
            try:
                with files.lock(cache):
                    locked.append(False)
            except RunError:
                locked.append(True)
            return wrapped(*args, **more)

        monkeypatch.setattr(prepared, name, spy)

    watch("_evict")
    watch("_load")
    prepare_cases(cases, PLAIN, LABELS, cache)
    assert locked == [True] * 4


def test_emptying_removes_prepared_cases_alone(cases: list[Case], cache: Path) -> None:
    prepare_cases(cases, PLAIN, LABELS, cache)
    (cache / "notes").mkdir()
    (cache / ".making-x").mkdir()
    assert "patients" in (cache / "README.txt").read_text()
    assert empty(cache) == 3
    assert entries(cache) == {"notes"}
    assert empty(cache) == 0
    with pytest.raises(DataError, match="no such folder"):
        empty(cache / "nothing")


def test_nothing_is_emptied_while_another_process_prepares(cases: list[Case], cache: Path) -> None:
    prepare_cases(cases, PLAIN, LABELS, cache)
    (cache / ".making-x").mkdir()
    with files.lock(cache), pytest.raises(RunError, match="in use by another medseg process"):
        empty(cache)
    assert len(entries(cache)) == 4


def test_no_name_of_a_patient_is_in_the_cache(tmp_path: Path, cache: Path) -> None:
    prepare_cases([write(tmp_path / "Doe_Jane", "Doe_Jane_1961", 0)], PLAIN, LABELS, cache)
    for path in cache.rglob("*"):
        assert "Doe" not in path.name
        assert path.is_dir() or b"Doe" not in path.read_bytes()
