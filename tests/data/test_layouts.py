from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg import io
from medseg.data.layouts import find
from medseg.errors import ConfigError, DataError
from medseg.volume import Geometry, Volume


def put(path: Path, value: int = 0, shape: tuple[int, ...] = (4, 3, 2), corner: int | None = None) -> Path:
    """A tiny file: an image of one value, or a mask with one voxel of another."""
    array = np.full(shape, value, np.uint16)
    if corner is not None:
        array.flat[0] = corner
    path.parent.mkdir(parents=True, exist_ok=True)
    io.write(
        Volume(array, Geometry((shape[-3], shape[-2], shape[-1]), np.eye(4)), "image" if corner is None else "labels"),
        path,
    )
    return path


def folder(
    root: Path, images: str = "images", labels: str = "labels", names: Iterable[str] = "ab", suffix: str = ""
) -> Path:
    for name in names:
        put(root / images / f"{name}{suffix}.nii.gz", 5)
        put(root / labels / f"{name}.nii.gz", corner=1)
    return root


def describe(root: Path, **content: Any) -> Path:
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def ids(path: Path) -> list[str]:
    return [case.id for case in find(path).cases]


# --- images beside labels


@pytest.mark.parametrize(
    ("images", "labels"), [("images", "labels"), ("images", "masks"), ("image", "label"), ("imagesTr", "labelsTr")]
)
def test_folder_pairs(tmp_path: Path, images: str, labels: str) -> None:
    dataset = find(folder(tmp_path / "knees", images, labels))
    assert (dataset.name, dataset.layout) == ("dataset", f"{images}/ beside {labels}/"), (
        "a folder may be named by a patient"
    )
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert dataset.cases[0].images == (tmp_path / "knees" / images / "a.nii.gz",)
    assert dataset.cases[0].label == tmp_path / "knees" / labels / "a.nii.gz"
    assert dataset.labels is None
    assert dataset.channels == ("image",)


def test_folder_pairs_with_one_file_a_channel(tmp_path: Path) -> None:
    folder(tmp_path, suffix="_0000")
    folder(tmp_path, suffix="_0001")
    dataset = find(tmp_path)
    assert [path.name for path in dataset.cases[1].images] == ["b_0000.nii.gz", "b_0001.nii.gz"]
    assert dataset.channels == ("image", "image")


def test_names_that_only_look_like_channels_are_names(tmp_path: Path) -> None:
    assert ids(folder(tmp_path, names=("s_2021", "s_2022"))) == ["s_2021", "s_2022"]


def test_formats_may_differ_between_image_and_mask(tmp_path: Path) -> None:
    put(tmp_path / "images/a.nrrd", 5)
    put(tmp_path / "labels/a.nii", corner=1)
    put(tmp_path / "images/b.png", 5, (4, 3, 1))
    put(tmp_path / "labels/b.png", 0, (4, 3, 1), corner=1)
    (tmp_path / "labels/notes.txt").write_text("not a mask")
    (tmp_path / "labels/.hidden.png").write_text("not a mask")
    assert ids(tmp_path) == ["a", "b"]


def test_channels_of_a_file_are_counted(tmp_path: Path) -> None:
    put(tmp_path / "images/a.nii.gz", 5, (3, 4, 3, 2))
    put(tmp_path / "labels/a.nii.gz", corner=1)
    assert find(tmp_path).channels == ("image",) * 3


def test_an_unreadable_first_case_does_not_hide_the_dataset(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "images/a.nii.gz").write_text("broken")
    assert find(tmp_path).channels == ("image",)


