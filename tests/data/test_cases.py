from __future__ import annotations

from pathlib import Path

import pytest

from medseg.data.cases import Case, Dataset, named
from medseg.errors import DataError, GeometryError


def case(name: str, group: str = "", labelled: bool = True) -> Case:
    return Case(name, (Path(f"{name}.nii.gz"),), Path("mask.nii.gz") if labelled else None, group)


def dataset(*members: Case) -> Dataset:
    return Dataset("set", "by hand", members, None, ("CT",), Path("here"))


def test_a_case_is_its_own_patient_unless_told_otherwise() -> None:
    assert case("a").group == "a"
    assert case("a", "p").group == "p"


def test_a_dataset_refuses_to_be_empty_or_ambiguous() -> None:
    with pytest.raises(DataError, match="no cases"):
        dataset()
    with pytest.raises(DataError, match="used twice: a"):
        dataset(case("a"), case("b"), case("a"))


def test_labelled_cases_are_those_with_a_mask() -> None:
    assert [c.id for c in dataset(case("a"), case("b", labelled=False)).labelled] == ["a"]


def test_errors_name_the_case_and_no_paths() -> None:
    case = Case("c7", (Path("/d/DOE^JOHN"), Path("/d/DOE^JOHN_2")), Path("/d/DOE^JOHN_mask.nii"))
    with (
        pytest.raises(
            GeometryError, match=r"^c7: the file of channel 2 and the mask differ from the file of channel 1$"
        ),
        named(case),
    ):
        raise GeometryError("'/d/DOE^JOHN_2' and '/d/DOE^JOHN_mask.nii' differ from /d/DOE^JOHN")
    with pytest.raises(DataError, match=r"^c7: the image is cut short$"), named(Case("c7", (Path("/d/DOE^JOHN"),))):
        raise DataError("'/d/DOE^JOHN' is cut short")
