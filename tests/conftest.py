from __future__ import annotations

import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from medseg import io
from medseg.volume import Geometry, Volume

if TYPE_CHECKING:
    from medseg.training.study import Study

# Settings of a run that takes a second: they teach the network nothing.
QUICK: dict[str, Any] = {
    "model": {"name": "unet", "preset": "tiny"},
    "train": {"steps": 4, "validations": 1, "batch": 2, "precision": "fp32"},
    "sample": {"patch": (16, 16, 8)},
    "fold": "0/2",
}
_TEST = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    """Tests run side by side, so that each has one thread; modules that share what they made stay together."""
    if config.getoption("numprocesses"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes half an hour, unless it is asked for."""
    if "zoo" not in config.option.markexpr:
        items[:] = [item for item in items if not item.get_closest_marker("zoo")]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real scans beside the checkout; tests that need them are skipped where they are not."""
    folder = Path(__file__).parents[1] / "../shared/data"
    if not folder.is_dir():
        pytest.skip("real scans are not here: ../shared/data is absent")
    return folder.resolve()


@pytest.fixture(autouse=True)
def nothing_remembered(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured on this machine stays out of tests, and what they measure out of the user's home."""
    # not `mktemp`: it looks through all folders of the session, for each of thousands of tests
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "caches" / str(next(_TEST))))


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    """The command line makes the logger speak; a library is silent."""
    logger = logging.getLogger("medseg")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture
def own_modules(tmp_path: Path) -> Iterator[Path]:
    """A folder from which Python imports for one test, and remembers nothing of it in the next."""
    folder = tmp_path / "own_modules"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(folder)
        yield folder
    names = {path.stem for path in folder.iterdir()}
    for module in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[module]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Bit for bit, and no fight over cores; for what the module's own fixtures make too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def no_charts() -> Iterator[None]:
    """Reports without charts, which are most of the work of a small run; those that look at charts draw them."""
    from medseg.evaluation import plot

    with pytest.MonkeyPatch.context() as patched:
        for name in ("curve", "distribution", "agreement", "paired"):
            patched.setattr(plot, name, lambda *_, **__: "<svg></svg>")
        yield


@pytest.fixture(scope="session")
def quick() -> dict[str, Any]:
    return QUICK


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    return write_bundle


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Path]:
    return write_dataset


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, quick: dict[str, Any], make_dataset: Callable[..., Path]) -> Study:
    """A settled study of quick settings."""
    from medseg.training.study import settle

    return settle(make_dataset(tmp_path_factory.mktemp("study") / "data"), quick)[0]


@pytest.fixture(scope="session")
def make_series() -> Callable[..., Path]:
    return write_series


def write_series(folder: Path, volume: Volume, *, name: str = "1.2.826.0.1.7", **changes: Any) -> Path:
    """A CT of single frames on any grid whose i and j are at right angles; `changes` sets attributes of every slice.

    File names run against the order of the slices, as on many scanners.
    """
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True)
    lps = np.diag((-1.0, -1, 1, 1)) @ volume.geometry.affine
    i_mm, j_mm = volume.geometry.spacing_mm[:2]
    for k in range(volume.geometry.shape[2]):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"{name}.{k + 1}"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = f"{name}.8", f"{name}.9", f"{name}.10"
        data.PatientName, data.PatientID = "Doe^John", "PAT-4711"
        data.PatientBirthDate, data.PatientSex = "19500102", "M"
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20200304", "101112.5", "ST-5", "ACC-77"
        data.StudyDescription, data.ReferringPhysicianName, data.InstitutionName = "Doe follow-up", "Roe^R", "St Doe"
        data.Modality, data.SeriesNumber, data.InstanceNumber = "CT", 3, k + 1
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.Columns, data.Rows, data.SamplesPerPixel = *volume.geometry.shape[:2], 1
        data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 1
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelSpacing, data.SliceThickness = [j_mm, i_mm], 1
        axes = (*(lps[:3, 0] / i_mm), *(lps[:3, 1] / j_mm))
        data.ImageOrientationPatient = [float(f"{x:.12f}") for x in axes]  # text has 16 letters
        data.ImagePositionPatient = [float(f"{x:.9f}") for x in lps[:3, :3] @ (0, 0, k) + lps[:3, 3]]
        data.PixelData = np.ascontiguousarray(volume.array[0, :, :, k].T.astype("<i2")).tobytes()
        for key, value in changes.items():
            setattr(data, key, value)
        data.save_as(folder / f"IM{volume.geometry.shape[2] - k:04d}.dcm", enforce_file_format=True)
    return folder


def write_dataset(
    root: Path,
    *,
    cases: int = 4,
    shape: tuple[int, int, int] = (20, 18, 12),
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 2.0),
    channels: int = 1,
    suffix: str = ".nii.gz",
    **description: Any,
) -> Path:
    """A small dataset: a bright box of value 1 beside a smaller one of value 2, elsewhere in each case.

    With a description (`labels`, ...) it is an nnU-Net raw folder, else `images/` beside `labels/`.
    """
    rng = np.random.default_rng(0)
    images, labels = ("imagesTr", "labelsTr") if description else ("images", "labels")
    geometry = Geometry(shape, np.diag([*spacing_mm, 1.0]))
    for number in range(cases):
        mask = np.zeros(shape, np.uint8)
        mask[3 + number : 9 + number, 4:10, : shape[2] // 2 + 1] = 1
        mask[3:7, 12:16, : shape[2] // 3 + 1] = 2
        for channel in range(channels):
            image = (mask * 60 + rng.normal(100, 10, shape)).astype(np.uint8)
            ending = f"_{channel:04d}" if description else ""
            io.write(Volume(image, geometry), root / images / f"case_{number}{ending}{suffix}", parents=True)
        io.write(Volume(mask, geometry, "labels"), root / labels / f"case_{number}{suffix}")
    if description:
        names = {str(n): f"sequence {n}" for n in range(channels)}
        content = {"channel_names": names, "file_ending": suffix} | description
        (root / "dataset.json").write_text(json.dumps(content))
    return root


def write_bundle(folder: Path, *, members: int = 1, seed: int = 0, **description: Any) -> Path:
    """An untrained model of what `write_dataset` writes without a description."""
    import torch

    from medseg import bundle, models
    from medseg.labels import Labels

    known: dict[str, Any] = {"name": "phantoms", "model": QUICK["model"], "spatial_dims": 3, "channels": ("image",)}
    known |= {
        "labels": Labels.of([1, 2]),
        "preprocess": {"spacing_mm": (1, 1, 2)},
        "inference": {"window": (16, 16, 8)},
    }
    known |= description
    described = bundle.Bundle.model_validate(known | {"model": models.resolve(known["model"])})
    networks = []
    for number in range(members):
        torch.manual_seed(seed + number)
        channels = {"in_channels": len(described.channels), "out_channels": described.labels.channels}
        networks.append(models.create_model(described.model, spatial_dims=described.spatial_dims, **channels))
    bundle.save(folder, described, [network.state_dict() for network in networks])
    return folder
