"""A dataset with every fault that can be mended, and with some that cannot."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import medseg
from medseg import files, io
from medseg.data import layouts, reading
from medseg.errors import DataError

Make = Callable[..., Path]


def rewrite(path: Path, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> None:
    """A mask with other voxels, or another affine."""
    image = nib.load(path)
    array, affine = change(np.asarray(image.dataobj), image.affine.copy())
    nib.save(nib.Nifti1Image(array, affine), path)


def shifted(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    affine[2, 3] += 0.8
    return array, affine


FAULTS = {
    0: shifted,
    1: lambda array, affine: (array.astype(np.float64), affine),
    2: lambda array, affine: (array[:, :-1], affine),
    3: lambda array, affine: (array, np.eye(4)),
    4: lambda array, affine: (array, affine + np.diag((0, 0, 0.5, 0))),
    5: lambda array, affine: (array * 0.5, affine),
}


@pytest.fixture
def broken(tmp_path: Path, make_dataset: Make) -> Path:
    root = make_dataset(tmp_path / "scans", cases=8)
    for number, change in FAULTS.items():
        rewrite(root / f"labels/case_{number}.nii.gz", change)
    (root / "labels/case_6.nii.gz").write_bytes(b"\x1f\x8b")
    return root


def test_cases_that_lack_a_file_are_left_out_and_the_others_go_on(tmp_path: Path, make_dataset: Make) -> None:
    root = make_dataset(tmp_path / "scans", cases=4)
    rewrite(root / "labels/case_0.nii.gz", shifted)
    (root / "images/case_1.nii.gz").unlink()
    with pytest.raises(DataError, match=r"1 of 4 masks have no image of the same name: case_1; images there: case_0"):
        layouts.find(root)
    assert [(f.case, f.message) for f in medseg.check(root).findings if f.code == "incomplete"] == [
        ("case_1", "the mask has no image of the same name")
    ]
    found = medseg.repair(root, tmp_path / "mended")
    assert found.ok
    assert [finding.case for finding in found.repairs] == ["case_0"]
    assert "left_out  case_1: the mask has no image of the same name" in found.table()
    assert [case.id for case in layouts.find(tmp_path / "mended").cases] == ["case_0", "case_2", "case_3"]


def test_a_list_may_name_what_is_not_there(tmp_path: Path, make_dataset: Make) -> None:
    root = make_dataset(tmp_path / "scans", cases=3)
    rows = [{"image": f"images/case_{n}.nii.gz", "label": f"labels/case_{n}.nii.gz"} for n in range(3)]
    (root / "dataset.json").write_text(json.dumps({"training": rows}))
    (root / "labels/case_2.nii.gz").unlink()
    found = medseg.repair(root, tmp_path / "mended")
    assert [(finding.case, finding.message) for finding in found.left_out] == [("case_2", "the mask is not there")]
    for name in ("case_0", "case_1"):
        (root / f"images/{name}.nii.gz").unlink()
    with pytest.raises(DataError, match=r"3 of 6 files of .* are missing"):
        medseg.repair(root, tmp_path / "nothing")


def test_what_can_be_mended_is_and_the_rest_is_named(broken: Path, tmp_path: Path) -> None:
    before = files.sha256(broken)
    found = medseg.repair(broken, tmp_path / "mended")
    assert files.sha256(broken) == before
    assert not medseg.check(broken).ok
    assert medseg.check(tmp_path / "mended").ok
    assert found.ok
    assert {finding.case: finding.code for finding in found.repairs} == {
        "case_0": "grid",
        "case_1": "float labels",
        "case_2": "grid",
        "case_3": "grid",
    }
    assert {finding.case for finding in found.left_out} == {"case_4", "case_5", "case_6"}
    said = found.table()
    assert "case_0: label is 0.8 mm off (origin differs along k)" in said
    assert "case_2: label has 20x17x12 voxels instead of 20x18x12: cut or filled" in said
    assert "4 repairs, 3 of 8 cases left out" in said
    dataset = layouts.find(tmp_path / "mended")
    for case in dataset.cases:
        image, mask = reading.read_case(case)
        assert image.geometry == mask.geometry
        assert set(np.unique(mask.array)) == {0, 1, 2}
    assert sorted(path.name for path in (tmp_path / "mended/imagesTr").iterdir()) == [
        f"case_{n}.nii.gz" for n in (0, 1, 2, 3, 7)
    ]
    kept = json.loads((tmp_path / "mended/repairs.json").read_text())
    assert len(kept["repaired"]) == 4
    assert (tmp_path / "mended/imagesTr/case_7.nii.gz").read_bytes() == (broken / "images/case_7.nii.gz").read_bytes()


def test_names_groups_channels_and_the_split_stay(tmp_path: Path, make_dataset: Make) -> None:
    root = make_dataset(tmp_path / "raw", channels=2, labels={"background": 0, "box": 1, "both": [1, 2]})
    rows = [
        f"{n},imagesTr/case_{n}_0000.nii.gz,imagesTr/case_{n}_0001.nii.gz,labelsTr/case_{n}.nii.gz,p{n // 2},{'test' if n > 1 else 'train'}"
        for n in range(4)
    ]
    medseg.repair(root, tmp_path / "a")
    assert layouts.find(tmp_path / "a").labels == layouts.find(root).labels
    (root / "dataset.csv").write_text("\n".join(["id,T1,T2,label,group,split", *rows]))
    medseg.repair(root / "dataset.csv", tmp_path / "b")
    dataset = layouts.find(tmp_path / "b")
    assert dataset.channels == ("T1", "T2")
    assert [(case.id, len(case.images), case.group, case.split) for case in dataset.cases] == [
        ("0", 2, "p0", "train"),
        ("1", 2, "p0", "train"),
        ("2", 2, "p1", "test"),
        ("3", 2, "p1", "test"),
    ]


def test_pictures_become_numbers_and_get_a_spacing(tmp_path: Path) -> None:
    colours = np.zeros((9, 8, 3), np.uint8)
    colours[2:5, 2:5], colours[6:8, 2:5] = (255, 0, 0), (255, 255, 255)
    for number in range(3):
        for folder, pixels in (("images", colours // 2 + number), ("masks", colours)):
            (tmp_path / "scans" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"scans/{folder}/{number}.png")
    found = medseg.repair(tmp_path / "scans", tmp_path / "mended", spacing_mm=(0.5, 0.25, 3))
    assert found.ok
    assert "255 becomes 1 (6 voxels), #ff0000 becomes 2 (9 voxels)" in found.table()
    dataset = layouts.find(tmp_path / "mended")
    assert dataset.labels is not None
    assert {item.name: item.values for item in dataset.labels} == {"255": (1,), "#ff0000": (2,)}
    image, mask = reading.read_case(dataset.cases[0])
    assert image.channels == 3
    assert mask.geometry.spacing_mm == (0.5, 0.25, 3)
    assert (mask.array == 2).sum() == 9


def test_white_on_black_becomes_one(tmp_path: Path, make_dataset: Make) -> None:
    root = make_dataset(tmp_path / "scans")
    for path in (root / "labels").iterdir():
        rewrite(path, lambda array, affine: ((array > 0).astype(np.uint8) * 255, affine))
    found = medseg.repair(root, tmp_path / "mended")
    assert all("255 becomes 1" in finding.message for finding in found.repairs)
    assert not [finding for finding in found.report.findings if finding.code == "picture-mask"]


def test_twins_are_left_out_and_a_scan_of_several_files_becomes_one(tmp_path: Path, make_dataset: Make) -> None:
    root = make_dataset(tmp_path / "scans")
    image = io.read(root / "images/case_0.nii.gz")
    io.write(image, root / "images/case_1.nii.gz")
    (root / "images/case_0.nii.gz").unlink()
    nib.save(nib.Nifti1Pair(image.array[0], image.geometry.affine), root / "images/case_0.hdr")
    (root / "images/case_0.img").rename(root / "images/case_0.IMG")
    (root / "images/case_0.hdr").rename(root / "images/case_0.HDR")
    found = medseg.repair(root, tmp_path / "mended")
    assert [finding.code for finding in found.left_out] == ["duplicate"]
    assert sorted(path.name for path in (tmp_path / "mended/imagesTr").iterdir()) == [
        "case_0.nii.gz",
        "case_2.nii.gz",
        "case_3.nii.gz",
    ]


def test_the_copy_never_lies_in_the_original(tmp_path: Path, make_dataset: Make) -> None:
    root = make_dataset(tmp_path / "scans")
    for out, message in ((root / "mended", "within the dataset"), (tmp_path, "within the dataset|not empty")):
        with pytest.raises(DataError, match=message):
            medseg.repair(root, out)
    for path in (root / "labels").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no labelled case could be repaired; case_0"):
        medseg.repair(root, tmp_path / "mended")
