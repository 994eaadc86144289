import json
from pathlib import Path

import numpy as np
import pytest

from medseg import io
from medseg.data import doctor, layouts, reading
from medseg.errors import DataError
from medseg.volume import Geometry, Volume

GRID = Geometry((6, 5, 4), np.diag((1.0, 1, 2, 1)))


def tree(root: Path, *names: str) -> Path:
    """A file for each name, `sub-01/anat/sub-01_T1w` or `derivatives/...`; masks hold 1 and 2."""
    for number, name in enumerate(names):
        masked = name.startswith("derivatives")
        array = np.arange(120).reshape(6, 5, 4) % (3 if masked else 97) + (0 if masked else number)
        volume = Volume(array.astype(np.uint8), GRID, "labels" if masked else "image")
        io.write(volume, root / f"{name}.nii.gz", parents=True)
    return root


def anat(subject: int, suffix: str) -> str:
    return f"sub-{subject:02d}/anat/sub-{subject:02d}_{suffix}"


@pytest.mark.parametrize("mask", ["T1w_lesion-manual", "desc-manual_dseg", "space-T1w_desc-manual_dseg"])
def test_masks_belong_to_the_image_of_their_name(tmp_path: Path, mask: str) -> None:
    names = [name for n in (1, 2) for name in (anat(n, "T1w"), f"derivatives/labels/{anat(n, mask)}")]
    dataset = layouts.find(tree(tmp_path, *names))
    assert [case.id for case in dataset.cases] == ["sub-01_T1w", "sub-02_T1w"]
    assert [case.group for case in dataset.cases] == ["sub-01", "sub-02"]
    assert dataset.channels == ("MR",)
    assert dataset.layout.startswith("BIDS tree, masks labels/")
    assert dataset.labels is None
    assert reading.read_case(dataset.cases[0])[1].array.max() == 2
    assert doctor.check(dataset).ok


def test_the_kind_that_most_images_have_unless_one_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [anat(1, "T1w"), anat(2, "T1w"), anat(2, "T2w")]
    masks = [anat(1, "T1w_lesion"), anat(2, "T1w_lesion"), anat(1, "T1w_cord-seg"), anat(2, "T1w_cord-seg")]
    root = tree(tmp_path / "tree", *names, *(f"derivatives/labels/{mask}" for mask in (*masks, anat(2, "T2w_disc"))))
    assert layouts.find(root).layout.endswith("labels/cord-seg")
    assert "there are also labels/lesion (2), labels/disc (1): ask for them as DATA#NAME" in caplog.text
    named = layouts.find(f"{root}#lesion")
    assert [case.label and case.label.name for case in named.cases] == [
        "sub-01_T1w_lesion.nii.gz",
        "sub-02_T1w_lesion.nii.gz",
    ]
    assert [case.id for case in layouts.find(f"{root}#labels/disc").cases] == ["sub-02_T2w"]
    with pytest.raises(DataError, match=r"0 kinds of masks are called 'lesions'.*labels/lesion"):
        layouts.find(f"{root}#lesions")


def test_sessions_and_runs_are_told_apart_and_what_is_unclear_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["sub-01/ses-a/anat/sub-01_ses-a_T1w", "sub-01/ses-b/anat/sub-01_ses-b_T1w", anat(2, "T1w"), anat(2, "T2w")]
    masks = ["sub-01/ses-a/anat/sub-01_ses-a_dseg", "sub-01/ses-b/anat/sub-01_ses-b_dseg", anat(2, "dseg")]
    dataset = layouts.find(tree(tmp_path, *names, *(f"derivatives/manual/{mask}" for mask in masks)))
    labelled = [case.id for case in dataset.labelled]
    assert labelled == ["sub-01_ses-a_T1w", "sub-01_ses-b_T1w"]
    assert {case.group for case in dataset.labelled} == {"sub-01"}
    assert "1 mask may belong to several images" in caplog.text
    assert "1 image has no mask" in caplog.text


def test_names_of_a_table_and_of_the_dataset(tmp_path: Path) -> None:
    root = tree(tmp_path, anat(1, "T1w"), f"derivatives/manual/{anat(1, 'dseg')}")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "cords"}))
    (root / "derivatives/manual/dseg.tsv").write_text("index\tname\n0\tbackground\n1\tcord\n2\tlesion\n")
    dataset = layouts.find(root)
    assert dataset.name == "cords"
    assert dataset.labels is not None
    assert dataset.labels.names == ("cord", "lesion")
    (root / "derivatives/manual/dseg.tsv").write_bytes("index\tname\n1\tTumörrand\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not readable as a table in UTF-8"):
        layouts.find(root)


def test_a_mask_in_another_space_belongs_to_no_image(tmp_path: Path) -> None:
    root = tree(tmp_path, anat(1, "T1w"), f"derivatives/manual/{anat(1, 'space-MNI152_dseg')}")
    with pytest.raises(DataError, match="BIDS tree of 1 image, but no mask"):
        layouts.find(root)


def test_a_real_tree(shared_data: Path) -> None:
    dataset = layouts.find(shared_data / "B_spine_bids")
    assert {case.id for case in dataset.labelled} == {f"sub-unf01_{s}" for s in ("T1w", "T2w", "T2star")}
    assert reading.read_case(dataset.labelled[0])[1].array.sum() == 1227
    discs = layouts.find(f"{shared_data / 'B_spine_bids'}#labels-disc-manual")
    assert [case.id for case in discs.labelled] == ["sub-unf01_T2w"]
