from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg import config as configs
from medseg import resources
from medseg.config import RunConfig, check, complete, dump, resolve
from medseg.errors import ConfigError
from medseg.overrides import options, preset, read
from medseg.settings import differences

PLAN: dict[str, Any] = {
    "sample": {"patch": (32, 32, 16)},
    "inference": {"window": (32, 32, 16), "mirror_axes": (1, 2)},
    "train": {"batch": 6},
    "model": {"widths": (8, 16), "strides": (2, 2), "kernels": (3, 3), "blocks": (1, 1)},
}


def message(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        complete(check(options(words)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what a user may get wrong


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("trian.batch=3", "trian: unknown option. Did you mean 'train'?"),
        ("train.bach=3", "train.bach: unknown option. Did you mean 'batch'?"),
        ("augment.gama=[1, 2]", "augment.gama: unknown option. Did you mean 'gamma'?"),
        ("preprocess.intensity=[{knd: clip}]", "preprocess.intensity.0.knd: unknown option. Did you mean 'kind'?"),
        ("zzz=3", "zzz: unknown option. Known: augment, cache,"),
        ("model=unnet", "unknown model 'unnet'. Did you mean 'unet'?"),
        ("model=zzz", "unknown model 'zzz'. Known: "),
        ("model.widhts=[1]", "model.widhts: unknown option of 'unet'. Did you mean 'widths'?"),
        ("model.preset=tinny", "unknown preset 'tinny' of model 'unet'. Did you mean 'tiny'?"),
        ("loss=dise", "unknown loss 'dise'. Did you mean 'dice'?"),
        ("loss.smoth=1", "loss.smoth: unknown option. Did you mean 'smooth'?"),
        ("distill.form=x", "distill.form: unknown option. Did you mean 'from'?"),
        ("distill.source=x", "distill.source: unknown option. Known: from, temperature, weight."),
        ("distill.from=3", "distill.from: expected a text, got 3"),
        ("distill.temperature=0", "distill.temperature: expected a number greater than 0, got 0"),
        ("distill=runs/mine", "distill: expected names and values, got 'runs/mine'"),
        ("prune.keep=1.5", "prune.keep: expected a number less than or equal to 1, got 1.5"),
        ("prune.keep=0", "prune.keep: expected a number greater than 0, got 0"),
        ("seed=x", "seed: expected a whole number, got 'x'"),
        ("seed=1.5", "seed: expected a whole number, got 1.5"),
        ("seed=-1", "seed: expected a number greater than or equal to 0, got -1"),
        ("train.steps=0", "train.steps: expected a number greater than or equal to 1, got 0"),
        ("optim.learning_rate=fast", "optim.learning_rate: expected a number, got 'fast'"),
        ("optim.name=adam", "optim.name: expected 'muon', 'adamw', 'sgd' or 'rmsprop', got 'adam'"),
        ("train.tensorboard=maybe", "train.tensorboard: expected true or false, got 'maybe'"),
        ("train=3", "train: expected names and values, got 3"),
        ("model=3", "model: expected names and values, such as model.name=unet; got 3"),
        ("sample=[1]", "sample: expected names and values"),
        ("inference=2", "inference: expected names and values"),
        ("loss=[1]", "loss: expected names and values"),
        ("loss=[]", "loss: expected a name, names and values, or a list of them; got "),
        ("loss=[dice, boundry]", "unknown loss 'boundry'. Did you mean 'boundary'?"),
        ("loss=[{name: dice, weigth: 2}]", "loss.weigth: unknown option."),
        ("loss=[{name: dice, weight: {from: 1}}]", "loss.weight.to: a value is missing"),
        ("sample.patch=24", "sample.patch: expected a list, such as [1, 2, 3], got 24"),
        ("sample.patch=[0, 8, 8]", "sample.patch.0: expected a number greater than 0, got 0"),
        ("augment.gamma=[1, 2, 3]", "augment.gamma: expected 2 values, got [1, 2, 3]"),
        ("inference.overlap=1", "inference.overlap: expected a number less than 1, got 1"),
        ("fold=5/5", "fold: expected i/n with i from 0 to n-1, such as 0/5, or all, all/n, none; got '5/5'"),
        ("fold=all/1", "fold: expected i/n"),
        ("fold=3", "fold: expected i/n"),
        ("fold=every", "fold: expected i/n"),
        ("dims=4", "dims: expected 'auto', '2' or '3', got '4'"),
        ("train.batch", "an option is written key=value, for instance train.batch=4; got 'train.batch'"),
        ("=3", "an option is written key=value"),
        ("seed=[3", "the value of 'seed' is not YAML: '[3'"),
    ],
)
def test_every_mistake_says_what_was_expected_and_what_came(word: str, expected: str) -> None:
    assert message(word).startswith(expected)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("sample.patch=24", "sample.patch: expected a list, such as [1, 2, 3], got 24"),
        ("model.strides=[0, 2, 2, 2]", "model.strides.0: expected a number greater than or equal to 1, got 0"),
        (
            "model.kernels=[[3, -1, 3], 3, 3, 3]",
            "model.kernels.0.1: expected a number greater than or equal to 1, got -1",
        ),
        ("model.strides=[x, 2, 2, 2]", "model.strides.0: expected a whole number, got 'x'"),
        ("model.widths=[0, 8, 8, 8]", "model.widths.0: expected a number greater than or equal to 1, got 0"),
        ("model.widths=[]", "model.widths: expected one item at least, got none"),
    ],
)
def test_one_mistake_is_told_once(word: str, expected: str) -> None:
    assert message(word) == expected


