"""Runs of two stages: what is planned, prepared, chosen and stored where a stored model finds where to look."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import medseg
from medseg import bundle as bundles
from medseg import files, io, locating, overrides, preprocess
from medseg.bundle import Bundle
from medseg.data.cases import Case
from medseg.engine.state import Checkpointer
from medseg.errors import BundleError, ConfigError, DataError, Interrupted, RunError
from medseg.geometry.region import Region, crop
from medseg.inference.windows import Config as Inference
from medseg.labels import Labels
from medseg.predictor import Predictor
from medseg.preprocess import Config as Preprocess
from medseg.preprocess import Intensity
from medseg.resources import shipped
from medseg.training import build, runs
from medseg.training.dry_run import dry_run
from medseg.training.study import Study, settle
from medseg.volume import Geometry, Volume

pytestmark = pytest.mark.usefixtures("one_thread", "no_charts")
Make = Callable[..., Path]
FINDS = {"train": {"steps": 60}, "preprocess": {"spacing_mm": (2, 2, 2)}, "windows": "planned", "optim": {"ema": 0.0}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Make) -> Path:
    return make_dataset(tmp_path_factory.mktemp("locating") / "data", cases=6)


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory, data: Path, quick: dict[str, Any]) -> Path:
    """A first stage that has learned to find the larger structure, about."""
    return runs.train(data, tmp_path_factory.mktemp("coarse") / "run", overrides.merge(quick, FINDS))


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory, data: Path, coarse: Path, quick: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("fine") / "run"
    return runs.train(data, folder, asked(quick, coarse, margin_mm=2.0))


def asked(quick: dict[str, Any], folder: Path, *, margin_mm: float = 20.0, **changes: Any) -> dict[str, Any]:
    return overrides.merge(
        overrides.merge(
            quick, {"sample": {"patch": (8, 8, 8)}, "locate": {"from": str(folder), "margin_mm": margin_mm}}
        ),
        changes,
    )


def settled(data: Path, user: dict[str, Any]) -> Study:
    return settle(data, user)[0]


# --- where it looks


class Bright(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([150 - x, x - 150], 1)


def finder() -> Predictor:
    described = Bundle(
        name="hand-made",
        model={"name": "unet"},
        spatial_dims=3,
        channels=("MR",),
        labels=Labels.of({"anything": 1}),
        preprocess=Preprocess(intensity=(Intensity(kind="none"),), crop_empty=False),
        inference=Inference(window=(8, 8, 8)),
    )
    return Predictor.of(described, [Bright()], device="cpu")


def case(folder: Path, name: str, *, hidden: bool = False) -> Case:
    """Structure 1 is 4 x 4 x 4 voxels at 4..7, of value 200; 2 is one voxel at 15, which a threshold finds unless it is hidden."""
    grid = Geometry((20, 10, 10), np.diag([1.0, 1, 2, 1]))
    mask = np.zeros(grid.shape, np.uint8)
    mask[4:8, 4:8, 4:8], mask[15, 5, 5] = 1, 2
    image = np.where(mask > hidden * (mask == 2) * 2, 200, 100).astype(np.int16)
    io.write(Volume(image, grid), folder / f"{name}.nii.gz", parents=True)
    io.write(Volume(mask, grid, "labels"), folder / f"{name}_mask.nii.gz")
    return Case(name, (folder / f"{name}.nii.gz",), folder / f"{name}_mask.nii.gz")


def test_places_by_hand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases, labels = [case(tmp_path, "a"), case(tmp_path, "b", hidden=True)], Labels.of({"big": 1, "small": 2})
    with caplog.at_level(logging.INFO, "medseg"):
        found = locating.locate(finder(), Region(margin_mm=2), cases, labels)
    assert [found["a"].box, found["b"].box] == [
        (slice(2, 18), slice(2, 10), slice(3, 9)),
        (slice(2, 10), slice(2, 10), slice(3, 9)),
    ]
    assert found["a"].missed_ml == (0, 0)
    assert found["b"].held_ml == pytest.approx((64 * 2e-3, 0))
    assert found["b"].missed_ml == pytest.approx((0, 2e-3))
    assert found["a"].share == pytest.approx(16 * 8 * 6 / 2000)
    assert found["a"].seconds > 0
    assert "shows 29% of the inner cases' voxels, and in them 50.0% of 'small'" in caplog.text
    assert "50.0% of 'small' lies where that model finds nothing near, and is lost" in caplog.text


def test_little_is_lost_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    locating.locate(finder(), Region(margin_mm=2), [case(tmp_path, "a")], Labels.of({"big": 1, "small": 2, "none": 3}))
    assert "warning" not in caplog.text


def test_one_stage_looks_everywhere(tmp_path: Path) -> None:
    assert locating.locate(None, None, [case(tmp_path, "a")], Labels.of([1, 2])) == {}


def test_a_case_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    bad = case(tmp_path, "a")
    bad.images[0].write_text("x")
    with pytest.raises(DataError, match=r"^a: "):
        locating.locate(finder(), Region(margin_mm=2), [bad], Labels.of([1, 2]))


# --- what is planned


def test_the_plan_is_made_for_what_is_shown(make_dataset: Make, make_bundle: Make, tmp_path: Path) -> None:
    """Patches fit what lies around the structures, and not the scans, most of which is elsewhere."""
    data = make_dataset(tmp_path / "data", shape=(90, 80, 60), spacing_mm=(1, 1, 1))
    model = make_bundle(tmp_path / "model")
    whole, part = (
        settled(data, {"locate": locate, "fold": "none"}) for locate in ({}, {"from": str(model), "margin_mm": 4.0})
    )
    assert whole.plan["fingerprint"]["shape"] == (90, 80, 60)
    assert whole.region is None
    # structures reach from 3 to 9 + n along i, from 4 to 16 along j, from 0 to 31 along k
    assert part.plan["fingerprint"]["shape"] == (14, 20, 35)
    assert part.plan["fingerprint"]["margin_mm"] == 4
    assert part.config.sample.patch == part.config.inference.window == (16, 24, 40)
    assert part.region == Region(margin_mm=4, least_mm=(16, 24, 40))
    reasons = {choice["name"]: choice["reason"] for choice in part.plan["choices"]}
    assert "the median part of a scan around the structures has" in reasons["sample.patch"]
    assert part.plan["ancestors"]["locate.from"].startswith("unet of phantoms (SHA-256")


def test_the_plan_names_the_first_stage(data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path) -> None:
    model = str(make_bundle(tmp_path / "model"))
    study = settled(data, overrides.merge(quick, {"locate": {"from": model}, "fold": "none"}))
    (choice,) = (choice for choice in study.plan["choices"] if choice["name"] == "locate.margin_mm")
    assert choice["value"] == 20
    assert choice["reason"].startswith("the network is shown the part of a scan around what unet of phantoms")


def test_the_first_stage_lends_no_grid(data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path) -> None:
    odd = {"spacing_mm": (4, 4, 4), "orientation": "SAR"}
    flat = {"spatial_dims": 2, "inference": {"window": (16, 16, 1)}}
    model = make_bundle(tmp_path / "model", preprocess=odd, labels=Labels.of({"all": [1, 2]}), **flat)
    study = settled(data, asked(quick, model, fold="none"))
    assert study.config.preprocess.spacing_mm == (1, 1, 2)
    assert study.config.spatial_dims == 3


def test_the_least_extent_is_a_patch_along_the_worlds_axes(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path
) -> None:
    grid = {"orientation": "SAR", "spacing_mm": (3.0, None, 1.5)}
    study = settled(data, asked(quick, make_bundle(tmp_path / "model"), preprocess=grid, fold="none"))
    assert study.region is not None
    assert study.region.least_mm == (8 * 1.5, 8 * 1.0, 8 * 3.0)


def test_a_dry_run_prepares_what_is_shown(data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path) -> None:
    model = make_bundle(tmp_path / "model")
    sizes = [
        dry_run(data, asked(quick, Path(source), margin_mm=0.0, fold="none", **changes)).disk_gb
        for source, changes in ((model, {}), (model, {"locate": {"from": None, "margin_mm": 20.0}}))
    ]
    assert sizes[0] < sizes[1]


# --- what is refused


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ({"channels": ("CT",)}, r"takes the channels CT, and this run has image\."),
        ({"locate": {"margin_mm": 5}}, "has two stages, and this run needs a first one"),
    ],
)
def test_what_cannot_be_a_first_stage(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path, description: dict[str, Any], expected: str
) -> None:
    make_bundle(tmp_path / "model/locator")
    model = make_bundle(tmp_path / "model", **description)
    with pytest.raises(ConfigError, match=rf"^locate\.from: that model {expected}") as caught:
        settled(data, asked(quick, model, fold="none"))
    assert "\n" not in str(caught.value)


def test_no_model_there(data: Path, quick: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^locate\.from: .* holds no bundle: no model there"):
        settled(data, asked(quick, tmp_path / "gone"))


def test_a_first_stage_that_saw_held_out_cases(data: Path, quick: dict[str, Any], coarse: Path) -> None:
    assert settled(data, asked(quick, coarse)).fold.test
    for fold in ("1/2", "all/2"):
        with pytest.raises(DataError, match=r"^locate\.from: that model learned from cases that this run holds out"):
            settled(data, asked(quick, coarse, fold=fold))


def test_teachers_look_where_their_students_do(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path
) -> None:
    first, everywhere = make_bundle(tmp_path / "first"), str(make_bundle(tmp_path / "teacher"))
    make_bundle(tmp_path / "two/locator")
    there = str(make_bundle(tmp_path / "two", locate={"margin_mm": 20.0}))
    words = "what lies around structures, by {} mm"
    for teacher, changes, its, own in (
        (everywhere, {}, "whole scans", words.format(20)),
        (there, {"locate": {"from": None}}, words.format(20), "whole scans"),
        (there, {"locate": {"margin_mm": 5.0}}, words.format(20), words.format(5)),
    ):
        user = asked(quick, first, fold="none", distill={"from": teacher})
        with pytest.raises(ConfigError, match=rf"^distill\.from: that model looks at {its}, and this run at {own}\."):
            settled(data, overrides.merge(user, changes))
    study = settled(data, asked(quick, first, fold="none", distill={"from": there}))
    assert build.criterion(study, torch.device("cpu")).teacher.networks  # type: ignore[union-attr]


# --- what is learned from, and chosen by


def test_cases_are_prepared_as_at_prediction(data: Path, quick: dict[str, Any], coarse: Path, tmp_path: Path) -> None:
    """Cases learned from: around their masks. Inner cases: where the first stage looks."""
    study = settled(data, asked(quick, coarse, margin_mm=1.0))
    locator, region = build.first_stage(study, torch.device("cpu")), study.region
    assert locator is not None
    assert region is not None
    places = locating.locate(locator, region, study.cases(study.inner.test), study.labels)
    found = build.cases(study, (*study.inner.train, *study.inner.test), tmp_path / "cache", places)
    for each in found:
        (one,) = study.cases([each.id])
        image, mask = preprocess.read_image(one.images), io.read(one.label, "labels")  # type: ignore[arg-type]
        if each.id in study.inner.test:
            box = region.around(*locator.find(image), image.geometry)
            assert each.missed_ml == places[each.id].missed_ml
        else:
            box = region.around(mask.array[0] > 0, mask.geometry, image.geometry)
            assert each.missed_ml == ()
        expected = preprocess.prepare(crop(image, box), study.config.preprocess)
        assert each.geometry == expected.geometry != image.geometry
        np.testing.assert_array_equal(each.image, expected.array)


def test_a_second_stage_is_trained(fine: Path, coarse: Path, data: Path) -> None:
    described = bundles.read(fine / "bundle")
    assert described.locate == Region(margin_mm=2, least_mm=(8, 8, 16))
    first, stored = bundles.load(coarse / "bundle"), bundles.load(fine / "bundle/locator")
    assert first[0].preprocess == stored[0].preprocess
    assert all(torch.equal(tensor, stored[1][0][name]) for name, tensor in first[1][0].items())
    (split,) = files.read_json(fine / "splits.json")
    predictor = medseg.load(fine)
    for name in split["held_out"]:
        scan = medseg.read(data / f"images/{name}.nii.gz")
        ready = predictor.prepare(scan)
        assert math.prod(ready.image.shape) < scan.array.size
        mask = medseg.read(fine / f"predictions/{name}.nii.gz")
        np.testing.assert_array_equal(mask.array, predictor.segment(ready).mask.array)


def test_the_run_says_where_it_looked(fine: Path) -> None:
    log, card = (fine / "log.txt").read_text(), (fine / "bundle/README.md").read_text()
    assert "locate.from: that model shows" in log
    assert "- locate.from: unet of dataset (SHA-256" in card
    assert "Two stages: the model in `locator/`" in card
    written = [*fine.glob("bundle/**/*.json"), *fine.glob("bundle/**/*.md"), fine / "log.txt", fine / "report.html"]
    assert not any(str(fine.parent) in path.read_text() for path in written)
    assert "unet of dataset (SHA-256" in (fine / "report.html").read_text()


def test_each_part_has_a_first_stage_that_knows_no_more(
    tmp_path: Path, data: Path, quick: dict[str, Any], make_bundle: Make
) -> None:
    """Of an ensemble the network that never saw the cases held out; the ensemble of all parts has all of it."""
    first = tmp_path / "first"
    make_bundle(first / "bundle", members=2)
    splits = [
        {"held_out": part.fold.test, "train": part.inner.train, "validation": part.inner.test}
        for part in settle(data, quick | {"fold": "all/2"})
    ]
    files.write_json(first / "splits.json", splits)
    run = runs.train(data, tmp_path / "run", asked(quick, first, fold="all/2"))
    members = bundles.load(first / "bundle")[1]
    for number in range(2):
        (alone,) = bundles.load(run / f"fold_{number}/bundle/locator")[1]
        assert all(torch.equal(tensor, members[number][name]) for name, tensor in alone.items())
    assert len(bundles.load(run / "bundle/locator")[1]) == len(bundles.load(run / "bundle")[1]) == 2
    found = Predictor(run, device="cpu")
    assert found.locator is not None
    assert len(found.locator.networks) == 2


def test_an_interrupted_run_goes_on(
    tmp_path: Path, data: Path, quick: dict[str, Any], coarse: Path, fine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    shutil.copytree(coarse, first)
    saved = Checkpointer.save

    def stop(self: Checkpointer, run: Any) -> None:
        saved(self, run)
        raise Interrupted("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "due", lambda _: True)
        patched.setattr(Checkpointer, "save", stop)
        with pytest.raises(Interrupted):
            runs.train(data, tmp_path / "run", asked(quick, first, margin_mm=2.0))
    with pytest.raises(ConfigError, match=r"other settings \(locate\.margin_mm\)"):
        runs.train(data, tmp_path / "run", {"locate": {"margin_mm": 3.0}}, resume=True)
    shutil.move(first, tmp_path / "away")
    with pytest.raises(BundleError, match=r"^locate\.from: .* holds no bundle"):
        runs.train(data, tmp_path / "run", {}, resume=True)
    shutil.copytree(fine, first)
    with pytest.raises(RunError, match=r"^locate\.from: the model there is not the one that the run began with"):
        runs.train(data, tmp_path / "run", {}, resume=True)
    shutil.rmtree(first)
    shutil.move(tmp_path / "away", first)
    run = runs.train(data, tmp_path / "run", {}, resume=True)
    weights = [load_file(folder / "bundle/model.safetensors") for folder in (run, fine)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_sample_data(tmp_path: Path, quick: dict[str, Any]) -> None:
    """A first stage of all structures as one, and a second one of each."""
    data = shutil.copytree(shipped("sample_data/mr"), tmp_path / "data")
    description = files.read_json(data / "dataset.json")
    description["training"] = description["training"][:5]
    merged = description | {"labels": {"background": 0, "anything": [1, 2, 3]}}
    files.write_json(data / "dataset.json", merged)
    settings = {"preprocess": {"spacing_mm": (2, 2, 2)}, "sample": {"patch": (24, 24, 16)}}
    first = runs.train(data, tmp_path / "first", overrides.merge(quick, settings))
    files.write_json(data / "dataset.json", description)
    run = runs.train(data, tmp_path / "run", asked(quick, first, sample={"patch": (24, 24, 24)}))
    assert bundles.read(run / "bundle/locator").labels.names == ("anything",)
    assert len(bundles.read(run / "bundle").labels) == 3
    assert (run / "report.html").exists()
