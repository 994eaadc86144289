"""One page about a run, an evaluation or a comparison: everything in one file that opens offline and prints well."""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg import files, metrics, picture, tables
from medseg.errors import DataError
from medseg.evaluation import plot, summaries
from medseg.progress import clock

Row = dict[str, str]
Column = tuple[str, str, str]

# What the summary shows of the usual metrics; of others that were asked for it shows all.
_SUMMARY = ("dice", "nsd", "hd95_mm", "assd_mm", "relative_volume_error")
_SPREAD = ("dice", "nsd", "hd95_mm")  # likewise, drawn
_HISTORY = ("step", "seconds", "loss", "learning_rate", "wait_share", "validation_dice")
_CHARTS = 12  # more than that are no longer looked at


def report(folder: str | Path) -> Path:
    """Write `report.html` into a folder, from the files that lie there.

    Args:
        folder: of a run, finished or not, of an evaluation, or of a comparison. What is missing is left out of the page.

    Returns:
        The page. It holds its pictures and needs no network.

    Raises:
        DataError: the folder holds neither results nor a history, or one of its files is damaged.
    """
    folder = Path(folder)
    if any((folder / name).is_file() for name in ("metrics.json", "history.csv")):
        page = _template("report.html.j2").render(**_of_run(folder))
    elif (folder / "comparison.json").is_file():
        page = _template("comparison.html.j2").render(**_of_comparison(folder))
    else:
        raise DataError(
            f"'{folder}' holds neither metrics.json nor history.csv. Give the folder of a run or evaluation."
        )
    files.write_text(folder / "report.html", page)
    return folder / "report.html"


def _of_run(folder: Path) -> dict[str, Any]:
    """What the page of a run or an evaluation shows."""
    found = _json(folder / "metrics.json", "mean_dice", "labels")
    rows = _table(folder / "metrics.csv", "case", "label", "status", "dice", numbers=metrics.MEASURES)
    history = _table(folder / "history.csv", *_HISTORY[:4], numbers=_HISTORY)
    names = found["labels"] if found else dict.fromkeys(row["label"] for row in rows)
    colours = _colours(names)
    measured = set(metrics.NAMES).intersection(*(found["labels"].values() if found else [()]))
    return {
        "title": folder.resolve().name,
        "metrics": found,
        "changed": _changed(found, rows),
        "colours": colours,
        "maps": metrics.MAPS,
        "summary": _columns(summaries.shown(measured, _SUMMARY)),
        "rows": rows,
        "columns": _columns([name for name in metrics.NAMES if any(row.get(name) for row in rows)]),
        "grouped": any(row.get("group", row["case"]) != row["case"] for row in rows),
        "pictures": _pictures(folder / "pictures", rows),
        "plan": _json(folder / "plan.json"),
        "environment": _json(folder / "environment.json"),
        "training": _training(history),
        "spreads": _spreads(rows, colours, summaries.shown(measured, _SPREAD)),
        "agreements": _agreements(rows, colours),
    }


def _changed(found: Mapping[str, Any], rows: Sequence[Row]) -> bool:
    """Whether rows were changed by hand since they were summed up: the mean of what is finite is another one."""
    for label, means in (found["labels"] if found and rows else {}).items():
        own = [row for row in rows if row["label"] == label and row["status"] != "absent"]
        for name in metrics.MEASURES.keys() & means.keys() & rows[0].keys():
            values = [value for value in _numbers(own, name) if not math.isnan(value)]
            mean, size = sum(values) / max(1, len(values)), max(map(abs, values), default=0.0)
            if math.isfinite(mean) and abs((means[name]["mean"] or 0.0) - mean) > 1e-5 * size:  # six digits are written
                return True
    return False


def _of_comparison(folder: Path) -> dict[str, Any]:
    """What the page of a comparison shows."""
    found = _json(folder / "comparison.json", "a", "b", "labels")
    numbers = [f"{name}_{side}" for name in metrics.MEASURES for side in ("a", "b", "difference")]
    rows = _table(folder / "comparison.csv", "case", "label", "status_a", "status_b", numbers=numbers)
    colours = _colours(found["labels"])
    # A difference has its sign; the columns of both runs, like those of its table as text, have none of their own.
    columns = [
        (key, heading, form.lstrip("+")) for key, heading, form in _columns(next(iter(found["labels"].values())))
    ]
    return {
        "title": folder.resolve().name,
        "environment": {},
        "found": found,
        "rows": rows,
        "colours": colours,
        "columns": columns,
        "charts": {column[0]: _differences(rows, colours, column) for column in columns},
        "pictures": _pictures(folder / "pictures", ()),
    }


def _colours(names: Iterable[str]) -> dict[str, plot.RGB]:
    return {name: picture.colour(n) for n, name in enumerate(names, 1)}


def _columns(names: Container[str]) -> list[Column]:
    """Name, heading and format of metrics, in their order."""
    return [(name, each.heading, each.form) for name, each in metrics.MEASURES.items() if name in names]


def _template(name: str) -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, plain=_plain)
    return environment.get_template(name)


def _json(path: Path, *keys: str) -> Any:
    """The file's value, or an empty mapping where there is no file."""
    if not path.is_file():
        return {}
    value = files.read_json(path)
    tables.require(path, keys, value)
    return value


def _table(path: Path, *columns: str, numbers: Collection[str]) -> list[Row]:
    """The file's rows, or none where there is no file."""
    return tables.read(path, *columns, numbers=numbers) if path.is_file() else []


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


def _spreads(rows: Sequence[Row], colours: Mapping[str, plot.RGB], names: Sequence[str]) -> list[str]:
    """A chart per metric, with a row per label."""
    charts = []
    for column in _columns(names if len(names) <= _CHARTS else _SPREAD):
        values = {name: _drawn([row for row in rows if row["label"] == name], column) for name in colours}
        if any(math.isfinite(value) for numbers in values.values() for value in numbers):
            charts.append(plot.distribution(values, colours, x_label=_axis(column)))
    return charts


def _differences(rows: Sequence[Row], colours: Mapping[str, plot.RGB], column: Column) -> dict[str, str]:
    """A chart per label, of both runs."""
    charts = {}
    for name, colour in list(colours.items())[:_CHARTS]:
        own = [row for row in rows if row["label"] == name]
        a, b = (_drawn(own, column, f"_{side}") for side in "ab")
        charts[name] = plot.paired(a, b, colour, names=("A", "B"), x_label=_axis(column))
    return charts


def _drawn(rows: Sequence[Row], column: Column, side: str = "") -> list[float]:
    """A column's numbers in the unit of its table: shares that stand there in percent are drawn in percent."""
    key, _, form = column
    return [value * (100 if form.endswith("%") else 1) for value in _numbers(rows, key + side)]


def _axis(column: Column) -> str:
    _, heading, form = column
    return f"{heading}, %" if form.endswith("%") else heading


def _agreements(rows: Sequence[Row], colours: Mapping[str, plot.RGB]) -> dict[str, str]:
    charts = {}
    for name, colour in list(colours.items())[:_CHARTS]:
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
