from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.inference import sliding
from medseg.inference.sliding import Network, Slab, Stream, Work, sliding_window
from medseg.inference.windows import Config, window_starts
from medseg.settings import parse

Size = tuple[int, int, int]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slabs(
    image: Tensor, network: Network, config: Config, region: Sequence[tuple[int, int]] | None = None, **options: Any
) -> Iterator[Slab]:
    return Stream(image, network, config, **options)(region)


def convolution(channels: int = 2, classes: int = 3, dims: int = 3) -> nn.Module:
    """Its answer depends on where a voxel lies in the window, for the window's border is zero."""
    torch.manual_seed(1)
    return (nn.Conv3d if dims == 3 else nn.Conv2d)(channels, classes, 3, padding=1).eval()


def whole(parts: Sequence[Slab]) -> Tensor:
    return torch.cat([part.logits for part in parts], parts[0].axis + 1)


def dense(image: Tensor, network: Callable[[Tensor], Tensor], window: Size, overlap: float) -> Tensor:
    """The weighted mean written down plainly, for images no shorter than the window."""
    bell = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in window]
    weight = torch.from_numpy(np.maximum(1e-3, bell[0][:, None, None] * bell[1][:, None] * bell[2])).float()
    total: Tensor | float = 0.0
    weights = torch.zeros(image.shape[1:])
    for corner in itertools.product(*map(lambda n, w: window_starts(n, w, overlap), image.shape[1:], window)):
        here: tuple[Any, ...] = (..., *(slice(c, c + w) for c, w in zip(corner, window, strict=True)))
        logits = network(image[here][None])[0]
        placed = torch.zeros(len(logits), *image.shape[1:])
        placed[here] = logits * weight
        total = total + placed
        weights[here] += weight
    assert isinstance(total, Tensor)
    return total / weights


