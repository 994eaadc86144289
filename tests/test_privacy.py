"""A word is planted in every place where a patient's data may stand, and none of them is found in anything that medseg writes."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import io as streams
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary

from medseg import io
from medseg.cli import main
from medseg.data import dicom_objects
from medseg.data.dicom_series import source
from medseg.io._source import PATIENT, STUDY
from medseg.labels import Labels
from medseg.volume import Geometry, Volume

pytestmark = pytest.mark.usefixtures("no_charts", "one_thread")
Made = Callable[..., Path]
SHAPE = (16, 16, 6)
LABELS = Labels.of({"liver": 1, "tumour": 2})  # names of structures are what is learned: they are in all outputs
QUICK = ("model.preset=tiny", "train.steps=2", "train.validations=1", "train.batch=2", "train.precision=fp32",
         "sample.patch=[16,16,4]", "fold=0/2")  # fmt: skip
TIMES = {"DA", "DT", "TM"}
TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
MEANT = {  # what says how pixels and objects are to be read
    "SpecificCharacterSet", "ModalityLUTSequence", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
}  # fmt: skip
NAMED = {"SegmentLabel", "ROIName"}
CODED = {
    "CodeValue",
    "CodingSchemeDesignator",
    "LongCodeValue",
    "URNCodeValue",
}  # of structures: kept, as their names are


class Garden:
    """Words that stand in one place alone, and the places."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}
        self.searched = 0

    def word(self, place: str) -> str:
        return self._kept(f"QZX{len(self.places):05d}", place)

    def of_kind(self, kind: str, place: str) -> Any:
        """A value of a kind of DICOM elements."""
        number = len(self.places)
        day = (datetime.date(1901, 1, 1) + datetime.timedelta(number)).strftime("%Y%m%d")
        made = {"DA": day, "TM": f"{number % 24:02d}0102.9{number:05d}", "DT": f"{day}112233.9{number:05d}"}
        return self._kept(made[kind], place) if kind in made else self.word(place)

    def found(self, text: str) -> set[str]:
        """The places whose words are in a text; in whatever letters, dates with or without dashes."""
        self.searched += len(text)
        words = re.findall(r"QZX\d{5}|(?<!\d)\d{6}\.9\d{5}|(?<!\d)\d{14}\.9\d{5}|1\.2\.826\.0\.77\.", text.upper())
        days = re.findall(r"(?<![\d.])(19[01]\d)-?([01]\d)-?([0-3]\d)(?!\d)", text)
        return {self.places[word] for word in (*words, *map("".join, days)) if word in self.places}

    def _kept(self, word: str, place: str) -> str:
        self.places[word] = place
        return word


def plant(data: pydicom.Dataset, garden: Garden, where: str) -> None:
    """A word in every element of text, date and time that the standard knows, in an item of every sequence, and in private ones.

    What stands there already and is coded stays: it says how the file is to be read.
    """
    for tag, (kind, _, _, _, keyword) in DicomDictionary.items():
        place = f"{where} {keyword}"
        if tag >> 16 in (0, 2, 4, 0xFFFE) or not keyword or keyword in MEANT | NAMED | CODED:
            continue
        if kind == "SQ" and keyword not in data:
            item = pydicom.Dataset()
            item.PatientComments, item.CodeMeaning = garden.word(f"{place} text"), garden.word(f"{place} code")
            data.add_new(tag, kind, [item])
        elif kind in TIMES or (kind in TEXT and not (kind == "CS" and keyword in data)):
            data.add_new(tag, kind, garden.of_kind(kind, place))
    data.PatientAge, data.PatientWeight = "097Y", 87.654
    block = data.private_block(0x0009, garden.word(f"{where} private creator"), create=True)
    for element, kind in enumerate(("LO", "UT", "PN", "UN"), 1):
        word = garden.word(f"{where} private {kind}")
        block.add_new(element, kind, word.encode() if kind == "UN" else word)
    data.preamble = garden.word(f"{where} preamble").encode().ljust(128)
    data.file_meta.SourceApplicationEntityTitle = garden.word(f"{where} sender")


def plant_below(data: pydicom.Dataset, garden: Garden, where: str) -> None:
    """Likewise in the texts that the items of an object's sequences hold already."""
    for element in data.iterall():
        if element.VR in TEXT - {"CS"} and element.keyword not in NAMED | CODED:
            element.value = garden.of_kind(element.VR, f"{where} {element.keyword}")


