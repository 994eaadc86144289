"""Presets parse, hold only what differs from the defaults, and say why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from medseg import config, models, overrides

FOLDER = Path(__file__).parents[1] / "configs"
PRESETS = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def test_the_general_ones_are_there() -> None:
    assert {"fast", "balanced", "accurate"} <= set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_it_is_a_valid_configuration(name: str) -> None:
    checked = config.check(overrides.preset(name))
    with torch.device("meta"):  # shapes alone: some have tens of millions of weights
        models.create_model(checked.model, spatial_dims=3, in_channels=1, out_channels=2)


@pytest.mark.parametrize("name", PRESETS)
def test_it_holds_only_what_differs_from_the_defaults(name: str) -> None:
    default = config.check({}).model_dump(mode="json")
    for path, value in leaves(overrides.preset(name)):
        found: Any = default
        for part in path:
            found = found.get(part)
        assert path == ("model", "name") or found != value, f"{'.'.join(path)} is {value} anyway"


@pytest.mark.parametrize("name", PRESETS)
def test_every_line_says_why(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    settings = [number for number, line in enumerate(lines) if yaml.safe_load(line) and not line.endswith(":")]
    settings = [number for number in settings if "name:" not in lines[number]]  # the first line says why
    assert settings
    assert all("#" in lines[number] or lines[number - 1].lstrip().startswith("#") for number in settings)


def test_the_command_line_wins_over_a_preset() -> None:
    tree = overrides.merge(overrides.preset("fast"), {"train": {"budget_s": 60}})
    assert tree["train"]["budget_s"] == 60
    assert tree["train"]["validations"] == overrides.preset("fast")["train"]["validations"]
