import json
import pickle
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medseg.augment import Config, Parameters, apply, draw, margin
from medseg.errors import ConfigError
from medseg.settings import parse

NOTHING: dict[str, Any] = {name: 0 for name in Config.model_fields if name.endswith("_p")} | {"mirror_axes": ()}
SIZES = [pytest.param((13, 12, 11), id="3d"), pytest.param((13, 12, 1), id="2d")]
Size = tuple[int, int, int]


def only(**options: Any) -> Config:
    """A configuration that changes nothing but what is named."""
    return Config(**{**NOTHING, **options})


def drawn(config: Config, patch: Size, batch: int = 2, channels: int = 1, spacing: Any = (1, 1, 1)) -> Parameters:
    return draw(config, [(5, 0, n) for n in range(batch)], patch=patch, spacing_mm=spacing, channels=channels)


def spatial(size: Size) -> tuple[int, ...]:
    return size[:2] if size[2] == 1 else size


def phantom(size: Size, batch: int = 2, channels: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, which has no symmetry, and classes that follow it voxel by voxel."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, channels, *spatial(size), generator=generator)
    return image, (image[:, :1] * 5).to(torch.int16)


def middle(batch: torch.Tensor, size: Size) -> torch.Tensor:
    for axis, n in enumerate(spatial(size), 2):
        batch = batch.narrow(axis, (batch.shape[axis] - n) // 2, n)
    return batch


def blob(size: Size, centre: Any, width: float = 2.5) -> torch.Tensor:
    axes = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in size], indexing="ij")
    distance = sum((x - c) ** 2 for x, c in zip(axes, centre, strict=True))
    return torch.tensor(np.exp(-distance / 2 / width**2), dtype=torch.float32)[None, None]


def centroid(image: torch.Tensor) -> np.ndarray:
    """Of a blob, from the centre of the patch."""
    array = image[0, 0].numpy()
    return np.array(ndimage.center_of_mass(array)) - (np.array(array.shape) - 1) / 2


# What was drawn


@pytest.mark.parametrize("size", SIZES)
def test_nothing_drawn_is_the_middle_itself(size: Size) -> None:
    big = (21, 18, 17) if size[2] > 1 else (21, 18, 1)
    image, target = phantom(big, channels=2)
    before = image.clone(), target.clone()
    new_image, new_target = apply(image, target, drawn(only(), size, channels=2), size)
    assert torch.equal(new_image, middle(image, size))
    assert torch.equal(new_target, middle(target, size))
    new_image += 1
    assert torch.equal(image, before[0])
    assert torch.equal(target, before[1])


