"""By DICOM structures, which have names alone: see test_dicom_studies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medseg import io
from medseg.data import agreement
from medseg.data.pairing import pair_folders
from medseg.errors import DataError
from medseg.labels import Labels
from medseg.volume import Geometry, Volume


def test_a_structure_of_one_name_and_two_values_is_not_compared_with_another(tmp_path: Path) -> None:
    mask = Volume(np.ones((3, 3, 3), np.uint8), Geometry((3, 3, 3), np.eye(4)), "labels")
    for folder in ("p", "d/imagesTr", "d/labelsTr"):
        io.write(mask, tmp_path / folder / "a.nii.gz", parents=True)
    listed = [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}]
    (tmp_path / "d" / "dataset.json").write_text(json.dumps({"labels": {"Liver": 1, "cyst": 2}, "training": listed}))
    pairs = pair_folders(tmp_path / "p", tmp_path / "d")
    agreement.check(pairs, Labels.of({"liver": 1, "vessel": 2}))  # what one side alone names is its own business
    with pytest.raises(DataError, match="the references hold 'Liver' as 1, and the model as 2: other structures"):
        agreement.check(pairs, Labels.of({"cyst": 1, "liver": 2}))
