"""The recipes of papers are valid, and a dataset can be planned with each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from medseg import config, overrides
from medseg.training.study import settle

FOLDER = Path(__file__).parents[1] / "configs/papers"
PAPERS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
TABLE: dict[str, tuple[int | None, float | None, float | None, float | None]] = {
    "fcn": (20, 1e-4, 0.9, 5e-4),
    "deeplab_v1": (20, 1e-3, 0.9, 5e-4),
    "deconvnet": (None, 1e-2, 0.9, 5e-4),
    "unet": (1, None, 0.99, None),
    "dilated_net": (14, 1e-3, 0.9, None),
    "parse_net": (None, None, 0.9, None),  # its rate is of a sum
    "segnet": (12, 0.1, 0.9, None),
    "gcn": (1, None, 0.99, 5e-4),
    "pspnet": (16, 1e-2, 0.9, 1e-4),
    "fc_densenet": (None, 1e-3, None, 1e-4),
    "gated_scnn": (16, 1e-2, None, None),
    "vnet": (2, 1e-4, 0.99, None),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(tmp_path_factory.mktemp("papers") / "data")


def test_the_catalogues_are_there() -> None:
    assert set(PAPERS) == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_numbers_are_those_of_the_table(name: str) -> None:
    """Batch, rate, momentum and decay of S1, table 1, as far as it has them; V-Net's are the paper's."""
    tree = overrides.preset(f"papers/{name}")
    keys = ("learning_rate", "momentum", "weight_decay")
    found = (tree["train"]["batch"], *(tree["optim"].get(key) for key in keys))
    assert [a for a, b in zip(found, TABLE[name], strict=True) if b is not None] == [b for b in TABLE[name] if b]


@pytest.mark.parametrize("name", PAPERS)
def test_all_but_the_network_is_valid(name: str) -> None:
    tree = overrides.preset(f"papers/{name}")
    assert tree.pop("model")["name"] == name
    found = config.check(tree)
    assert found.optim.name in ("sgd", "rmsprop")
    assert found.optim.ema == found.optim.warm_up == 0
    assert found.optim.name != "sgd" or not found.optim.nesterov
    assert found.loss["name"] != "dice_ce"


@pytest.mark.parametrize("name", PAPERS)
def test_a_dataset_is_planned_with_it(name: str, data: Path) -> None:
    (study,) = settle(data, overrides.merge(overrides.preset(f"papers/{name}"), {"fold": "none"}))
    assert study.config.model["name"] == name
    assert study.config.optim.momentum == overrides.preset(f"papers/{name}")["optim"].get("momentum")
    assert study.config.spatial_dims == (3 if name == "vnet" else 2)


@pytest.mark.parametrize("name", PAPERS)
def test_its_head_says_which_paper_and_how_to_use_it(name: str) -> None:
    head = [line for line in (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert "20" in head[0]
    (command,) = (line for line in head if f"-c papers/{name}" in line)
    assert ("--init" in command) == any("ImageNet" in line for line in head)
    assert yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["model"]["name"] == name
