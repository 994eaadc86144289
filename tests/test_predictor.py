from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from medseg import bundle, io, models, system
from medseg import geometry as geo
from medseg.bundle import Bundle
from medseg.errors import DataError
from medseg.inference.windows import Config as Inference
from medseg.labels import Labels
from medseg.postprocess import Config as Postprocess
from medseg.predictor import Predictor
from medseg.preprocess import Config as Preprocess
from medseg.preprocess import Intensity
from medseg.volume import Geometry, Volume

Array = npt.NDArray[Any]
AXCODES = ["".join(c) for p in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*p)]


class Threshold(nn.Module):
    """Class 1 where the first channel is above a value; sees one voxel at a time."""

    def __init__(self, value: float = 0.5, slope: float = 10.0) -> None:
        super().__init__()
        self.value, self.slope = value, slope

    def forward(self, x: Tensor) -> Tensor:
        logit = (x[:, :1] - self.value) * self.slope
        return torch.cat([-logit, logit], 1)


def described(**changes: Any) -> Bundle:
    base: dict[str, Any] = {
        "name": "test",
        "model": {"name": "unet", "preset": "tiny"},
        "spatial_dims": 3,
        "channels": ("MR",),
        "labels": Labels.of({"bright": 3}),
        "preprocess": Preprocess(intensity=(Intensity(kind="none"),), crop_empty=False),
        "inference": Inference(window=(8, 8, 8), batch=4),
    }
    return Bundle(**base | changes)


def threshold(value: float = 0.5, **changes: Any) -> Predictor:
    return Predictor.of(described(**changes), [Threshold(value)], device="cpu")


def phantom(shape: tuple[int, int, int] = (11, 9, 7), affine: Array | None = None, seed: int = 0) -> Volume:
    array = np.random.default_rng(seed).random(shape).astype(np.float32)
    return Volume(array, Geometry(shape, np.diag([1.0, 1.5, 3, 1]) if affine is None else affine))


def ball(geometry: Geometry, centre: npt.ArrayLike, radius_mm: float) -> Volume:
    """1 inside, 0 outside, with a soft edge."""
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1)
    distance = np.linalg.norm(geometry.to_world(index) - np.array(centre), axis=-1)
    return Volume(np.clip((radius_mm - distance) / 4 + 0.5, 0, 1).astype(np.float32), geometry)


@pytest.mark.parametrize("axcodes", AXCODES)
def test_masks_lie_in_the_scans_own_grid_in_every_orientation(axcodes: str) -> None:
    scan = geo.reorient(phantom(), axcodes)
    prediction = threshold()(scan)
    assert prediction.mask.geometry == scan.geometry
    assert prediction.mask.kind == "labels"
    np.testing.assert_array_equal(prediction.mask.array, np.where(scan.array > 0.5, 3, 0))
    assert prediction.probabilities is None


OBLIQUE = np.array([[0.9, -0.3, 0.1, -20], [0.3, 0.95, -0.2, -18], [0, 0.2, 1.9, -12], [0, 0, 0, 1]])
TILTED = np.array([[1.0, 0, 0, -16], [0, 1.0, 0.9, -20], [0, 0, 2.5, -15], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    "affine", [OBLIQUE, TILTED, TILTED @ np.diag([-1.0, 1, -1, 1])], ids=["oblique", "tilted", "turned"]
)
@pytest.mark.parametrize("spacing", [None, 1.4])
def test_oblique_and_tilted_scans(affine: Array, spacing: float | None) -> None:
    geometry = Geometry((34, 32, 14), affine)
    centre = geometry.to_world((18, 14, 7))
    scan = ball(geometry, centre, 9)
    predictor = threshold(preprocess=Preprocess(intensity=(Intensity(kind="none"),), spacing_mm=(spacing,) * 3))
    prediction = predictor(scan)
    assert prediction.mask.geometry == geometry
    true, found = scan.array[0] > 0.5, prediction.mask.array[0] == 3
    assert 2 * (true & found).sum() / (true.sum() + found.sum()) > 0.96
    at = geometry.to_world(np.argwhere(found)).mean(0)
    np.testing.assert_allclose(at, geometry.to_world(np.argwhere(true)).mean(0), atol=0.2)
    assert prediction.volumes_ml["bright"] == pytest.approx(4 / 3 * np.pi * 0.9**3, rel=0.06)


def test_cropped_margins_are_background() -> None:
    array = np.zeros((12, 12, 12), np.float32)
    array[3:9, 3:9, 3:9] = 1
    predictor = threshold(preprocess=Preprocess(intensity=(Intensity(kind="none"),)))
    prediction = predictor(Volume(array, Geometry((12, 12, 12), np.eye(4))), probabilities=True)
    np.testing.assert_array_equal(prediction.mask.array[0], array * 3)
    assert prediction.probabilities is not None
    np.testing.assert_allclose(prediction.probabilities.array[:, 0, 0, 0], [1, 0], atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 16, 1), (3, 4, 5), (1, 1, 1)])
