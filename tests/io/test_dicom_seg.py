from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest

from medseg import io
from medseg.data import dicom_objects
from medseg.data.dicom_series import source as source_of
from medseg.errors import DataError, GeometryError
from medseg.geometry import resample_to
from medseg.io import _codes, _colour, dicom_seg
from medseg.labels import Labels
from medseg.volume import Geometry, Volume

GRID = Geometry((11, 9, 7), np.diag([-1.0, -1, 2, 1]))  # frames of 99 bits: they begin within bytes
Made = Callable[..., Path]


def two(shape: tuple[int, int, int] = GRID.shape) -> np.ndarray:
    """Two structures that touch, one with a hole, away from the middle; the first and last slices are empty."""
    mask = np.zeros(shape, np.uint8)
    mask[1:6, 2:8, 1:5], mask[6:8, 2:5, 2:6] = 3, 7
    mask[3, 4, 3] = 0
    return mask


def written(folder: Path, make_series: Made, mask: np.ndarray, labels: Labels, grid: Geometry = GRID) -> Path:
    series = make_series(folder / "series", Volume(np.zeros(grid.shape, np.int16), grid))
    dicom_objects.write(Volume(mask, grid, "labels"), labels, source_of(series), folder / "m.seg.dcm")
    return folder / "m.seg.dcm"


def test_voxels_names_colours_and_codes_come_back(tmp_path: Path, make_series: Made) -> None:
    labels = Labels.of({"liver": 3, "Kidney_left": 7})
    path = written(tmp_path, make_series, two(), labels)
    mask = io.read(path)
    assert mask.geometry.shape == (11, 9, 5)  # from the first slice that shows something to the last
    assert np.allclose(mask.geometry.affine[:3, 3], (0, 0, 2))
    assert np.array_equal(np.array([0, 3, 7])[mask.array[0]], two()[:, :, 1:6])
    assert np.array_equal(np.array([0, 3, 7])[io.read(path, on=GRID).array[0]], two())
    found = mask.meta["labels"]
    assert found.names == labels.names
    assert [item.colour for item in found] == [item.colour for item in labels]
    assert [item.code for item in found] == ["SCT:10200004", "SCT:64033007"]
    assert (mask.kind, mask.meta["modality"], mask.meta["notes"]) == ("labels", "SEG", ())


def test_what_is_written_is_valid_and_refers_to_its_slices(tmp_path: Path, make_series: Made) -> None:
    path = written(tmp_path, make_series, two(), Labels.of({"liver": 3, "Kidney_left": 7}))
    data = highdicom.seg.segread(path)
    assert data.SegmentationType == "BINARY"
    assert (data.PatientID, str(data.PatientName), data.StudyInstanceUID) == ("PAT-4711", "Doe^John", "1.2.826.0.1.7.8")
    assert "Doe" not in str(data.get("InstitutionName", "")) + str(data.get("StationName", ""))
    assert io.references(path)[0].series == ("1.2.826.0.1.7.9",)
    assert io.stem(path) == "m"
    assert io.stem(path.rename(tmp_path / "other")) == io.stem(tmp_path / "series")  # the case's, by what it refers to
    frames = data.PerFrameFunctionalGroupsSequence
    for frame in frames:
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        k = int(image.ReferencedSOPInstanceUID.rpartition(".")[2]) - 1
        assert float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) == 2 * k
    assert len(frames) == 4 + 4
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    try:
        assert "Kidney_left" in str(pydicom.dcmread(tmp_path / "other"))  # every value is looked at
    finally:
        pydicom.config.settings.reading_validation_mode = None
    assert data.ContentCreatorName == ""  # of type 2
    side = data.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (side.CodeValue, side.CodeMeaning) == ("7771000", "Left")


def test_many_structures_are_one_map(tmp_path: Path, make_series: Made) -> None:
    mask = np.arange(GRID.shape[0] * 9 * 7).reshape(GRID.shape) % 41
    path = written(tmp_path, make_series, mask, Labels.of(range(1, 41)))
    assert pydicom.dcmread(path).SegmentationType == "LABELMAP"
    assert np.array_equal(io.read(path, on=GRID).array[0], mask)


def test_structures_that_overlap_are_channels(tmp_path: Path, make_series: Made) -> None:
    labels = Labels.of({"whole": [1, 2], "core": [2]})
    channels = np.stack([two() > 0, two() == 7]).astype(np.uint8)
    path = written(tmp_path, make_series, channels, labels)
    back = io.read(path, on=GRID)
    assert np.array_equal(back.array, channels)
    assert not back.meta["labels"].exclusive
    assert back.meta["notes"] == (f"segments overlap in {channels[1].sum()} voxels",)
    flat = np.where(two() == 3, 1, np.where(two() == 7, 2, 0)).astype(np.uint8)  # one map of values says the same
    ordered = written(tmp_path / "flat", make_series, flat, Labels.of({"whole": [1, 2], "core": [2]}, order=[1, 2]))
    assert np.array_equal(io.read(ordered, on=GRID).array, channels)


