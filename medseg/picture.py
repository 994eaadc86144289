"""Three slices of a volume as one picture: plain arrays in, pixels out."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np

from medseg.arrays import Array
from medseg.extent import profiles

# Okabe and Ito's palette: told apart by colour-blind readers too. Labels beyond it start again.
PALETTE: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
COLOURED = 1 << 24  # from here on a label's value is a colour
_OPACITY = 0.45  # of a mask over an image


def colour(value: int) -> tuple[int, int, int]:
    """The palette's colour of a label value (1 is the first), or the one that it stands for."""
    if value >= COLOURED:
        r, g, b = (int(part) for part in coloured(np.array(value)))
        return r, g, b
    return PALETTE[(value - 1) % len(PALETTE)]


def numbered(pixels: Array) -> Array:
    """Colours of a mask `(..., 3)` as label values: grey pixels their level, all others 2^24 + 0xRRGGBB.

    So a colour has the same number in every mask, and none is that of a level.
    """
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), -1, 0)
    grey = (red == green) & (green == blue)
    return np.where(grey, red, COLOURED | red << 16 | green << 8 | blue)


def coloured(values: Array) -> Array:
    """Label values as the colours `(..., 3)` that `numbered` made them of; levels above 255 are a ValueError."""
    values = np.asarray(values, np.int64)
    if ((values < 0) | (values > 255) & (values < COLOURED) | (values >= 2 * COLOURED)).any():
        raise ValueError("levels go from 0 to 255")
    parts = [np.where(values < COLOURED, values, values >> shift & 255) for shift in (16, 8, 0)]
    return np.stack(parts, -1).astype(np.uint8)


def three_planes(
    image: Array | None,
    mask: Array | None,
    spacing_mm: Sequence[float],
    *,
    colours: Mapping[int, tuple[int, int, int]] | None = None,
    centre: Sequence[int] | None = None,
    height: int = 240,
) -> Array:
    """Slices along k, j and i through a point, side by side, in true proportions.

    Args:
        image: `(I, J, K)` grey values, windowed to their 0.5 to 99.5 percentiles; None is black.
        mask: `(I, J, K)` label values, drawn over the image, through which one sees it; None draws nothing.
        spacing_mm: voxel size, for the proportions.
        colours: RGB of each label value; the palette otherwise.
        centre: indices of the slices; otherwise the centre of the mask, or of the grid.
        height: pixels of the result's rows.

    Returns:
        `(height, width, 3)` uint8. A volume of one slice gives that slice alone.
    """
    shape = (image if image is not None else mask).shape  # type: ignore[union-attr]
    centre = centre if centre is not None else middle(mask, shape)
    grey, opacity = (np.zeros(shape, np.uint8), 1.0) if image is None else (_window(image), _OPACITY)
    planes = [
        _plane(grey, mask, axis, centre[axis], spacing_mm, colours or {}, height, opacity)
        for axis in (2, 1, 0)
        if shape[axis] == 1 or min(shape) > 1
    ]
    gap = np.full((height, 4, 3), 96, np.uint8)
    return np.concatenate([part for plane in planes for part in (plane, gap)][:-1], axis=1)


def png(pixels: Array) -> bytes:
    """An `(H, W, 3)` uint8 array as the bytes of a PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")  # `optimize` takes ten times as long for a tenth of the bytes
    return stream.getvalue()


def captioned(
    image: Array | None,
    masks: Mapping[str, Array],
    spacing_mm: Sequence[float],
    colours: Mapping[int, tuple[int, int, int]],
) -> bytes:
    """Masks one above the other, each over the same three slices.

    Args:
        image: `(I, J, K)` grey values, axes to R, A and S; None is black.
        masks: `(I, J, K)` label values by their captions, from top to bottom; the centre of the first one that is not empty
            chooses the slices.
        spacing_mm: voxel size.
        colours: RGB of each label value.

    Returns:
        A PNG file.
    """
    from PIL import Image, ImageDraw, ImageFont

    shape, font = next(iter(masks.values())).shape, ImageFont.load_default(13)
    centre = middle(next((mask for mask in masks.values() if mask.any()), None), shape)
    height = 260 if min(shape) > 1 else 390  # three planes, or one alone
    widest = max(16 + math.ceil(font.getlength(caption)) for caption in masks)
    rows = []
    for caption, mask in masks.items():
        planes = three_planes(image, mask, spacing_mm, colours=colours, centre=centre, height=height)
        canvas = Image.new("RGB", (max(planes.shape[1], widest), planes.shape[0] + 24))
        canvas.paste(Image.fromarray(planes), (0, 24))
        ImageDraw.Draw(canvas).text((8, 5), caption, (200, 200, 200), font)
        rows.append(np.asarray(canvas))
    return png(np.concatenate(rows))


def middle(mask: Array | None, shape: Sequence[int]) -> list[int]:
    """Indices of the slices that show most of a mask `(I, J, K)`; of the grid's middle where there is none."""
    if mask is None or not mask.any():
        return [n // 2 for n in shape]
    # The slice that shows most of the mask, axis by axis: a centre of mass may lie outside a curved structure.
    return [int(counts.argmax()) for counts in profiles(mask, np.count_nonzero)]


def _window(image: Array) -> Array:
    finite = np.nan_to_num(image.astype(np.float32))
    low, high = np.percentile(finite, (0.5, 99.5))
    return np.asarray(np.clip((finite - low) / max(high - low, 1e-6), 0, 1) * 255, np.uint8)


def _plane(
    grey: Array,
    mask: Array | None,
    axis: int,
    index: int,
    spacing_mm: Sequence[float],
    colours: Mapping[int, tuple[int, int, int]],
    height: int,
    opacity: float,
) -> Array:
    from PIL import Image

    rest = [a for a in range(3) if a != axis]
    # Up is the second remaining axis, as on a light box when the array is RAS: anterior or superior on top.
    pixels = np.repeat(np.take(grey, index, axis).T[::-1, :, None], 3, axis=2)
    width = max(
        1, round(height * grey.shape[rest[0]] * spacing_mm[rest[0]] / (grey.shape[rest[1]] * spacing_mm[rest[1]]))
    )
    base = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)).copy()
    if mask is not None:
        labels = np.take(mask, index, axis).T[::-1].astype(np.int32)
        drawn = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
        for value in np.unique(drawn[drawn != 0]):
            over = np.array(colours.get(int(value), colour(int(value))))
            base[drawn == value] = (1 - opacity) * base[drawn == value] + opacity * over
    return base
