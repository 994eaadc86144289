"""Which objects belong to which series; `test_dicom_studies` has the rules, on whole trees."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg import io
from medseg.data import dicom_objects, dicom_references
from medseg.data.cases import Case, Structures
from medseg.data.dicom_series import source
from medseg.labels import Labels
from medseg.volume import Geometry, Volume


def test_an_object_is_read_once_for_its_references(
    tmp_path: Path, make_series: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = Geometry((8, 7, 5), np.diag((-1.0, -1, 2, 1)))
    mask = Volume(np.ones(grid.shape, np.uint8), grid, "labels")
    drawn = []
    for n in range(2):
        series = make_series(tmp_path / str(n), mask.replace(kind="image"), name=f"1.2.{n}")
        drawn.append(tmp_path / f"{n}.rtstruct.dcm")
        dicom_objects.write(mask, Labels.of({"liver": 1}), source(series), drawn[-1])
    assert len({pydicom.dcmread(path).ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID for path in drawn}) == 2
    asked: list[Path] = []
    references = io.references
    monkeypatch.setattr(io, "references", lambda path: asked.append(path) or references(path))
    case = dicom_references.in_its_frames(Case("a", (tmp_path / "1",), drawn[0], structures=Structures(tuple(drawn))))
    assert case.structures is not None
    assert case.structures.files == (drawn[1],)
    assert asked == drawn
