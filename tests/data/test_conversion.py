"""`medseg convert`: files that other programs read, and nothing of the patient in them."""

import json
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset

import medseg
from medseg import api, cli, io
from medseg.errors import ConfigError, DataError
from medseg.resources import shipped

SERIES = shipped("sample_data") / "dicom" / "series"  # a tilted CT
NAME = "Zzyzx"
TEXT = {"LO", "SH", "PN", "ST", "LT", "UT", "UC", "AE"}


def run(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, words)])
    return int(ended.value.code or 0)


def copy(target: Path, change: Callable[[Dataset, int], None] = lambda data, n: None) -> Path:
    target.mkdir(parents=True)
    for n, path in enumerate(sorted(SERIES.iterdir())):
        data = pydicom.dcmread(path)
        change(data, n)
        data.save_as(target / path.name)
    return target


def upright(data: Dataset, n: int) -> None:
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [5, 6, 2 * n]


def tilted(data: Dataset, n: int) -> None:
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [5, 0.5 * n, 2 * n]


@pytest.mark.parametrize(("format", "ending"), [("nifti", ".nii.gz"), ("nrrd", ".nrrd")])
def test_a_volume_comes_back_with_its_facts(tmp_path: Path, format: str, ending: str) -> None:
    straight = copy(tmp_path / "in", upright)
    (outcome,) = medseg.convert(straight, tmp_path / "out", format=format)
    assert outcome.file == tmp_path / "out" / f"{io.stem(straight)}{ending}"
    source, written = io.read(straight), io.read(outcome.file)
    assert np.array_equal(source.array, written.array)
    assert np.allclose(source.geometry.affine, written.geometry.affine, atol=1e-4)
    facts = json.loads(outcome.file.with_name(f"{outcome.id}.json").read_text())
    assert np.allclose(facts["affine"], source.geometry.affine)
    assert facts["shape"] == list(source.geometry.shape)
    assert (facts["modality"], facts["unit"], facts["notes"]) == ("CT", "HU", [])


def test_a_tilted_stack_keeps_its_shear_unless_it_is_made_upright(tmp_path: Path) -> None:
    folder = copy(tmp_path / "in", tilted)
    (kept,) = medseg.convert(folder, tmp_path / "kept")
    assert np.allclose(nib.load(kept.file).affine, io.read_geometry(folder).affine, atol=1e-4)
    assert kept.notes[0].startswith("the stack leans 14.0 degrees")
    (straight,) = medseg.convert(folder, tmp_path / "upright", upright=True)
    assert io.read_geometry(str(straight.file)).shear_deg < 1e-3
    assert "made upright: resampled from a grid 14.0 degrees" in straight.notes[-1]


def test_a_bad_series_is_one_line_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(tmp_path / "in" / "good")
    holed = copy(tmp_path / "in" / "holed", lambda data, n: setattr(data, "SeriesInstanceUID", "1.2.9"))
    by_place = sorted(holed.iterdir(), key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))
    by_place[3].unlink()
    (tmp_path / "in" / "good" / "junk.dcm").write_bytes(b"junk")
    (tmp_path / "in" / "good" / "junk.dcm").rename(tmp_path / "in" / "junk.dcm")
    assert run("convert", tmp_path / "in", tmp_path / "out") == 2
    shown = capsys.readouterr()
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 1
    assert "not converted: slice 4 of" in shown.out
    assert "-: not converted: a file is no DICOM file" in shown.out
    words = f"error: 2 of 3 volumes could not be converted; {io.stem(holed)}: slice 4 of"
    assert shown.err.splitlines()[-1].startswith(words)
    (filled,) = medseg.convert(holed, tmp_path / "filled", allow_gaps=True)
    assert filled.notes[-1].endswith("slices are interpolated")


def echoes(target: Path) -> Path:
    for echo in (1, 2):

        def change(data: Dataset, n: int, echo: int = echo) -> None:
            data.EchoTime, data.Modality = 5 * echo, "MR"
            data.SOPInstanceUID = f"1.2.{echo}.{n}"
            data.SeriesDescription, data.SeriesNumber, data.SeriesInstanceUID = "T2 echoes", 7, "1.2.7"

        copy(target / str(echo), change)
    return target