def test_all_mistakes_are_told_at_once() -> None:
    said = message("seed=x", "train.bach=3", "optim.name=adam")
    assert all(part in said for part in ("seed: ", "train.bach: ", "optim.name: "))


@pytest.mark.parametrize("fold", ["0/5", "4/5", "all", "all/3", "none"])
def test_folds(fold: str) -> None:
    assert check({"fold": fold}).fold == fold


@pytest.mark.parametrize("dims", ["2", "3", "auto"])
def test_dims_as_typed_on_a_command_line(dims: str) -> None:
    assert check(options([f"dims={dims}"])).dims == dims


# --- where values come from


def test_defaults_give_way_to_the_plan_and_the_plan_to_the_user() -> None:
    assert RunConfig.model_fields["seed"].default == resolve(PLAN, {}).seed == 0
    planned = resolve(PLAN, {})
    assert planned.train.batch == 6
    assert planned.model["widths"] == (8, 16)
    asked = resolve(PLAN, {"train": {"batch": 3}, "model": {"widths": (4, 4)}})
    assert asked.train.batch == 3
    assert asked.model["widths"] == (4, 4)
    assert asked.model["strides"] == (2, 2)


def test_the_window_follows_the_patch_unless_asked() -> None:
    assert resolve(PLAN, {"sample": {"patch": (16, 16, 16)}}).inference.window == (16, 16, 16)
    assert resolve(PLAN, {"inference": {"window": (64, 64, 64)}}).inference.window == (64, 64, 64)
    assert resolve(PLAN, {"inference": {"overlap": 0.2}}).inference.mirror_axes == (1, 2)


@pytest.mark.parametrize("model", [{"name": "vnet"}, {"preset": "tiny"}, {"name": "unet", "preset": "paper"}])
def test_another_model_or_a_preset_takes_nothing_from_the_plan(model: dict[str, Any]) -> None:
    assert resolve(PLAN, {"model": model}).model == {"name": "unet"} | model


def test_test_time_flips_are_those_of_training_unless_asked() -> None:
    assert resolve(PLAN, {"augment": {"mirror_axes": (2,)}}).inference.mirror_axes == (2,)
    assert resolve(PLAN, {"augment": {"noise_p": 0.5}}).inference.mirror_axes == (1, 2)
    asked = {"augment": {"mirror_axes": ()}, "inference": {"mirror_axes": (0,)}}
    assert resolve(PLAN, asked).inference.mirror_axes == (0,)


@pytest.mark.parametrize(
    ("patch", "window"), [((64, 64, 1), (64, 64, 8)), ((16, 16, 16), (64, 64, 1)), (None, (64, 64, 1))]
)
def test_slices_and_volumes_are_not_mixed(patch: Any, window: Any) -> None:
    sample = {"sample": {"patch": patch}} if patch else {}
    with pytest.raises(ConfigError, match=r"sample\.patch=.* and inference\.window=.*or neither"):
        complete(resolve(PLAN, sample | {"inference": {"window": window}}))


def test_slices_and_their_windows() -> None:
    for user in ({"sample": {"patch": (64, 64, 1)}}, {"inference": {"window": (64, 64, 1)}}):
        assert check(user).inference.window == (64, 64, 1)  # of the second, only the plan knows the patch
    assert complete(resolve(PLAN, {"sample": {"patch": (64, 64, 1)}})).inference.window == (64, 64, 1)


