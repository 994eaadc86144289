from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from medseg.config import resolve
from medseg.labels import Labels
from medseg.models import create_model
from medseg.planning import plan
from medseg.planning.choices import Choice, nested
from medseg.planning.fingerprint import ChannelFacts, Fingerprint
from medseg.planning.limits import LIMITS, Device, afforded

ORGAN = Labels.of({"background": 0, "organ": 1})
PAIR = Labels.of({"background": 0, "left kidney": 1, "right kidney": 2, "aorta": 3})


def channel(name: str = "MRI", **values: float) -> ChannelFacts:
    return ChannelFacts(
        name=name, **({"mean": 120.0, "std": 30.0, "low": 40.0, "high": 220.0, "minimum": 0.0} | values)
    )


def facts(
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    shape: tuple[int, int, int] = (64, 64, 64),
    thick_spacing_mm: tuple[float, float, float] | None = None,
    channels: tuple[ChannelFacts, ...] = (channel(),),
    label_ml: float = 50.0,
) -> Fingerprint:
    return Fingerprint(
        cases=20,
        spacing_mm=spacing_mm,
        thick_spacing_mm=thick_spacing_mm or spacing_mm,
        shape=shape,
        channels=channels,
        label_ml={"organ": label_ml},
    )


CT = channel("CT", mean=60.0, std=40.0, low=-80.0, high=250.0, minimum=-1024.0)
DATASETS: dict[str, dict[str, Any]] = {
    "isotropic MR": {"found": facts()},
    "hippocampus": {"found": facts(shape=(35, 51, 35), label_ml=1.5)},
    "CT with thick slices": {"found": facts((0.8, 0.8, 5.0), (512, 512, 60), channels=(CT,))},
    "huge CT": {"found": facts((0.6, 0.6, 0.8), (512, 512, 900), channels=(CT,), label_ml=200.0)},
    "pictures": {"found": facts((1.0, 1.0, 1.0), (512, 384, 1))},
    "tiny scans": {"found": facts(shape=(6, 5, 7), label_ml=0.02)},
    "slices of volumes": {"found": facts((0.9, 0.9, 4.0), (256, 256, 30)), "dims": "2"},
    "coronal slices of volumes": {"found": facts((0.9, 4.0, 0.9), (256, 30, 256)), "dims": "2"},
    "left and right": {"found": facts((1.5, 1.5, 1.5), (200, 200, 100)), "labels": PAIR},
    "two channels": {"found": facts(channels=(channel("T1"), channel("T2")))},
    "a few slices": {"found": facts((0.5, 0.5, 8.0), (300, 300, 3))},
    "20 minutes": {"found": facts(shape=(200, 200, 200)), "budget_s": 20 * 60},
    "10 seconds": {"found": facts(shape=(200, 200, 200)), "budget_s": 10},
}


def made(device: Device, budget_s: float | None = None, **arguments: Any) -> tuple[Choice, ...]:
    return plan(limits=afforded(device, 2, budget_s), **arguments)


def planned(name: str, device: str = "cpu") -> dict[str, Any]:
    arguments = {"labels": ORGAN} | DATASETS[name]
    return {choice.name: choice.value for choice in made(device, **arguments)}


def reasons(name: str) -> dict[str, str]:
    arguments = {"labels": ORGAN} | DATASETS[name]
    return {choice.name: choice.reason for choice in made("cpu", **arguments)}


# --- whatever the dataset


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("name", DATASETS)
def test_a_plan_makes_a_network_that_takes_the_planned_patch(name: str, device: str) -> None:
    arguments = {"labels": ORGAN} | DATASETS[name]
    choices = made(device, **arguments)
    config = resolve(nested(choices), {})  # every choice is a known setting of the right type
    patch, labels = config.sample.patch, arguments["labels"]
    flat = patch[2] == 1
    with torch.device("meta"):
        network = create_model(
            config.model,
            spatial_dims=2 if flat else 3,
            in_channels=len(config.preprocess.intensity),
            out_channels=labels.channels,
        )
        image = torch.empty(1, len(config.preprocess.intensity), *patch[: 2 if flat else 3])
        output = network(image)
    assert getattr(output, "logits", output).shape == (1, labels.channels, *image.shape[2:])
    assert config.inference.window == patch


@pytest.mark.parametrize("name", DATASETS)
def test_plans_are_deterministic_and_give_reasons(name: str) -> None:
    arguments = {"labels": ORGAN} | DATASETS[name]
    first, second = (made("cpu", **arguments) for _ in range(2))
    assert first == second
    assert all(len(choice.reason.split()) >= 2 and "\n" not in choice.reason for choice in first)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("name", DATASETS)
def test_plans_keep_to_the_device(name: str, device: str) -> None:
    limits, values = LIMITS[device], planned(name, device)
    patch = values["sample.patch"]
    most = limits.slice_voxels if patch[2] == 1 else limits.patch_voxels
    assert math.prod(patch) <= 1.6 * most  # rounded up to what the strides divide
    assert values["train.batch"] >= 2
    assert max(values["model.widths"]) <= limits.widest


