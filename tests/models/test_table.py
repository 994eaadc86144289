"""What is said of the architectures: the list, one of them, and docs/models.md."""

import re
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


@pytest.mark.parametrize("code", ["print(len(models.list_models(3)))", "print(models._table.overview(3))"])
def test_telling_of_them_loads_no_torch(code):
    code = (
        f"import sys; from medseg import models; import medseg.models._table; {code}; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_a_docstring_is_read():
    row = models.about("fcn")
    assert (row.family, row.year, row.author, row.dims) == ("fcn", 2015, "Long", (2, 3))
    assert row.presets["32s"] == "scores of stride 32 alone."
    with pytest.raises(ConfigError, match=r"unknown model 'segnit'\. Did you mean 'segnet'"):
        models.about("segnit")


ENDS = re.compile(r"for (\d+) channels? and (\d+) class(?:es)? in ([23])D")
COUNT = re.compile(r"(with the auxiliary head )?(\d{1,3}(?:,\d{3})+)(?=,? (?:parameters|which)|[.;]|$)")


def counted():
    """Of presets whose docstring has an exact number of parameters: the model with that preset, its ends, and the number.

    Where a preset does not say how many channels and classes, they are those of the first one that does.
    """
    for row in models.list_models():
        ends = next(filter(None, map(ENDS.search, row.presets.values())), None)
        for preset, text in row.presets.items():
            if ends and (found := COUNT.search(text)) and "not counted" not in text:
                inputs, outputs, dims = map(int, (ENDS.search(text) or ends).groups())
                options = {"aux": True} if found[1] else {}
                yield row.name, {"preset": preset, **options}, (dims, inputs, outputs), int(found[2].replace(",", ""))


@pytest.mark.parametrize(("name", "options", "ends", "count"), list(counted()), ids=str)
def test_what_a_docstring_counts_is_true(name, options, ends, count):
    dims, inputs, outputs = ends
    found = models.parameters(name, spatial_dims=dims, in_channels=inputs, out_channels=outputs, **options)
    assert found == count


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
    row = next(row for row in listed if row.startswith("pspnet"))
    assert re.split(r"\s{2,}", row)[1:3] == ["Zhao 2017", "dilated"]
    assert row.split()[4:] == ["2", "3", "46.6", "44.2", "261", "resnet50,", "resnet101,", "tiny"]
    assert "D, one input of 256x256" in " ".join(listed[-3:])
    told = _table.presets("vnet", 3)
    assert "65.18" in told
    assert "Milletari, Navab, Ahmadi 2016" in told
    with pytest.raises(ConfigError, match="expected 2 or 3, got 4"):
        _table.overview(4)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_list_counts_as_the_networks_do(dims):
    cost = models.cost("unet", spatial_dims=dims)
    counts = [cost.parameters / 1e6, cost.multiply_adds / 1e9, cost.kept_bytes / 2**20]
    row = next(row for row in _table.overview(dims).splitlines() if row.startswith("unet "))
    assert [float(cell) for cell in row.split()[6:9]] == pytest.approx(counts, rel=0.05)


@pytest.mark.parametrize("width", [80, 120])
def test_the_list_fits_a_terminal(width):
    whole, fitted = (_table.overview(3, width).splitlines() for width in (0, width))
    assert max(map(len, fitted)) <= width < max(map(len, whole))
    assert [row[:80].rstrip() for row in whole[: len(models.names())]] == [
        row[:80].rstrip() for row in fitted[: len(models.names())]
    ]
    assert ("tiny" in fitted[2]) == (width == 120)


def test_a_network_that_the_page_does_not_have_yet_is_counted(monkeypatch):
    monkeypatch.setattr(_table, "_counted", lambda dims: {name: ["1", "1", "1"] for name in models.names()[:-1]})
    row = _table.overview(2).splitlines()[len(models.names())]
    assert row.split()[:7] == ["wide_resnet38", "Wu", "2016", "dilated", "2", "3", "124"]


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(_table, "find_spec", lambda name: None)
    assert _table.overview(3).splitlines()[-1].startswith("not here without monai: dints, dyn_unet, ")