def test_scans_smaller_than_the_window(shape: tuple[int, int, int]) -> None:
    scan = phantom(shape)
    np.testing.assert_array_equal(threshold()(scan).mask.array > 0, scan.array > 0.5)


def test_a_2d_model_reads_the_slices_of_a_volume() -> None:
    scan = phantom()
    predictor = threshold(spatial_dims=2, inference=Inference(window=(8, 8, 1)))
    np.testing.assert_array_equal(predictor(scan).mask.array > 0, scan.array > 0.5)


def test_files_of_all_kinds_are_scans(tmp_path: Path) -> None:
    scan, other = phantom(), phantom(seed=1)
    io.write(scan, tmp_path / "a.nii.gz")
    io.write(other, tmp_path / "b.nrrd")
    both = scan.replace(array=np.concatenate([scan.array, other.array]))
    io.write(both, tmp_path / "4d.nii.gz")
    expected = np.where(scan.array > 0.5, 3, 0)
    for one in (tmp_path / "a.nii.gz", str(tmp_path / "a.nii.gz"), [tmp_path / "a.nii.gz"], scan):
        np.testing.assert_array_equal(threshold()(one).mask.array, expected)
    two = threshold(
        channels=("T1", "T2"), preprocess=Preprocess(intensity=(Intensity(kind="none"),) * 2, crop_empty=False)
    )
    for pair in ([tmp_path / "a.nii.gz", tmp_path / "b.nrrd"], tmp_path / "4d.nii.gz", both):
        mask = two(pair).mask
        assert mask.array.shape == (1, *scan.geometry.shape)
        np.testing.assert_array_equal(mask.array, expected)


def test_other_channels_than_the_models(tmp_path: Path) -> None:
    scan = phantom()
    io.write(scan.replace(array=np.concatenate([scan.array] * 5)), tmp_path / "time.nii.gz")
    with pytest.raises(DataError, match=r"expects 1 channel, the scan has 5"):
        threshold()(tmp_path / "time.nii.gz")


def test_the_scans_codes_go_with_the_mask(tmp_path: Path) -> None:
    import nibabel as nib

    image = nib.Nifti1Image(np.asarray(phantom().array[0]), np.diag([-1.0, 1.5, 3, 1]))
    image.set_sform(image.affine, 4)
    image.set_qform(image.affine, 2)
    nib.save(image, tmp_path / "a.nii.gz")
    io.write(threshold()(tmp_path / "a.nii.gz").mask, tmp_path / "mask.nii.gz")
    written: Any = nib.load(tmp_path / "mask.nii.gz")
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (4, 2)
    np.testing.assert_array_equal(written.affine, image.affine)
    assert written.get_data_dtype() == np.uint8


@pytest.mark.parametrize("shape", [(16, 14), (16, 14, 1), (16, 14, 5, 1), (16, 14, 5, 1, 1)])
def test_a_mask_has_as_many_axes_as_its_scan(tmp_path: Path, shape: tuple[int, ...]) -> None:
    import nibabel as nib

    nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), np.diag([-1.0, 1.5, 3, 1])), tmp_path / "a.nii.gz")
    prediction = threshold()(tmp_path / "a.nii.gz", probabilities=True)
    io.write(prediction.mask, tmp_path / "mask.nii.gz")
    scan, mask = (nib.load(tmp_path / name) for name in ("a.nii.gz", "mask.nii.gz"))
    assert mask.shape == scan.shape == shape  # type: ignore[attr-defined]
    np.testing.assert_array_equal(mask.affine, scan.affine)  # type: ignore[attr-defined]
    assert io.read_geometry(tmp_path / "mask.nii.gz") == io.read_geometry(tmp_path / "a.nii.gz")
    assert prediction.probabilities is not None
    io.write(prediction.probabilities, tmp_path / "likely.nii.gz")
    assert io.read(tmp_path / "likely.nii.gz").array.shape == prediction.probabilities.array.shape


