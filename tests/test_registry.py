from __future__ import annotations

import sys
from pathlib import Path

import pytest

from medseg import losses, models, registry
from medseg.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "expected"),
    [("unt", "Did you mean 'unet'?"), ("zzz", "Known: unet, vnet."), ("", "Known: unet, vnet.")],
)
def test_the_nearest_name_or_all_of_them(name: str, expected: str) -> None:
    assert registry.did_you_mean(name, ["vnet", "unet"]) == expected


@pytest.mark.parametrize(("name", "expected"), [("PSPNet", "pspnet"), ("xl", "XL"), ("left Kidny", "Left kidney")])
def test_case_hides_no_name(name: str, expected: str) -> None:
    assert registry.did_you_mean(name, ["Left kidney", "XL", "pspnet"]) == f"Did you mean '{expected}'?"


@pytest.mark.parametrize("package", [models, losses])
def test_names_are_the_files_without_helpers(package: object) -> None:
    folder = Path(package.__file__).parent  # type: ignore[attr-defined]
    expected = sorted(path.stem for path in folder.glob("[!_]*.py"))
    assert registry.names(package) == tuple(expected)  # type: ignore[arg-type]
    assert expected


def test_every_name_loads_its_own_file() -> None:
    for name in registry.names(losses):
        assert registry.load(losses, name).__name__ == f"medseg.losses.{name}"


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^unknown model 'uunet'\. Did you mean 'unet'\? Known: .*wide_resnet38\.$"):
        registry.load(models, "uunet")
    with pytest.raises(ConfigError, match=r"^unknown loss 'dicee'\. Did you mean 'dice"):
        registry.load(losses, "dicee")


@pytest.mark.parametrize("name", ["_blocks", "__init__", "os.path", "..bundle", "/etc/passwd"])
def test_nothing_else_is_imported(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^unknown model"):
        registry.load(models, name)


def test_a_users_own_module_only_where_allowed(own_modules: Path) -> None:
    (own_modules / "mine").mkdir()
    (own_modules / "mine" / "net.py").write_text("HERE = True\n")
    with pytest.raises(ConfigError, match="unknown model"):
        registry.load(models, "mine.net")
    assert "mine.net" not in sys.modules
    assert registry.load(models, "mine.net", dotted=True).HERE
    for name in ("mine.nothing", "not_here.net"):
        with pytest.raises(ConfigError, match=rf"^model '{name}' cannot be imported: put the folder .* on PYTHONPATH"):
            registry.load(models, name, dotted=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise RuntimeError('a\\nb')", "RuntimeError: a b"),
        ("def x(:", "SyntaxError: .*"),
        ("import nowhere", "ModuleNotFoundError: .*"),
    ],
)
def test_a_users_own_module_that_fails_is_told_in_a_line(own_modules: Path, text: str, reason: str) -> None:
    (own_modules / "mine").mkdir()
    (own_modules / "mine" / "failing.py").write_text(text)
    with pytest.raises(ConfigError, match=rf"^model 'mine\.failing' cannot be imported \({reason}\)$"):
        registry.load(models, "mine.failing", dotted=True)
    with pytest.raises(ConfigError, match="give its import path, such as"):
        registry.load(models, str(own_modules / "mine/failing.py"), dotted=True)
