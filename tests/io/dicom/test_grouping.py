from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medseg import io
from medseg.errors import DataError, GeometryError
from medseg.io import dicom


def cube(make: Any, folder: Path, change: Any, slices: int = 4, times: int = 3) -> Path:
    """Volumes one after the other, the pixels of which say where they belong."""
    images = []
    for t in range(times):
        for k in range(slices):
            number = {"InstanceNumber": t * slices + k + 1, "Modality": "MR"}
            images.append(make.image((0, 0, 2 * k), make.slab(10 * t + k), **(number | change(k, t))))
    return make.save(folder, images)


@pytest.mark.parametrize(
    "change",
    [
        lambda k, t: {"EchoTime": 5 + t},
        lambda k, t: {"EchoNumbers": t},
        lambda k, t: {"TemporalPositionIdentifier": t},
        lambda k, t: {"AcquisitionNumber": t},
        lambda k, t: {"TriggerTime": 100 * t},
        lambda k, t: {"ImageType": ["ORIGINAL", "PRIMARY", "MPR"[t]]},
        lambda k, t: {},
        lambda k, t: {"TriggerTime": 100 * t + 7 * k},  # one of its own for each image
        lambda k, t: {"InstanceNumber": k * 3 + t + 1},  # slice by slice
    ],
)
def test_volumes_of_one_series_are_told_apart(make: Any, tmp_path: Path, change: Any) -> None:
    whole = io.read(cube(make, tmp_path / "s", change), channels=True)
    for t in range(3):
        for k in range(4):
            assert np.array_equal(whole.array[t, :, :, k], make.slab(10 * t + k).T)


