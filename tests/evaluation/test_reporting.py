from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from medseg import files, metrics, picture
from medseg.errors import DataError
from medseg.evaluation.reporting import _axis, _drawn, _number, _plain, report

VOID = {"meta", "img", "link", "br", "hr", "input"}
METRICS = {"mean": 0.8, "median": 0.85, "low": 0.7, "high": 0.9}
NAMES = ("dice", "nsd", "hd95_mm", "assd_mm", "relative_volume_error")
CSV = """case,group,label,status,dice,hd95_mm,volume_ml,reference_ml
c1,p1,liver,found,0.75,2.5,10.5,11
c1,p1,tumour,missed,0,80,0,1.5
c2,p1,liver,found,0.9,1.5,12,11.5
c2,p1,tumour,absent,,,0,0
c3,p2,liver,found,0.85,inf,9,9.5
c3,p2,tumour,found,0.5,4,2,1.75
"""
HISTORY = "step,seconds,loss,learning_rate,wait_share,validation_dice\n1,0.5,2,0.001,0.5,\n2,90,1,0.0005,0.02,0.625\n"


class Page(HTMLParser):
    """The text, tags and attributes of a page whose elements are all closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += " " + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def write_evaluation(folder: Path, names: tuple[str, str] = ("liver", "tumour")) -> None:
    counts = (
        {"cases": 3, "missed": 0, "invented": 0, "absent": 0},
        {"cases": 3, "missed": 1, "invented": 0, "absent": 1},
    )
    labels = {name: {**count, **dict.fromkeys(NAMES, METRICS)} for name, count in zip(names, counts, strict=True)}
    summary = {"tolerance_mm": 1.0, "mean_dice": 0.812, "mean_dice_low": 0.7, "mean_dice_high": 0.9, "labels": labels}
    files.write_json(folder / "metrics.json", summary)
    files.write_text(folder / "metrics.csv", CSV.replace("liver", names[0]).replace("tumour", names[1]))


def write_run(folder: Path) -> None:
    write_evaluation(folder)
    files.write_text(folder / "history.csv", HISTORY)
    choice = {"name": "sample.patch", "value": [32, 48, 16], "reason": "fits the memory"}
    files.write_json(folder / "plan.json", {"fingerprint": {"spacing_mm": [1.0, 1.0, 2.5]}, "choices": [choice]})
    files.write_json(
        folder / "environment.json", {"command": "medseg train data -o run", "medseg": "0.1.0", "cores": 2}
    )
    files.write_bytes(folder / "pictures/worst_c1.png", picture.png(np.zeros((4, 4, 3), np.uint8)))
    entry = {"kind": "worst", "case": "c1", "dice": 0.375, "file": "worst_c1.png"}
    files.write_json(folder / "pictures/index.json", [entry, {**entry, "kind": "best", "file": "gone.png"}])


def test_a_run_is_told_in_full(tmp_path: Path) -> None:
    write_run(tmp_path)
    path = report(tmp_path)
    page = Page(path.read_text(encoding="utf-8"))
    assert path == tmp_path / "report.html"
    for words in ("0.812", "0.700 to 0.900", "1 min 30 s", "0.625", "2.0%", "sample.patch", "32, 48, 16", "fits the memory",
                  "spacing mm", "1, 1, 2.5", "medseg train data -o run", "Paths are shortened", "0.1.0", "research use only", "Worst: c1",
                  "So is an invented one from the relative volume error"):  # fmt: skip
        assert words in page.text, words
    assert len(page.all("img")) == 1  # the picture that is gone is left out
    assert len(page.all("svg")) == 2 + 2 + 3  # spreads of Dice and HD95, agreement of two labels, three curves
    assert all(image.get("alt") for image in page.all("img"))
    assert all(chart.get("aria-label") for chart in page.all("svg"))


def test_what_was_asked_for_is_drawn(tmp_path: Path) -> None:
    write_evaluation(tmp_path)
    summary = files.read_json(tmp_path / "metrics.json")
    for label in summary["labels"].values():
        label.update(iou=METRICS, lesion_f1=METRICS)
    files.write_json(tmp_path / "metrics.json", summary)
    table = (tmp_path / "metrics.csv").read_text().splitlines()
    table = [f"{line},{'lesion_f1' if n == 0 else 0.5}" for n, line in enumerate(table)]
    files.write_text(tmp_path / "metrics.csv", "\n".join(table) + "\n")
    charts = [str(chart["aria-label"]) for chart in Page(report(tmp_path).read_text(encoding="utf-8")).all("svg")]
    assert any(chart.startswith("Lesion F1 of every case") for chart in charts)


def test_shares_are_drawn_in_percent_as_tables_show_them() -> None:
    row = {"relative_volume_error": "0.25", "relative_volume_error_a": "-1", "dice": "0.5"}
    column = ("relative_volume_error", "Volume error", "+.1%")
    assert _drawn([row], column) == [25]
    assert _drawn([row], column, "_a") == [-100]
    assert _axis(column) == "Volume error, %"
    assert _drawn([row], ("dice", "Dice", ".3f")) == [0.5]


def test_labels_stand_beside_their_charts_and_whole_maps_below(tmp_path: Path) -> None:
    write_evaluation(tmp_path)
    found = files.read_json(tmp_path / "metrics.json")
    groups = {"by": "site", "of": {"north": {"labels": found["labels"]}}}
    maps = dict.fromkeys(metrics.MAPS, METRICS)
    files.write_json(tmp_path / "metrics.json", {**found, "maps": maps, "subgroups": groups})
    html = report(tmp_path).read_text()
    assert (
        html.index(">Missed<")
        < html.index("of every case, by label")
        < html.index("Whole maps")
        < html.index("By site")
    )
    rows = html[html.index("By site") :]
    assert re.search(r'<th scope="row"><span class="swatch"[^>]*></span>liver</th>', rows)  # which is not broken in two


def test_every_case_stands_in_the_table_with_its_status(tmp_path: Path) -> None:
    write_evaluation(tmp_path)
    html = report(tmp_path).read_text(encoding="utf-8")
    table = html[html.index('<table class="sortable') :]
    body = table[table.index("<tbody>") : table.index("</tbody>")]
    assert body.count("<tr>") == 6
    assert body.count('class="alert"') == 1
    assert ">p2<" in body  # groups differ from cases, so they are shown
    assert "HD95, mm" in table
    assert "ASSD, mm" not in table  # no such column in this file


def test_it_needs_no_network_and_runs_no_foreign_code(tmp_path: Path) -> None:
    write_run(tmp_path)
    page = Page(report(tmp_path).read_text(encoding="utf-8"))
    assert not page.all("link")
    assert all("src" not in script for script in page.all("script"))
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in page.all("img"))
    links = [value for _, attributes in page.tags for key, value in attributes.items() if "href" in key]
    assert all((link or "").startswith("#") for link in links)
    assert any("default-src 'none'" in (meta.get("content") or "") for meta in page.all("meta"))


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    write_evaluation(tmp_path, ("<script>alert(1)</script>", "a & b \"c\" '$x$'".replace('"', "”")))
    html = report(tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "<script>alert(1)</script>" in Page(html).text
    assert "a & b ”c” '$x$'" in Page(html).text


@pytest.mark.parametrize(
    "missing", ["metrics.json", "metrics.csv", "history.csv", "plan.json", "environment.json", "pictures/index.json"]
)
def test_what_is_missing_is_left_out(tmp_path: Path, missing: str) -> None:
    write_run(tmp_path)
    (tmp_path / missing).unlink()
    page = Page(report(tmp_path).read_text(encoding="utf-8"))
    gone = {"metrics.json": "mean Dice, 95", "metrics.csv": "Every case", "history.csv": "Learning rate", "plan.json": "The plan",
            "environment.json": "To reproduce it", "pictures/index.json": "Cases to look at"}  # fmt: skip
    for name, words in gone.items():
        assert (words in page.text) == (name != missing), words


def test_a_training_under_way_has_a_page(tmp_path: Path) -> None:
    files.write_text(tmp_path / "history.csv", HISTORY.splitlines()[0] + "\n1,0.5,2,0.001,,\n")
    page = Page(report(tmp_path).read_text(encoding="utf-8"))
    assert len(page.all("svg")) == 2
    assert "mean Dice" not in page.text


def test_charts_of_one_page_share_no_ids(tmp_path: Path) -> None:
    write_run(tmp_path)
    ids = re.findall(r' id="(\w+)"', report(tmp_path).read_text(encoding="utf-8"))
    shapes = [name for name in ids if name.startswith("m")]  # markers: their names are hashes of what they draw
    assert len(set(ids) - set(shapes)) == len(ids) - len(shapes)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("other.txt", "", "neither metrics.json nor history.csv"),
        ("metrics.json", "{", "not readable JSON"),
        ("metrics.json", "{}", "lacks mean_dice, labels"),
        ("history.csv", "step,loss\n1,2\n", "lacks seconds, learning_rate"),
        ("history.csv", "", "lacks step"),
    ],
)
def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_a_table_that_a_spreadsheet_saved_in_its_own_letters(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "metrics.csv").write_bytes(CSV.replace("c1", "Zürich").encode("latin-1"))
    with pytest.raises(DataError, match="is not readable as a table in UTF-8"):
        report(tmp_path)


def test_numbers_as_people_write_them() -> None:
    assert _number(-0.0512, "+.1%") == "\u22125.1%"
    assert [_number(value, ".2f") for value in (None, "", "nan", "inf", "1.236")] == ["\u2013"] * 4 + ["1.24"]
    assert _plain({"a": [1.0, 2.54321], "b": None, "c": True}) == "a: 1, 2.543; b: \u2013; c: yes"


def semicolons(text: str) -> str:
    """As a spreadsheet of a country with decimal commas saves it: with a byte order mark, other ends of lines and empty rows."""
    return "\ufeff" + text.replace(",", ";").replace(".", ",").replace("\n", "\r\n") + ";;;;;;;\r\n"


def test_a_table_that_a_spreadsheet_saved_again_is_read_right(tmp_path: Path) -> None:
    write_run(tmp_path)
    expected = report(tmp_path).read_text(encoding="utf-8")
    (tmp_path / "metrics.csv").write_bytes(semicolons(CSV).encode())
    (tmp_path / "history.csv").write_bytes(semicolons(HISTORY).replace(";;;;;;;", ";;;;;").encode())
    assert report(tmp_path).read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("0.75", "good", "row 2: dice is 'good', expected a number or nothing"),
        ("10.5", '"1,234"', "row 2: volume_ml is '1,234', expected a number or nothing"),
        ("c1,p1,liver,", "c1,liver,", "row 2: expected 8 cells, got 7"),
        ("c3,p2,tumour,", "c3,p2,tumour,,", "row 7: expected 8 cells, got 9"),
        ("status,dice,", "status,", "lacks dice"),
        ("hd95_mm,", "dice,", "has two columns 'dice'"),
    ],
)
def test_a_table_that_was_spoilt_by_hand_is_one_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    write_run(tmp_path)
    files.write_text(tmp_path / "metrics.csv", CSV.replace(old, new, 1))
    with pytest.raises(DataError, match=words) as caught:
        report(tmp_path)
    assert "\n" not in str(caught.value)


def test_rows_that_no_longer_fit_their_means_are_told(tmp_path: Path) -> None:
    write_run(tmp_path)
    found = files.read_json(tmp_path / "metrics.json")
    right = {"liver": {"dice": 2.5 / 3, "volume_ml": 10.5}, "tumour": {"dice": 0.25, "volume_ml": 1.0}}
    for name, means in right.items():
        for metric in NAMES[1:]:
            del found["labels"][name][metric]
        found["labels"][name] |= {metric: METRICS | {"mean": mean} for metric, mean in means.items()}
    files.write_json(tmp_path / "metrics.json", found)
    words = "was changed by hand"
    assert words not in report(tmp_path).read_text()
    for changed in (
        CSV.replace("0.75", "0.76"),
        "\n".join(CSV.splitlines()[:-1]),
        CSV.replace("c2,p1,liver,found", "c2,p1,x,found"),
    ):
        files.write_text(tmp_path / "metrics.csv", changed)
        assert words in report(tmp_path).read_text()
