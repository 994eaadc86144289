from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from medseg import io
from medseg.data.cases import Case, Dataset
from medseg.data.doctor import check
from medseg.data.findings import Report
from medseg.data.layouts import find
from medseg.labels import Labels
from medseg.volume import Geometry, Volume

SHAPE = (12, 10, 8)
Array = npt.NDArray[Any]


def grid(origin: tuple[float, ...] = (0, 0, 0), spacing: tuple[float, ...] = (1, 1, 1), shape: Any = SHAPE) -> Geometry:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Geometry(shape, affine)


def scan(seed: int, geometry: Geometry | None = None) -> Volume:
    geometry = geometry or grid()
    return Volume(np.random.default_rng(seed).integers(0, 1000, geometry.shape).astype(np.int16), geometry)


def mask(geometry: Geometry | None = None, **boxes: Any) -> Volume:
    """Boxes of values: `_1=slice(2, 5)` fills this range of i."""
    geometry = geometry or grid()
    array = np.zeros(geometry.shape, np.uint8)
    for name, span in boxes.items():
        array[span, 2:5, 2:5] = int(name[1:])
    return Volume(array, geometry, "labels")


def numbered(count: int, first: int = 0) -> Volume:
    """Many values in a mask."""
    return Volume((np.arange(960) % count + first).astype(np.uint16).reshape(SHAPE), grid(), "labels")


