from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medseg.picture import PALETTE, captioned, colour, png, three_planes


def test_the_palette_starts_again_after_its_last_colour() -> None:
    assert colour(1) == PALETTE[0]
    assert colour(len(PALETTE) + 1) == PALETTE[0]
    assert len(set(PALETTE)) == len(PALETTE)


def test_right_and_front_and_top_of_an_upright_array_are_drawn_there() -> None:
    image = np.zeros((10, 10, 10))
    image[7:, 7:, 4:6] = 1  # right, front, at mid height
    axial = three_planes(image, None, (1, 1, 1), centre=(5, 5, 5), height=100)[:, :100, 0]
    assert axial[:25, 75:].mean() > 200  # top is the front, the right of the array is on the right
    assert axial[50:].max() < 50
    assert axial[:, :50].max() < 50


def test_proportions_are_those_of_millimetres() -> None:
    pixels = three_planes(np.zeros((10, 20, 5)), None, (1, 1, 4), height=100)
    assert pixels.shape == (100, 50 + 4 + 50 + 4 + 100, 3)  # 10 x 20 mm, 10 x 20 mm, 20 x 20 mm


def test_one_slice_gives_one_picture() -> None:
    assert three_planes(np.zeros((30, 20, 1)), None, (1, 1, 1), height=40).shape == (40, 60, 3)


def test_a_mask_is_drawn_in_the_colour_of_its_value() -> None:
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[4:, :, :] = 5
    pixels = three_planes(None, mask, (1, 1, 1), colours={5: (200, 100, 0)}, centre=(6, 4, 4), height=80)
    assert pixels[40, 60].tolist() == [200, 100, 0]  # nothing lies behind it: the colour of the legend
    assert pixels[40, 20].tolist() == [0, 0, 0]
    over = three_planes(np.zeros(mask.shape), mask, (1, 1, 1), colours={5: (200, 100, 0)}, centre=(6, 4, 4), height=80)
    assert over[40, 60].tolist() == [90, 45, 0]  # 45 %, so that one sees the image


def test_the_slices_go_where_the_mask_is_largest() -> None:
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[2:5, 3, 7] = 1
    pixels = three_planes(None, mask, (1, 1, 1), height=90)
    assert all(pixels[:, start : start + 90].any() for start in (0, 94, 188))


def test_constant_and_undefined_images_are_drawn() -> None:
    image = np.full((4, 5, 6), np.nan)
    image[0] = np.inf
    assert three_planes(image, None, (1, 1, 1)).dtype == np.uint8
    assert three_planes(np.ones((4, 5, 6)), None, (1, 1, 1), height=50)[:, :40].max() == 0


def test_png_holds_the_pixels() -> None:
    pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(*[st.integers(1, 12)] * 3),
    st.tuples(*[st.sampled_from([0.3, 1.0, 2.5])] * 3),
)
def test_any_grid_gives_rows_of_the_height_asked_for(shape: tuple[int, int, int], spacing: tuple[float, ...]) -> None:
    mask = (np.indices(shape).sum(0) % 3).astype(np.uint8)
    assert three_planes(mask.astype(float), mask, spacing, height=30).shape[0] == 30


def test_captioned_shows_reference_above_prediction_at_the_same_slices() -> None:
    image = np.zeros((20, 20, 20), np.float32)
    reference, prediction = np.zeros((2, 20, 20, 20), np.uint8)
    reference[2:6, 3:9, 15:18] = 1
    prediction[12:18, 12:18, 15:18] = 1  # elsewhere: only where the reference's slices meet it may it be drawn
    colours = {1: (250, 0, 0)}
    pixels = np.asarray(
        Image.open(io.BytesIO(captioned(image, {"Reference": reference, "Prediction": prediction}, (1, 1, 1), colours)))
    )
    top, bottom = pixels[24 : 24 + 260], pixels[2 * 24 + 260 :]
    assert top.shape == bottom.shape == (260, 3 * 260 + 2 * 4, 3)
    red_top, red_bottom = ((half[..., 0] > 90) & (half[..., 1] < 30) for half in (top, bottom))
    assert red_top[:, :260].sum() == pytest.approx(13**2 * 4 * 6, rel=0.01)
    assert red_bottom[:, :260].sum() == pytest.approx(13**2 * 6 * 6, rel=0.01)
    assert not (red_top & red_bottom).any()
    assert not red_bottom[:, 264:].any()


def test_captioned_looks_at_the_prediction_where_the_reference_is_empty() -> None:
    prediction = np.zeros((9, 9, 9), np.uint8)
    prediction[0, 0, 0] = 2
    data = captioned(
        None, {"Reference": np.zeros_like(prediction), "Prediction": prediction}, (1, 1, 1), {2: (0, 250, 0)}
    )
    pixels = np.asarray(Image.open(io.BytesIO(data)))[2 * 24 + 260 :]
    assert ((pixels[..., 1] > 90) & (pixels[..., 0] < 30)).any()


def test_captioned_draws_a_single_slice() -> None:
    mask = np.ones((30, 20, 1), np.uint8)
    data = captioned(np.zeros(mask.shape), {"A": mask, "B": mask}, (1, 1, 1), {1: (0, 0, 255)})
    assert Image.open(io.BytesIO(data)).size == (585, 2 * (390 + 24))  # alone it may be larger


def test_captions_of_a_narrow_picture_are_not_cut() -> None:
    mask = np.ones((1, 2, 50), np.uint8)

    def wide(caption: str) -> int:
        return Image.open(io.BytesIO(captioned(None, {"A": mask, caption: mask}, (1, 1, 1), {}))).width

    assert wide("B: a run with a name") > wide("B: a run") > wide("B") > 8
