import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import ConfigError, DataError
from medseg.labels import Label, Labels

ORGANS = Labels.of({"background": 0, "liver": 1, "spleen": 5, "kidney": 40})
REGIONS = Labels.of({"background": 0, "whole tumour": [1, 2, 3], "core": [2, 3], "enhancing": 3})


def test_declarations_of_every_layout_mean_the_same() -> None:
    nnunet = Labels.of({"background": 0, "liver": 1, "tumour": 2})
    msd = Labels.of({"0": "background", "1": "liver", "2": "tumour"})
    assert nnunet == msd
    assert nnunet.names == ("liver", "tumour")
    assert nnunet.values == (1, 2)
    assert nnunet.channels == 3
    assert Labels.of([3, 7]).names == ("label 3", "label 7")
    assert len(Labels.of({"background": 0})) == 0


def test_labels_are_frozen_values() -> None:
    assert hash(ORGANS) == hash(Labels.of({"liver": 1, "spleen": 5, "kidney": 40}))
    with pytest.raises(ValueError, match="frozen"):
        ORGANS.ignore = 4  # type: ignore[misc]
    assert Labels.model_validate_json(REGIONS.model_dump_json()) == REGIONS


def test_gaps_between_values_close_in_classes_and_open_again() -> None:
    mask = np.array([0, 1, 5, 40, 5]).reshape(5, 1, 1)
    classes = ORGANS.encode(mask)
    assert classes.dtype == np.int16
    assert classes.shape == (1, 5, 1, 1)
    assert classes.ravel().tolist() == [0, 1, 2, 3, 2]
    back = ORGANS.decode(classes)
    assert back.dtype == np.uint8
    assert np.array_equal(back[0], mask)


@pytest.mark.parametrize(("value", "dtype"), [(255, np.uint8), (256, np.uint16), (70000, np.uint32), (-3, np.int16)])
def test_decoding_takes_the_smallest_type(value: int, dtype: type) -> None:
    labels = Labels.of({"it": value})
    mask = np.array([0, value]).reshape(2, 1, 1)
    back = labels.decode(labels.encode(mask))
    assert np.array_equal(back[0], mask)
    assert back.dtype == dtype


def test_values_shared_by_regions_make_them_overlap() -> None:
    assert not REGIONS.exclusive
    assert REGIONS.channels == 3
    classes = REGIONS.encode(np.array([0, 1, 2, 3]).reshape(4, 1, 1))
    assert classes[:, :, 0, 0].tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    assert REGIONS.decode(classes).shape == (3, 4, 1, 1)
    assert REGIONS.decode(classes).dtype == np.uint8


def test_regions_with_an_order_are_written_over_each_other() -> None:
    """The values as nnU-Net's `convert_probabilities_to_segmentation` writes them."""
    kidney = {"kidney": [1, 2, 3], "mass": [2, 3], "tumour": 2}
    labels = Labels.of(kidney, [1, 3, 2])
    channels = np.array([[0, 1, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]).reshape(3, 5, 1, 1)
    written = labels.decode(channels)
    assert (written.dtype, written.ravel().tolist()) == (np.uint8, [0, 1, 3, 2, 2])
    read = [labels.mask(written, item).ravel().astype(int).tolist() for item in labels]
    assert read == [[0, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 1, 1]]
    assert np.array_equal(labels.decode(labels.encode(written[0])), written)
    assert set(labels.colours) == {1, 2, 3}
    assert Labels.model_validate_json(labels.model_dump_json()) == labels
    assert Labels.of({"necrosis": [1, 4], "oedema": 2}, [4, 2]).decode(np.array([[0, 1, 2]])).tolist() == [[0, 4, 2]]


@pytest.mark.parametrize("order", [[1, 3], [1, 3, 2, 2], [1, 1, 2], [0, 3, 2]])
def test_an_order_names_a_value_of_each_region(order: list[int]) -> None:
    with pytest.raises(ConfigError, match="needs one value for each, out of its own"):
        Labels.of({"kidney": [1, 2, 3], "mass": [2, 3], "tumour": 2}, order)


def test_what_remains_where_a_label_is_taken_away() -> None:
    labels = Labels.of({"kidney": [1, 2, 3], "mass": [2, 3], "tumour": 2}, [1, 3, 2])
    left = [labels.without(np.array([0, 1, 2, 3]), item).tolist() for item in labels]
    assert left == [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 3, 3]]
    assert ORGANS.without(np.array([5, 5]), ORGANS.items[1]).tolist() == [0, 0]


