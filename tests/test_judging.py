"""Folders of masks and of results: measured, divided by a column, compared, pictured and reported."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medseg
from medseg import io, metrics
from medseg.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(tmp_path_factory.mktemp("judged") / "data", cases=4)


def moved(data: Path, folder: Path, *steps: int, only: int | None = None) -> Path:
    """The references, case by case moved by so many voxels."""
    for number, step in enumerate(steps[:only]):
        mask = io.read(data / f"labels/case_{number}.nii.gz", "labels")
        io.write(mask.replace(array=np.roll(mask.array, step, 2)), folder / f"case_{number}.nii.gz", parents=True)
    return folder


def table(data: Path, path: Path) -> Path:
    rows = [
        [f"case_{n}", data / f"images/case_{n}.nii.gz", data / f"labels/case_{n}.nii.gz", "north" if n < 3 else "south"]
        for n in range(4)
    ]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["id", "image", "label", "site"], *rows])
    return path


def test_metrics_that_were_picked_and_the_worst_cases(data: Path, tmp_path: Path) -> None:
    masks = moved(data, tmp_path / "masks", 0, 1, 3, 2)
    result = medseg.evaluate(masks, data, tmp_path / "out", metrics=("boundary_iou", "lesion_f1"))
    assert set(result.rows[0]) == {
        "case",
        "group",
        "label",
        "status",
        "dice",
        "boundary_iou",
        "lesion_f1",
        "volume_ml",
        "reference_ml",
    }
    assert "Boundary IoU" in result.table()
    index = json.loads((tmp_path / "out/pictures/index.json").read_text())
    kinds = [(entry["kind"], entry["case"]) for entry in index]
    assert kinds == [("worst", "case_2"), ("second worst", "case_3"), ("median", "case_1"), ("best", "case_0")]
    html = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "Boundary IoU" in html
    assert html.count("data:image/png;base64") == 4
    with Image.open(tmp_path / "out/pictures" / index[0]["file"]) as picture:
        assert (
            np.asarray(picture)[24:284].std(axis=2).max() == 0 or np.asarray(picture).max() > 100
        )  # the scan is drawn


@pytest.mark.parametrize("name", ["dice", "hd95_mm", "volume_ml", "relative_volume_error", "mcc"])
def test_each_metric_alone_has_its_pages(data: Path, tmp_path: Path, name: str) -> None:
    masks = moved(data, tmp_path / "masks", 0, 2, only=2)
    references = moved(data, tmp_path / "references", 0, 0, only=2)
    heading = metrics.MEASURES[name].heading
    medseg.evaluate(masks, references, tmp_path / "out", metrics=(name,))
    assert heading in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    if metrics.MEASURES[name].better:
        medseg.compare(masks, references, references, tmp_path / "both", metrics=(name,))
        assert heading in (tmp_path / "both/report.html").read_text(encoding="utf-8")
    else:
        with pytest.raises(ConfigError, match="volumes are neither good nor bad"):
            medseg.compare(masks, references, references, metrics=(name,))


@pytest.mark.parametrize("apart", [True, False])
def test_sums_by_a_column_of_the_manifest(data: Path, tmp_path: Path, apart: bool) -> None:
    masks, manifest = moved(data, tmp_path / "masks", 0, 1, 3, 2), table(data, tmp_path / "cases.csv")
    where = {"manifest": manifest} if apart else {}
    result = medseg.evaluate(masks, data / "labels" if apart else manifest, tmp_path / "out", by="site", **where)
    groups = result.summary["subgroups"]["of"]
    assert {name: found["cases"] for name, found in groups.items()} == {"north": 3, "south": 1}
    for name, found in groups.items():
        rows = [row["dice"] for row in result.rows if row["subgroup"] == name and row["label"] == "label 1"]
        assert found["labels"]["label 1"]["dice"]["mean"] == pytest.approx(np.mean(rows))
    assert "site north: label 1" in result.table()
    assert "By site" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_a_column_that_is_not_there(data: Path, tmp_path: Path) -> None:
    masks = moved(data, tmp_path / "masks", 0, 0, 0, 0)
    with pytest.raises(ConfigError, match="no column 'scanner' to divide cases by: case_0 has site"):
        medseg.evaluate(masks, table(data, tmp_path / "cases.csv"), by="scanner")
    with pytest.raises(ConfigError, match=r"no table of cases is known\. Name a CSV"):
        medseg.evaluate(masks, data / "labels", by="site")
    (tmp_path / "short.csv").write_text("id,site\ncase_0,north\n")
    with pytest.raises(DataError, match="says nothing about 3 of 4 cases: case_1"):
        medseg.evaluate(masks, data / "labels", by="site", manifest=tmp_path / "short.csv")


def test_two_folders_of_masks_against_references(data: Path, tmp_path: Path) -> None:
    a, b = moved(data, tmp_path / "old", 0, 1, 2, 3), moved(data, tmp_path / "new", 1, 1, 1, 0)
    found = medseg.compare(a, b, data, tmp_path / "out")
    assert (found.summary["a"], found.summary["b"]) == ("old", "new")
    for side, masks in (("a", a), ("b", b)):
        alone = medseg.evaluate(masks, data)
        assert found.summary["mean_dice"][side] == pytest.approx(alone.summary["mean_dice"])
    index = json.loads((tmp_path / "out/pictures/index.json").read_text())
    kinds = [(entry["kind"], entry["case"]) for entry in index]
    assert kinds == [("lost most", "case_0"), ("gained most", "case_3"), ("gained most", "case_2")]
    html = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert html.count("<svg") == 3 * 2  # a chart for each metric and label
    assert html.count("data:image/png;base64") == 3
    assert "B lost most: case_0" in html


def test_two_folders_of_results(data: Path, tmp_path: Path) -> None:
    a, b = moved(data, tmp_path / "a", 0, 1, 2, 3), moved(data, tmp_path / "b", 1, 1, 1, 0)
    for masks in (a, b):
        medseg.evaluate(masks, data, tmp_path / f"results_{masks.name}")
    stored = medseg.compare(tmp_path / "results_a", tmp_path / "results_b", out=tmp_path / "out")
    measured = medseg.compare(a, b, data)
    assert stored.summary["mean_dice"] == pytest.approx(measured.summary["mean_dice"], abs=1e-5)
    assert "Every case" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="Name another folder for the comparison"):
        medseg.compare(a, b, data, tmp_path / "results_a")


def test_two_stored_runs_show_their_masks(data: Path, tmp_path: Path) -> None:
    bundle, steps = Path(__file__).parent / "bundle/bundle_format_1", {"a": (0, 1, 2, 3), "b": (1, 1, 1, 0)}
    runs = []
    for name, moves in steps.items():
        runs.append(tmp_path / name)
        medseg.evaluate(moved(data, runs[-1] / "predictions", *moves), data / "labels", runs[-1])
        shutil.copytree(bundle, runs[-1] / "bundle")
        (runs[-1] / "splits.json").write_text("[]")
    medseg.compare(*runs, out=tmp_path / "out")
    index = json.loads((tmp_path / "out/pictures/index.json").read_text())
    kinds = [(entry["kind"], entry["case"]) for entry in index]
    assert kinds == [("lost most", "case_0"), ("gained most", "case_3"), ("gained most", "case_2")]
    assert (tmp_path / "out/report.html").read_text(encoding="utf-8").count("data:image/png;base64") == 3


def test_cases_that_one_of_the_two_lacks_are_left_out(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = moved(data, tmp_path / "x/masks", 0, 1, 2, 3), moved(data, tmp_path / "y/masks", 1, 1, 1, 0, only=2)
    found = medseg.compare(a, b, data)
    assert [found.summary[name] for name in ("cases", "only_in_a", "only_in_b")] == [2, 2, 0]
    assert found.table().endswith("left out: 2 cases that A alone has, 0 that B alone has")
    assert found.summary["a"] == "masks (A)"
    assert "2 cases with a mask in one of the two alone" in caplog.text
    assert "no reference" not in caplog.text
    (b / "case_0.nii.gz").rename(b / "other.nii.gz")
    (b / "case_1.nii.gz").unlink()
    with pytest.raises(DataError, match="no case has a reference and a mask in both: one has case_0"):
        medseg.compare(a, b, data)


def test_results_that_cannot_be_read(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        medseg.compare(tmp_path, tmp_path)
    (tmp_path / "metrics.json").write_text('{"labels": {}}')
    (tmp_path / "metrics.csv").write_text("case,label,dice\na,b,0.5\n")
    with pytest.raises(DataError, match="lacks group, status, reference_ml"):
        medseg.compare(tmp_path, tmp_path)
    (tmp_path / "metrics.csv").write_text("case,group,label,status,dice,reference_ml\n")
    with pytest.raises(DataError, match="holds no results that can be read"):
        medseg.compare(tmp_path, tmp_path)


def test_stored_results_that_somebody_edited(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whole cases may be deleted; single rows and repeated ones would leave pairs unsaid."""
    a, b = (tmp_path / name for name in "ab")
    for folder, shift in ((a, 0), (b, 1)):
        medseg.evaluate(moved(data, folder / "masks", *[shift] * 4), data, folder)
    table = b / "metrics.csv"
    lines = table.read_text().splitlines(keepends=True)
    expected = medseg.compare(a, b).summary
    table.write_text("\ufeff" + "".join(lines).replace(",", ";").replace(".", ","))
    assert medseg.compare(a, b).summary == expected
    last = lines[-1].partition(",")[0]
    table.write_text("".join(line for line in lines if not line.startswith(f"{last},")))
    assert medseg.compare(a, b).summary["only_in_a"] == 1
    table.write_text("".join(lines[:-1]))
    with pytest.raises(DataError, match=rf"^b lacks 1 row, such as label '.*' of {last}"):
        medseg.compare(a, b)
    table.write_text("".join([*lines, lines[-1]]))
    with pytest.raises(DataError, match=f"has label '.*' of {last} in two rows"):
        medseg.compare(a, b)
