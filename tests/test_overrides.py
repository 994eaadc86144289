from __future__ import annotations

from pathlib import Path

import pytest

from medseg.errors import ConfigError
from medseg.overrides import duration_s, merge, named, options, preset, read


def test_words_become_nested_values() -> None:
    tree = options(["train.batch=4", "train.steps=7", "model=vnet", "fold=1/5", "sample.patch=[8, 8, 8]", "cache=null"])
    assert tree == {
        "train": {"batch": 4, "steps": 7},
        "model": {"name": "vnet"},
        "fold": "1/5",
        "sample": {"patch": [8, 8, 8]},
        "cache": None,
    }


def test_a_value_may_hold_an_equals_sign() -> None:
    assert options(["cache=a=b"]) == {"cache": "a=b"}


def test_later_words_win() -> None:
    assert options(["seed=1", "seed=2"]) == {"seed": 2}


def test_merging_drops_the_options_of_another_component() -> None:
    base = {"loss": {"name": "tversky", "alpha": 0.3}, "train": {"batch": 2, "steps": 5}}
    over = {"loss": {"name": "dice"}, "train": {"batch": 3}}
    assert merge(base, over) == {"loss": {"name": "dice"}, "train": {"batch": 3, "steps": 5}}
    assert merge(base, {"loss": {"alpha": 0.5}})["loss"] == {"name": "tversky", "alpha": 0.5}


def test_names_may_stand_for_components() -> None:
    assert named({"model": "vnet", "loss": "dice", "seed": 3}) == {
        "model": {"name": "vnet"},
        "loss": {"name": "dice"},
        "seed": 3,
    }


def test_presets_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("# larger steps\nmodel: unet\ntrain: {batch: 8}\n")
    assert preset(str(path)) == {"model": {"name": "unet"}, "train": {"batch": 8}}


def test_unknown_presets() -> None:
    with pytest.raises(ConfigError, match="no preset or file 'fats'"):
        preset("fats")


@pytest.mark.parametrize("content", ["- 1\n", "just words\n", "a: [1\n", "", "\x00"])
def test_yaml_that_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml") as caught:
        preset(str(path))
    assert "\n" not in str(caught.value)


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: !!python/object/apply:os.getpid []\n")
    with pytest.raises(ConfigError, match="not readable YAML"):
        read(path)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400), ("2d", 172_800)])
def test_budgets(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "3", "soon", "-5m", "0s", "nan", "20 minutes", "inf", "1e999"])
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="90s, 20m or 2h"):
        duration_s(text)