class Maker:
    """Writes a sound dataset of three cases, into which a test then breaks something."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.labels: Labels | None = Labels.of({"bone": 1})
        self.cases = {name: Case(name, (root / f"{name}_i.nii.gz",), root / f"{name}_m.nii.gz") for name in "abc"}
        for seed, name in enumerate(self.cases):
            self.put(name, scan(seed), mask(_1=slice(2, 5)))

    def put(self, name: str, image: Volume | None = None, label: Volume | None = None) -> None:
        if image is not None:
            io.write(image, self.root / f"{name}_i.nii.gz")
        if label is not None:
            io.write(label, self.root / f"{name}_m.nii.gz")

    def check(self) -> Report:
        return check(Dataset("set", "by hand", tuple(self.cases.values()), self.labels, ("CT",), self.root))


@pytest.fixture
def made(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def one(report: Report, code: str) -> tuple[str, str, str]:
    """The only finding of a code."""
    (finding,) = [f for f in report.findings if f.code == code]
    return finding.severity, finding.case, finding.message


def test_a_sound_dataset_has_no_findings(made: Maker) -> None:
    assert made.check().findings == ()
    assert made.check().ok


def test_an_unreadable_case_does_not_stop_the_others(made: Maker) -> None:
    made.cases["a"].images[0].write_text("not a scan")
    made.put("b", label=mask())
    report = made.check()
    severity, case, message = one(report, "unusable")
    assert (severity, case) == ("error", "a")
    assert message.startswith("the image is no NIfTI file")
    assert one(report, "empty")[1] == "b"
    assert not report.ok


def test_a_reader_that_fails_in_an_unknown_way_is_a_finding(made: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, kind: str = "image") -> Volume:
        if path.name == "b_i.nii.gz":
            raise RuntimeError(f"cannot parse {path} of DOE^JOHN")
        return io.read(path, kind)  # type: ignore[arg-type]

    monkeypatch.setattr("medseg.data.examination.read", read)
    severity, case, message = one(made.check(), "unusable")
    assert (severity, case) == ("error", "b")
    assert "RuntimeError" in message
    assert "DOE" not in message
    assert str(made.root) not in message


def test_findings_show_no_paths_for_they_may_be_names(made: Maker) -> None:
    for case in made.cases.values():
        case.images[0].write_text("broken")
    assert str(made.root) not in "".join(f.message for f in made.check().findings)


def test_a_mask_is_read_once(made: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[Path] = []
    right = io.read

    def read(path: Path, kind: str = "image") -> Volume:
        paths.append(path)
        return right(path, kind)  # type: ignore[arg-type]

    monkeypatch.setattr("medseg.data.examination.read", read)
    monkeypatch.setattr("medseg.io.read", read)
    made.check()
    assert len(paths) == len(set(paths)) == 6


def test_a_missing_file_is_a_finding(made: Maker) -> None:
    made.cases["b"].images[0].unlink()
    assert one(made.check(), "unusable")[:2] == ("error", "b")


def test_a_shifted_mask_is_reported_in_mm(made: Maker) -> None:
    made.put("b", label=mask(grid((0, 0, 0.8)), _1=slice(2, 5)))
    assert one(made.check(), "geometry") == ("error", "b", "label is 0.8 mm off (origin differs along k)")


def test_a_mask_of_another_shape(made: Maker) -> None:
    made.put("b", label=mask(grid(shape=(12, 10, 9)), _1=slice(2, 5)))
    assert one(made.check(), "geometry")[2] == "label has 12x10x9 voxels instead of 12x10x8"


def test_undeclared_values_are_counted(made: Maker) -> None:
    made.put("c", label=mask(_1=slice(2, 5), _4=slice(6, 8)))
    assert one(made.check(), "undeclared") == ("error", "c", "18 voxels hold values that no label declares: 4")


def test_the_mask_of_a_picture(made: Maker) -> None:
    for name in made.cases:
        made.put(name, label=mask(_255=slice(2, 5)))
    assert {f.code for f in made.check().findings} == {"undeclared", "labels"}
    assert all("0 and 255" in f.message for f in made.check().findings if f.code == "undeclared")
    made.labels = None
    report = made.check()
    assert report.ok
    assert [f.case for f in report.findings if f.code == "picture-mask"] == ["a", "b", "c"]


def test_float_masks(made: Maker) -> None:
    whole = mask(_1=slice(2, 5))
    made.put("a", label=Volume(whole.array.astype(np.float32), whole.geometry))
    assert one(made.check(), "float-mask")[:2] == ("note", "a")
    made.put("a", label=Volume(whole.array * np.float32(0.4), whole.geometry))
    severity, case, message = one(made.check(), "unusable")
    assert (severity, case) == ("error", "a")
    assert "whole numbers" in message


def test_negative_values_are_no_structures(made: Maker) -> None:
    label = mask(_1=slice(2, 5)).array.astype(np.int16)
    label[0, :, 5:, :] = -1
    made.put("b", label=Volume(label, grid(), "labels"))
    made.labels = None
    severity, _, message = one(made.check(), "labels")
    assert severity == "error"
    assert message.startswith("masks hold negative values (-1) in b; structures are numbered from 1 on.")
    made.labels = Labels.of({"bone": 1})
    assert one(made.check(), "undeclared")[0] == "error"
    made.labels = Labels.of({"bone": 1, "ignore": -1})
    assert made.check().ok


def test_colour_masks(made: Maker) -> None:
    made.put("a", label=Volume(np.ones((3, *SHAPE), np.uint8), grid(), "labels"))
    assert one(made.check(), "mask-channels")[2] == "the mask has 3 channels, expected 1; is it a colour picture?"


def test_overlapping_labels_may_have_a_channel_each(made: Maker) -> None:
    made.labels = Labels.of({"whole": [1, 2], "core": [2]})
    made.put("a", label=Volume(np.ones((2, *SHAPE), np.uint8), grid(), "labels"))
    assert made.check().ok


def test_empty_masks(made: Maker) -> None:
    made.put("a", label=mask())
    assert one(made.check(), "empty") == ("warning", "a", "the mask is empty")
    for name in "bc":
        made.put(name, label=mask())
    (error,) = [f for f in made.check().findings if f.severity == "error"]
    assert error.case == ""
    assert "no mask holds any label: all voxels of all 3 masks are 0. Look at one" in error.message


def test_masks_that_cannot_be_used_are_not_called_empty(made: Maker) -> None:
    for name in made.cases:
        made.put(name, label=Volume(np.ones((3, *SHAPE), np.uint8), grid(), "labels"))
    assert one(made.check(), "empty") == ("error", "", "no mask can be used")


def test_values_that_are_not_finite_are_counted(made: Maker) -> None:
    array = scan(0).array.astype(np.float32)
    array[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    made.put("a", Volume(array, grid()))
    assert one(made.check(), "not-finite") == ("error", "a", "3 of 960 voxels of the image are NaN or infinite")


def test_constant_images(made: Maker) -> None:
    made.put("a", Volume(np.full(SHAPE, 7, np.int16), grid()))
    assert one(made.check(), "constant") == ("warning", "a", "every voxel of a channel is 7")


def test_equal_voxels_are_found_under_another_header(made: Maker) -> None:
    made.put("c", scan(0, grid((5, 5, 5))), mask(grid((5, 5, 5)), _1=slice(2, 5)))
    severity, case, message = one(made.check(), "duplicate")
    assert (severity, case) == ("error", "c")
    assert message.startswith("the image's voxels are those of a, as of another patient")
    made.cases["c"] = Case("c", made.cases["c"].images, made.cases["c"].label, group="a")
    assert one(made.check(), "duplicate") == ("warning", "c", "the image's voxels are those of a")
    made.cases["c"] = Case("c", made.cases["c"].images)
    assert one(made.check(), "duplicate")[0] == "warning", "without a mask it is not used"


def test_patients_and_copies_on_both_sides_of_a_declared_split(made: Maker) -> None:
    def put(name: str, group: str, split: str | None) -> None:
        made.cases[name] = Case(name, made.cases[name].images, made.cases[name].label, group, split)

    put("a", "p", None)
    put("b", "p", None)
    assert made.check().ok, "without a declared split, patients stay together"
    made.put("c", scan(0))
    put("a", "p", "test")
    assert [(f.case, f.message) for f in made.check().findings if f.code == "leak"] == [
        ("b", "same patient as a, but one is in train, the other in test (the declared split)"),
        ("c", "same image as a, but one is in train, the other in test (the declared split)"),
    ]


def test_left_and_right_are_told_by_the_world_and_not_by_the_array(made: Maker) -> None:
    made.labels = Labels.of({"kidney_left": 1, "kidney_right": 2})
    flipped = Geometry(SHAPE, np.diag([-1.0, 1, 1, 1]))
    made.put("a", label=mask(_1=slice(1, 3), _2=slice(8, 10)))
    made.put("b", scan(1, flipped), mask(flipped, _2=slice(1, 3), _1=slice(8, 10)))
    made.put("c", label=mask(_2=slice(1, 3), _1=slice(8, 10)))
    report = made.check()
    warning, note = (next(f for f in report.findings if f.severity == s) for s in ("warning", "note"))
    assert (warning.case, warning.code) == ("c", "sides")
    assert (
        note.message
        == "left is kidney_left, right is kidney_right: they lie on these sides in 2 of 3 cases that have both"
    )


def test_another_number_of_channels(made: Maker) -> None:
    made.put("a", Volume(np.stack([scan(8).array[0], scan(9).array[0]]), grid()))
    assert one(made.check(), "channels") == ("error", "a", "2 channels, but most cases have 1")


def test_most_cases_decide_how_many_channels_there_are(made: Maker) -> None:
    """Where nobody names channels they are counted in the first case, which may be the odd one."""
    for seed, name in enumerate("bc"):
        made.put(name, Volume(np.concatenate([scan(seed + 8).array, scan(seed).array]), grid()))
    found = [(f.severity, f.case, f.message) for f in made.check().findings if f.code == "channels"]
    assert found == [
        ("error", "a", "1 channel, but most cases have 2"),
        ("warning", "", "most images have 2 channels, but 1 is named: CT. Correct the names"),
    ]


@pytest.mark.parametrize(("origin", "severity"), [((0.5, 0.0, 0.0), "note"), ((90.0, 0.0, 0.0), "error")])
def test_channels_on_other_grids(made: Maker, origin: tuple[float, ...], severity: str) -> None:
    second = made.root / "second.nii.gz"
    io.write(scan(9, grid(origin)), second)
    made.cases["a"] = Case("a", (*made.cases["a"].images, second), made.cases["a"].label)
    found = [f for f in made.check().findings if "channel 2" in f.message]
    assert [(f.case, f.severity) for f in found] == [("a", severity)]


def test_grids_alone_tell_whether_channels_show_one_place(made: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling whole channels would take longer than all else."""
    monkeypatch.setattr("medseg.geometry.resample_to", lambda *_, **__: pytest.fail("resampled"))
    for name, x in (("second", 0.5), ("third", 90.0)):
        io.write(scan(9, grid((x, 0, 0))), made.root / f"{name}.nii.gz")
    more = (made.root / "second.nii.gz", made.root / "third.nii.gz")
    made.cases["a"] = Case("a", (*made.cases["a"].images, *more), made.cases["a"].label)
    assert one(made.check(), "unusable")[2].startswith("channel 3 covers only 0% of channel 1")


