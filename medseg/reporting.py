"""One page about a run, or about an evaluation: everything in one file that opens offline and prints well."""

from __future__ import annotations

import base64
import csv
import math
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg import files, picture, plot
from medseg.errors import DataError
from medseg.progress import clock

Row = dict[str, str]

# What the tables show of metrics.csv and metrics.json: column, heading, format.
_METRICS = (
    ("dice", "Dice", ".3f"),
    ("iou", "IoU", ".3f"),
    ("precision", "Precision", ".3f"),
    ("recall", "Recall", ".3f"),
    ("nsd", "NSD", ".3f"),
    ("hd95_mm", "HD95, mm", ".2f"),
    ("assd_mm", "ASSD, mm", ".2f"),
    ("volume_ml", "Volume, ml", ".2f"),
    ("reference_ml", "Reference, ml", ".2f"),
    ("relative_volume_error", "Volume error", "+.1%"),
)
_SUMMARY = ("dice", "nsd", "hd95_mm", "assd_mm", "relative_volume_error")
_AGREEMENTS = 12  # more charts than that are no longer looked at


def report(folder: str | Path) -> Path:
    """Write `report.html` into a run folder, from the files that lie there.

    Args:
        folder: of a run, finished or not, or of an evaluation. What is missing is left out of the page.

    Returns:
        The page. It holds its pictures and needs no network.

    Raises:
        DataError: the folder holds neither results nor a history, or one of its files is damaged.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in ("metrics.json", "history.csv")):
        raise DataError(
            f"'{folder}' holds neither metrics.json nor history.csv. Give the folder of a run or evaluation."
        )
    metrics = _json(folder / "metrics.json", "mean_dice", "labels")
    rows = _table(folder / "metrics.csv", "case", "label", "status", "dice")
    history = _table(folder / "history.csv", "step", "seconds", "loss", "learning_rate")
    names = metrics["labels"] if metrics else dict.fromkeys(row["label"] for row in rows)
    colours = {name: picture.colour(n) for n, name in enumerate(names, 1)}
    page = _template().render(
        title=folder.resolve().name,
        metrics=metrics,
        colours=colours,
        summary=[column for column in _METRICS if column[0] in _SUMMARY],
        rows=rows,
        columns=[column for column in _METRICS if any(row.get(column[0]) for row in rows)],
        grouped=any(row.get("group", row["case"]) != row["case"] for row in rows),
        pictures=_pictures(folder / "pictures", rows),
        plan=_json(folder / "plan.json"),
        environment=_json(folder / "environment.json"),
        training=_training(history),
        spread=_spread(rows, colours),
        agreements=_agreements(rows, colours),
    )
    files.write_text(folder / "report.html", page)
    return folder / "report.html"


def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, plain=_plain)
    return environment.get_template("report.html.j2")


def _json(path: Path, *keys: str) -> Any:
    """The file's value, or an empty mapping where there is no file."""
    if not path.is_file():
        return {}
    value = files.read_json(path)
    _require(path, keys, value)
    return value


def _table(path: Path, *columns: str) -> list[Row]:
    """The file's rows, or none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        _require(path, columns, reader.fieldnames or ())
        return list(reader)


def _require(path: Path, expected: Sequence[str], found: Container[str]) -> None:
    if missing := [name for name in expected if name not in found]:
        raise DataError(f"'{path}' lacks {', '.join(missing)}. Let medseg write it again, or remove it.")


def _numbers(rows: Sequence[Row], column: str) -> list[float]:
    return [float(row.get(column) or "nan") for row in rows]


def _pictures(folder: Path, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The entries of the folder's index whose files are there, with their bytes and the Dice of each label."""
    return [
        {
            **entry,
            "data": base64.b64encode((folder / entry["file"]).read_bytes()).decode(),
            "labels": {row["label"]: row["dice"] for row in rows if row["case"] == entry["case"]},
        }
        for entry in _json(folder / "index.json") or []
        if Path(entry["file"]).name == entry["file"] and (folder / entry["file"]).is_file()
    ]


def _training(history: Sequence[Row]) -> dict[str, Any] | None:
    """What happened, in a line, and the curves."""
    if not history:
        return None
    minutes = [seconds / 60 for seconds in _numbers(history, "seconds")]
    validated = [row for row in history if row.get("validation_dice")]
    scores = _numbers(validated, "validation_dice")
    charts = [plot.curve(minutes, _numbers(history, "loss"), x_label="minutes", y_label="Loss", smooth=True)]
    if validated:
        at = [seconds / 60 for seconds in _numbers(validated, "seconds")]
        charts.append(plot.curve(at, scores, x_label="minutes", y_label="Dice of the inner validation cases"))
    charts.append(plot.curve(minutes, _numbers(history, "learning_rate"), x_label="minutes", y_label="Learning rate"))
    return {
        "steps": history[-1]["step"],
        "time": clock(60 * minutes[-1]),
        "waited": _numbers(history[-1:], "wait_share")[0],
        "best": max(scores, default=None),
        "charts": charts,
    }


def _spread(rows: Sequence[Row], colours: Mapping[str, plot.RGB]) -> str | None:
    values = {name: _numbers([row for row in rows if row["label"] == name], "dice") for name in colours}
    return plot.distribution(values, colours, x_label="Dice") if rows and colours else None


def _agreements(rows: Sequence[Row], colours: Mapping[str, plot.RGB]) -> dict[str, str]:
    charts = {}
    for name, colour in list(colours.items())[:_AGREEMENTS]:
        own = [row for row in rows if row["label"] == name and row.get("status") != "absent"]
        if len(own) > 1:
            volumes = _numbers(own, "reference_ml"), _numbers(own, "volume_ml")
            charts[name] = plot.agreement(*volumes, colour, name=name)
    return charts


def _number(value: Any, form: str) -> str:
    """A number as the tables show it; a dash where there is none."""
    number = float(value) if value not in (None, "") else math.nan
    return format(number, form).replace("-", "\u2212") if math.isfinite(number) else "\u2013"


def _plain(value: Any) -> str:
    """Any JSON value as people write it."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(f"({_plain(item)})" if isinstance(item, list) else _plain(item) for item in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "\u2013"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)