@pytest.mark.parametrize("name", DATASETS)
def test_networks_stop_where_nothing_is_left_to_halve(name: str) -> None:
    values = planned(name)
    dims = 2 if values["sample.patch"][2] == 1 else 3
    left = np.array(values["sample.patch"][:dims]) / np.prod(values["model.strides"], axis=0)
    assert (left >= 1).all()
    counts = {len(values[f"model.{part}"]) for part in ("strides", "kernels", "widths", "blocks")}
    assert len(counts) == 1
    assert min(counts) >= 2
    assert all(k in (1, 3) for kernel in values["model.kernels"] for k in kernel)


# --- each


def test_isotropic_mr() -> None:
    values = planned("isotropic MR")
    assert values["preprocess.orientation"] == "RAS"
    assert values["preprocess.spacing_mm"] == (1.0, 1.0, 1.0)
    assert values["preprocess.intensity"] == ({"kind": "z_score"},)
    assert values["sample.patch"] == (64, 64, 64)
    assert set(values["model.kernels"]) == {(3, 3, 3)}
    assert values["augment.mirror_axes"] == values["inference.mirror_axes"] == (0, 1, 2)
    assert values["augment.bias_p"] > 0


def test_a_cpu_starts_at_half_resolution_and_a_gpu_at_full() -> None:
    assert planned("isotropic MR")["model.strides"][0] == (2, 2, 2)
    assert planned("isotropic MR", "gpu")["model.strides"][0] == (1, 1, 1)
    assert "half resolution" in reasons("isotropic MR")["model.strides"]


def test_thick_slices_are_kept_and_not_mixed_with_fine_pixels() -> None:
    values = planned("CT with thick slices")
    spacing = values["preprocess.spacing_mm"]
    assert spacing[2] == 5.0
    assert spacing[0] == spacing[1] >= 0.8
    assert values["model.strides"][0] == (2, 2, 1)
    assert values["model.kernels"][0] == (3, 3, 1)
    assert values["model.kernels"][-1] == (3, 3, 3)  # once pixels are as large as slices are thick
    patch = values["sample.patch"]
    assert patch[0] == patch[1] > patch[2]
    assert "10th percentile" in reasons("CT with thick slices")["preprocess.spacing_mm"]


def test_thick_slices_of_many_kinds_take_the_finer_ones() -> None:
    found = facts((1.0, 1.0, 6.0), (200, 200, 40), thick_spacing_mm=(0.9, 0.9, 3.0))
    spacing = next(c.value for c in plan(found, ORGAN, afforded("gpu")) if c.name == "preprocess.spacing_mm")
    assert spacing == (1.0, 1.0, 3.0)


def test_a_huge_scan_is_made_coarser_and_small_structures_keep_their_voxels() -> None:
    spacing = planned("huge CT")["preprocess.spacing_mm"]
    assert spacing[0] == spacing[1] == spacing[2] > 0.8
    voxels = np.prod(np.array((512, 512, 900)) * (0.6, 0.6, 0.8) / np.array(spacing))
    assert voxels == pytest.approx(LIMITS["cpu"].case_voxels, rel=0.2)
    assert "coarsened" in reasons("huge CT")["preprocess.spacing_mm"]
    small = facts((0.6, 0.6, 0.8), (512, 512, 900), label_ml=0.2)
    fine = next(c.value for c in plan(small, ORGAN, afforded("cpu")) if c.name == "preprocess.spacing_mm")
    assert 200 / np.prod(fine) <= 200 / 0.95  # 0.2 ml keep 190 voxels or more
    assert 0.2e3 / np.prod(fine) >= 190


def test_huge_scans_stay_as_they_are_for_tiny_structures() -> None:
    found = facts((0.6, 0.6, 0.8), (512, 512, 900), label_ml=0.01)
    assert next(c.value for c in plan(found, ORGAN, afforded("cpu")) if c.name == "preprocess.spacing_mm") == (
        0.6,
        0.6,
        0.8,
    )


def test_pictures_are_learned_in_2d() -> None:
    values = planned("pictures")
    assert values["sample.patch"][2] == 1
    assert values["preprocess.orientation"] == "RAS"
    assert all(len(stride) == 2 for stride in values["model.strides"])
    assert values["augment.mirror_axes"] == (0, 1)


def test_slices_lie_across_the_thick_axis() -> None:
    assert planned("slices of volumes")["preprocess.orientation"] == "RAS"
    values = planned("coronal slices of volumes")
    assert values["preprocess.orientation"] == "RSA"
    assert values["preprocess.spacing_mm"] == (0.9, 0.9, 4.0)
    assert planned("a few slices")["sample.patch"][2] == 1