def test_probabilities_sum_to_one_and_agree_with_the_mask() -> None:
    prediction = threshold()(phantom(affine=OBLIQUE), probabilities=True)
    likely = prediction.probabilities
    assert likely is not None
    assert likely.geometry == prediction.mask.geometry
    assert likely.array.dtype == np.float32
    np.testing.assert_allclose(likely.array.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(likely.array.argmax(0) * 3, prediction.mask.array[0])


def test_overlapping_labels_have_a_mask_each() -> None:
    labels = Labels.of({"whole": [1, 2], "core": [2]})
    prediction = threshold(labels=labels)(scan := phantom(), probabilities=True)
    assert prediction.mask.array.shape == (2, *scan.geometry.shape)
    assert prediction.mask.array.dtype == np.uint8
    np.testing.assert_array_equal(prediction.mask.array[0], scan.array[0] < 0.5)
    np.testing.assert_array_equal(prediction.mask.array[1], scan.array[0] > 0.5)
    assert prediction.probabilities is not None
    np.testing.assert_allclose(
        prediction.probabilities.array[1], 1 / (1 + np.exp(-10 * (scan.array[0] - 0.5))), atol=1e-5
    )
    ml = scan.geometry.voxel_ml
    assert prediction.volumes_ml["core"] == pytest.approx(float((scan.array > 0.5).sum()) * ml)


def test_overlapping_labels_with_an_order_have_one_mask() -> None:
    labels = Labels.of({"whole": [1, 2], "core": [2]}, [1, 2])
    scan, whole_ml = phantom(), phantom().geometry.voxel_ml * phantom().array.size
    found = threshold(labels=labels)(scan)
    np.testing.assert_array_equal(found.mask.array, np.where(scan.array > 0.5, 2, 1))  # everything is one or the other
    assert found.volumes_ml["whole"] == pytest.approx(whole_ml)
    clean = threshold(labels=labels, postprocess=Postprocess(minimum_ml={"core": 1e6}))(scan)
    assert clean.volumes_ml == {"whole": pytest.approx(whole_ml), "core": 0}


def test_many_labels_keep_their_values() -> None:
    class Many(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot((x[:, 0] * 300).long(), 301).movedim(-1, 1).float()

    labels = Labels.of({f"part {n}": 2 * n for n in range(1, 301)})
    scan = phantom()
    mask = Predictor.of(described(labels=labels), [Many()], device="cpu")(scan).mask
    np.testing.assert_array_equal(mask.array, (scan.array * 300).astype(int) * 2)
    assert mask.array.dtype == np.uint16


def test_what_the_inner_split_chose_is_removed() -> None:
    array = np.zeros((16, 16, 16), np.float32)
    array[2:9, 2:9, 2:9], array[12, 12, 12] = 1, 1
    scan = Volume(array, Geometry((16, 16, 16), np.eye(4)))
    mask = threshold(postprocess=Postprocess(largest_component=("bright",)))(scan).mask
    array[12, 12, 12] = 0
    np.testing.assert_array_equal(mask.array[0], array * 3)


def tiny(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return models.create_model("unet", preset="tiny", spatial_dims=3, in_channels=1, out_channels=2)


def test_an_ensemble_is_the_mean_of_logits(tmp_path: Path) -> None:
    networks = [tiny(seed) for seed in range(3)]
    resolved = described(
        model=models.resolve({"name": "unet", "preset": "tiny"}), inference=Inference(window=(16, 16, 16))
    )
    bundle.save(tmp_path / "run" / "bundle", resolved, [network.state_dict() for network in networks])
    scan = phantom((16, 16, 16))
    prediction = Predictor(tmp_path / "run", device="cpu")(scan, probabilities=True)
    with torch.inference_mode():
        image = torch.tensor(scan.array)[None]
        logits = torch.stack([network.eval()(image)[0] for network in networks]).mean(0)
    assert prediction.probabilities is not None
    np.testing.assert_allclose(prediction.probabilities.array, logits.softmax(0).numpy(), atol=1e-5)


def test_mirrors_make_an_answer_that_flips_with_the_scan() -> None:
    torch.manual_seed(0)
    network = nn.Conv3d(1, 2, 3, padding=1)
    given = described(inference=Inference(window=(12, 12, 12), mirror_axes=(0, 1, 2)))
    scan = phantom((12, 12, 12), np.eye(4))
    flipped = scan.replace(array=scan.array[:, ::-1])
    found = {}
    for mirrors in (False, True):
        predictor = Predictor.of(given, [network], device="cpu", mirrors=mirrors)
        plain, turned = (predictor(s, probabilities=True).probabilities for s in (scan, flipped))
        assert plain is not None
        assert turned is not None
        found[mirrors] = float(np.abs(plain.array - turned.array[:, ::-1]).max())
    assert found[True] < 1e-5 < found[False]


@pytest.mark.parametrize(
    ("asked", "bundled", "here", "expected"),
    [
        ("auto", "bf16", True, True),
        ("auto", "bf16", False, False),
        ("fp32", "bf16", True, False),
        ("bf16", "fp32", False, True),
    ],
)
def test_precision_is_the_bundles_where_the_device_has_it_unless_asked(
    tmp_path: Path, asked: str, bundled: str, here: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "has_bf16", lambda device: here)
    seen: list[torch.dtype] = []
    whole = described(model=models.resolve({"name": "unet", "preset": "tiny"}), precision=bundled)
    bundle.save(tmp_path, whole, [tiny(0).state_dict()])
    predictor = Predictor(tmp_path, device="cpu", precision=asked)
    predictor.networks[0].register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    prediction = predictor(phantom(), probabilities=True)
    assert (torch.bfloat16 in seen) == expected  # where it may be, fp32 is measured beside it
    assert prediction.probabilities is not None
    assert prediction.probabilities.array.dtype == np.float32
    exact = Predictor(tmp_path, device="cpu", precision="fp32")(phantom(), probabilities=True).probabilities
    assert exact is not None
    np.testing.assert_allclose(prediction.probabilities.array, exact.array, atol=0.05)


class Sick(nn.Module):
    """No numbers where the image is above a value."""

    def forward(self, x: Tensor) -> Tensor:
        sick = torch.where(x > 0.99, torch.inf, x)
        return torch.cat([sick - sick, sick], 1)


@pytest.mark.parametrize(
    ("precision", "advice"),
    [("bf16", r"Load it as `Predictor\(\.\.\., precision=.fp32.\)`\.$"), ("fp32", "the scan's values")],
)
def test_logits_that_are_no_numbers_are_an_error(precision: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "has_bf16", lambda device: True)
    predictor = Predictor.of(described(precision=precision), [Sick()], device="cpu")
    with pytest.raises(DataError, match=f"not numbers on this scan.*{advice}"):
        predictor(phantom((11, 9, 7)))


def test_what_speaks_against_a_mask_is_said_and_shown() -> None:
    scan = phantom((16, 16, 16))
    assert threshold()(scan).warnings == ()
    strange = threshold(2.0)(scan.replace(array=np.ones_like(scan.array)))
    assert strange.warnings == (
        "the scan holds one value, 1, in all voxels",
        "nothing was found: the mask is empty",
    )
    assert "the mask is empty" in strange._repr_html_()


class Forgetful(Threshold):
    """Out of memory at one call."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 5:
            raise torch.OutOfMemoryError("no more")
        return super().forward(x)


def test_a_mask_is_whole_where_memory_ran_out_in_its_middle(caplog: pytest.LogCaptureFixture) -> None:
    scan = phantom((40, 8, 8))
    given = described(inference=Inference(window=(8, 8, 8), batch=2))
    mask = Predictor.of(given, [Forgetful()], device="cpu")(scan).mask
    np.testing.assert_array_equal(mask.array > 0, scan.array > 0.5)
    assert "out of memory on cpu: going on with windows of 8 x 8 x 8 voxels, overlap 0.5, 1 at once" in caplog.text


def test_a_prediction_shows_itself() -> None:
    html = threshold()(phantom())._repr_html_()
    assert "<img" in html
    assert "bright" in html
    assert " ml" in html


def test_a_scan_is_not_changed_and_the_model_does_not_learn() -> None:
    scan, network = phantom(), tiny(0).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    array = np.array(scan.array)
    first = Predictor.of(described(), [network], device="cpu")(scan)
    assert not network.training
    np.testing.assert_array_equal(scan.array, array)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    again = Predictor.of(described(), [network], device="cpu")(scan)
    np.testing.assert_array_equal(first.mask.array, again.mask.array)
