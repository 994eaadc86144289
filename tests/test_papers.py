"""The recipes of papers are valid, and a dataset can be planned with each whose network there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from medseg import config, models
from medseg.study import settle

FOLDER = Path(__file__).parents[1] / "configs/papers"
PAPERS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
THERE = [name for name in PAPERS if name in models.names()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(tmp_path_factory.mktemp("papers") / "data")


def test_the_catalogues_are_there() -> None:
    rows = "fcn deeplab_v1 deconvnet unet dilated_net parse_net segnet gcn pspnet fc_densenet gated_scnn vnet"
    assert set(PAPERS) == set(rows.split())


@pytest.mark.parametrize("name", PAPERS)
def test_all_but_the_network_is_valid(name: str) -> None:
    tree = config.preset(f"papers/{name}")
    assert tree.pop("model")["name"] == name
    found = config.check(tree)
    assert found.optim.name in ("sgd", "rmsprop")
    assert found.optim.ema == found.optim.warm_up == 0
    assert found.loss["name"] != "dice_ce"


@pytest.mark.parametrize("name", THERE)
def test_a_dataset_is_planned_with_it(name: str, data: Path) -> None:
    (study,) = settle(data, config.merge(config.preset(f"papers/{name}"), {"fold": "none"}))
    assert study.config.model["name"] == name
    assert study.config.optim.momentum == config.preset(f"papers/{name}")["optim"].get("momentum")
    assert study.spatial_dims == (3 if name == "vnet" else 2)


@pytest.mark.parametrize("name", PAPERS)
def test_its_head_says_which_paper_and_how_to_use_it(name: str) -> None:
    head = [line for line in (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert "20" in head[0]
    assert any(f"-c papers/{name}" in line for line in head)
    assert yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["model"]["name"] == name