def test_a_region_without_overlap_stays_exclusive() -> None:
    labels = Labels.of({"necrosis": [1, 4], "oedema": 2})
    assert labels.exclusive
    assert labels.encode(np.array([1, 4, 2]).reshape(3, 1, 1)).ravel().tolist() == [1, 1, 2]


@pytest.mark.parametrize("names", [{"liver": 1, "ignore": 255}, {"1": "liver", "255": "ignore"}])
def test_ignored_voxels_become_minus_one(names: dict[str, object]) -> None:
    labels = Labels.of(names)
    assert labels.ignore == 255
    assert labels.names == ("liver",)
    assert labels.encode(np.array([0, 1, 255]).reshape(3, 1, 1)).ravel().tolist() == [0, 1, -1]
    overlapping = labels.model_copy(update={"exclusive": False})
    assert overlapping.encode(np.array([0, 1, 255]).reshape(3, 1, 1)).ravel().tolist() == [0, 1, -1]


def test_undeclared_values_are_named() -> None:
    mask = np.array([0, 1, 2, 3, 255]).reshape(5, 1, 1)
    assert ORGANS.undeclared(mask) == (2, 3, 255)
    assert Labels.of({"a": 1, "ignore": 255}).undeclared(mask) == (2, 3)
    with pytest.raises(DataError, match=r"\[2, 3, 255\] are not declared; declared are \[0, 1, 5, 40\]"):
        ORGANS.encode(mask)


def test_masks_of_one_label() -> None:
    mask = np.array([0, 1, 5, 40]).reshape(1, 4, 1, 1)
    assert ORGANS.mask(mask, ORGANS.items[1]).ravel().tolist() == [False, False, True, False]
    written = REGIONS.encode(np.array([0, 1, 2, 3]).reshape(4, 1, 1))
    whole, core, _ = REGIONS
    assert REGIONS.mask(written, core).ravel().tolist() == [False, False, True, True]
    assert REGIONS.mask(np.array([0, 1, 2, 3]).reshape(1, 4, 1, 1), whole).ravel().tolist() == [False, True, True, True]
    unsure = REGIONS.model_copy(update={"ignore": 9})
    assert unsure.mask(np.where(written == 0, 9, written), core).ravel().tolist() == [False, False, True, True]