def test_dicom_folders_are_images_and_tell_their_modality(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/head").symlink_to(shared_data / "A_hippo_dicom/Study1_13_HCropVolume", target_is_directory=True)
    put(tmp_path / "labels/head.nii.gz", corner=1)
    dataset = find(tmp_path)
    assert ids(tmp_path) == [io.stem(tmp_path / "images/head")]
    assert dataset.channels == ("MR",)


def test_the_name_of_a_dicom_folder_is_shown_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shared_data: Path
) -> None:
    (tmp_path / "images").mkdir()
    for name, series in (("DOE^JOHN", "Study1_13_HCropVolume"), ("DOE^JANE", "Study3_11-T1post-18670")):
        real = shared_data / "A_hippo_dicom" / series
        (tmp_path / "images" / name).symlink_to(real, target_is_directory=True)
    put(tmp_path / "labels/DOE^JOHN.nii.gz", corner=1)
    dataset = find(tmp_path)
    assert len(dataset.labelled) == 1
    assert [case.label.name for case in dataset.labelled if case.label] == ["DOE^JOHN.nii.gz"]
    assert "1 of 2 images in images/ have no mask" in caplog.text
    assert "DOE" not in "".join(case.id + case.group for case in dataset.cases) + caplog.text


def test_endings_are_known_in_any_letters(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "images/a.nii.gz").rename(tmp_path / "images/a.NII.GZ")
    assert ids(tmp_path) == ["a", "b"]


def test_images_without_mask_are_named_and_kept_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder(tmp_path)
    put(tmp_path / "images/c.nii.gz")
    dataset = find(tmp_path)
    assert [case.id for case in dataset.labelled] == ["a", "b"]
    assert "1 of 3 images in images/ have no mask: c" in caplog.text


def test_masks_without_image_are_refused(tmp_path: Path) -> None:
    folder(tmp_path)
    for name in "cdef":
        put(tmp_path / f"labels/{name}_seg.nii.gz", corner=1)
    with pytest.raises(DataError, match=r"4 of 6 masks .*c_seg, d_seg, e_seg and 1 more; images there: a, b\."):
        find(tmp_path)


def test_two_files_of_one_case_are_refused(tmp_path: Path) -> None:
    put(folder(tmp_path) / "images/a.nrrd", 5)
    with pytest.raises(DataError, match="share a case's id"):
        find(tmp_path)


def test_a_dataset_without_labels_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "images/a.nii.gz")
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="has a label"):
        find(tmp_path)


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="no cases"):
        find(tmp_path)


def test_unknown_layouts_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"dataset\.json.*images/ beside labels/.*a CSV with the columns id,image,label "
    ):
        find(tmp_path)
    with pytest.raises(DataError, match="no such dataset"):
        find(tmp_path / "absent")
    with pytest.raises(DataError, match="File name too long"):
        find(tmp_path / ("x" * 300))


def test_a_name_of_masks_where_there_is_one_kind_is_refused(tmp_path: Path) -> None:
    folder(tmp_path)
    with pytest.raises(
        DataError, match=r"'#liver' chooses among the masks of a BIDS tree or of DICOM studies; .*images/"
    ):
        find(Path(f"{tmp_path}#liver"))


# --- Medical Segmentation Decathlon


def msd(root: Path, **changes: Any) -> Path:
    folder(root, "imagesTr", "labelsTr")
    entries = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in "ba"]
    content = {"name": "Knee", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "bone"}, "training": entries}
    return describe(root, **(content | changes))


@pytest.mark.parametrize("given", ["", "dataset.json"])
def test_msd(tmp_path: Path, given: str) -> None:
    dataset = find(msd(tmp_path) / given)
    assert (dataset.name, dataset.layout, dataset.channels) == ("Knee", "MSD dataset.json", ("CT",))
    assert [case.id for case in dataset.cases] == ["b", "a"]
    assert dataset.labels is not None
    assert [(item.name, item.values) for item in dataset.labels] == [("bone", (1,))]


def test_background_alone_declares_nothing(tmp_path: Path) -> None:
    assert find(msd(tmp_path, labels={"0": "background"})).labels is None


def test_msd_test_scans_count_only_with_a_mask(tmp_path: Path) -> None:
    put(tmp_path / "imagesTs/x.nii.gz")
    put(tmp_path / "labelsTs/x.nii.gz", corner=1)
    entry = {"image": "imagesTs/x.nii.gz", "label": "labelsTs/x.nii.gz"}
    assert len(find(msd(tmp_path, test=["./imagesTs/x.nii.gz"])).cases) == 2
    assert [case.split for case in find(msd(tmp_path, test=[entry])).cases] == [None, None, "test"]


