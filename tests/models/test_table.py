"""What is said of the architectures: the list, one of them, and docs/models.md."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medseg import models
from medseg.errors import ConfigError
from medseg.models import _counting, _table

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
ONE = "medseg models --page > docs/models.md writes it anew"


def words(line):
    """A row without its six counts."""
    cells = [cell.strip() for cell in line.strip("| ").split("|")]
    return cells[:4] + cells[10:]


@pytest.mark.parametrize("row", models.list_models(), ids=lambda row: row.name)
def test_the_page_has_the_words_of_each(row, monkeypatch):
    monkeypatch.setattr(_table, "_costs", lambda *_: ("1", "1", "1"))
    assert words(_table.line(row)) in [words(line) for line in PAGE.splitlines() if line.startswith("|")], ONE


@pytest.mark.zoo
def test_the_page_has_the_counts_of_each():
    assert _table.page() == PAGE, ONE


def test_the_page_has_no_others(monkeypatch):
    monkeypatch.setattr(_table, "line", lambda row: f"| `{row.name}` |")
    rows = [text for text in PAGE.splitlines() if text.startswith("| `")]
    assert [text.split("`")[1] for text in rows] == list(models.names())
    before = _table.page().partition("| `")[0]
    assert PAGE.startswith(before), ONE


def test_telling_of_them_loads_no_torch():
    code = "import sys; from medseg import models; print(len(models.list_models(3))); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_a_docstring_is_read():
    row = models.about("fcn")
    assert (row.family, row.year, row.authors, row.dims) == ("fcn", 2015, "Long et al.", (2, 3))
    assert row.presets["32s"] == "scores of stride 32 alone."
    with pytest.raises(ConfigError, match=r"unknown model 'segnit'\. Did you mean 'segnet'"):
        models.about("segnit")


def test_a_model_without_volumes_says_so(monkeypatch):
    module = models._module("pspnet")
    monkeypatch.setattr(module, "__doc__", "Flat.\n\nDims: 2\n")
    with pytest.raises(ConfigError, match="'pspnet' is made for 2D alone, got spatial_dims=3"):
        models.create_model("pspnet", spatial_dims=3, in_channels=1, out_channels=2)


@pytest.mark.parametrize(
    ("model", "ability"),
    [
        ({"name": "segnet"}, "ONNX"),
        ({"name": "icnet"}, "strategy=fsdp"),
        ({"name": "crf_rnn", "model": {"name": "icnet"}}, "strategy=fsdp"),
    ],
)
def test_what_an_architecture_is_without_is_said(model, ability):
    models.require({"name": "unet"}, ability, "")
    models.require({"name": "my.own"}, ability, "")
    name = model.get("model", model)["name"]
    with pytest.raises(ConfigError, match=rf"^model '{name}' is without {ability} \(.+\)\. Do something else\.$"):
        models.require(model, ability, "Do something else.")


def test_costs_of_two_layers_by_hand():
    def make():
        return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Sigmoid(), torch.nn.Conv2d(4, 2, 1))

    found = _counting.cost(make, (1, 10, 20))
    assert found.parameters == _counting.parameters(make) == 4 * 9 + 4 + 2 * 4 + 2
    assert found.multiply_adds == 200 * (4 * 9 + 2 * 4)
    assert found.kept_bytes == 4 * 200 * 4  # the sigmoid's answer, which the last convolution needs too


def test_the_list_and_one_of_it():
    listed = _table.overview(2).splitlines()
    assert any(row.startswith("pspnet") and "Zhao et al. 2017" in row and "46.5" in row for row in listed)
    told = _table.presets("vnet", 3)
    assert "65.18" in told
    assert "Milletari, Navab, Ahmadi 2016" in told
    with pytest.raises(ConfigError, match="expected 2 or 3, got 4"):
        _table.overview(4)
