from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medseg import cohort, files, io
from medseg import geometry as geo
from medseg.bundle import Bundle
from medseg.data import dicom_objects, label_tables
from medseg.data.scans import Scan, find
from medseg.errors import DataError
from medseg.inference.windows import Config as Inference
from medseg.labels import Labels
from medseg.predictor import Predictor
from medseg.preprocess import Config as Preprocess
from medseg.preprocess import Intensity
from medseg.resources import shipped
from medseg.volume import Geometry, Volume

SHAPE = (10, 9, 6)
SERIES = shipped("sample_data") / "dicom" / "series"


class Levels(nn.Module):
    """Class n where the first channel is n."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([-(x[:, 0] - n).abs() for n in range(3)], 1)


def model(channels: int = 1) -> Predictor:
    described = Bundle(
        name="levels",
        model={"name": "unet"},
        spatial_dims=3,
        channels=("MR",) * channels,
        labels=Labels.of({"liver, left": 1, 'tu"mour': 4}),
        preprocess=Preprocess(intensity=(Intensity(kind="none"),) * channels, crop_empty=False),
        inference=Inference(window=(16, 16, 16)),
    )
    return Predictor.of(described, [Levels()], device="cpu")


def scan(seed: int = 0) -> Volume:
    array = np.random.default_rng(seed).integers(0, 3, SHAPE).astype(np.int16)
    return Volume(array, Geometry(SHAPE, np.diag([1.0, 2, 2.5, 1])))


def write(folder: Path, *names: str) -> list[Path]:
    for number, name in enumerate(names):
        io.write(scan(number), folder / name)
    return [folder / name for name in names]


def expected(seed: int = 0) -> Any:
    return np.array([0, 1, 4])[scan(seed).array]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_series_are_found_at_any_depth_and_a_bad_one_stops_none(tmp_path: Path) -> None:
    export = tmp_path / "export"
    good, bad = export / "study" / "deep" / "series", export / "study" / "Doe"
    for folder in (good, bad):
        shutil.copytree(SERIES, folder)
    for path in bad.iterdir():
        path.write_bytes(path.read_bytes()[:200])
    (export / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    scans = find([export])
    assert {item.images for item in scans} == {(good,), (bad,)}
    outcomes = {o.id: o for o in cohort.predict(model(), scans, tmp_path / "out")}
    assert sorted(bool(o.error) for o in outcomes.values()) == [False, True]
    written = next(o.mask for o in outcomes.values() if o.mask)
    assert geo.same_space(io.read_geometry(written), io.read_geometry(good))
    assert not any("Doe" in path.name for path in (tmp_path / "out").iterdir())


def test_a_single_file_has_its_tables_beside_it(tmp_path: Path) -> None:
    scans = find(write(tmp_path, "a.nii.gz"))
    (outcome,) = cohort.predict(model(), scans, tmp_path / "out" / "mask.nii.gz")
    assert outcome.mask == tmp_path / "out" / "mask.nii.gz"
    assert not outcome.error
    mask = io.read(outcome.mask, "labels")
    assert mask.geometry == scan().geometry
    np.testing.assert_array_equal(mask.array, expected())
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["mask.nii.gz", "mask_itksnap.txt", "mask_slicer.ctbl", "mask_volumes.csv"]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".nii"])
def test_a_folder_of_masks_in_the_format_asked_for(tmp_path: Path, suffix: str) -> None:
    scans = find(write(tmp_path, "a.nii.gz", "b.nii.gz"))
    outcomes = cohort.predict(model(), scans, tmp_path / "out", suffix=suffix)
    assert [o.mask for o in outcomes] == [tmp_path / "out" / f"{n}{suffix}" for n in "ab"]
    for number, outcome in enumerate(outcomes):
        assert outcome.mask is not None
        np.testing.assert_array_equal(io.read(outcome.mask, "labels").array, expected(number))


def test_an_image_gets_an_image(tmp_path: Path) -> None:
    flat = Volume(scan().array[0, :, :, :1].astype(np.uint8), Geometry((10, 9, 1), np.diag([-1.0, -1, 1, 1])))
    io.write(flat, tmp_path / "cell.png")
    (outcome,) = cohort.predict(model(), find([tmp_path / "cell.png"]), tmp_path / "out", suffix=".png")
    assert outcome.mask is not None
    np.testing.assert_array_equal(io.read(outcome.mask, "labels").array[0, :, :, 0], expected()[0, :, :, 0])


def test_one_file_for_several_scans_is_refused(tmp_path: Path) -> None:
    scans = find(write(tmp_path, "a.nii.gz", "b.nii.gz"))
    with pytest.raises(DataError, match="-o names one file, but there are 2 scans"):
        cohort.predict(model(), scans, tmp_path / "mask.nii.gz")


def test_probabilities_lie_beside_the_mask(tmp_path: Path) -> None:
    scans = find(write(tmp_path, "a.nii.gz"))
    cohort.predict(model(), scans, tmp_path / "out", probabilities=True)
    likely = io.read(tmp_path / "out" / "a_probabilities.nii.gz")
    assert likely.array.shape == (3, *SHAPE)
    np.testing.assert_allclose(likely.array.sum(0), 1, atol=1e-5)


def test_what_grows_on_disk_is_what_grows_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans, made = find(write(tmp_path, "a.nii.gz", "b.nii.gz")), []
    monkeypatch.setattr(files, "scratch", lambda *args, whole=files.scratch: made.append(args) or whole(*args))
    for name in ("memory", "disk"):
        cohort.predict(model(), scans, tmp_path / name, probabilities=True, stream=name == "disk")
    assert [folder for folder, *_ in made] == [tmp_path / "disk"] * 4
    ours, theirs = (sorted((tmp_path / name).iterdir()) for name in ("disk", "memory"))
    assert [path.name for path in ours] == [path.name for path in theirs]
    for one, other in zip(ours, theirs, strict=True):
        if one.name.endswith(".nii.gz"):
            np.testing.assert_array_equal(io.read(one).array, io.read(other).array)


def test_a_scan_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans, whole = find(write(tmp_path, "a.nii.gz", "b.nii.gz")), io.nifti.write

    def full(volume: Volume, path: Path) -> None:
        if path.name == "a_probabilities.nii.gz":
            raise DataError(f"no space left for '{path}'")
        whole(volume, path)

    monkeypatch.setattr(io.nifti, "write", full)
    bad, good = cohort.predict(model(), scans, tmp_path / "deep" / "er" / "out", probabilities=True)
    assert bad.error == "no space left for 'a_probabilities.nii.gz'"
    assert bad.mask is None
    assert good.mask is not None
    left = sorted(path.name for path in (tmp_path / "deep" / "er" / "out").glob("*.nii.gz"))
    assert left == ["b.nii.gz", "b_probabilities.nii.gz"]


def test_a_bad_scan_does_not_stop_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "a.nii.gz", "c.nii.gz")
    (tmp_path / "b.nii.gz").write_text("not a scan")
    outcomes = cohort.predict(model(), find([tmp_path]), tmp_path / "out")
    assert [o.id for o in outcomes] == ["a", "b", "c"]
    assert [bool(o.mask) for o in outcomes] == [True, False, True]
    assert outcomes[1].error
    assert "\n" not in outcomes[1].error
    assert "warning: b: " in caplog.text
    assert sorted(p.name for p in (tmp_path / "out").glob("*.nii.gz")) == ["a.nii.gz", "c.nii.gz"]
    rows = table(tmp_path / "out" / "volumes.csv")
    assert [row["case"] for row in rows] == ["a", "b", "c"]
    assert rows[1] == {"case": "b", "liver, left_ml": "", 'tu"mour_ml': "", "note": "", "error": outcomes[1].error}
    for number, row in ((0, rows[0]), (1, rows[2])):
        for value, name in ((1, "liver, left_ml"), (4, 'tu"mour_ml')):
            assert float(row[name]) == pytest.approx((expected(number) == value).sum() * 0.005, abs=1e-4)
        assert row["error"] == row["note"] == ""


def test_an_error_that_nobody_thought_of_does_not_stop_the_others(tmp_path: Path) -> None:
    class Odd(Levels):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() == torch.tensor(scan(1).array).sum():
                raise ValueError("too odd\nby far")
            return super().forward(x)

    odd = Predictor.of(model().bundle, [Odd()], device="cpu")
    outcomes = cohort.predict(odd, find(write(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz")), tmp_path / "out")
    assert [outcome.error for outcome in outcomes] == ["", "ValueError: too odd", ""]


def test_folders_of_patients_are_named_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (bad,) = write(tmp_path / "Doe^Jane", "a.nii.gz")
    bad.write_bytes(bad.read_bytes()[:60])
    header = tmp_path / "Doe^Jane" / "b.mhd"
    header.write_text("not a header")
    series = tmp_path / "Roe^Ann" / "Roe^Ann"
    shutil.copytree(SERIES, series)
    next(series.iterdir()).unlink()
    sorted(series.iterdir())[4].unlink()
    scans = [*find([bad.parent, series]), Scan("case_7", (bad,)), *find(write(tmp_path, "good.nii.gz"))]
    outcomes = cohort.predict(model(), scans, tmp_path / "out")
    assert [bool(o.error) for o in outcomes] == [True] * 4 + [False]
    for text in (caplog.text, (tmp_path / "out" / "volumes.csv").read_text()):
        assert "Doe" not in text
        assert "Roe" not in text
        assert str(tmp_path) not in text
    a, b, dicom, named = (o.error for o in outcomes[:4])
    assert a.startswith("'a.nii.gz' ")
    assert b.startswith("'b.mhd' ")
    assert dicom.startswith("slices 6, 10 of 20 are missing")
    assert named.startswith("'case_7.nii.gz' ")


def test_what_speaks_against_a_scan_is_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    io.write(scan().replace(array=scan().array * 0), tmp_path / "a.nii.gz")
    write(tmp_path, "b.nii.gz")
    outcomes = cohort.predict(model(), find([tmp_path]), tmp_path / "out")
    expected = ("the scan holds one value, 0, in all voxels", "nothing was found: the mask is empty")
    assert [o.warnings for o in outcomes] == [expected, ()]
    assert [row["note"] for row in table(tmp_path / "out" / "volumes.csv")] == ["; ".join(expected), ""]
    assert [record.message for record in caplog.records] == [f"warning: a: {line}" for line in expected]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: ...")])
def test_memory_that_does_not_suffice_is_said_plainly(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    predictor = model()
    monkeypatch.setattr("medseg.preprocess.prepare", fail)
    (outcome,) = cohort.predict(predictor, find(write(tmp_path, "a.nii.gz")), tmp_path / "out")
    assert outcome.error.startswith("not enough memory")


def test_where_every_scan_is_bad_nothing_is_written(tmp_path: Path) -> None:
    scans = [Scan("x", (tmp_path / "missing.nii.gz",))]
    (outcome,) = cohort.predict(model(), scans, tmp_path / "out")
    assert "no such file" in outcome.error
    assert not (tmp_path / "out").exists()


def test_other_channels_than_the_models_are_an_outcome(tmp_path: Path) -> None:
    a, b = write(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz")
    (outcome,) = cohort.predict(model(), find([tmp_path]), tmp_path / "out")
    assert "expects 1 channel, the scan has 2" in outcome.error
    (outcome,) = cohort.predict(model(channels=2), find([f"{a},{b}"]), tmp_path / "out")
    assert outcome.mask == tmp_path / "out" / "a.nii.gz"
    assert outcome.mask.exists()


def test_slicer_and_itksnap_read_the_names_and_colours(tmp_path: Path) -> None:
    scans = find(write(tmp_path, "a.nii.gz"))
    cohort.predict(model(), scans, tmp_path / "out")
    slicer = [line.split(" ") for line in (tmp_path / "out" / "slicer.ctbl").read_text().splitlines()]
    assert slicer[0] == ["0", "background", "0", "0", "0", "0"]
    assert [row[:2] for row in slicer[1:]] == [["1", "liver_left"], ["4", "tu_mour"]]
    assert label_tables._words(["海马体", "left  lobe", "left_lobe", "Großhirn (re.)", "हाथ", "?"]) == [
        "海马体", "left_lobe", "left_lobe_", "Großhirn_re.", "हाथ", "label",
    ]  # fmt: skip
    assert all(len(row) == 6 and all(0 <= int(n) <= 255 for n in row[2:]) for row in slicer)
    snap = (tmp_path / "out" / "itksnap.txt").read_text().splitlines()
    for line, value, (r, g, b) in zip(snap, (0, 1, 4), ((0, 0, 0), (230, 159, 0), (86, 180, 233)), strict=True):
        before, name, after = line.split('"')
        assert [int(n) for n in before.split()[:4]] == [value, r, g, b]
        assert len(before.split()) == 7
        assert name in ("Clear Label", "liver, left", "tu'mour")
        assert after == ""


def test_a_case_that_begins_like_a_formula_or_has_spaces_stays_itself(tmp_path: Path) -> None:
    scans = find(write(tmp_path, "a b=c.nii.gz"))
    cohort.predict(model(), scans, tmp_path / "out")
    assert table(tmp_path / "out" / "volumes.csv")[0]["case"] == "a b=c"


def test_a_scan_is_never_replaced_by_its_mask(tmp_path: Path) -> None:
    (path,) = write(tmp_path, "a.nii.gz")
    before = path.read_bytes()
    for out in (path, tmp_path):
        with pytest.raises(DataError, match=r"replace the scan 'a\.nii\.gz'"):
            cohort.predict(model(), find([path]), out)
    assert path.read_bytes() == before


def test_probabilities_replace_neither_a_scan_nor_a_mask(tmp_path: Path) -> None:
    paths = write(tmp_path, "a.nii.gz", "a_probabilities.nii.gz")
    with pytest.raises(DataError, match=r"two results would have the name 'a_probabilities\.nii\.gz'"):
        cohort.predict(model(), find(paths), tmp_path / "out", probabilities=True)
    with pytest.raises(DataError, match=r"would replace the scan 'a_probabilities\.nii\.gz'"):
        cohort.predict(model(), find(paths[1:]), tmp_path / "a.nii.gz", probabilities=True)
    assert len(cohort.predict(model(), find(paths), tmp_path / "out")) == 2


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    paths = write(tmp_path, "a.nii.gz", "b.nii.gz")
    (tmp_path / "report.html").write_text("x")
    with pytest.raises(DataError, match=r"^'report\.html' is a file\. Name a folder with -o\.$"):
        cohort.predict(model(), find(paths), tmp_path / "report.html")


def test_a_place_that_cannot_be_written_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    class Never(Levels):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError

    scans, idle = find(write(tmp_path, "a.nii.gz")), Predictor.of(model().bundle, [Never()], device="cpu")
    for out in (tmp_path / "a.nii.gz" / "deep", Path("/proc/absent/mask.nii.gz")):
        with pytest.raises(DataError, match="cannot write '"):
            cohort.predict(idle, scans, out)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


def test_two_starts_at_once_share_a_table(tmp_path: Path) -> None:
    first, second = (label_tables.VolumeTable(tmp_path / "volumes.csv", model().labels, merge=True) for _ in range(2))
    for name, volumes in (("a", first), ("b", second), ("c", first)):
        volumes.add(name, None, (), "")
        volumes.write()
    assert [row["case"] for row in table(tmp_path / "volumes.csv")] == ["a", "b", "c"]


def test_a_file_name_of_no_format(tmp_path: Path) -> None:
    scans = find(write(tmp_path, "a.nii.gz"))
    with pytest.raises(DataError, match=r"'mask\.nii\.gx' has no ending that masks are .*gz, \.nii, [^j]*\)\."):
        cohort.predict(model(), scans, tmp_path / "mask.nii.gx")
    with pytest.raises(DataError, match=r"^masks cannot be written as 'jpg'\. Known: nii\.gz, nii, "):
        cohort.predict(model(), scans, tmp_path / "mask.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


def test_a_second_start_keeps_the_rows_of_the_first(tmp_path: Path) -> None:
    first, second, third = find(write(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz"))
    out = tmp_path / "out"
    cohort.predict(model(), [first, second], out)
    kept = table(out / "volumes.csv")
    (out / "volumes.csv").write_text((out / "volumes.csv").read_text().replace(kept[1]["liver, left_ml"], "7.0000"))
    cohort.predict(model(), [third, second], out)
    rows = table(out / "volumes.csv")
    assert [row["case"] for row in rows] == ["a", "b", "c"]
    assert rows[:2] == kept  # what is predicted again is written again


def test_a_table_of_another_model_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "volumes.csv").write_text("case,spleen_ml,note,error\nz,1,,\n")
    cohort.predict(model(), find(write(tmp_path, "a.nii.gz")), tmp_path / "out")
    assert [row["case"] for row in table(tmp_path / "out" / "volumes.csv")] == ["a"]


def test_a_start_that_is_killed_leaves_the_rows_of_its_masks(tmp_path: Path) -> None:
    scans = find(write(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz"))

    class Killed(Levels):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() == torch.tensor(scan(2).array).sum():
                raise KeyboardInterrupt
            return super().forward(x)

    killed = Predictor.of(model().bundle, [Killed()], device="cpu")
    with pytest.raises(KeyboardInterrupt):
        cohort.predict(killed, scans, tmp_path / "out")
    cohort.predict(model(), scans[2:], tmp_path / "out")
    assert [row["case"] for row in table(tmp_path / "out" / "volumes.csv")] == ["a", "b", "c"]


def test_a_table_beside_a_single_file_is_of_that_file_alone(tmp_path: Path) -> None:
    for scan_ in find(write(tmp_path, "a.nii.gz", "b.nii.gz")):
        cohort.predict(model(), [scan_], tmp_path / "out" / "mask.nii.gz")
    assert [row["case"] for row in table(tmp_path / "out" / "mask_volumes.csv")] == ["b"]


# --- DICOM in, DICOM out


def of_series(tmp_path: Path, make_series: Callable[..., Path], **changes: Any) -> tuple[list[Scan], Volume]:
    """A tilted series of the levels 0, 1, 2 in a folder with a patient's name, and its mask as NIfTI has it."""
    affine = np.array([[-1.0, 0, 0, 9], [0, -2, 0.4, 5], [0, 0, 2.5, -7], [0, 0, 0, 1]])
    folder = make_series(tmp_path / "Doe_John", Volume(scan().array, Geometry(SHAPE, affine)), **changes)
    scans = find([folder])
    (outcome,) = cohort.predict(model(), scans, tmp_path / "plain.nii.gz")
    return scans, io.read(outcome.mask or "", "labels")