def test_msd_lists_may_omit_endings(tmp_path: Path) -> None:
    assert ids(msd(tmp_path, training=[{"image": "./imagesTr/a", "label": "labelsTr/a"}])) == ["a"]


def test_msd_lists_may_write_endings_in_other_letters(tmp_path: Path) -> None:
    msd(tmp_path)
    (tmp_path / "imagesTr/a.nii.gz").rename(tmp_path / "imagesTr/a.NII.GZ")
    put(tmp_path / "labelsTr/a_0000.nii.gz", corner=1)
    assert [path.name for path in find(tmp_path).cases[1].images] == ["a.NII.GZ"]


def test_msd_channels_may_be_a_list_or_one_name(tmp_path: Path) -> None:
    assert find(msd(tmp_path, modality=["CT"])).channels == ("CT",)
    assert find(msd(tmp_path, modality="CT")).channels == ("CT",)


def test_msd_lists_may_name_cases_whose_channels_are_files(tmp_path: Path) -> None:
    for channel in "01":
        put(tmp_path / f"imagesTr/z_000{channel}.nii.gz")
    put(tmp_path / "labelsTr/z.nii.gz", corner=1)
    entry = {"image": "imagesTr/z.nii.gz", "label": "labelsTr/z.nii.gz"}
    case = find(msd(tmp_path, training=[entry], modality={"0": "T1", "1": "T2"})).cases[0]
    assert (case.id, [p.name for p in case.images]) == ("z", ["z_0000.nii.gz", "z_0001.nii.gz"])
    (tmp_path / "imagesTr/z_0001.nii.gz").unlink()
    case = find(msd(tmp_path, training=[entry])).cases[0]
    assert (case.id, [p.name for p in case.images]) == ("z", ["z_0000.nii.gz"])


def test_msd_channels_are_ordered_as_numbers(tmp_path: Path) -> None:
    modality = {str(n): f"m{n}" for n in (10, 2, 1, 0, 9, 3, 4, 5, 6, 7, 8)}
    assert find(msd(tmp_path, modality=modality)).channels == tuple(f"m{n}" for n in range(11))


def test_msd_names_the_missing(tmp_path: Path) -> None:
    entries = [{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in "apqrs"]
    with pytest.raises(DataError, match=r"8 of 10 files .* missing: imagesTr/p.nii.gz, .* and 5 more"):
        find(msd(tmp_path, training=entries))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": ["a.nii.gz"]}, "image and label"),
        ({"labels": ["bone"]}, "mapping"),
        ({"labels": {"bone": "x"}}, "labels:"),
        ({"training": []}, "no cases"),
        ({"training": "imagesTr"}, "'training' must be a list of cases, got 'imagesTr'"),
        ({"training": {"a": 1}}, "'training' must be a list"),
        ({"test": 3}, "'test' must be a list of cases, got '3'"),
    ],
)
def test_msd_malformed(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((DataError, ConfigError), match=message):
        find(msd(tmp_path, **changes))


def test_msd_ids_used_twice(tmp_path: Path) -> None:
    entry = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
    with pytest.raises(DataError, match="used twice: a"):
        find(msd(tmp_path, training=[entry, entry]))


def test_json_that_is_neither(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="training"):
        find(describe(tmp_path, labels={"bone": 1}))
    for text in ("{", "", "[1]", "3"):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(DataError, match=r"JSON|must hold names and values"):
            find(tmp_path)


def test_real_msd(shared_data: Path) -> None:
    dataset = find(shared_data / "Task04_Hippocampus")
    assert (dataset.layout, len(dataset.cases), dataset.channels) == ("MSD dataset.json", 203, ("MRI",))
    assert dataset.labels is not None
    assert dataset.labels.names == ("anterior", "posterior")


# --- nnU-Net


def nnunet(root: Path, **changes: Any) -> Path:
    for channel in "01":
        folder(root, "imagesTr", "labelsTr", suffix=f"_000{channel}")
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "cyst": 1},
        "file_ending": ".nii.gz",
    }
    return describe(root, **(content | changes))