def masked(number: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[3 + number : 9 + number, 4:10, :4] = 1
    mask[3:7, 11:14, :3] = 2
    return mask


@pytest.fixture(scope="module")
def garden() -> Garden:
    return Garden()


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory, garden: Garden, make_series: Made) -> Path:
    """Four patients' studies, with a SEG or an RTSTRUCT each; all that can name them does."""
    garden.places["1.2.826.0.77."] = "UIDs"
    root = tmp_path_factory.mktemp("data") / garden.word("folder of the data")
    planted = pydicom.Dataset()
    for number in range(4):
        folder = root / garden.word("folder of a patient")
        image = masked(number) * 60 + np.random.default_rng(number).normal(100, 10, SHAPE)
        series = make_series(
            folder / garden.word("folder of a series"),
            Volume(image.astype(np.int16), Geometry(SHAPE, np.diag([-1.0, -1, 2, 1]))),
            name=f"1.2.826.0.77.{number}",
        )
        made = folder / f"{garden.word('file of an object')}{('.seg.dcm', '.rtstruct.dcm')[number % 2]}"
        dicom_objects.write(Volume(masked(number), io.read_geometry(series), "labels"), LABELS, source(series), made)
        drawn = pydicom.dcmread(made)
        plant_below(drawn, garden, "object's item")
        plant(drawn, garden, "object")
        drawn.save_as(made)
        for file in sorted(series.iterdir()):
            data = pydicom.dcmread(file)
            if not planted:
                plant(data, garden, "image")
                planted = data
            for element in planted:
                everywhere = element.tag.group in (8, 16) and element.VR != "SQ"  # all of it in all would take a minute
                texts = element.VR in TEXT | TIMES | {"SQ", "AS", "UN"} or element.keyword == "PatientWeight"
                if texts and (everywhere or number == 0):
                    data[element.tag] = element
            data.PatientID = garden.word("image PatientID")
            data.preamble, data.file_meta = planted.preamble, data.file_meta
            data.save_as(series / f"{garden.word('file of a slice')}.dcm")
            file.unlink()
    return root


def contents(path: Path) -> str:
    """A file as text, unpacked where it is packed."""
    raw = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            return "\n".join([*packed.namelist(), *(packed.read(name).decode("latin-1") for name in packed.namelist())])
    if raw.startswith(b"\x1f\x8b"):
        raw = gzip.decompress(raw)
    if b"encoding: gzip" in raw[:1000]:
        raw += zlib.decompress(raw.partition(b"\n\n")[2], 47)
    return raw.decode("latin-1")