def test_nothing_found_is_one_empty_frame_a_segment(tmp_path: Path, make_series: Made) -> None:
    path = written(tmp_path, make_series, np.zeros(GRID.shape, np.uint8), Labels.of([1, 2]))
    assert pydicom.dcmread(path).NumberOfFrames == 2
    assert not io.read(path, on=GRID).array.any()


def test_voxels_to_ignore_are_in_no_segment(tmp_path: Path, make_series: Made) -> None:
    mask = two().astype(np.int16)
    mask[mask == 7] = -1
    path = written(tmp_path, make_series, mask, Labels.of({"a": 3, "ignore": -1}))
    assert io.read(path).meta["labels"].names == ("a",)
    assert np.array_equal(io.read(path, on=GRID).array[0] == 1, mask == 3)


def test_a_map_on_another_grid_comes_to_the_slices_by_its_place(tmp_path: Path, make_series: Made) -> None:
    turned = Geometry((9, 7, 11), GRID.affine @ [[0, 0, -1, 10], [1, 0, 0, 0], [0, -1, 0, 6], [0, 0, 0, 1]])
    mask = resample_to(Volume(two(), GRID, "labels"), turned)
    series = make_series(tmp_path / "series", Volume(np.zeros(GRID.shape, np.int16), GRID))
    dicom_objects.write(mask, Labels.of([3, 7]), source_of(series), tmp_path / "m.seg.dcm")
    assert np.array_equal(np.array([0, 3, 7])[io.read(tmp_path / "m.seg.dcm", on=GRID).array[0]], two())


# --- reading those of others


def segmentation(
    path: Path, array: np.ndarray, kind: str = "BINARY", syntax: str = "1.2.840.10008.1.2.1", **how: Any
) -> Path:
    """A segmentation by highdicom of a series on GRID; segments by number, or `(K, J, I, segments)`."""
    series = path.parent / "source"
    headers = [pydicom.dcmread(file) for file in sorted(series.iterdir(), reverse=True)]
    count = array.shape[3] if array.ndim == 4 else int(array.max())
    code = pydicom.sr.coding.Code("85756007", "SCT", "Tissue")
    described = [highdicom.seg.SegmentDescription(n, f"s{n}", code, code, "MANUAL") for n in range(1, count + 1)]
    names = {"manufacturer": "m", "manufacturer_model_name": "m", "software_versions": "1", "device_serial_number": "1"}
    uids = {"series_instance_uid": highdicom.UID(), "sop_instance_uid": highdicom.UID()}
    highdicom.seg.Segmentation(
        headers,
        array,
        kind,
        described,
        series_number=1,
        instance_number=1,
        transfer_syntax_uid=syntax,
        **names,
        **uids,
        **how,
    ).save_as(path)
    return path


@pytest.fixture
def source(tmp_path: Path, make_series: Made) -> Path:
    return make_series(tmp_path / "source", Volume(np.zeros(GRID.shape, np.int16), GRID))


def test_a_fractional_segment_holds_what_reaches_a_half(tmp_path: Path, source: Path) -> None:
    share = np.linspace(0, 1, 7 * 9 * 11).reshape(7, 9, 11)
    back = io.read(segmentation(tmp_path / "f.dcm", share[..., None], "FRACTIONAL"), on=GRID)
    stored = np.rint(share * 255)  # in steps of a 255th
    assert np.array_equal(back.array[0], (stored >= 127.5).T)
    assert back.meta["notes"] == ("fractional segments: a voxel belongs to one from 0.5 on",)


@pytest.mark.parametrize("syntax", [pydicom.uid.RLELossless, pydicom.uid.JPEGLSLossless])
@pytest.mark.parametrize("kind", ["LABELMAP", "FRACTIONAL"])
def test_compressed_ones(tmp_path: Path, source: Path, kind: str, syntax: str) -> None:
    numbers = (two() > 0).astype(np.uint8) + (two() == 7)
    path = segmentation(tmp_path / "c.dcm", numbers.T.copy(), kind)
    data = pydicom.dcmread(path)
    plugin = {} if syntax == pydicom.uid.JPEGLSLossless else {"encoding_plugin": "pydicom"}  # gdcm's may abort
    data.compress(syntax, generate_instance_uid=False, **plugin)
    data.save_as(path)
    assert np.array_equal(io.read(path, on=GRID).array[0], numbers)


