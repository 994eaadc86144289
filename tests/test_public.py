"""What `import medseg` offers."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import medseg

ROOT = Path(__file__).parents[1]
DESIGNED = (
    "read write write_structures convert list_series check repair plan train load predict export evaluate compare "
    "create_model create_loss list_losses sliding_window"
)


def test_the_names_of_the_design_are_there() -> None:
    values = "Volume Geometry Labels LossContext Prediction Predictor MedsegError Interrupted __version__"
    assert set(medseg.__all__) == {*DESIGNED.split(), *values.split()}
    assert dir(medseg) == sorted(medseg.__all__)


@pytest.mark.parametrize("name", [name for name in medseg.__all__ if name != "__version__"])
def test_every_name_is_where_it_says_and_says_what_it_does(name: str) -> None:
    value = getattr(medseg, name)
    assert value.__module__.startswith("medseg.")
    assert value.__name__ == name
    assert inspect.getdoc(value)


def test_metrics_are_reached_through_the_package() -> None:
    code = "import medseg; assert medseg.metrics.dice([[True]], [[True]]) == 1"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        _ = medseg.segment


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "medseg/__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    shown = {f"{node.module}.{node.names[0].asname}" for node in block.body if isinstance(node, ast.ImportFrom)}
    assert shown == {f"medseg.{module}.{name}" for name, module in medseg._PUBLIC.items()}


def test_the_version_is_the_packages() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == medseg.__version__


def test_no_public_function_shares_its_name_with_a_submodule() -> None:
    modules = {path.stem for path in (ROOT / "medseg").iterdir()}
    assert not modules & set(medseg.__all__)


def test_what_docstrings_refer_to_exists() -> None:
    texts = ((path, path.read_text(encoding="utf-8")) for path in (ROOT / "medseg").rglob("*.py"))
    referred = {(name, path.name) for path, text in texts for name in re.findall(r"`(medseg(?:\.\w+)+)", text)}
    assert len(referred) > 20
    assert not [(name, file) for name, file in sorted(referred) if pydoc.locate(name) is None]