@pytest.mark.parametrize("ending", dicom_objects.FORMATS.values())
def test_a_series_gets_an_object_that_refers_to_it(
    tmp_path: Path, make_series: Callable[..., Path], ending: str
) -> None:
    scans, mask = of_series(tmp_path, make_series)
    (outcome,) = cohort.predict(model(), scans, tmp_path / "out", suffix=ending)
    assert outcome.mask == tmp_path / "out" / f"{scans[0].id}{ending}"
    back = io.read(outcome.mask, on=mask.geometry)
    assert back.meta["labels"].names == ("liver, left", 'tu"mour')
    np.testing.assert_array_equal(np.array([0, 1, 4])[back.array], mask.array)
    assert io.references(outcome.mask)[0].series == ("1.2.826.0.1.7.9",)
    named = cohort.predict(model(), scans, tmp_path / f"one{ending}", probabilities=True)
    assert named[0].mask == tmp_path / f"one{ending}"
    assert (tmp_path / "one_probabilities.nii.gz").exists()


@pytest.mark.parametrize("ending", dicom_objects.FORMATS.values())
def test_nothing_of_the_patient_is_in_an_object_on_request(
    tmp_path: Path, make_series: Callable[..., Path], ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    scans, mask = of_series(tmp_path, make_series)
    for name, dicom in {
        "bare": dicom_objects.DicomOptions(True),
        "moved": dicom_objects.DicomOptions(True, True),
    }.items():
        (outcome,) = cohort.predict(model(), scans, tmp_path / name, suffix=ending, dicom=dicom)
        assert outcome.mask is not None
        content = outcome.mask.read_bytes()
        assert not any(text in content for text in (b"Doe", b"PAT-4711", b"19500102", b"ACC-77", b"20200304"))
        assert (b"1.2.826.0.1.7." in content) == (name == "bare")
        assert ("no longer refer to their scans" in caplog.text) == (name == "moved")
        np.testing.assert_array_equal(io.read(outcome.mask, on=mask.geometry).array > 0, mask.array > 0)


def test_a_users_own_codes_are_written(tmp_path: Path, make_series: Callable[..., Path]) -> None:
    scans, _ = of_series(tmp_path, make_series)
    (tmp_path / "codes.csv").write_text('name,category,code,meaning\n"liver, left",structure,99ME:L,Left half\n')
    dicom = dicom_objects.DicomOptions(codes=tmp_path / "codes.csv")
    (outcome,) = cohort.predict(model(), scans, tmp_path / "out", suffix=".seg.dcm", dicom=dicom)
    assert outcome.mask is not None
    assert io.read(outcome.mask).meta["labels"].items[0].code == "99ME:L"
    with pytest.raises(DataError, match=r"is not readable as a table"):
        cohort.predict(
            model(), scans, tmp_path, suffix=".seg.dcm", dicom=dicom_objects.DicomOptions(codes=tmp_path / "none.csv")
        )


def test_objects_are_for_dicom_alone_and_what_changes_them_for_objects(
    tmp_path: Path, make_series: Callable[..., Path]
) -> None:
    scans, _ = of_series(tmp_path, make_series)
    with pytest.raises(DataError, match=r"'a.nii.gz' is no DICOM series, to which alone a DICOM object can refer"):
        cohort.predict(model(), find(write(tmp_path, "a.nii.gz")), tmp_path / "out", suffix=".rtstruct.dcm")
    with pytest.raises(DataError, match="these options are for masks in DICOM alone"):
        cohort.predict(model(), scans, tmp_path / "out", dicom=dicom_objects.DicomOptions(deidentify=True))


def test_a_series_that_nothing_can_refer_to_stops_no_other(tmp_path: Path, make_series: Callable[..., Path]) -> None:
    good, _ = of_series(tmp_path, make_series)
    bad, _ = of_series(tmp_path / "more", make_series, StudyInstanceUID="", SeriesInstanceUID="1.2.99")
    outcomes = cohort.predict(model(), [*bad, *good], tmp_path / "out", suffix=".seg.dcm")
    assert outcomes[0].error.startswith("the series has no StudyInstanceUID")
    assert "Doe" not in outcomes[0].error
    assert outcomes[1].mask is not None