def test_volumes_stay_volumes_unless_asked() -> None:
    found = DATASETS["slices of volumes"]["found"]
    assert all(n > 1 for c in plan(found, ORGAN, afforded("cpu"), "3") if c.name == "sample.patch" for n in c.value)
    assert all(n > 1 for c in plan(found, ORGAN, afforded("cpu"), "auto") if c.name == "sample.patch" for n in c.value)


def test_sides_are_not_mirrored_into_each_other() -> None:
    values = planned("left and right")
    assert values["augment.mirror_axes"] == values["inference.mirror_axes"] == (1, 2)
    assert "'left kidney' and 'right kidney'" in reasons("left and right")["augment.mirror_axes"]


def test_sides_are_found_wherever_the_orientation_puts_them() -> None:
    found = facts((4.0, 0.9, 0.9), (30, 256, 256))  # sagittal slices: left to right is across them
    values = {c.name: c.value for c in plan(found, PAIR, afforded("cpu"), "2")}
    assert values["preprocess.orientation"] == "ASR"
    assert values["augment.mirror_axes"] == (0, 1)


def test_a_short_budget_gets_smaller_steps() -> None:
    short, long = planned("10 seconds"), planned("20 minutes")
    steps = [math.prod(v["sample.patch"]) * v["train.batch"] for v in (short, long)]
    assert steps[0] < steps[1]
    assert math.prod(short["sample.patch"]) >= 32**3


# --- intensity


def intensity(*channels: ChannelFacts) -> tuple[tuple[dict[str, Any], ...], str]:
    choice = next(c for c in plan(facts(channels=channels), ORGAN, afforded("cpu")) if c.name == "preprocess.intensity")
    return choice.value, choice.reason


def test_ct_is_clipped_to_what_structures_hold() -> None:
    (value,), reason = intensity(CT)
    assert value == {"kind": "clip", "low": -80.0, "high": 250.0, "mean": 60.0, "std": 40.0}
    assert "the dataset says" in reason
    assert planned("huge CT")["augment.bias_p"] == 0


def test_structures_of_one_value_do_not_divide_by_zero() -> None:
    (value,), _ = intensity(CT.model_copy(update={"std": 0.0}))
    assert value["std"] > 0


def test_what_the_dataset_calls_mr_is_never_taken_for_ct() -> None:
    (value,), reason = intensity(CT.model_copy(update={"name": "MRI"}))
    assert value == {"kind": "z_score"}
    assert "no absolute unit" in reason


@pytest.mark.parametrize("name", ["", "channel 0", "image"])
def test_an_unnamed_channel_is_judged_by_its_numbers_which_are_shown(name: str) -> None:
    (value,), reason = intensity(CT.model_copy(update={"name": name}))
    assert value["kind"] == "clip"
    assert "taken for CT" in reason
    assert all(number in reason for number in ("-1024", "-80", "250"))
    (value,), reason = intensity(channel(name))
    assert value == {"kind": "z_score"}
    assert "not taken for CT" in reason
    assert all(number in reason for number in ("0", "40", "220"))


def test_each_channel_has_its_own_rule() -> None:
    values, reason = intensity(CT, channel("PET"))
    assert [value["kind"] for value in values] == ["clip", "z_score"]
    assert "CT" in reason
    assert "PET" in reason


def test_choices_become_settings() -> None:
    tree = nested(plan(facts(), ORGAN, afforded("cpu")))
    assert tree["sample"]["patch"] == tree["inference"]["window"]
    assert tree["train"]["batch"] >= 2


def test_the_plan_is_made_on_the_grid_that_is_asked_for() -> None:
    """A scan of 205 x 205 x 150 mm at 4 mm: the whole of it is one patch, and nothing around it."""
    arguments = {"found": facts((0.8, 0.8, 1.0), (256, 256, 150), channels=(CT,)), "labels": ORGAN}
    plain, coarse = (
        {choice.name: choice.value for choice in made("cpu", **arguments, **more)}
        for more in ({}, {"spacing_mm": (4.0, 4.0, None)})
    )
    assert plain["sample.patch"] == (96, 96, 96)
    assert coarse["preprocess.spacing_mm"] == (4.0, 4.0, plain["preprocess.spacing_mm"][2])
    assert coarse["sample.patch"][:2] == (56, 56)  # 51 voxels, rounded up
    assert coarse["model.kernels"][0] == (1, 1, 3)  # those along k are finer by far


def test_the_plan_knows_the_orientation_that_is_asked_for() -> None:
    """Sides are not mirrored, whichever axis runs between them."""
    sides = Labels.of({"kidney_left": 1, "kidney_right": 2})
    found = facts((1.0, 1.0, 4.0), (200, 180, 40))
    chosen = {c.name: c.value for c in plan(found, sides, afforded("cpu"), orientation="SPL")}
    assert chosen["preprocess.orientation"] == "SPL"
    assert chosen["preprocess.spacing_mm"][0] == 4.0
    assert chosen["augment.mirror_axes"] == chosen["inference.mirror_axes"] == (0, 1)