def test_series_are_listed_and_picked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    echoes(tmp_path / "in" / "mr")
    copy(tmp_path / "in" / "ct")
    assert run("convert", tmp_path / "in", "--list") == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 4
    assert table[2].endswith("LPS   1 of 2, echo time 5 ms")
    found = medseg.list_series(tmp_path / "in")
    uid = next(item.file.series for item in found.volumes if item.file.number == 7)
    for word, count in {
        "7": 2,
        uid: 2,
        "t2 ECHO": 2,
        found.volumes[0].id: 2 if found.volumes[0].file.number == 7 else 1,
    }.items():
        assert len(medseg.convert(tmp_path / "in", tmp_path / "out" / word, series=word)) == count
    with pytest.raises(DataError, match="no series has the number, UID or description 'T1'"):
        medseg.convert(tmp_path / "in", tmp_path / "out", series="T1")


def test_volumes_of_one_grid_in_one_file_on_request(tmp_path: Path) -> None:
    folder = echoes(tmp_path / "mr")
    assert len(medseg.convert(folder, tmp_path / "each")) == 2
    (both,) = medseg.convert(folder, tmp_path / "both", channels=True)
    assert nib.load(both.file).shape[3] == 2
    facts = json.loads((tmp_path / "both" / f"{both.id}.json").read_text())
    assert facts["labels"] == ["1 of 2, echo time 5 ms", "2 of 2, echo time 10 ms"]


def test_one_volume_may_have_a_file_of_its_own_name(tmp_path: Path) -> None:
    (outcome,) = medseg.convert(SERIES, tmp_path / "mine.nii.gz")
    assert outcome.file == tmp_path / "mine.nii.gz"
    assert (tmp_path / "mine.json").is_file()
    with pytest.raises(DataError, match="is one file, for 2 volumes"):
        medseg.convert(echoes(tmp_path / "mr"), tmp_path / "mine.nii.gz")


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"convert.format"):
        api.convert(SERIES, tmp_path / "x", format="png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no DICOM volume[;.]"):
        api.convert(tmp_path / "empty", tmp_path / "x")
    assert run("convert", SERIES) == 2


def named(data: Dataset, n: int, series: str = "1.2.6", **changes: Any) -> None:
    """The patient's name in every text that people fill in, private ones included."""
    data.SeriesInstanceUID = series
    for keyword, value in changes.items():
        setattr(data, keyword, value)
    for tag, (vr, count, *_) in DicomDictionary.items():
        if (
            vr in TEXT
            and count.startswith("1")
            and tag >> 16 in (0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0040, 0x0054)
        ):
            data.add_new(tag, vr, NAME)
    data.PatientBirthDate, data.PatientID, data.PatientWeight = "19010203", NAME, 77.7
    data.private_block(0x0099, NAME, create=True).add_new(1, "LO", NAME)


def test_no_name_comes_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    tree = tmp_path / NAME
    copy(tree / NAME / "whole", named)
    cut = copy(tree / NAME / "cut", partial(named, series="1.2.8"))
    last = sorted(cut.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:4000])
    copy(tree / NAME / "colour", partial(named, series="1.2.7", PhotometricInterpretation="RGB"))
    for options in (
        ["--list"],
        [tmp_path / "out"],
        [tmp_path / "out", "--units", "suv"],
        [tmp_path / "nrrd", "--format=nrrd", "--upright"],
    ):
        run("convert", tree, *options)
    shown = capsys.readouterr()
    written = [path for folder in ("out", "nrrd") for path in (tmp_path / folder).rglob("*")]
    assert len(written) >= 4
    texts = [shown.out, shown.err, caplog.text, *(path.name for path in written)]
    texts += [contents(path) for path in written]
    for text in texts:
        assert NAME.lower() not in text.lower()
        assert "19010203" not in text
        assert "77.7" not in text


def contents(path: Path) -> str:
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = zlib.decompress(raw, wbits=31)
    return raw.decode("latin-1")


def test_the_folder_of_a_patient_is_no_case(tmp_path: Path) -> None:
    volume: Any = io.read(copy(tmp_path / NAME, named))
    assert NAME not in str(dict(volume.meta))