@pytest.mark.parametrize("size", SIZES)
def test_a_sample_is_the_same_in_any_batch(size: Size) -> None:
    config = Config(**{name: 0.5 for name in NOTHING if name.endswith("_p")})
    image, target = phantom(margin(size, config), batch=6, channels=2)
    seeds = [(1, 2, n) for n in range(6)]

    def run(samples: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        some = draw(config, [seeds[n] for n in samples], patch=size, spacing_mm=(1, 1, 1), channels=2)
        return apply(image[samples], target[samples], some, size)

    together, classes = run([0, 1, 2, 3, 4, 5])
    assert not torch.allclose(together, middle(image, size))
    for sample in range(6):
        alone, class_alone = run([sample])
        torch.testing.assert_close(alone[0], together[sample], rtol=1e-5, atol=1e-5)
        assert torch.equal(class_alone[0], classes[sample])


@pytest.mark.parametrize("size", SIZES)
def test_a_draw_can_be_stored_and_replayed(size: Size) -> None:
    parameters = drawn(Config(), size, batch=8)
    image, target = phantom(margin(size, Config()), batch=8)
    first = apply(image, target, parameters, size)
    again = apply(image, target, pickle.loads(pickle.dumps(parameters)), size)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert json.dumps({name: np.asarray(value).tolist() for name, value in asdict(parameters).items()})


def test_every_change_is_drawn_as_often_as_asked() -> None:
    parameters = drawn(Config(), (8, 8, 8), batch=2000)
    share = {
        "noise": (parameters.noise != 0).mean(),
        "blur": (parameters.blur != 0).any(2).mean(),
        "gamma": (parameters.gamma != 1).mean(),
        "translation": parameters.shift.any(1).mean(),
        "bias": parameters.bias.any((2, 3, 4)).mean(),
    }
    for name, value in share.items():
        assert value == pytest.approx(getattr(Config(), f"{name}_p"), abs=0.03), name
    assert parameters.mirror.mean(0) == pytest.approx([0.5, 0.5, 0.5], abs=0.04)


def test_numbers_are_not_those_that_placed_the_patch() -> None:
    """The sampler draws from the same seeds; were the streams one, foreground patches would be the ones that turn."""
    turned = drawn(only(rotation_p=0.5), (8, 8, 8), batch=400).matrix[:, 0, 0] != 1
    foreground = [np.random.default_rng((5, 0, n)).random() < 0.5 for n in range(400)]
    assert 0.4 < (turned == foreground).mean() < 0.6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": (1.4, 0.7)}, "lowest"),
        ({"scale": (0, 1)}, "greater than 0"),
        ({"elastic": (0, 0.5)}, "0.4"),
        ({"resolution": (0.5, 2)}, "less than or equal to 1"),
        ({"gama_p": 0.1}, "gamma_p"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(Config, options, "augment")


def test_the_configuration_is_read_without_torch() -> None:
    code = "import sys, medseg.augment, medseg.sample; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Space


@pytest.mark.parametrize("size", [(13, 13, 11), (13, 13, 1)])
def test_a_quarter_turn_is_rot90(size: Size) -> None:
    image, target = phantom(size)
    parameters = drawn(only(), size)
    turn = np.eye(len(spatial(size)), dtype=float)
    turn[:2, :2] = [[0, 1], [-1, 0]]
    quarter = replace(parameters, matrix=np.stack([turn] * 2))
    new_image, new_target = apply(image, target, quarter, size)
    torch.testing.assert_close(new_image, image.rot90(1, (2, 3)), rtol=0, atol=1e-4)
    assert torch.equal(new_target, target.rot90(1, (2, 3)))


@pytest.mark.parametrize("size", SIZES)
def test_a_mirror_is_a_flip(size: Size) -> None:
    image, target = phantom(size)
    for axis in range(len(spatial(size))):
        mirror = np.zeros((2, len(spatial(size))), bool)
        mirror[1, axis] = True
        new_image, new_target = apply(image, target, replace(drawn(only(), size), mirror=mirror), size)
        assert torch.equal(new_image, torch.stack([image[0], image[1].flip(axis + 1)]))
        assert torch.equal(new_target, torch.stack([target[0], target[1].flip(axis + 1)]))


@pytest.mark.parametrize("size", SIZES)
def test_a_sample_that_moves_is_mirrored_after(size: Size) -> None:
    everything = only(rotation_p=1, scale_p=1, shear_p=1, translation_p=1, elastic_p=1)
    image, target = phantom(margin(size, everything), batch=3, channels=2)
    parameters = drawn(everything, size, batch=3, channels=2)
    mirror = np.zeros((3, len(spatial(size))), bool)
    mirror[1, 0] = mirror[2, 0] = mirror[2, 1] = True
    straight = apply(image, target, parameters, size)
    mirrored = apply(image, target, replace(parameters, mirror=mirror), size)
    for sample, axes in enumerate(([], [1], [1, 2])):
        torch.testing.assert_close(mirrored[0][sample], straight[0][sample].flip(axes), rtol=0, atol=1e-3)
        assert (mirrored[1][sample] == straight[1][sample].flip(axes)).float().mean() > 0.99  # ties fall either way


def test_mirrors_in_two_dimensions_ignore_the_third_axis() -> None:
    assert drawn(only(mirror_axes=(2,)), (8, 8, 1), batch=20).mirror.shape == (20, 2)
    assert not drawn(only(mirror_axes=(2,)), (8, 8, 1), batch=20).mirror.any()


def ramps(dims: int, batch: int) -> torch.Tensor:
    """Every voxel holds its own index, one channel for each axis: a resampled image shows where it was sampled."""
    axes = torch.meshgrid(*[torch.arange(64.0)] * dims, indexing="ij")
    return torch.stack(axes).expand(batch, *[-1] * (dims + 1))


@pytest.mark.parametrize("dims", [2, 3])
def test_image_and_classes_move_together(dims: int) -> None:
    """The nearest voxel is never further than half a voxel from where the image is interpolated."""
    space = only(rotation_p=1, scale_p=1, shear_p=1, translation_p=1, elastic_p=1)
    patch = (24, 25, 26)[:dims] + (1,) * (3 - dims)
    index = ramps(dims, batch=4)
    image, target = apply(index, index.long(), drawn(space, patch, batch=4, channels=dims), patch)
    assert target.min() > 0  # all of it was sampled inside
    assert (image - target).abs().max() < 0.501
    assert (image - middle(index, patch)).flatten(1).abs().amax(1).min() > 3


@pytest.mark.parametrize("dims", [2, 3])
def test_resampling_agrees_with_scipy(dims: int) -> None:
    big, patch = (19, 16, 17)[:dims], (13, 12, 11)[:dims] + (1,) * (3 - dims)
    image, target = torch.rand(1, 1, *big), torch.randint(0, 9, (1, 1, *big))
    parameters = drawn(only(rotation_p=1, scale_p=1, shear_p=1, translation_p=1), patch, batch=1, spacing=(1, 1.3, 2))
    new_image, new_target = apply(image, target, parameters, patch)
    matrix, shift, size = parameters.matrix[0], parameters.shift[0], np.array(patch[:dims])
    start = (np.array(big) - size) // 2
    offset = start + (size - 1) / 2 + shift - matrix @ ((size - 1) / 2)
    how: dict[str, Any] = {"offset": offset, "output_shape": tuple(size), "mode": "grid-constant"}
    linear = ndimage.affine_transform(image[0, 0].double().numpy(), matrix, order=1, **how)
    nearest = ndimage.affine_transform(target[0, 0].numpy(), matrix, order=0, **how)
    assert np.abs(new_image[0, 0].numpy() - linear).max() < 1e-4
    assert (new_target[0, 0].numpy() == nearest).mean() > 0.998  # ties may fall either way


def test_positions_are_exact_to_a_few_thousandths_of_a_voxel_in_large_volumes() -> None:
    """A volume is read as one plane of 28,000 rows, whose numbers single precision rounds."""
    size, patch = (166, 166, 4), (128, 128, 4)
    index = torch.stack(torch.meshgrid(*[torch.arange(1.0 * n) for n in size], indexing="ij"))[None]
    shift = np.array([12.3, -7.7, 0])
    moved = replace(drawn(only(), patch, batch=1, channels=3), shift=shift[None])
    image, _ = apply(index, index.short(), moved, patch)
    expected = middle(index, patch) + torch.tensor(shift).view(1, 3, 1, 1, 1)
    off = (image - expected).abs().amax((0, 2, 3, 4))
    assert (off < torch.tensor([1e-4, 4e-3, 1e-4])).all()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("towards", [-1, 1])
def test_what_comes_into_view_from_outside_is_0(dims: int, towards: int) -> None:
    """Linear interpolation fades to 0 within a voxel of the edge; the nearest voxel ends half a voxel beyond it."""
    size = (9, 8, 7)[:dims] + (1,) * (3 - dims)
    ones = torch.ones(1, 1, *size[:dims])
    for axis in range(dims):
        shift = np.zeros((1, dims))
        shift[0, axis] = towards * 2.25
        moved = replace(drawn(only(), size, batch=1), shift=shift)
        for new, faded in zip(apply(ones, ones.short(), moved, size), (0.75, 1), strict=True):
            lines = new[0, 0].movedim(axis, -1).flatten(0, -2)
            edge = lines[:, -4:] if towards > 0 else lines[:, :4].flip(1)
            torch.testing.assert_close(
                edge.float(), torch.tensor([1.0, faded, 0, 0]).expand(len(edge), -1), rtol=0, atol=1e-4
            )


@pytest.mark.parametrize("dims", [2, 3])
def test_translation_and_scale_move_a_blob_as_computed(dims: int) -> None:
    size = (41, 39, 37)[:dims] + (1,) * (3 - dims)
    at = np.array([4.0, -3.0, 2.0])[:dims]
    image = blob(size[:dims], at)
    target = (image > 0.5).long()
    still = drawn(only(), size, batch=1)
    moved = replace(still, shift=np.array([[2.0, -1.5, 0.5][:dims]]))
    assert centroid(apply(image, target, moved, size)[0]) == pytest.approx(at - moved.shift[0], abs=0.02)
    larger = drawn(only(scale_p=1, scale=(1.5, 1.5)), size, batch=1)
    new_image, new_target = apply(image, target, larger, size)
    assert centroid(new_image) == pytest.approx(at * 1.5, abs=0.05)
    assert float(new_target.sum()) == pytest.approx(float(target.sum()) * 1.5**dims, rel=0.06)


@given(seed=st.integers(0, 999), spacing=st.sampled_from([(1, 1, 1), (0.5, 1.1, 1.4), (2, 1, 0.8)]))
@settings(max_examples=30, deadline=None)
def test_a_rotation_keeps_distances_in_mm(seed: int, spacing: tuple[float, float, float]) -> None:
    config = only(rotation_p=1)
    matrix = draw(config, [(seed,)], patch=(9, 9, 9), spacing_mm=spacing, channels=1).matrix[0]
    of_mm = np.diag(spacing) @ matrix @ np.diag(1 / np.array(spacing))
    assert np.allclose(of_mm @ of_mm.T, np.eye(3))
    assert np.linalg.det(of_mm) == pytest.approx(1)
    assert not np.allclose(matrix, np.eye(3), atol=1e-3)


def test_angles_are_about_their_own_axis() -> None:
    about_i = drawn(only(rotation_p=1, rotation_deg=(30, 0, 0)), (9, 9, 9), batch=50).matrix
    assert np.allclose(about_i[:, 0], [1, 0, 0])
    assert np.allclose(about_i[:, :, 0], [1, 0, 0])
    angle = np.degrees(np.arccos(about_i[:, 1, 1]))
    assert 25 < angle.max() <= 30


@pytest.mark.parametrize(("spacing", "thick"), [((1, 1, 4), 2), ((5, 1, 1.2), 0)])
def test_thick_slices_are_never_mixed(spacing: Any, thick: int) -> None:
    everything = Config(**{name: 1 for name in NOTHING if name.endswith("_p")})
    parameters = drawn(everything, (9, 9, 9), batch=5, spacing=spacing)
    rest = [axis for axis in range(3) if axis != thick]
    assert np.array_equal(parameters.matrix[:, thick], np.eye(3)[[thick] * 5])
    assert not parameters.matrix[:, rest, thick].any()
    assert not parameters.shift[:, thick].any()
    assert not parameters.elastic[:, thick].any()
    assert not parameters.blur[..., thick].any()
    assert (parameters.resolution[..., thick] == 1).all()
    assert parameters.elastic[:, rest].any()
    assert (parameters.blur[..., rest] > 0).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_an_elastic_map_bends_but_never_folds(dims: int) -> None:
    """Volumes of voxels stay positive: the determinant of the map's derivative, measured on coordinates as images."""
    patch = (32, 32, 32)[:dims] + (1,) * (3 - dims)
    parameters = drawn(only(elastic_p=1, elastic=(0.4, 0.4), scale_p=1, shear_p=1), patch, batch=4, channels=dims)
    bend = np.linalg.solve(parameters.matrix, parameters.elastic.reshape(4, dims, -1))  # before the affine map
    assert np.abs(bend).max() == pytest.approx(0.4 * 32 / 4, rel=0.05)
    index = ramps(dims, batch=4)
    source, _ = apply(index, index.long(), parameters, patch)
    derivative = np.stack(
        [np.stack(np.gradient(source.numpy()[:, c], axis=tuple(range(1, dims + 1))), -1) for c in range(dims)], -2
    )
    determinant = np.linalg.det(derivative)
    assert determinant.min() > 0
    assert determinant.std() > 0.03


def test_margin_leaves_the_patch_in_the_middle() -> None:
    assert margin((40, 56, 40), Config()) == (52, 72, 52)
    assert margin((41, 55, 1), Config()) == (53, 71, 1)
    assert margin((40, 56, 40), only(gamma_p=1)) == (40, 56, 40)


# Intensity: each is applied to the second of two samples alone


def second(size: Size, image: torch.Tensor, **numbers: Any) -> torch.Tensor:
    """Change the second sample; check that the first and the classes are left alone."""
    dims = len(spatial(size))
    still = drawn(only(), size, channels=image.shape[1])
    changes = {}
    for name, number in numbers.items():
        values = getattr(still, name).copy()
        values[1] = number
        changes[name] = values
    target = (image[:, :1] > 0).int()
    new, classes = apply(image, target, replace(still, **changes), size)
    assert torch.equal(new[0], image[0])
    assert torch.equal(classes, target)
    assert new.ndim == dims + 2
    return new[1]


@pytest.mark.parametrize("size", SIZES)
def test_brightness_multiplies(size: Size) -> None:
    image, _ = phantom(size, channels=2)
    torch.testing.assert_close(
        second(size, image, brightness=[1.2, 1.0]), torch.stack([image[1, 0] * 1.2, image[1, 1]])
    )


@pytest.mark.parametrize("size", SIZES)
def test_contrast_spreads_about_the_mean_within_the_range(size: Size) -> None:
    image, _ = phantom(size)
    weaker = second(size, image, contrast=0.8)
    assert float(weaker.mean()) == pytest.approx(float(image[1].mean()), abs=1e-5)
    assert float(weaker.std()) == pytest.approx(0.8 * float(image[1].std()), rel=1e-4)
    stronger = second(size, image, contrast=1.25)
    assert stronger.max() == image[1].max()
    assert stronger.std() > 1.1 * image[1].std()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_agrees_with_monai_and_keeps_mean_and_deviation(size: Size, inverted: bool) -> None:
    from monai.transforms import AdjustContrast

    image, _ = phantom(size)
    new = second(size, image, gamma=1.4, inverted=inverted)
    expected = AdjustContrast(1.4, invert_image=inverted, retain_stats=True)(image[1])
    torch.testing.assert_close(new, torch.as_tensor(np.asarray(expected)), rtol=1e-3, atol=1e-4)
    assert float(new.mean()) == pytest.approx(float(image[1].mean()), abs=1e-4)
    assert float(new.std()) == pytest.approx(float(image[1].std()), rel=1e-4)
    assert not torch.allclose(new, image[1], atol=0.01)


def test_gamma_and_contrast_leave_a_constant_image_finite() -> None:
    flat = torch.full((2, 1, 6, 6, 6), 3.0)
    for change in ({"gamma": 0.7}, {"contrast": 0.8}, {"bias": 0.5}):
        torch.testing.assert_close(second((6, 6, 6), flat, **change), flat[1])


@pytest.mark.parametrize("size", [(40, 40, 40), (160, 150, 1)])
def test_noise_has_the_drawn_deviation(size: Size) -> None:
    image = torch.ones(2, 2, *spatial(size))
    noise = second(size, image, noise=[0.2, 0.1], noise_seed=[7, 8]) - 1
    assert noise.mean().abs() < 0.005
    assert noise.flatten(1).std(1).tolist() == pytest.approx([0.2, 0.1], rel=0.03)
    assert abs(float((noise[0] * noise[1]).mean())) < 0.001


@pytest.mark.parametrize("size", [*SIZES, (70, 24, 19), (19, 41, 1)])
def test_blur_agrees_with_scipy_away_from_the_edge(size: Size) -> None:
    image, _ = phantom(size)
    new = second(size, image, blur=0.7)
    expected = ndimage.gaussian_filter(image[1, 0].numpy().astype(float), 0.7, truncate=8)
    inner = tuple(slice(4, -4) for _ in spatial(size))
    assert np.abs(new[0].numpy()[inner] - expected[inner]).max() < 1e-3
    assert second(size, torch.ones_like(image), blur=0.7).numpy() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("size", [(16, 12, 10), (16, 12, 1), (10, 70, 34), (34, 70, 1)])
def test_half_resolution_is_averaging_and_linear_interpolation(size: Size) -> None:
    image, _ = phantom(size)
    pool, mode = (torch.nn.AvgPool2d, "bilinear") if size[2] == 1 else (torch.nn.AvgPool3d, "trilinear")
    coarse = pool(2)(image[1:])
    expected = torch.nn.functional.interpolate(coarse, spatial(size), mode=mode, align_corners=False)[0]
    torch.testing.assert_close(second(size, image, resolution=0.5), expected, rtol=1e-5, atol=1e-5)


@given(share=st.floats(0.3, 0.99), length=st.integers(3, 80))
@settings(max_examples=40, deadline=None)
def test_any_resolution_keeps_a_constant_and_the_mean_of_a_ramp(share: float, length: int) -> None:
    size = (length, 6, 1)
    ramp = torch.arange(length * 1.0)[:, None].expand(2, 1, length, 6)
    new = second(size, ramp.contiguous(), resolution=[share, 1.0])[0, :, 0]
    assert (new.diff() > -1e-4).all()
    assert float((new - ramp[0, 0, :, 0]).abs().max()) <= 1.01 / share
    torch.testing.assert_close(second(size, torch.ones(2, 1, length, 6), resolution=share), torch.ones(1, length, 6))


@pytest.mark.parametrize("size", SIZES)
def test_bias_field_is_smooth_positive_and_as_strong_as_drawn(size: Size) -> None:
    image, _ = phantom(size)
    image[1].view(-1)[0] = 0  # the lowest, about which the field multiplies
    points = np.full((5,) * len(spatial(size)), 0.5)
    torch.testing.assert_close(second(size, image, bias=points), image[1] * np.exp(0.5), rtol=1e-4, atol=1e-5)
    uneven = np.random.default_rng(0).uniform(-1, 1, points.shape)
    ratio = (second(size, image, bias=uneven) / image[1].clamp(min=1e-9)).flatten()[1:]
    assert np.exp(-1) <= ratio.min() < ratio.max() <= np.exp(1)
    assert ratio.std() > 0.02