def test_colours_differ_until_the_palette_ends() -> None:
    labels = Labels.of({f"l{n}": n for n in range(1, 8)})
    assert len(set(labels.colours.values())) == 7
    assert set(labels.colours) == set(range(1, 8))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"a": "x"}, "labels:"),
        ({"a": None}, "labels:"),
        ({"a": 1.5}, "1.5 is no whole number"),
        ({"a": True}, "True is no whole number"),
        ({"a": float("nan")}, "nan is no whole number"),
        ({"0": "background", "1.5": "a"}, "'1.5' is no whole number"),
        ({"a": []}, "needs a value"),
        ({"a": [0, 1]}, "0 is background"),
        ({"a": 1, "ignore": 1}, "ignored value"),
        ({"1": "a", "2": "a"}, "two labels share a name"),
    ],
)
def test_contradictions_are_one_line(names: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Labels.of(names)
    assert "\n" not in str(caught.value)


def test_overlap_must_be_declared() -> None:
    items = tuple(Label(name=n, values=(1,), colour=(0, 0, 0)) for n in "ab")
    with pytest.raises(ValueError, match="overlapping"):
        Labels(items=items)
    assert Labels(items=items, exclusive=False).channels == 2


@settings(max_examples=40, deadline=None)
@given(st.data(), st.lists(st.integers(-20, 400).filter(bool), min_size=1, max_size=6, unique=True))
def test_encoding_and_decoding_is_the_identity(data: st.DataObject, values: list[int]) -> None:
    labels = Labels.of(values)
    mask = np.array(data.draw(st.lists(st.sampled_from([0, *values]), min_size=1, max_size=20))).reshape(-1, 1, 1)
    classes = labels.encode(mask)
    assert classes.min() >= 0
    assert classes.max() < labels.channels
    assert np.array_equal(labels.decode(classes)[0], mask)


def test_logits_become_the_likeliest_class_or_all_labels_that_are_likely() -> None:
    logits = torch.tensor([[-1.0, 2], [1, 0], [3, -2]])
    assert Labels.of([1, 2]).of_logits(logits).tolist() == [[2, 0]]
    assert REGIONS.of_logits(logits).tolist() == [[False, True], [True, False], [True, False]]


def test_voxels_to_ignore_are_not_known() -> None:
    mask = np.array([[[[0, 1, 9]]], [[[0, 9, 1]]]])
    assert Labels.of({"a": [1, 2], "b": 2}).known(mask).all()
    assert Labels.of({"a": [1, 2], "b": 2, "ignore": 9}).known(mask).tolist() == [[[True, False, False]]]


def test_channels_that_a_mask_may_have() -> None:
    assert Labels.of({"a": 1, "b": 2}).allowed_channels == (1,)
    assert Labels.of({"a": [1, 2], "b": 2}).allowed_channels == (1, 2)


def test_anywhere_is_where_any_label_is() -> None:
    labels = Labels.of({"a": 1, "b": 4, "ignore": 9})
    np.testing.assert_array_equal(labels.anywhere(np.array([[[[0, 1, 4, 9]]]])), [[[False, True, True, False]]])
    overlapping = Labels.of({"whole": [1, 2], "core": [2]})
    two = np.array([[[[0, 1, 1]]], [[[0, 0, 1]]]])
    np.testing.assert_array_equal(overlapping.anywhere(two), [[[False, True, True]]])


def test_values_are_written_in_a_type_that_holds_them() -> None:
    labels = Labels.of({"a": -1, "b": 40000})
    found = labels.decode(np.array([0, 1, 2]).reshape(1, 1, 1, 3))
    assert found.ravel().tolist() == [0, -1, 40000]


def test_two_names_of_one_value_are_told() -> None:
    assert Labels.of({"a": 1, "b": 2}).twins == Labels.of({"whole": [1, 2], "core": 2}).twins == ""
    assert Labels.of({"a": 1, "b": 1, "p": 2}).twins.startswith("'a' and 'b' have the same value (1)")


def test_labels_of_pictures_are_declared_by_their_colour() -> None:
    labels = Labels.of({"liver": "#ff0000", "spleen": ["#00FF00", 3], "bone": "#ffffff"})
    assert [item.values for item in labels] == [(0x1FF0000,), (0x100FF00, 3), (255,)]
    assert labels.items[0].colour == (255, 0, 0)
    assert labels.items[2].colour == Labels.of([1, 2, 3]).items[2].colour
    assert Labels.of({"#ff0000": "liver"}).names == ("liver",)
    array = np.array([0, 0x1FF0000, 3, 255]).reshape(4, 1, 1)
    assert labels.encode(array).ravel().tolist() == [0, 1, 2, 3]
    assert labels.decode(labels.encode(array)).ravel().tolist() == [0, 0x1FF0000, 0x100FF00, 255]


def test_a_colour_that_nobody_named_is_called_by_itself() -> None:
    """Of `#ff0000` the number was the name."""
    (value,) = Labels.of({"lesion": "#ff0000"}).values
    for bare in ([value], ["#ff0000"]):
        labels = Labels.of(bare)
        assert labels.names == ("#ff0000",)
        assert labels.values == (value,)