def test_slices_that_no_frame_shows_are_empty(tmp_path: Path, source: Path) -> None:
    numbers = np.zeros((7, 9, 11), np.uint8)
    numbers[1, 2, 3] = numbers[4, 2, 3] = numbers[6, 2, 3] = 1
    path = segmentation(tmp_path / "s.dcm", numbers)
    mask = io.read(path)
    assert mask.geometry.shape == (11, 9, 6)
    assert np.array_equal(mask.array[0], numbers.T[:, :, 1:])
    data = pydicom.dcmread(path)
    del data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
    data.save_as(path)  # without it, the smallest gap is a slice if all gaps are whole ones of it
    with pytest.raises(GeometryError, match=r"its frames lie 4.000 to 6.000 mm apart, on no regular stack"):
        io.read(path)
    assert np.array_equal(io.read(path, on=GRID).array[0], numbers.T)  # the series says how far apart its slices are
    numbers[1], numbers[4], numbers[0] = 0, numbers[6], numbers[6]
    data = pydicom.dcmread(segmentation(path, numbers))
    del data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
    data.save_as(path)  # in every second slice: those between are empty, and not a part of thicker ones
    assert np.array_equal(io.read(path, on=GRID).array[0], numbers.T)


def test_directions_of_few_digits_do_not_stretch_voxels(tmp_path: Path, make_series: Made) -> None:
    path = written(tmp_path, make_series, two(), Labels.of([3, 7]))
    data = pydicom.dcmread(path)
    plane = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = [0.71, 0.71, 0, -0.71, 0.71, 0]
    data.save_as(path)
    assert io.read_geometry(path).spacing_mm == pytest.approx(GRID.spacing_mm, abs=1e-9)


def frames(change: Callable[[Any, int], None]) -> Callable[[pydicom.Dataset], None]:
    def do(data: pydicom.Dataset) -> None:
        for n, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
            change(frame, n)

    return do


def lost(name: str) -> Callable[[Any, int], None]:
    return lambda frame, n: frame.__delattr__(name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (frames(lost("PlanePositionSequence")), "without position, orientation or pixel size"),
        (frames(lost("SegmentIdentificationSequence")), "damaged or incomplete"),
        (lambda data: data.SegmentSequence.clear(), "no segments, or no frames"),
        (lambda data: data.PerFrameFunctionalGroupsSequence.pop(), "8 frames, but describes 7"),
        (lambda data: setattr(data, "Rows", 60000), "promises"),
        (lambda data: setattr(data, "PixelData", data.PixelData[:40]), "damaged or incomplete"),
        (lambda data: setattr(data.SegmentSequence[1], "SegmentNumber", 5), "a segment 2 that it does not describe"),
        (
            frames(lambda frame, n: setattr(frame, "PlanePositionSlideSequence", [pydicom.Dataset()])),
            "microscopy",
        ),
        (
            frames(lambda frame, n: setattr(frame.PlanePositionSequence[0], "ImagePositionPatient", [0, 0, 10.0**n])),
            "on no regular stack",
        ),
    ],
)
def test_what_is_damaged_is_refused_in_one_line(
    tmp_path: Path, make_series: Made, damage: Callable[[pydicom.Dataset], None], message: str
) -> None:
    path = written(tmp_path, make_series, two(), Labels.of([3, 7]))
    data = pydicom.dcmread(path)
    damage(data)
    data.save_as(path)
    with pytest.raises(DataError, match=message) as caught:
        io.read(path)
    assert "\n" not in str(caught.value)
    assert "Doe" not in str(caught.value)


def test_a_segmentation_of_another_place_is_refused_and_lost_voxels_are_counted(
    tmp_path: Path, make_series: Made
) -> None:
    path = written(tmp_path, make_series, two(), Labels.of([3, 7]))
    lower = Geometry((11, 9, 3), GRID.affine)
    count, beyond = np.count_nonzero(two()), np.count_nonzero(two()[:, :, 3:])
    assert io.read(path, on=lower).meta["notes"] == (
        f"{beyond} of {count} voxels lie outside of the scan and were left out",
    )
    far = GRID.affine.copy()
    far[:3, 3] += 500
    with pytest.raises(GeometryError, match=f"all {count} voxels lie outside"):
        io.read(path, on=Geometry(GRID.shape, far))


# --- real ones