def test_spacing_outliers_whatever_the_order_of_axes(made: Maker) -> None:
    for seed, name in enumerate("abc"):
        here = grid(spacing=(1, 1, 4))
        made.put(name, scan(seed, here), mask(here, _1=slice(2, 5)))
    turned = Geometry((8, 10, 12), np.array([[0, 0, 1, 0], [0, 1, 0, 0], [4, 0, 0, 0], [0, 0, 0, 1.0]]))
    made.put("a", scan(7, turned), mask(turned, _1=slice(2, 5)))
    assert made.check().findings == ()
    wrong = grid(spacing=(1, 1, 1))
    made.put("c", scan(8, wrong), mask(wrong, _1=slice(2, 5)))
    assert one(made.check(), "spacing")[1:] == (
        "c",
        "spacing is 1 x 1 x 1 mm (along R, A, S); the median is 1 x 1 x 4 mm",
    )


def test_declared_labels_that_never_occur(made: Maker) -> None:
    made.labels = Labels.of({"bone": 1, "cyst": 2})
    assert one(made.check(), "labels") == ("warning", "", "'cyst' (2) is in no mask")


def test_one_patient_is_too_few(made: Maker) -> None:
    made.cases = {"a": made.cases["a"]}
    assert one(made.check(), "too-few")[0] == "error"