def files_in(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        yield str(path.relative_to(folder)), contents(path) if path.is_file() else ""


def leaks(folder: Path, garden: Garden) -> dict[str, set[str]]:
    """The places that the name or the contents of each file below a folder tells."""
    told = {name: garden.found(name + "\n" + text) for name, text in files_in(folder)}
    return {name: places for name, places in told.items() if places}


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command line in this process; all that it says."""

    def call(*words: object, code: int = 0) -> str:
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert caught.value.code == code, err
        return str(out + err)

    return call


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything is written; its name tells nothing."""
    return tmp_path_factory.mktemp("written")


@pytest.fixture(scope="module")
def trained(clinic: Path, kept: Path) -> tuple[Path, str]:
    """A run on the clinic's studies, and all that the command line said of it."""
    said = streams.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as caught:
        main(["train", str(clinic), "-o", str(kept / "runs/one"), *QUICK])
    assert caught.value.code == 0, said.getvalue()
    return kept / "runs/one", said.getvalue()


def series_of(clinic: Path) -> list[Path]:
    return sorted(path for path in clinic.glob("*/*") if path.is_dir())


def test_there_is_something_to_be_found(clinic: Path, garden: Garden) -> None:
    told = leaks(clinic, garden)
    slices = [places for places in told.values() if "image preamble" in places]
    drawn = [places for places in told.values() if "object preamble" in places]
    assert (len(slices), len(drawn)) == (24, 4)
    assert min(map(len, slices)) > 150
    assert sum(len(places) > 4000 for places in slices) == SHAPE[2]
    assert {"image PatientName", "image PatientBirthDate", "image StudyTime", "image private UN", "UIDs"} <= slices[0]
    assert {"object's item CodeMeaning", "object StructureSetLabel", "object SeriesDescription"} <= set.union(*drawn)


def test_training_on_a_clinics_studies_names_nobody(
    cli: Callable[..., str], clinic: Path, kept: Path, trained: tuple[Path, str], garden: Garden
) -> None:
    run, said = trained
    said += cli("check", clinic) + cli("check", clinic, "--json") + cli("plan", clinic, *QUICK) + cli("report", run)
    assert not garden.found(said), said
    assert not leaks(kept, garden)
    assert len(list((run / "predictions").glob("*.nii.gz"))) >= 1


def test_masks_converted_scans_and_tables_name_nobody(
    cli: Callable[..., str], clinic: Path, kept: Path, trained: tuple[Path, str], garden: Garden
) -> None:
    series, run = series_of(clinic), trained[0]
    said = cli("predict", run, *series, "-o", kept / "masks", "--probabilities")
    said += cli("evaluate", kept / "masks", clinic, "-o", kept / "measured", "--model", run)
    said += cli("convert", clinic, "--list")
    for form in ("nifti", "nrrd"):
        said += cli("convert", clinic, kept / form, "--format", form)
    assert not garden.found(said), said
    assert not leaks(kept, garden)
    assert len(list((kept / "nifti").glob("*.json"))) == 4


@pytest.mark.parametrize("form", ["dicom-seg", "rtstruct"])
def test_objects_carry_whose_they_are_and_nothing_else_or_nothing(
    cli: Callable[..., str], clinic: Path, kept: Path, trained: tuple[Path, str], garden: Garden, form: str
) -> None:
    """By design an object has the patient's module and the study's, and refers to the images by their UIDs."""
    series, run = series_of(clinic)[0], trained[0]
    kinds = {"plain": (), "bare": ("--deidentify",), "moved": ("--deidentify", "--remap-uids")}
    said = "".join(
        cli("predict", run, series, "-o", kept / form / name, "--format", form, *options)
        for name, options in kinds.items()
    )
    assert not garden.found(said), said
    told = {name: set.union(*leaks(kept / form / name, garden).values(), set()) for name in kinds}
    carried = {f"image {name}" for name in (*PATIENT, *STUDY)} - {"image PatientSex"}
    assert told["plain"] - {"image PatientSex"} == carried | {"UIDs"}
    assert told["bare"] == {"UIDs"}
    assert not told["moved"]
    for path in (kept / form).rglob("*.dcm"):
        assert not garden.found(path.name)
    shutil.rmtree(kept / form)


def test_errors_of_broken_files_name_nobody(
    cli: Callable[..., str], clinic: Path, trained: tuple[Path, str], garden: Garden, tmp_path: Path
) -> None:
    broken = shutil.copytree(clinic, tmp_path / garden.word("folder of broken files"))
    cut, foreign, missing, whole = series_of(broken)
    for folder, change in ((cut, lambda raw: raw[:-200]), (foreign, lambda raw: b"QZX" + raw[200:900])):
        file = sorted(folder.iterdir())[2]
        file.write_bytes(change(file.read_bytes()))
    sorted(missing.iterdir())[2].unlink()
    drawn = next(path for path in whole.parent.iterdir() if path.is_file())
    drawn.write_bytes(drawn.read_bytes()[:-3000])
    (broken / f"{garden.word('file of no scan')}.nii.gz").write_bytes(b"no scan")
    said = cli("check", broken, code=2) + cli("train", broken, "-o", tmp_path / "run", *QUICK, code=2)
    said += cli("convert", broken, tmp_path / "converted", code=2) + cli("convert", broken, "--list")
    for form in ("nii.gz", "dicom-seg"):
        said += cli("predict", trained[0], cut, foreign, missing, "-o", tmp_path / "m", "--format", form, code=2)
    packed = shutil.make_archive(str(tmp_path / garden.word("zip")), "zip", broken)
    said += cli("convert", packed, tmp_path / "converted", code=2) + cli("convert", packed, "--list")
    assert not garden.found(said), said
    assert not leaks(tmp_path / "run", garden)
    assert not leaks(tmp_path / "converted", garden)


def test_a_nifti_headers_texts_go_nowhere(
    cli: Callable[..., str], make_dataset: Made, garden: Garden, tmp_path: Path
) -> None:
    """By design names of NIfTI files are the cases' ids, as their owner chose them, and `--fix` copies what is sound byte for byte."""
    data = make_dataset(tmp_path / garden.word("folder of NIfTI"))
    for path in data.rglob("*.nii.gz"):
        image = nib.load(path)
        for name in ("descrip", "aux_file", "intent_name", "db_name"):
            image.header[name] = garden.word(f"NIfTI {name}").encode()
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", garden.word("NIfTI comment").encode()))
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), path)
        assert len(garden.found(contents(path))) == 5
    out = tmp_path / "out"
    said = (
        cli("check", data)
        + cli("train", data, "-o", out / "run", *QUICK)
        + cli("predict", out / "run", data / "images", "-o", out / "masks")
    )
    said += cli("evaluate", out / "masks", data / "labels", "-o", out / "measured") + cli("report", out / "run")
    assert not garden.found(said), said
    assert not leaks(out, garden)