def test_a_window_that_was_asked_for_survives_the_way_through_a_file() -> None:
    asked = resolve(PLAN, {"inference": {"window": (64, 64, 64)}})
    assert resolve(asked.model_dump(), {}).inference.window == (64, 64, 64)


def test_a_plan_is_not_changed_by_its_use() -> None:
    before = repr(PLAN)
    resolve(PLAN, {"sample": {"patch": (8, 8, 8)}, "model": {"name": "vnet"}})
    assert repr(PLAN) == before


def test_a_complete_configuration_is_its_own_and_a_short_one_means_the_same() -> None:
    """So that a run may be resumed with what the user typed, or with nothing."""
    user = {"model": {"preset": "tiny"}, "loss": {"name": "tversky"}}
    whole = complete(resolve(PLAN, user))
    assert {"widths", "norm", "deep_supervision"} <= whole.model.keys()
    assert "preset" not in whole.model
    assert len(whole.loss) > 1
    stored = yaml.safe_load(dump(whole))
    for again in ({}, user, {"model": {"name": "unet"}}):
        assert differences(whole, complete(resolve(stored, again))) == []
    assert "model.widths" in differences(whole, complete(resolve(stored, {"model": {"preset": "paper"}})))


def test_a_sum_of_losses(tmp_path: Path) -> None:
    """From the command line and from a file, complete, and again from what was stored."""
    words = ["loss=[dice, {name: boundary, weight: {from: 0.01, to: 1, over: 0.8}}]"]
    whole = complete(resolve(PLAN, options(words)))
    dice, boundary = whole.loss
    assert dice["weight"] == 1
    assert dice["smooth"] == 1e-5
    assert boundary["weight"] == {"from": 0.01, "to": 1, "over": 0.8}
    (tmp_path / "config.yaml").write_text(dump(whole))
    for again in ({}, options(words)):
        assert differences(whole, complete(resolve(read(tmp_path / "config.yaml"), again))) == []
    assert complete(resolve(read(tmp_path / "config.yaml"), {"loss": {"name": "dice"}})).loss["name"] == "dice"


# --- files


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = resolve(PLAN, {"modality": "CT", "loss": {"name": "tversky"}, "optim": {"ema": 0.5}})
    (tmp_path / "config.yaml").write_text(dump(config))
    assert differences(config, resolve(read(tmp_path / "config.yaml"), {})) == []


def test_a_word_of_python_is_kept_in_files(tmp_path: Path) -> None:
    config = resolve(PLAN, options(["distill.from=runs/large", "prune.from=runs/other"]))
    assert (config.distill.source, config.prune.source) == ("runs/large", "runs/other")
    (tmp_path / "config.yaml").write_text(dump(config))
    tree = read(tmp_path / "config.yaml")
    assert tree["distill"]["from"] == "runs/large"
    assert differences(config, resolve(tree, {})) == []
    assert differences(config, resolve(tree, {"prune": {"from": "elsewhere"}})) == ["prune.from"]


def test_differences_are_named() -> None:
    a, b = resolve(PLAN, {}), resolve(PLAN, {"seed": 4, "model": {"widths": (8, 17)}, "sample": {"foreground": 0.1}})
    assert differences(a, b) == ["seed", "sample.foreground", "model.widths"]


def test_shipped_presets_are_valid() -> None:
    for path in resources.shipped("configs").glob("*.yaml"):
        assert check(preset(path.stem)), path.name
        assert path.read_text().startswith("#"), f"{path.name} does not say why"


def test_every_setting_is_documented() -> None:
    text = configs.RunConfig.__doc__ or ""
    stages = {"preprocess", "sample", "augment", "optim", "train", "inference"}
    for name in set(RunConfig.model_fields) - stages:
        assert name in text
    assert yaml.safe_load(dump(resolve(PLAN, {})))["train"]["batch"] == 6


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({}, "measured"),
        ({"inference": {"overlap": 0.3}}, "planned"),
        ({"inference": {"window": (8, 8, 8)}}, "planned"),
        ({"inference": {"batch": 2}}, "measured"),
        ({"inference": {"overlap": 0.3}, "windows": "measured"}, "measured"),
    ],
)
def test_windows_that_the_user_sets_are_not_measured(user: dict[str, Any], expected: str) -> None:
    assert configs.check(user).windows == expected