@pytest.mark.parametrize(
    ("name", "truth"),
    [("23x38x3/seg/label.seg", "23x38x3/nrrd/label.nrrd"), ("ct-3slice/liver.dcm", "ct-3slice/liver_seg.nrrd")],
)
def test_those_of_dcmqi_equal_their_sources(shared_data: Path, name: str, truth: str) -> None:
    mask, expected = io.read(shared_data / "C_seg_dcmqi" / name), io.read(shared_data / "C_seg_dcmqi" / truth, "labels")
    assert mask.meta["labels"].names == ("Liver",)
    assert np.array_equal(resample_to(mask, expected.geometry).array > 0, expected.array > 0)
    assert mask.array.sum() == np.count_nonzero(expected.array)


def test_those_of_highdicom(shared_data: Path) -> None:
    folder = shared_data / "C_seg_highdicom"
    binary, fractional = (io.read(folder / f"seg_image_ct_binary{end}.dcm") for end in ("", "_fractional"))
    oracle = highdicom.seg.segread(folder / "seg_image_ct_binary.dcm").get_volume(segment_numbers=[1])
    assert np.array_equal(binary.array, fractional.array)
    assert binary.array.sum() == oracle.array.sum() == 638
    with pytest.raises(DataError, match="microscopy"):
        io.read(folder / "seg_image_sm_control_labelmap.dcm")


# --- what names and colours become


def test_a_colour_is_that_of_dcmqi() -> None:
    assert _colour.rgb((41661, 41167, 40792)) == (221, 130, 101)  # of the same object's description as JSON
    assert highdicom.color.CIELabColor(*_colour.lab((221, 130, 101))).value == pytest.approx(
        (41661, 41167, 40792), abs=1.5
    )
    for rgb in ((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255), (12, 200, 90)):
        assert _colour.rgb(highdicom.color.CIELabColor(*_colour.lab(rgb)).value) == rgb


def test_every_shipped_code_is_one_of_dicom() -> None:
    from pydicom.sr._concepts_dict import concepts

    known = {(value, meaning[0]) for found in concepts["SCT"].values() for value, meaning in found.items()}
    table = _codes.table()
    assert len(table) > 60
    for coded in table.values():
        assert (coded.kind.value, coded.kind.meaning) in known
        assert (coded.category.value, coded.category.meaning) in known


def test_names_find_their_codes(tmp_path: Path) -> None:
    own = tmp_path / "codes.csv"
    own.write_text(
        "name,category,code,meaning\nGTV Mass CT,abnormal,SCT:108369006,Neoplasm\nliver,structure,99X:1,My liver\n"
    )
    table = _codes.table(own)

    def code(name: str, code: str | None = None) -> str:
        label = Labels.of({name: 1}).items[0].model_copy(update={"code": code})
        found = _codes.coded(label, table)
        return f"{found.kind.scheme}:{found.kind.value} {found.kind.meaning}" + (
            f", {found.side.meaning}" if found.side else ""
        )

    assert code("GTV_Mass_CT") == "SCT:108369006 Neoplasm"
    assert code("Liver") == "99X:1 My liver"
    assert code("lung_upper_lobe_right") == "SCT:45653009 Upper lobe of lung, Right"
    assert code("left ventricle") == "SCT:87878005 Left ventricle"
    assert code("whatever") == "SCT:85756007 Tissue"
    assert code("whatever", "SCT:78961009") == "SCT:78961009 Spleen"
    assert code("whatever", "99ME:X") == "99ME:X whatever"
    own.write_text("name,category,code,meaning\n\n\nliver,organ,SCT:1,Liver\n")
    with pytest.raises(DataError, match=r"expected name, category, code, meaning .* got 'liver, organ, SCT:1, Liver'"):
        _codes.table(own)


def test_a_name_that_dicom_cannot_hold_is_refused_and_no_file_stays(tmp_path: Path, make_series: Made) -> None:
    for name in ("a\\b", "x" * 65):
        with pytest.raises(DataError, match="no name that DICOM can hold"):
            written(tmp_path / name[-1], make_series, two(), Labels.of({name: 3, "b": 7}))
        assert not list((tmp_path / name[-1]).glob("*.dcm"))


def test_the_kind_of_object_is_read_off_its_first_bytes(tmp_path: Path, make_series: Made) -> None:
    path = written(tmp_path, make_series, two(), Labels.of([3, 7])).rename(tmp_path / "anything")
    assert dicom_seg.matches(path)
    assert io.holds_structures(path)
    assert not io.holds_structures(tmp_path / "series")
    assert not io.holds_structures(next((tmp_path / "series").iterdir()))
    assert io.read_geometry(path) == io.read(path).geometry