def test_nnunet(tmp_path: Path) -> None:
    dataset = find(nnunet(tmp_path / "Dataset007_Cyst"))
    assert (dataset.name, dataset.layout) == ("cyst", "nnU-Net raw folder")
    assert find(nnunet(tmp_path / "Doe^Jane", name="Cysts")).name == "Cysts"
    assert dataset.channels == ("T1", "T2")
    assert [(case.id, len(case.images)) for case in dataset.cases] == [("a", 2), ("b", 2)]


def test_nnunet_regions_and_ignored_voxels(tmp_path: Path) -> None:
    labels = find(nnunet(tmp_path, labels={"background": 0, "whole": [1, 2], "core": [2], "ignore": 3})).labels
    assert labels is not None
    assert not labels.exclusive
    assert labels.ignore == 3
    assert [item.values for item in labels] == [(1, 2), (2,)]


def test_nnunet_order_of_regions(tmp_path: Path) -> None:
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    labels = find(nnunet(tmp_path, labels=regions, regions_class_order=[1, 2, 3])).labels
    assert labels is not None
    assert labels.order == (1, 2, 3)
    labels = find(nnunet(tmp_path, regions_class_order=[5])).labels
    assert labels is not None
    assert labels.order is None, "without regions nnU-Net does not look at it"
    for wrong in ([1, 2], [2, 1, 3], [1, 2, 3, 4], 3, ["x", 2, 3]):
        with pytest.raises(ConfigError, match=r"^labels: "):
            find(nnunet(tmp_path, labels=regions, regions_class_order=wrong))


def test_nnunet_held_out_cases(tmp_path: Path) -> None:
    nnunet(tmp_path)
    for channel in "01":
        put(tmp_path / f"imagesTs/z_000{channel}.nii.gz", 5)
    assert ids(tmp_path) == ["a", "b"]
    put(tmp_path / "labelsTs/z.nii.gz", corner=1)
    assert [case.split for case in find(tmp_path).cases] == [None, None, "test"]


def test_nnunet_missing_channel(tmp_path: Path) -> None:
    (nnunet(tmp_path) / "imagesTr/b_0001.nii.gz").unlink()
    with pytest.raises(DataError, match=r"names 2 channel.*b has 1"):
        find(tmp_path)


# --- modality


def test_modality_replaces_what_the_dataset_says(tmp_path: Path) -> None:
    nnunet(tmp_path)
    assert find(tmp_path, "MR").channels == ("MR", "MR")
    assert find(tmp_path, "CT, PT").channels == ("CT", "PT")
    with pytest.raises(ConfigError, match="3 channels, but the images have 2: T1, T2"):
        find(tmp_path, "a,b,c")


def test_names_that_look_equal_are_equal(tmp_path: Path) -> None:
    """A Mac may write an accent behind its letter."""
    put(tmp_path / "images" / "M\u00fcller.nii.gz")
    put(tmp_path / "labels" / "Mu\u0308ller.nii.gz", corner=1)
    (case,) = find(tmp_path).cases
    assert case.id == "M\u00fcller"
    assert case.label == tmp_path / "labels" / "Mu\u0308ller.nii.gz"


def test_a_list_may_name_files_with_accents_of_another_system(tmp_path: Path) -> None:
    put(tmp_path / "Mu\u0308ller.nii.gz")
    put(tmp_path / "masks" / "Mu\u0308ller.nii.gz", corner=1)
    entry = {"image": "./M\u00fcller.nii.gz", "label": "masks/M\u00fcller.nii.gz"}
    (case,) = find(describe(tmp_path, training=[entry])).cases
    assert (case.images[0].exists(), case.label and case.label.exists()) == (True, True)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the folder of the whole dataset."""

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(io, "holds_structures", refuse)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "IM1").touch()
    with pytest.raises(DataError, match=r"cannot read '.*/study/IM1': Permission denied"):
        find(tmp_path)
