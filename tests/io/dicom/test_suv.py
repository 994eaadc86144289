from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import PositronEmissionTomographyImageStorage

from medseg import io
from medseg.errors import DataError

DRUG = {
    "RadionuclideTotalDose": 370e6,
    "RadionuclideHalfLife": 6586.2,
    "RadiopharmaceuticalStartTime": "100000",
}
PET: dict[str, Any] = {
    "SOPClassUID": PositronEmissionTomographyImageStorage,
    "Modality": "PT",
    "Units": "BQML",
    "CorrectedImage": ["ATTN", "DECY"],
    "DecayCorrection": "START",
    "PatientWeight": 70,
    "SeriesDate": "20200102",
    "SeriesTime": "110000",
    "AcquisitionDate": "20200102",
    "AcquisitionTime": "110000.00",
}
HOUR = 2 ** (3600 / 6586.2)


def pet(make: Any, folder: Path, drug: dict[str, Any] | None = None, **changes: Any) -> Path:
    dose = make.item(**(DRUG | (drug or {})))
    tags = PET | {"RadiopharmaceuticalInformationSequence": dose} | changes
    for name in [name for name, value in tags.items() if value is None]:
        del tags[name]
    return make.series(folder, lambda n: tags)


def factor(folder: Path) -> float:
    stored, suv = io.read(folder), io.read(folder, units="suv")
    ratio = suv.array[0, 1, 1, -1] / stored.array[0, 1, 1, -1]
    assert np.allclose(suv.array, stored.array * ratio)
    assert suv.meta["unit"] == "SUVbw"
    assert suv.meta["suv"]["factor"] == pytest.approx(ratio, rel=1e-5)
    assert "20200102" not in str(dict(suv.meta))
    return float(ratio)


def test_dose_decays_from_injection_to_the_start_of_the_scan(make: Any, tmp_path: Path) -> None:
    assert factor(pet(make, tmp_path / "s")) == pytest.approx(70e3 / 370e6 * HOUR, rel=1e-5)
    whole = {"RadiopharmaceuticalStartDateTime": "20200102100000.0"}
    assert factor(pet(make, tmp_path / "t", whole)) == pytest.approx(70e3 / 370e6 * HOUR, rel=1e-5)


def test_an_injection_before_midnight_was_yesterday(make: Any, tmp_path: Path) -> None:
    night = {"SeriesTime": "003000", "AcquisitionTime": "003000"}
    folder = pet(make, tmp_path / "s", {"RadiopharmaceuticalStartTime": "233000"}, **night)
    assert factor(folder) == pytest.approx(70e3 / 370e6 * HOUR, rel=1e-5)


def test_an_injection_after_the_start_of_the_scan_was_not_yesterday(make: Any, tmp_path: Path) -> None:
    """Of a dynamic scan: by a day of decay SUV would be nine thousand times as large."""
    with pytest.raises(DataError, match="has -5 s from injection to scan"):
        io.read(pet(make, tmp_path / "s", {"RadiopharmaceuticalStartTime": "110005"}), units="suv")


def test_slow_nuclides_need_the_day_of_injection(make: Any, tmp_path: Path) -> None:
    zirconium = {"RadionuclideHalfLife": 282240.0}
    with pytest.raises(DataError, match="lacks RadiopharmaceuticalStartDateTime"):
        io.read(pet(make, tmp_path / "s", zirconium), units="suv")
    days = zirconium | {"RadiopharmaceuticalStartDateTime": "20191229110000"}
    expected = 70e3 / 370e6 * 2 ** (4 * 86400 / 282240)
    assert factor(pet(make, tmp_path / "t", days)) == pytest.approx(expected, rel=1e-5)


def test_a_dose_in_megabecquerel_is_no_dose(make: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="seems to be in MBq"):
        io.read(pet(make, tmp_path / "s", {"RadionuclideTotalDose": 370}), units="suv")