# Ours are spread evenly, MONAI's step by a fixed interval and the last is pulled back: sizes where that is the same.
@pytest.mark.parametrize(
    ("size", "window", "overlap"),
    [
        ((24, 16, 12), (8, 8, 4), 0.5),
        ((20, 12, 8), (8, 12, 8), 0.25),
        ((16, 8, 8), (8, 8, 8), 0),
        ((5, 20, 7), (8, 8, 8), 0.5),
    ],
    ids=["half", "quarter", "none", "shorter than the window"],
)
def test_logits_are_monais(size: Size, window: Size, overlap: float) -> None:
    from monai.inferers import sliding_window_inference

    image, network = noise(1, 2, *size), convolution()
    with torch.inference_mode():
        theirs = sliding_window_inference(image, window, 4, network, overlap, mode="gaussian", sigma_scale=0.125)
    ours = sliding_window(image, network, window, overlap)
    assert ours.shape == theirs.shape  # type: ignore[union-attr]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(*[st.integers(4, 13)] * 3),
    st.tuples(*[st.integers(2, 4)] * 3),
    st.sampled_from([0.0, 0.3, 0.5, 0.75]),
    st.integers(1, 5),
)
def test_slabs_are_the_weighted_mean_and_cover_once_in_order(
    size: Size, window: Size, overlap: float, batch: int
) -> None:
    image, network = noise(2, *size), convolution()
    with torch.inference_mode():
        parts = list(slabs(image, network, Config(window=window, overlap=overlap, batch=batch)))
        expected = dense(image, network, window, overlap)
    assert len({part.axis for part in parts}) == 1
    ends = [0, *(part.stop for part in parts)]
    assert [part.start for part in parts] == ends[:-1]
    assert ends[-1] == size[parts[0].axis]
    torch.testing.assert_close(whole(parts), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(9, 14, 11), (3, 14, 2), (2, 2, 2)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_a_network_that_looks_at_one_voxel_is_reproduced(size: Size, overlap: float) -> None:
    """Weights then cancel, whatever the windows; padding leaves no trace."""
    image, network = noise(1, *size), nn.Conv3d(1, 2, 1)
    with torch.inference_mode():
        expected = network(image[None])[0]
    torch.testing.assert_close(sliding_window(image, network, (4, 5, 6), overlap), expected, rtol=1e-5, atol=1e-5)


def test_a_scan_shorter_than_the_window_lies_in_its_middle() -> None:
    seen: list[Tensor] = []

    def network(windows: Tensor) -> Tensor:
        seen.append(windows.clone())
        return windows.clone()

    image = noise(1, 3, 8, 4)
    torch.testing.assert_close(sliding_window(image, network, (8, 8, 5)), image)
    (window,) = seen
    assert window.shape == (1, 1, 8, 8, 5)
    torch.testing.assert_close(window[0, :, 2:5, :, 0:4], image)
    assert window.abs().sum() == pytest.approx(float(image.abs().sum()))


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_windows_are_batched_as_asked(batch: int) -> None:
    sizes: list[int] = []

    def network(windows: Tensor) -> Tensor:
        sizes.append(len(windows))
        return windows * 2

    image = noise(1, 10, 6, 4)
    torch.testing.assert_close(sliding_window(image, network, (4, 4, 4), 0.5, batch=batch), image * 2)
    assert sum(sizes) == 4 * 2
    assert sizes[0] == 1, "the first window tells how many logits there will be"
    assert all(n == batch for n in sizes[1:-1])
    assert sizes[-1] <= batch


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_mirrors_are_the_mean_over_all_flips(axes: tuple[int, ...]) -> None:
    image, network = noise(2, 6, 5, 4), convolution()
    config = Config(window=(6, 5, 4), mirror_axes=axes)
    flips = [f for n in range(len(axes) + 1) for f in itertools.combinations([a + 1 for a in axes], n)]
    with torch.inference_mode():
        expected = torch.stack([network(image.flip(f)[None])[0].flip(f) for f in flips]).mean(0)
        torch.testing.assert_close(
            whole(list(slabs(image, network, config, mirrors=True))), expected, rtol=1e-4, atol=1e-5
        )
        plain = whole(list(slabs(image, network, config)))
    torch.testing.assert_close(plain, network(image[None])[0].detach(), rtol=1e-4, atol=1e-5)
    assert len(flips) == 1 or not torch.allclose(plain, expected, atol=1e-3)


def test_a_2d_network_reads_slices() -> None:
    """Windows of one slice come without their last axis, and a flip along it means nothing."""
    image, network = noise(2, 9, 8, 5), convolution(dims=2)
    config = Config(window=(9, 8, 1), mirror_axes=(2,), batch=3)
    with torch.inference_mode():
        expected = network(image.permute(3, 0, 1, 2)).permute(1, 2, 3, 0)
        calls = 0

        def counted(windows: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return torch.as_tensor(network(windows))

        parts = list(slabs(image, counted, config, mirrors=True))
    assert calls == 3, "five slices, one and then batches of three, and no flips"
    assert parts[0].axis == 2
    torch.testing.assert_close(whole(parts), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sliding_window(image, network, (9, 8, 1)), expected, rtol=1e-4, atol=1e-5)


def test_a_slab_comes_as_soon_as_no_later_window_touches_it() -> None:
    """Peak memory is classes x window along one axis, not classes x scan; nothing is computed ahead."""
    calls = 0

    def network(windows: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return windows.expand(-1, 5, -1, -1, -1).clone()

    image = noise(1, 64, 8, 8)
    stops = []
    for slab in slabs(image, network, Config(window=(8, 8, 8), overlap=0.5, batch=1)):
        assert slab.axis == 0
        assert slab.logits.shape[1] <= 8
        assert slab.logits.untyped_storage().nbytes() <= 5 * 8 * 8 * 8 * 4
        assert calls * 4 <= slab.start + 8, "windows beyond the one that finished this slab were computed"
        stops.append(slab.stop)
    assert stops == [*range(4, 60, 4), 64]
    assert calls == 15


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(*[st.integers(4, 13)] * 3),
    st.tuples(*[st.integers(2, 6)] * 3),
    st.tuples(*[st.tuples(st.floats(0, 0.9), st.floats(0.1, 1))] * 3),
)
def test_a_region_has_the_values_of_the_whole(
    size: Size, window: Size, shares: tuple[tuple[float, float], ...]
) -> None:
    image, network, config = noise(2, *size), convolution(), Config(window=window)
    starts = [int(share * n) for (share, _), n in zip(shares, size, strict=True)]
    region = [(a, max(a + 1, int(a + share * (n - a)))) for a, (_, share), n in zip(starts, shares, size, strict=True)]
    with torch.inference_mode():
        expected = whole(list(slabs(image, network, config)))[(slice(None), *(slice(*ends) for ends in region))]
        parts = list(slabs(image, network, config, region=region))
        assert parts[0].start == region[parts[0].axis][0]
        torch.testing.assert_close(whole(parts), expected, rtol=1e-4, atol=1e-5)


def test_classes_without_logits_of_the_whole() -> None:
    image, network = noise(1, 2, 12, 7, 6), convolution()
    logits = sliding_window(image, network, (5, 5, 5))
    classes = sliding_window(image, network, (5, 5, 5), reduce="argmax")
    assert classes.dtype == torch.uint8
    assert classes.shape == (1, 12, 7, 6)
    torch.testing.assert_close(classes.long(), logits.argmax(1))
    many = sliding_window(image[0], lambda w: w[:, :1].expand(-1, 300, -1, -1, -1).clone(), (12, 7, 6), reduce="argmax")
    assert many.dtype == torch.int16
    assert many.shape == (12, 7, 6)


def test_logits_are_float32_and_need_no_gradient() -> None:
    network = convolution(1).bfloat16()
    logits = sliding_window(noise(1, 6, 6, 6), lambda w: network(w.bfloat16()), (4, 4, 4))
    assert logits.dtype == torch.float32
    assert not logits.requires_grad


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": (0, 8, 8)}, r"inference\.window\.0: expected a number greater than 0, got 0"),
        ({"window": (8, 8, 8), "mirror_axes": (5,)}, r"inference\.mirror_axes\.0: expected 0, 1 or 2, got 5"),
    ],
)
def test_windows_and_axes_that_no_scan_has(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(Config, values, "inference")


@pytest.mark.parametrize(
    ("window", "options", "message"),
    [
        ((0, 4, 4), {}, r"window\.0: expected a number greater than 0"),
        ((4, 4), {}, "window"),
        (4, {}, "window: expected a list"),
        ((4, 4, 4), {"overlap": 1.0}, "overlap: expected a number less than 1"),
        ((4, 4, 4), {"batch": 0}, "batch"),
        ((4, 4, 4), {"reduce": "softmax"}, "reduce: expected None or 'argmax', got 'softmax'"),
    ],
)
def test_what_a_sliding_window_cannot_be(window: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        sliding_window(noise(1, 4, 4, 4), convolution(1), window, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(4, 4, 4), (2, 1, 4, 4, 4), (1, 4, 0, 4)])
def test_an_image_of_other_axes_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="one image at a time"):
        sliding_window(noise(*shape), convolution(1), (4, 4, 4))