@pytest.mark.parametrize(
    ("group", "creator", "element", "kind"),
    [
        (0x0019, "SIEMENS MR HEADER", 0x0C, "IS"),
        (0x0043, "GEMS_PARM_01", 0x39, "IS"),
        (0x2001, "Philips Imaging DD 001", 0x03, "FL"),
        (0x0065, "Image Private Header", 0x09, "FD"),
    ],
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_private_b_values_tell_volumes_apart(
    make: Any, tmp_path: Path, group: int, creator: str, element: int, kind: str, syntax: str
) -> None:
    images = []
    for n, (b, k) in enumerate([(0, 0), (700, 0), (700, 1), (0, 1), (700, 2), (0, 2)]):  # in no order
        data = make.image((0, 0, 2 * k), make.slab(b // 100 + k), InstanceNumber=n + 1, Modality="MR")
        flagged = [1_000_000_000 + b, 8, 0, 0] if group == 0x0043 else b
        data.private_block(group, creator, create=True).add_new(element, kind, flagged)
        data.file_meta.TransferSyntaxUID = syntax
        images.append(data)
    whole = io.read(make.save(tmp_path / "s", images), channels=True)
    assert whole.meta["labels"] == ("1 of 2, b-value 0 s/mm2", "2 of 2, b-value 700 s/mm2")
    assert [whole.array[t, :, :, k].tolist() for t in (0, 1) for k in (0, 1, 2)] == [
        make.slab(7 * t + k).T.tolist() for t in (0, 1) for k in (0, 1, 2)
    ]


NUMBERS = [[1, 7, 3, 12], [5, 2, 9, 4], [6, 8, 10, 11]]  # of images of four places and three times, in no order


def test_the_time_of_acquisition_tells_volumes_apart_and_is_never_shown(make: Any, tmp_path: Path) -> None:
    moments = (("20200102", "000010"), ("20200101", "235950"), ("20200102", "000020.5"))

    def change(k: int, t: int) -> dict[str, Any]:
        day, time = moments[t]
        return {"InstanceNumber": k + 1, "AcquisitionDate": day, "AcquisitionTime": time}  # numbered anew each time

    whole = io.read(cube(make, tmp_path / "s", change), channels=True)
    for place, t in enumerate((1, 0, 2)):
        for k in range(4):
            assert np.array_equal(whole.array[place, :, :, k], make.slab(10 * t + k).T)
    assert whole.meta["labels"] == ("1 of 3", "2 of 3", "3 of 3")
    assert not any(moment in str(dict(whole.meta)) for moment in ("2020", "2359"))


def test_names_of_sequences_tell_volumes_apart(make: Any, tmp_path: Path) -> None:
    """Siemens writes the b-value into them, which is all that is left where private tags were removed."""
    names = ("*ep_b50t", "*ep_b400t", "*ep_b800t")
    folder = cube(make, tmp_path / "s", lambda k, t: {"InstanceNumber": NUMBERS[t][k], "SequenceName": names[t]})
    whole = io.read(folder, channels=True)
    assert [whole.array[t, :, :, k].tolist() for t in range(3) for k in range(4)] == [
        make.slab(10 * t + k).T.tolist() for t in range(3) for k in range(4)
    ]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_complex_parts_of_ge_are_told_apart_by_its_own_tag(make: Any, tmp_path: Path, syntax: str) -> None:
    images = []
    for part, numbers in enumerate(NUMBERS):
        for k, number in enumerate(numbers):
            data = make.image((0, 0, 2 * k), make.slab(10 * part + k), InstanceNumber=number, Modality="MR")
            data.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", part)
            data.file_meta.TransferSyntaxUID = syntax
            images.append(data)
    whole = io.read(make.save(tmp_path / "s", images), channels=True)
    assert whole.meta["labels"] == ("1 of 3, magnitude", "2 of 3, phase", "3 of 3, real")
    assert np.array_equal(whole.array[1, :, :, 3], make.slab(13).T)


def test_images_in_no_order_are_not_shuffled_into_volumes(make: Any, tmp_path: Path) -> None:
    folder = cube(make, tmp_path / "s", lambda k, t: {"InstanceNumber": NUMBERS[t][k]})
    with pytest.raises(GeometryError, match=r"two images in one place, z = 0.0 mm and 7 more places \(12 images\)"):
        io.read(folder, channels=True)


def test_images_in_one_place_that_no_tag_tells_apart_are_no_volumes(make: Any, tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"has 3 images in one place, z = 0.0 mm"):
        io.read(cube(make, tmp_path / "s", lambda k, t: {}, slices=1), channels=True)
    assert len(dicom.find(cube(make, tmp_path / "t", lambda k, t: {"TriggerTime": t}, slices=1)).volumes) == 3


def test_kernels_tell_volumes_apart(make: Any, tmp_path: Path) -> None:
    kernels = {"Modality": "CT", "ConvolutionKernel": ["Qr40d", "3"]}
    folder = cube(make, tmp_path / "s", lambda k, t: kernels if t else {"ConvolutionKernel": "B30f"}, times=2)
    assert [found.stack.notes for found in dicom.find(folder).volumes] == [(), ()]


def test_files_of_one_uid_that_differ_are_refused(make: Any, tmp_path: Path) -> None:
    images = [make.image((0, 0, 2 * n), make.slab(n)) for n in range(3)]
    images.append(make.image((0, 0, 2), make.slab(9), SOPInstanceUID=images[1].SOPInstanceUID))
    with pytest.raises(DataError, match="two files of one SOPInstanceUID whose values differ"):
        io.read(make.save(tmp_path / "s", images))


def test_a_copy_in_another_folder_belongs_to_the_path_of_its_volume(make: Any, tmp_path: Path) -> None:
    images = [make.image((0, 0, 2 * n), make.slab(n)) for n in range(3)]
    make.save(tmp_path / "s" / "a", images)
    make.save(tmp_path / "s" / "b", [make.image((0, 0, 2), make.slab(9), SOPInstanceUID=images[1].SOPInstanceUID)])
    (found,) = dicom.find(tmp_path / "s").volumes
    assert found.stack.notes == ("1 image is there twice, as copies of one file; one of each is used",)
    with pytest.raises(DataError, match="two files of one SOPInstanceUID"):
        io.read(found.path)


def test_phases_are_in_the_order_of_their_time(make: Any, tmp_path: Path) -> None:
    folder = cube(make, tmp_path / "s", lambda k, t: {"TriggerTime": (0, 480, 240)[t]})
    assert [found.label for found in dicom.find(folder).volumes] == [
        f"{n + 1} of 3, phase {240 * n} ms" for n in range(3)
    ]


def test_counting_is_said(make: Any, tmp_path: Path) -> None:
    found = dicom.find(cube(make, tmp_path / "s", lambda k, t: {})).volumes
    assert all("counted in the order of InstanceNumber" in item.stack.notes[0] for item in found)
    assert not any(
        item.stack.notes for item in dicom.find(cube(make, tmp_path / "t", lambda k, t: {"EchoTime": t})).volumes
    )


def test_two_traits_divide_one_after_the_other(make: Any, tmp_path: Path) -> None:
    def change(k: int, t: int) -> dict[str, Any]:
        return {"EchoTime": 5 + t // 2, "TemporalPositionIdentifier": t % 2}

    found = dicom.find(cube(make, tmp_path / "s", change, times=4)).volumes
    assert [item.label for item in found] == [
        f"{n} of 4, echo time {echo} ms, time {time}"
        for n, (echo, time) in enumerate([(5, 0), (5, 1), (6, 0), (6, 1)], 1)
    ]


def test_a_scanner_may_number_each_turn_of_its_table(make: Any, tmp_path: Path) -> None:
    volume = io.read(make.series(tmp_path / "s", lambda n: {"AcquisitionNumber": n // 2, "TriggerTime": n}, count=6))
    assert volume.geometry.shape == (3, 4, 6)


def test_a_missing_slice_of_one_echo_refuses_that_echo_alone(make: Any, tmp_path: Path) -> None:
    folder = cube(make, tmp_path / "s", lambda k, t: {"EchoTime": 5 + t}, slices=6)
    (folder / f"{18 - (6 + 2):03d}.dcm").unlink()
    first, second, third = dicom.find(folder).volumes
    assert not first.refusal
    assert not third.refusal
    assert second.refusal.startswith("slice 3 of 6 is missing at z = 4.0 mm")


def test_an_image_that_is_there_twice_with_other_values_is_no_second_volume(make: Any, tmp_path: Path) -> None:
    images = [make.image((0, 0, 2 * n), make.slab(n), InstanceNumber=n) for n in (0, 1, 2, 3)]
    images.append(make.image((0, 0, 4), make.slab(9), InstanceNumber=9))
    with pytest.raises(GeometryError, match=r"two images in one place, z = 4.0 mm"):
        io.read(make.save(tmp_path / "s", images))


def test_copies_of_a_file_count_once_and_are_said(make: Any, tmp_path: Path) -> None:
    folder = make.series(tmp_path / "s")
    (folder / "copy").mkdir()
    for n in (1, 2):
        (folder / "copy" / f"{n}.dcm").write_bytes((folder / f"00{n}.dcm").read_bytes())
    volume = io.read(folder)
    assert volume.geometry.shape == (3, 4, 5)
    assert "2 images are there twice" in volume.meta["notes"][0]


@pytest.mark.parametrize(
    "change",
    [
        lambda n: {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
        lambda n: {"PixelSpacing": [0.5, 0.5]},
        lambda n: {"FrameOfReferenceUID": "1.2.9"},
        lambda n: {"StudyInstanceUID": "1.2.9"},
    ],
)
def test_planes_of_another_world_are_another_volume(make: Any, tmp_path: Path, change: Any) -> None:
    def both(n: int) -> dict[str, Any]:
        place = {"ImagePositionPatient": [0, n if n > 4 else 0, 2 * (n % 5)], "InstanceNumber": n}
        return place | (change(n) if n > 4 else {})

    found = dicom.find(make.series(tmp_path / "s", both, count=8)).volumes
    assert [len(item.stack.planes) for item in found] == [5, 3]


def test_digits_of_text_do_not_divide(make: Any, tmp_path: Path) -> None:
    def change(n: int) -> dict[str, Any]:
        return {"ImageOrientationPatient": [1, 0, 2e-4 * (n % 2), 0, 1, 0], "PixelSpacing": [0.5, 0.75 + 1e-5 * n]}

    assert io.read(make.series(tmp_path / "s", change)).geometry.shape == (3, 4, 5)


def turns(make: Any, folder: Path, count: int, change: Any, slices: int = 8) -> list[Any]:
    """The volumes of an even stack in which `count` things are shown by turns; the pixels of each say which and where."""
    images = [make.image((0, 0, 2 * k), make.slab(k), **change(k % count)) for k in range(slices)]
    return list(dicom.find(make.save(folder, images)).volumes)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {"EchoTime": 10.0 + t, "Modality": "MR"},
        lambda t: {"ConvolutionKernel": ["B30f", "B70f"][t]},
        lambda t: {"AcquisitionNumber": t},
    ],
)
def test_volumes_half_a_gap_apart_are_no_finer_stack(make: Any, tmp_path: Path, change: Any) -> None:
    found = turns(make, tmp_path / "s", 2, change)
    assert len(found) == 2
    for t, volume in enumerate(found):
        read = io.read(volume.path)
        assert read.geometry.shape == (3, 4, 4)
        assert np.allclose(read.geometry.affine[:3, 3], (0, 0, 2 * t))
        for k in range(4):
            assert np.array_equal(read.array[0, :, :, k], make.slab(2 * k + t).T)


def test_what_may_take_turns_within_a_volume_does_not_divide_it(make: Any, tmp_path: Path) -> None:
    packages = turns(make, tmp_path / "a", 2, lambda t: {"AcquisitionNumber": t, "Modality": "MR"})
    times = turns(make, tmp_path / "b", 4, lambda t: {"InversionTime": 100.0 * t, "Modality": "MR"})
    assert [len(packages), len(times)] == [1, 1]


def test_a_kind_without_a_word_leaves_no_gap_in_the_label(make: Any, tmp_path: Path) -> None:
    kinds = ["ORIGINAL", "DERIVED"]
    path = cube(make, tmp_path / "s", lambda k, t: {"ImageType": [kinds[t], "PRIMARY", "AXIAL"]}, times=2)
    assert [found.label for found in dicom.find(path).volumes] == ["1 of 2", "2 of 2, derived"]


@pytest.mark.parametrize("place", [5, 2, 2.5])
def test_a_projection_is_no_slice_of_the_stack_that_it_was_made_of(make: Any, tmp_path: Path, place: float) -> None:
    def change(n: int) -> dict[str, Any]:
        made = {
            "ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CSA MIP"],
            "ImagePositionPatient": [10, -20, 30 + 2 * place],
        }
        return {"InstanceNumber": n} | (made if n == 5 else {})

    stack, projection = dicom.find(make.series(tmp_path / "s", change, count=6)).volumes
    assert (len(stack.stack.planes), stack.refusal, len(projection.stack.planes)) == (5, "", 1)


def test_series_of_two_studies_with_one_uid_are_no_stack(make: Any, tmp_path: Path) -> None:
    """One patient's slices may well go on where the other's end."""
    path = make.series(tmp_path / "s", lambda n: {"StudyInstanceUID": f"1.2.{n // 3}"}, count=6)
    assert [found.stack.grid.shape for found in dicom.find(path).volumes] == [(3, 4, 3)] * 2
