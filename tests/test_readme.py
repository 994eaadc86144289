"""What README.md and the pages of docs/ say is true: commands exist, links lead somewhere, and the whole way works."""

from __future__ import annotations

import logging
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import medseg
from medseg import api, cli, config, models, overrides
from medseg.resources import shipped

ROOT = Path(__file__).parents[1]
NAMES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/index.md",
    "docs/export.md",
    "docs/dicom.md",
    "docs/dicom_objects.md",
    "docs/formats.md",
    "docs/large.md",
    "docs/losses.md",
    "docs/metrics.md",
    "docs/models.md",
    "docs/small_models.md",
)
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
README = PAGES["README.md"]
SETUP = ("pip install -e . && medseg demo", 'pip install -e ".[test]" && pytest')


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Every command of the bash blocks, as words, without comments."""
    lines = "\n".join(blocks(text, "bash")).splitlines()
    split = [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]
    return [words for words in split if words]


STARTS = ("medseg", "torchrun")
ALL = [words for page in PAGES.values() for words in commands(page) if words[0] in STARTS]
MEDSEG = list(dict.fromkeys(tuple(words[words.index("medseg") :]) for words in ALL))


def test_the_two_commands_of_a_newcomer_are_there_to_the_letter() -> None:
    lines = "\n".join(blocks(README, "bash")).splitlines()
    assert set(SETUP) <= set(lines)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "test" in extras


@pytest.mark.parametrize("words", MEDSEG, ids=" ".join)
def test_commands_and_options_exist(words: tuple[str, ...]) -> None:
    group: Any = typer.main.get_command(cli.app)
    name, *rest = words[1:]
    command = group.commands[name]
    with command.make_context(name, list(rest)) as context:
        given = context.params
    config.check(overrides.options(given.get("settings") or []))
    if given.get("config"):
        assert overrides.preset(given["config"])
    if given.get("budget"):
        assert overrides.duration_s(given["budget"]) > 0


@pytest.mark.parametrize("page", PAGES)
def test_settings_in_the_text_exist(page: str) -> None:
    prose = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    for setting in re.findall(r"`([a-z_.]+=[^`]+)`", prose):
        config.check(overrides.options([setting]))


@pytest.mark.parametrize("page", PAGES)
def test_long_options_in_the_text_exist(page: str) -> None:
    group: Any = typer.main.get_command(cli.app)
    known = {name for command in group.commands.values() for option in command.params for name in option.opts}
    named = set(re.findall(r"`(--[a-z-]+)", PAGES[page]))
    assert named - {"--debug", "--help"} <= known


def test_the_python_block_of_losses_and_the_table_of_all() -> None:
    page = PAGES["docs/losses.md"]
    for block in blocks(page, "python"):
        exec(block, {})
    rows = {line.partition("`")[2].partition("`")[0]: line for line in page.splitlines() if line.startswith("| `")}
    assert tuple(rows) == tuple(row.name for row in medseg.list_losses())
    for row in medseg.list_losses():
        texts = (row.formula, row.paper, row.equation, row.options)
        assert all(text.replace("|", "\\|") in rows[row.name] for text in texts), row.name


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGES[page])
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_the_exit_codes_are_stated() -> None:
    assert re.findall(r"^\| (\d+) \|", README, re.MULTILINE) == ["0", "2", "75", "130"]
    assert "Research use only" in README


@pytest.fixture
def speech() -> Iterator[None]:
    """The command line makes the logger talk; afterwards it is as it was."""
    logger = logging.getLogger("medseg")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1:]


def run(words: list[str], quick: dict[str, Any]) -> None:
    """A command of the page; training takes a few steps of a tiny network instead of its budget."""
    if words[1] == "train":
        at = words.index("--budget")
        words = [*words[:at], *words[at + 2 :], *quick_words(quick)]
    with pytest.raises(SystemExit) as end:
        cli.main(words[1:])
    assert end.value.code == 0, words


def quick_words(quick: dict[str, Any]) -> list[str]:
    nested = {name: value for name, value in quick.items() if isinstance(value, dict)}
    return ["--fold", quick["fold"]] + [
        f"{a}.{b}={v}".replace("(", "[").replace(")", "]") for a in nested for b, v in nested[a].items()
    ]


def test_from_pairs_of_files_to_masks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick: dict[str, Any],
    make_dataset: Callable[..., Path],
    speech: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_dataset(Path("scans"))
    Path("new_scans").symlink_to(data / "images")
    Path("references").symlink_to(data / "labels")
    check, train, predict, evaluate = commands(section("Your own scans"))
    for words in (check, train, predict, evaluate):
        run(words, quick)
    assert {path.name for path in Path("masks").glob("*.nii.gz")} == {path.name for path in data.glob("images/*")}
    assert {path.name for path in Path("masks").iterdir()} >= set(
        re.findall(r"`(\w+\.(?:csv|ctbl|txt))`", section("Your own scans"))
    )
    assert Path("compared/report.html").is_file()
    told = " ".join(re.findall(r"^\| (`.*?) \|", PAGES["docs/index.md"], re.MULTILINE))
    found = {path.name for path in Path("runs/mine").iterdir() if not path.name.startswith(".")}
    assert {name for name in found if f"`{name}`" not in told and f"`{name}/`" not in told} == set()


def test_the_commands_on_public_scans(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick: dict[str, Any],
    make_dataset: Callable[..., Path],
    speech: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_dataset(Path("Task04_Hippocampus"))
    Path("labels").symlink_to(data / "labels")
    Path("some_scan.nii.gz").symlink_to(data / "images/case_0.nii.gz")
    train, predict, evaluate = commands(section("On public scans"))
    run(train, quick)
    run(predict, quick)
    assert Path("some_mask.nii.gz").is_file()
    api.predict("runs/hippo", data / "images", "masks")
    run(evaluate, quick)
    assert Path("runs/hippo/eval/report.html").is_file()


def test_the_python_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: dict[str, Any], make_dataset: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_dataset(Path("scans"))
    Path("scan.nii.gz").symlink_to(data / "images/case_0.nii.gz")
    (block,) = blocks(README, "python")
    assert 'budget="20m"' in block
    names: dict[str, Any] = {"quick": quick}
    exec(block.replace('budget="20m"', "**quick"), names)
    assert Path("mask.nii.gz").is_file()
    assert all(isinstance(ml, float) for ml in names["prediction"].volumes_ml.values())


@pytest.mark.parametrize("dims", [2, 3])
def test_the_network_of_ones_own(own_modules: Path, dims: int) -> None:
    """The file of docs/index.md; tests/training/test_runs.py trains such a one."""
    (block,) = blocks(PAGES["docs/index.md"], "python")
    (own_modules / "lab").mkdir()
    (own_modules / "lab/nets.py").write_text(block)
    options = {"name": "lab.nets", "width": 32}
    net = models.create_model(options, spatial_dims=dims, in_channels=1, out_channels=3, dotted=True)
    assert net(torch.zeros(1, 1, *(5, 4, 7)[:dims])).shape == (1, 3, *(5, 4, 7)[:dims])


def test_the_demo_says_where_things_lie(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick: dict[str, Any],
    speech: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    trained, asked = api.train, []

    def train(data: Path, folder: Path, **settings: Any) -> Path:
        asked.append((data, settings))
        return trained(data, folder, **quick)

    monkeypatch.setattr(api, "train", train)
    run(["medseg", "demo"], quick)
    ((data, settings),) = asked
    assert data == shipped("sample_data/mr")
    assert overrides.duration_s(settings["budget"]) <= 150  # about two minutes, as the page says
    out = capsys.readouterr().out
    for line in ("medseg_demo/predictions", "medseg_demo/report.html", "medseg_demo/bundle"):
        assert line in out
        assert Path(line).exists()


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_page_of_metrics_has_every_one() -> None:
    from medseg import metrics

    told = set(re.findall(r"`(\w+)`", PAGES["docs/metrics.md"]))
    inner = {
        "MAPS",
        "MEASURES",
        "NAMES",
        "ScanScores",
        "USUAL",
        "asked",
        "betti_numbers",
        "evaluate",
        "pick",
        "scores",
        "volume_ml",
    }
    assert set(metrics.__all__) - inner <= told
    assert set(metrics.NAMES) - {"volume_ml", "reference_ml"} <= told