def test_cases_without_mask_are_noted(made: Maker) -> None:
    made.cases["a"] = Case("a", made.cases["a"].images)
    assert one(made.check(), "unlabelled")[:2] == ("note", "a")


def test_instance_maps_are_suspected(made: Maker) -> None:
    made.labels = None
    made.put("a", label=numbered(100))
    severity, _, message = one(made.check(), "labels")
    assert severity == "warning"
    assert "numbered instances" in message


@pytest.mark.parametrize("labels", [None, Labels.of({"bone": 1})])
def test_a_mask_of_more_values_than_training_takes_is_an_error(made: Maker, labels: Labels | None) -> None:
    made.labels = labels
    made.put("a", label=numbered(300))
    assert not made.check().ok
    severity, case, message = one(made.check(), "unusable")
    assert (severity, case) == ("error", "a")
    assert message.startswith("the mask holds 300 distinct values; a mask of structures has at most 256.")


def test_more_values_in_all_masks_than_training_takes_are_an_error(made: Maker) -> None:
    made.labels = None
    made.put("a", label=numbered(200))
    made.put("b", label=numbered(200, 200))
    text = "the masks hold 399 distinct values besides 0; at most 255 are expected"
    assert one(made.check(), "labels") == ("error", "", text)


def test_notes_of_the_reader_are_passed_on(shared_data: Path) -> None:
    report = check(find(shared_data / "E_isbi2012"))
    assert report.ok
    assert any(f.code == "file" and "1 mm" in f.message for f in report.findings)


def test_real_scans_can_be_trained_on(shared_data: Path) -> None:
    assert check(find(shared_data / "B_sts_CT")).ok


def test_a_value_that_one_mask_of_several_has_alone(made: Maker) -> None:
    """Nobody declares it, and it would be learned: a slip of the brush, or what was meant?"""
    made.labels = None
    made.put("c", label=mask(_1=slice(2, 5), _77=slice(7, 8)))
    assert not [f for f in made.check().findings if f.severity == "warning"], "of three masks that says little"
    made.cases["d"] = made.cases["a"].replace(id="d", group="d", label=made.cases["b"].label)
    (found,) = [f for f in made.check().findings if f.code == "labels" and f.severity == "warning"]
    assert found.case == "c"
    assert found.message.startswith("77 is in this mask alone, of 4")