def test_an_array_is_no_tensor() -> None:
    with pytest.raises(ConfigError, match=r"expected a tensor .* got a ndarray of \(1, 4, 4, 4\)"):
        sliding_window(noise(1, 4, 4, 4).numpy(), convolution(1), (4, 4, 4))  # type: ignore[arg-type]


def test_an_axis_named_twice_is_flipped_once() -> None:
    image, network = noise(1, 6, 6, 6), convolution(1)
    once, twice = (Config(window=(4, 4, 4), mirror_axes=axes) for axes in ((0,), (0, 0)))
    with torch.inference_mode():
        expected, found = (whole(list(slabs(image, network, c, mirrors=True))) for c in (once, twice))
    torch.testing.assert_close(found, expected)


def test_regions_cover_an_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliding, "_SUMS_BYTES", 2000)
    stream, times = Stream(noise(1, 24, 16, 9), convolution(1), Config(window=(8, 8, 8))), np.zeros((24, 16, 9), int)
    regions = list(stream.regions(3))
    for region in regions:
        times[tuple(slice(*ends) for ends in region)] += 1
    assert len(regions) == stream.strips(3)[1] > 1
    assert (times == 1).all()


@pytest.mark.parametrize("shape", [(24, 24, 17), (24, 17, 24), (17, 23, 24)])
def test_sums_of_a_region_take_no_more_than_they_may(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows move along the axis that the number of regions was made for, where two axes are about as long too."""
    sizes: list[int] = []

    class Watched(sliding.Sums):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            sizes.append(self.total.nbytes)

    monkeypatch.setattr(sliding, "_SUMS_BYTES", 4 * 3 * 8 * 24 * 8)
    monkeypatch.setattr(sliding, "Sums", Watched)
    stream = Stream(noise(1, *shape), convolution(1), Config(window=(8, 8, 8)))
    for region in stream.regions(3):
        list(stream(region))
    assert len(sizes) > 1
    assert max(sizes) <= 4 * 3 * 8 * 24 * 9  # a region is of whole slices


def test_an_image_as_long_as_its_windows_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    padded: list[tuple[int, ...]] = []
    pad = torch.nn.functional.pad

    def watched(image: Tensor, widths: list[int]) -> Tensor:
        padded.append(tuple(image.shape[1:]))
        return pad(image, widths)

    monkeypatch.setattr(torch.nn.functional, "pad", watched)
    for size in ((8, 8, 8), (8, 3, 8)):
        list(slabs(noise(1, *size), lambda w: w, Config(window=(4, 4, 4))))
    assert padded == [(8, 3, 8)]


@pytest.mark.parametrize("axis", [0, 2])
def test_windows_of_air_are_not_computed(axis: int) -> None:
    image, seen = noise(1, 24, 24, 24).abs(), []
    image.narrow(axis + 1, 8, 16).fill_(-1)

    def network(x: Tensor) -> Tensor:
        seen.extend(x)
        return torch.cat([x, 2 * x], 1)

    config = Config(window=(8, 8, 8), overlap=0.5, air=-0.5)
    found = whole(list(slabs(image, network, config, background=(0.0, -9.0))))
    assert len(seen) == 2 * 5 * 5  # of 5 x 5 x 5: one that is tissue, and one half
    assert all(window.max() > -0.5 for window in seen)
    tissue, air = found.narrow(axis + 1, 0, 8), found.narrow(axis + 1, 12, 12)
    torch.testing.assert_close(tissue, torch.cat([image, 2 * image]).narrow(axis + 1, 0, 8))
    assert (air == torch.tensor([0.0, -9.0]).view(2, 1, 1, 1)).all()


def test_a_scan_of_air_holds_nothing() -> None:
    image = torch.full((1, 8, 8, 8), -1.0)
    found = whole(list(slabs(image, convolution(1), Config(window=(4, 4, 4), air=0.0), background=(0.0, -9.0, -9.0))))
    assert (found == torch.tensor([0.0, -9.0, -9.0]).view(3, 1, 1, 1)).all()


@pytest.mark.parametrize("batch", [1, 3, 4, 16])
def test_mirrors_go_through_the_network_together(batch: int) -> None:
    seen: list[int] = []

    def network(x: Tensor) -> Tensor:
        seen.append(len(x))
        return convolution(1)(x)

    image = noise(1, 16, 8, 8)
    config = Config(window=(8, 8, 8), batch=batch, mirror_axes=(0, 2))
    found = whole(list(slabs(image, network, config, mirrors=True)))
    assert sum(seen) == 3 * 4
    assert max(seen) <= max(batch, 1)
    one = config.model_copy(update={"batch": 1})
    torch.testing.assert_close(found, whole(list(slabs(image, network, one, mirrors=True))))


def test_what_was_computed_is_counted() -> None:
    image = torch.ones(1, 16, 8, 8)
    image[:, 8:] = -1
    work = Work()
    list(slabs(image, convolution(1), Config(window=(8, 8, 8), air=0.0), background=(0.0, -9.0, -9.0), work=work))
    assert (work.windows, work.air) == (2, 1)
    assert work.air_share == 1 / 3
    assert Work().air_share == 0
