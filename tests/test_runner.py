"""The runner's masks are the predictor's, voxel for voxel but for ties, and it needs neither torch nor medseg."""

from __future__ import annotations

import ast
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medseg import api, bundle, io, models, postprocess, preprocess, runner
from medseg import geometry as geo
from medseg.bundle import Bundle
from medseg.inference.windows import Config as Inference
from medseg.labels import Labels
from medseg.postprocess import Config as Postprocess
from medseg.predictor import Predictor
from medseg.preprocess import Config as Preprocess
from medseg.preprocess import Intensity
from medseg.volume import Geometry, Volume

pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")

Array = npt.NDArray[Any]
Model = Callable[..., Path]
TIE = 1e-3  # logits nearer to each other than this may go either way
SHARE = 0.9999  # of all voxels, that must be equal
LABELS = Labels.of({"liver": 1, "tumour": 7})
REGIONS = {"whole": [1, 2, 3], "core": [2, 3], "edge": 3}
BASE: dict[str, Any] = {
    "name": "test",
    "channels": ("CT",),
    "spatial_dims": 3,
    "labels": LABELS,
    "preprocess": Preprocess(spacing_mm=(1.2, 1.0, 2.0)),
    "inference": Inference(window=(16, 24, 8), overlap=0.4, batch=3),
}
_EXPORTED = {
    "volume": {},
    "two": {"channels": ("T1", "T2"), "preprocess": Preprocess(intensity=(Intensity(),) * 2)},
    "slices": {"spatial_dims": 2, "inference": Inference(window=(24, 16, 1))},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Models of random weights, exported once each; `volume` is an ensemble of two."""
    made: dict[str, Path] = {}

    def export(name: str) -> Path:
        if name not in made:
            root = tmp_path_factory.mktemp(name)
            resolved = models.resolve({"name": "unet", "preset": "tiny"})
            described = Bundle(**BASE | {"model": resolved} | _EXPORTED[name])
            members = []
            for seed in range(2 if name == "volume" else 1):
                torch.manual_seed(seed)
                dims, channels = described.spatial_dims, len(described.channels)
                network = models.create_model(resolved, spatial_dims=dims, in_channels=channels, out_channels=3)
                members.append(network.state_dict())
            bundle.save(root / "bundle", described, members)
            made[name] = api.export(root / "bundle", root / "onnx")
        return made[name]

    return export


@pytest.fixture
def model(exported: Callable[[str], Path], tmp_path: Path) -> Model:
    """A copy of an exported model that is described otherwise."""

    def make(name: str = "volume", **changes: Any) -> Path:
        folder = tmp_path / f"model_{len(list(tmp_path.iterdir()))}"
        shutil.copytree(exported(name), folder)
        bundle.describe(folder, bundle.read(folder).model_copy(update=changes))
        return folder

    return make


def scan(
    shape: tuple[int, ...] = (30, 34, 17),
    spacing_mm: tuple[float, ...] = (1.0, 1.3, 2.5),
    *,
    channels: int = 1,
    seed: int = 0,
) -> Volume:
    """Coarse blobs with noise, in int16, and empty margins."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(channels, *(-(-n // 6) for n in shape)))
    blobs = coarse.repeat(6, 1).repeat(6, 2).repeat(6, 3)[:, : shape[0], : shape[1], : shape[2]]
    array = (300 * blobs + 40 * rng.normal(size=blobs.shape)).astype(np.int16)
    array[:, :3] = 0
    array[:, :, -4:] = 0
    return Volume(array, Geometry(shape, np.diag([*spacing_mm, 1.0])))  # type: ignore[arg-type]


def turned(volume: Volume, degrees: float) -> Volume:
    """The scan of a patient who lies obliquely: the grid keeps its right angles."""
    a, b = np.radians((degrees, degrees / 2))
    around_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    around_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = volume.geometry.affine.copy()
    affine[:3, :3] = around_z @ around_x @ affine[:3, :3]
    affine[:3, 3] = (-30, 12, 7)
    return volume.replace(geometry=Geometry(volume.geometry.shape, affine))


def written(volume: Volume, folder: Path, *, one_file: bool = False) -> list[Path]:
    """As files, one per channel."""
    parts = [volume] if one_file else [volume.replace(array=channel) for channel in volume.array]
    paths = [folder / f"scan_{number}.nii.gz" for number in range(len(parts))]
    for part, path in zip(parts, paths, strict=True):
        io.write(part, path)
    return paths


def assert_equal(folder: Path, paths: list[Path], out: Path) -> Volume:
    """The runner's mask is that of the predictor; returns it."""
    volumes_ml = runner.segment(folder, paths, out)
    prediction = Predictor(folder)(paths, probabilities=True)
    io.write(prediction.mask, out.with_name(f"expected_{out.name}"))
    found, expected = io.read(out, "labels"), prediction.mask
    assert nib.load(out).header == nib.load(out.with_name(f"expected_{out.name}")).header
    different = (found.array != expected.array).any(0)
    assert different.mean() <= 1 - SHARE, f"{different.mean():.2%} of the voxels differ"
    assert margin(prediction.probabilities.array, prediction.labels)[different].max(initial=0) < TIE
    for name, ml in prediction.volumes_ml.items():
        assert volumes_ml[name] == pytest.approx(ml, rel=1e-3, abs=different.sum() * found.geometry.voxel_ml)
    return found


def margin(likely: Array, labels: Labels) -> Array:
    """By how much the best logit of each voxel leads, or how far the nearest of overlapping ones is from 0."""
    with np.errstate(divide="ignore"):
        logits = np.log(likely.astype(np.float64))
        if not labels.exclusive:
            return np.abs(logits - np.log1p(-likely.astype(np.float64))).min(0)
    second, best = np.sort(logits, axis=0)[-2:]
    return best - second


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SRA", "PIL", "AIR"])
def test_every_orientation(model: Model, tmp_path: Path, axcodes: str) -> None:
    paths = written(geo.reorient(scan(), axcodes), tmp_path)
    found = assert_equal(model(), paths, tmp_path / "mask.nii.gz")
    assert len(np.unique(found.array)) == 3, "a mask of nothing proves little"


@pytest.mark.parametrize("spacing_mm", [(0.6, 0.5, 5.0), (2.6, 1.0, 2.0), (1.2, 1.0, 2.01), (0.3, 3.0, 1.0)])
def test_any_spacing(model: Model, tmp_path: Path, spacing_mm: tuple[float, ...]) -> None:
    assert_equal(model(), written(scan(spacing_mm=spacing_mm), tmp_path), tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("shape", [(5, 9, 3), (60, 12, 6), (12, 20, 31), (1, 1, 1), (40, 40, 1)])
def test_any_extent(model: Model, tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert_equal(model(), written(scan(shape), tmp_path), tmp_path / "mask.nii.gz")


def test_oblique_scans(model: Model, tmp_path: Path) -> None:
    assert_equal(model(), written(turned(scan(), 33), tmp_path), tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("tissue", [True, False])
def test_windows_of_air(model: Model, tmp_path: Path, tissue: bool) -> None:
    array = scan().array.copy()
    array[..., 6 * tissue :] = -1000
    config = {
        "preprocess": Preprocess(spacing_mm=(1.2, 1.0, 2.0), intensity=(Intensity(kind="none"),)),
        "inference": Inference(window=(16, 24, 8), overlap=0.4, air=-900),
    }
    folder, paths = model(**config), written(scan().replace(array=array), tmp_path)
    assert 0 < Predictor(folder)(paths).air_share <= 1
    found = assert_equal(folder, paths, tmp_path / "mask.nii.gz")
    assert found.array.any() == tissue


@pytest.mark.parametrize("one_file", [True, False])
def test_two_channels(model: Model, tmp_path: Path, one_file: bool) -> None:
    paths = written(geo.reorient(scan(channels=2), "LIP"), tmp_path, one_file=one_file)
    assert_equal(model("two"), paths, tmp_path / "mask.nii")


@pytest.mark.parametrize("orientation", ["RAS", "SAR"])
def test_slices(model: Model, tmp_path: Path, orientation: str) -> None:
    config = Preprocess(spacing_mm=(1.2, None, 2.5), orientation=orientation)
    assert_equal(model("slices", preprocess=config), written(scan(), tmp_path), tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("order", [None, (1, 2, 3)])
def test_overlapping_labels(model: Model, tmp_path: Path, order: tuple[int, ...] | None) -> None:
    labels = Labels.of(REGIONS, order)
    found = assert_equal(model(labels=labels), written(scan(), tmp_path), tmp_path / "mask.nii.gz")
    assert found.channels == (1 if order else 3)


@pytest.mark.parametrize(
    "intensity",
    [Intensity(kind="clip", low=-200, high=300, mean=10, std=120), Intensity(kind="none")],
)
@pytest.mark.parametrize("crop_empty", [True, False])
def test_any_intensities(model: Model, tmp_path: Path, intensity: Intensity, crop_empty: bool) -> None:
    config = Preprocess(intensity=(intensity,), crop_empty=crop_empty, spacing_mm=(None, 2.0, None), orientation="LAS")
    assert_equal(model(preprocess=config), written(scan(), tmp_path), tmp_path / "mask.nii.gz")


def test_any_unit(model: Model, tmp_path: Path) -> None:
    tiny = scan().replace(array=np.ldexp(scan().array.astype(np.float32), -40))
    assert_equal(model(), written(tiny, tmp_path), tmp_path / "mask.nii.gz")


def test_pieces_are_removed(model: Model, tmp_path: Path) -> None:
    cleaning = Postprocess(largest_component=("liver",), minimum_ml={"tumour": 0.05})
    paths = written(scan(), tmp_path)
    found = assert_equal(model(postprocess=cleaning), paths, tmp_path / "mask.nii.gz")
    assert (found.array != assert_equal(model(), paths, tmp_path / "all.nii.gz").array).any()


@pytest.mark.parametrize("what", ["scaled", "floats", "micron", "2d", "4d of one", "no codes", "pair of codes"])
def test_headers_of_all_kinds(model: Model, tmp_path: Path, what: str) -> None:
    volume = scan((24, 20, 1)) if what == "2d" else scan()
    data = volume.array[0]
    data = {"2d": data[..., 0], "4d of one": data[..., None], "floats": data.astype(np.float64)}.get(what, data)
    image = nib.Nifti1Image(data, volume.geometry.affine)
    if what == "scaled":
        image.header.set_slope_inter(0.25, -3)
    if what == "micron":
        image.header.set_xyzt_units("micron")
        image.set_sform(np.diag([1000.0, 1300, 2500, 1]), 2)
    if what == "no codes":
        image.set_sform(None, 0)
        image.set_qform(None, 0)
    if what == "pair of codes":
        image.set_sform(volume.geometry.affine, 4)
        image.set_qform(np.eye(4), 1)
    nib.save(image, tmp_path / "scan.nii.gz")
    assert_equal(model(), [tmp_path / "scan.nii.gz"], tmp_path / "mask.nii.gz")


def test_networks_of_openvino(model: Model, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    source = model().parent / "source"
    described = Bundle(**BASE | {"model": models.resolve({"name": "vnet", "preset": "tiny"})})
    network = models.create_model(described.model, spatial_dims=3, in_channels=1, out_channels=3)
    bundle.save(source, described, [network.state_dict()])
    api.export(source, tmp_path / "openvino", to="openvino")
    assert_equal(tmp_path / "openvino", written(scan(), tmp_path), tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("seed", range(3))
def test_the_mask_is_torchs_own(exported: Callable[[str], Path], tmp_path: Path, seed: int) -> None:
    paths = written(scan(seed=seed), tmp_path)
    runner.segment(exported("volume"), paths, tmp_path / "mask.nii.gz")
    prediction = Predictor(exported("volume").parent / "bundle", device="cpu")(paths, probabilities=True)
    different = (io.read(tmp_path / "mask.nii.gz", "labels").array != prediction.mask.array).any(0)
    assert different.mean() <= 1 - SHARE
    assert margin(prediction.probabilities.array, LABELS)[different].max(initial=0) < TIE


def test_real_scans(exported: Callable[[str], Path], model: Model, shared_data: Path, tmp_path: Path) -> None:
    folder = model(preprocess=Preprocess(spacing_mm=(1.5, 1.5, 1.5)))
    for path in sorted((shared_data / "Task04_Hippocampus/imagesTr").glob("*.nii.gz"))[:3]:
        assert_equal(folder, [path], tmp_path / "mask.nii.gz")


# Pieces.


@given(arrays.arrays(bool, st.tuples(*[st.integers(1, 6)] * 3)))
def test_pieces_are_those_of_another_library(mask: Array) -> None:
    pieces, sizes = runner.components(mask)
    expected, expected_sizes = postprocess._pieces(mask)
    np.testing.assert_array_equal(pieces, expected)
    np.testing.assert_array_equal(sizes, expected_sizes)


@given(
    arrays.arrays(np.uint8, (4, 5, 6), elements=st.integers(0, 3)), st.sampled_from((0.0, 0.002, 0.004)), st.booleans()
)
@settings(max_examples=50)
def test_cleaning_is_the_predictors(mask: Array, minimum_ml: float, exclusive: bool) -> None:
    labels = Labels.of({"a": 1, "b": 2, "c": 3}) if exclusive else Labels.of(REGIONS, (1, 2, 3))
    first, second, _ = labels.names
    config = Postprocess(largest_component=(first,), minimum_ml={second: minimum_ml, first: minimum_ml})
    volume = Volume(mask, Geometry((4, 5, 6), np.eye(4)), "labels")
    dumped = labels.model_dump(mode="json")
    described = {
        "labels": dumped | {"written": list(labels.written)},
        "postprocess": config.model_dump(mode="json"),
    }
    found = runner.clean(mask[None].copy(), volume.geometry.voxel_ml, described)
    np.testing.assert_array_equal(found, postprocess.apply(volume, labels, config).array)


def test_a_piece_of_many_turns_is_one() -> None:
    """A spiral, whose numbers must travel far, and its mirror image."""
    spiral = np.zeros((41, 41, 1), bool)
    at, step, length = np.array([20, 20]), np.array([0, 1]), 2
    for turn in range(38):
        for _ in range(length):
            at += step
            if (at >= 0).all() and (at < 41).all():
                spiral[at[0], at[1], 0] = True
        step, length = np.array([step[1], -step[0]]), length + 2 * (turn % 2)
    for mask in (spiral, spiral[::-1, ::-1]):
        assert len(runner.components(mask)[1]) == len(postprocess._pieces(mask)[1])


# Alone, and refusing.


def test_it_stands_alone() -> None:
    tree = ast.parse(Path(runner.__file__).read_text())
    used = {a.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    used |= {(n.module or "").partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert used - set(sys.stdlib_module_names) == {"nibabel", "numpy", "onnxruntime", "openvino"}


def run(*words: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The model folder's own copy, in an interpreter that finds neither medseg nor torch."""
    hide = "import sys; sys.modules['torch'] = sys.modules['medseg'] = None; sys.path.insert(0, '.'); import runner; sys.exit(runner.main(sys.argv[1:]))"
    command = [sys.executable, "-P", "-c", hide, *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def test_the_copy_in_the_folder_runs_without_torch_and_medseg(exported: Callable[[str], Path], tmp_path: Path) -> None:
    (path,) = written(scan(), tmp_path)
    done = run(".", path, tmp_path / "mask.nii.gz", cwd=exported("volume"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("liver ")
    runner.segment(exported("volume"), [path], tmp_path / "again.nii.gz")
    assert (tmp_path / "again.nii.gz").is_file()
    np.testing.assert_array_equal(io.read(tmp_path / "mask.nii.gz").array, io.read(tmp_path / "again.nii.gz").array)
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def refused(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """The one line of a refusal, after which there is no mask."""
    assert runner.main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("words", [[], ["model"], ["model", "scan.nii.gz"], ["a", "b", "c", "d"]])
def test_other_words(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert "expected three words: MODEL_FOLDER scan.nii.gz" in refused(capsys, *words)


def test_scans_that_cannot_be_used(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = model(), tmp_path / "mask.nii.gz"
    (path,) = written(scan(), tmp_path)
    assert "the scan is not there: no such file" in refused(capsys, folder, tmp_path / "absent.nii.gz", out)
    assert "the scan is no NIfTI file" in refused(capsys, folder, tmp_path, out)
    io.write(scan(), tmp_path / "scan.nrrd")
    assert "Convert it, or use medseg predict" in refused(capsys, folder, tmp_path / "scan.nrrd", out)
    (tmp_path / "cut.nii.gz").write_bytes(path.read_bytes()[:-3000])
    assert "cut short or damaged" in refused(capsys, folder, tmp_path / "cut.nii.gz", out)
    assert "the model expects 1 channel(s), the scan has 2" in refused(capsys, folder, f"{path},{path}", out)
    bad = scan().array.astype(np.float32)
    bad[0, 4, 4, 4] = np.nan
    io.write(scan().replace(array=bad), tmp_path / "nan.nii.gz")
    assert "the scan holds NaN" in refused(capsys, folder, tmp_path / "nan.nii.gz", out)
    nib.save(nib.Nifti1Image(np.zeros((30, 34, 0), np.int16), np.eye(4)), tmp_path / "empty.nii.gz")
    assert "the scan has no usable grid" in refused(capsys, folder, tmp_path / "empty.nii.gz", out)
    sheared = np.array([[1.0, 0, 0.3, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    io.write(scan().replace(geometry=Geometry((30, 34, 17), sheared)), tmp_path / "tilted.nii.gz")
    assert "8.5 degrees off right angles" in refused(capsys, folder, tmp_path / "tilted.nii.gz", out)
    assert not out.exists()


def test_channels_on_other_grids(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = written(scan(), tmp_path)
    for name, other in {"moved": turned(scan(), 5), "cut": geo.crop(scan(), (0, 0, 0), (30, 34, 16))}.items():
        io.write(other, tmp_path / f"{name}.nii.gz")
        words = (model("two"), f"{path},{tmp_path / f'{name}.nii.gz'}", tmp_path / "mask.nii.gz")
        assert "channel 2 lies on another grid than channel 1" in refused(capsys, *words)


def test_masks_that_cannot_be_written(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,), folder = written(scan(), tmp_path), model()
    assert "the mask would replace the scan" in refused(capsys, folder, path, path)
    assert "ends in .nii or .nii.gz" in refused(capsys, folder, path, tmp_path / "mask.nrrd")
    assert "a folder that exists" in refused(capsys, folder, path, tmp_path / "absent/mask.nii")


def test_models_that_cannot_be_used(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,), out = written(scan(), tmp_path), tmp_path / "mask.nii.gz"
    assert "no exported model" in refused(capsys, tmp_path / "absent", path, out)
    damaged = model()
    data = bytearray((damaged / "model_1.onnx").read_bytes())
    data[-1] ^= 1
    (damaged / "model_1.onnx").write_bytes(data)
    assert "'model_1.onnx' is missing or not what was saved" in refused(capsys, damaged, path, out)
    (damaged / "model_1.onnx").unlink()
    assert "'model_1.onnx' is missing" in refused(capsys, damaged, path, out)
    edited = model()
    content = json.loads((edited / "config.json").read_text())
    content["preprocess"]["spacing_mm"] = [1, 1, 1]
    (edited / "config.json").write_text(json.dumps(content))
    assert "its checksum differs" in refused(capsys, edited, path, out)
    torch_model = model(runtime="torch")
    assert "medseg export MODEL --to onnx" in refused(capsys, torch_model, path, out)


def test_a_missing_runtime_is_named(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (model(), *written(scan(), tmp_path), tmp_path / "mask.nii.gz")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "Run: pip install onnxruntime" in refused(capsys, *words)


def test_a_model_that_gives_no_numbers(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Preprocess(intensity=(Intensity(kind="clip", low=-1e38, high=1e38, std=1e-38),))
    words = (model(preprocess=config), *written(scan(), tmp_path), tmp_path / "mask.nii.gz")
    with np.errstate(all="ignore"):
        assert "values that are not numbers" in refused(capsys, *words)


def test_all_orientations_are_prepared_alike() -> None:
    """All 48: the image is the same, and the scan's voxels lie on its axes where the world says."""
    config: dict[str, Any] = {
        "orientation": "PIR",
        "crop_empty": True,
        "spacing_mm": [0.7, None, 3.0],
        "intensity": [{"kind": "none"}],
    }
    for flips in itertools.product("RL", "AP", "SI"):
        for codes in itertools.permutations(flips):
            volume = geo.reorient(turned(scan((8, 9, 7)), 10), "".join(codes))
            image, own, at = runner.prepare(volume.array, volume.geometry.affine, config)
            expected = preprocess.prepare(volume, Preprocess(**config | {"intensity": (Intensity(kind="none"),)}))
            np.testing.assert_allclose(image, expected.array, atol=1e-3)
            ends = np.zeros((2, 3))
            ends[1, own] = [volume.geometry.shape[b] - 1 for b in own]
            index = expected.geometry.to_index(volume.geometry.to_world(ends))
            np.testing.assert_allclose(np.array([along[[0, -1]] for along in at]).T, index, atol=1e-6)