def test_values_corrected_to_injection_need_no_decay(make: Any, tmp_path: Path) -> None:
    assert factor(pet(make, tmp_path / "s", DecayCorrection="ADMIN")) == pytest.approx(70e3 / 370e6, rel=1e-5)


def test_a_series_made_anew_later_goes_by_its_acquisition(make: Any, tmp_path: Path) -> None:
    """A frame of four minutes that begins ten minutes into the scan: its mean activity is nearly that of its middle."""
    late = {"SeriesTime": "180000", "AcquisitionTime": "111000", "ActualFrameDuration": 240_000}
    decay = np.log(2) / 6586.2
    mean = np.log(decay * 240 / (1 - np.exp(-decay * 240))) / decay
    assert 119 < mean < 120
    folder = pet(make, tmp_path / "s", FrameReferenceTime=1000 * (600 + mean), **late)
    assert factor(folder) == pytest.approx(70e3 / 370e6 * HOUR, rel=1e-4)


def test_suv_stays_suv(make: Any, tmp_path: Path) -> None:
    assert factor(pet(make, tmp_path / "s", Units="GML")) == 1


def test_counts_need_the_factor_of_their_maker(make: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without Philips' private factors"):
        io.read(pet(make, tmp_path / "s", Units="CNTS"), units="suv")
    image = make.image((0, 0, 0), make.slab(3), **(PET | {"Units": "CNTS"}))
    image.RadiopharmaceuticalInformationSequence = make.item(**DRUG)
    block = image.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x09, "DS", "2.5")
    assert factor(make.save(tmp_path / "t", [image]) / "001.dcm") == pytest.approx(2.5 * 70e3 / 370e6 * HOUR, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"PatientWeight": None}, "lacks PatientWeight"),
        ({"PatientWeight": 0}, "lacks PatientWeight"),
        ({"PatientWeight": 70000}, "PatientWeight above 700 kg: it seems to be in g"),
        ({"Units": "HU"}, "has values in 'HU'"),
        ({"Units": None}, "no unit"),
        ({"CorrectedImage": ["NORM"]}, r"is corrected for NORM with decay correction 'START'; SUV needs ATTN and DECY"),
        ({"DecayCorrection": "NONE"}, "SUV needs ATTN and DECY, and START or ADMIN"),
        ({"SeriesDate": None, "AcquisitionDate": None}, "lacks SeriesTime and AcquisitionTime"),
        ({"Units": "GML", "SUVType": "LBM"}, "SUV by LBM already"),
    ],
)
def test_what_lacks_is_named(make: Any, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        io.read(pet(make, tmp_path / "s", **changes), units="suv")


def test_what_is_no_pet_keeps_its_unit(make: Any, tmp_path: Path) -> None:
    folder = make.series(tmp_path / "ct", lambda n: {"RescaleIntercept": -1024})
    suv, plain = io.read(folder, units="suv"), io.read(folder)
    assert suv.meta == plain.meta
    assert np.array_equal(suv.array, plain.array)


def test_a_wrong_date_of_injection_is_no_decay(make: Any, tmp_path: Path) -> None:
    drug = {"RadiopharmaceuticalStartDateTime": "20191201100000"}
    with pytest.raises(DataError, match="s from injection to scan; expected 0 to 86400"):
        io.read(pet(make, tmp_path / "s", drug), units="suv")


@pytest.mark.parametrize(("name", "values"), [("Units", ["GML", "BQML"]), ("PatientWeight", [70, 71])])
def test_images_that_disagree_have_no_one_factor(make: Any, tmp_path: Path, name: str, values: list[Any]) -> None:
    folder = pet(make, tmp_path / "s")
    for n, file in enumerate(sorted(folder.iterdir())):
        data = pydicom.dcmread(file)
        data[name].value = values[n == 0]
        data.save_as(file)
    with pytest.raises(DataError, match=f"differs from image to image in {name}; which counts"):
        io.read(folder, units="suv")
