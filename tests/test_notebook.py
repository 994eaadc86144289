"""The tutorial runs from top to bottom, and shows what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from medseg.resources import shipped

TUTORIAL = Path(__file__).parents[1] / "docs/tutorial.ipynb"


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(TUTORIAL, as_version=4)


def test_it_is_stored_without_outputs(notebook: Any) -> None:
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # jupyter's
def test_it_runs(notebook: Any, tmp_path: Path, quick: dict[str, Any]) -> None:
    (tmp_path / "sample_data").symlink_to(shipped("sample_data"))
    (folder := tmp_path / "docs").mkdir()
    (first,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    first.source += f"\nbudget, settings = None, {quick!r}"  # a few steps of a tiny network
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    assert (folder / "runs/tutorial/report.html").is_file()
    shown = [str(out) for cell in notebook.cells for out in cell.get("outputs", ())]
    assert sum("data:image/png;base64" in out for out in shown) >= 3  # scan, mask, prediction
    assert any("image/png" in out and "data:image" not in out for out in shown)  # the worst case
    assert any("training can start" in out for out in shown)
    assert any("parameters" in out and "19,0" in out for out in shown)
