"""Seconds of a folder of scans through a model that is loaded once, from files to masks, beside the loop one writes with MONAI."""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import _operation as operation
from benchmarks._operation import Variant
from benchmarks.predict import bundle_of, small_run
from medseg import io
from medseg.data import layouts
from medseg.resources import shipped


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__)
    made.add_argument("--run", type=Path, help="trained run or bundle; otherwise a small one is trained first")
    made.add_argument("--data", type=Path, default=shipped("sample_data/mr"), help="dataset whose scans are taken")
    made.add_argument("--scans", type=int, default=20, help="in the folder; those of the dataset again and again")
    made.add_argument("--folder", type=Path, help="take the scans that lie there instead, one file each")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    asked = parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="medseg-bench-") as name:
        if not asked.run:
            asked.run = small_run(Path(name))
        if not asked.folder:
            asked.folder = fill(Path(name) / "scans", asked.data, asked.scans)
        chosen = sections(asked)
        passed = ["--run", str(asked.run), "--folder", str(asked.folder), "--times", str(asked.times)]
        found = operation.compare("cohort", chosen, asked, passed)
    scans = int(next(iter(chosen)).split()[0])
    for results in found.values():
        for item in results.values():
            item["facts"] = {"s a scan": item["median_s"] / scans}
    operation.publish("cohort", chosen, found, asked)


def sections(asked: argparse.Namespace) -> operation.Sections:
    """The folder as a whole."""
    bundle, scans = bundle_of(asked.run), sorted(asked.folder.iterdir())
    return {
        f"{len(scans)} scans": {
            "medseg": Variant(partial(ours, bundle, asked.folder)),
            "monai": Variant(partial(monai, bundle, scans), left_out=operation.missing("monai")),
        }
    }


def fill(folder: Path, data: Path, count: int) -> Path:
    """A folder with links to a dataset's scans, as many as asked for; only scans of one file."""
    images = [case.images[0] for case in layouts.find(data).cases if len(case.images) == 1]
    if not images:
        raise SystemExit("only datasets whose scans are one file each")
    folder.mkdir()
    for number, image in zip(range(count), itertools.cycle(images), strict=False):
        (folder / f"scan{number:03d}{io.ending(image)}").symlink_to(image.resolve())
    return folder


def ours(bundle: Path, folder: Path) -> Callable[[], None]:
    """What `medseg predict BUNDLE FOLDER` does once the model is loaded."""
    import medseg
    from medseg import cohort
    from medseg.data import scans

    predictor = medseg.load(bundle)

    def run() -> None:
        with tempfile.TemporaryDirectory(prefix="medseg-bench-") as out:
            outcomes = cohort.predict(predictor, scans.find([folder], 1), out)
            if failed := [outcome.error for outcome in outcomes if outcome.error]:
                raise SystemExit(failed[0])

    return run


def monai(bundle: Path, scans: list[Path]) -> Callable[[], None]:
    """One scan after the other through MONAI's parts."""
    from benchmarks.peers import monai_predict as peer
    from medseg import files

    described = files.read_json(bundle / "config.json")
    network, before = peer.build(bundle, described), peer.preparation(described["preprocess"])

    def run() -> None:
        with tempfile.TemporaryDirectory(prefix="medseg-bench-") as out:
            for scan in scans:
                peer.predict(network, described, before, [str(scan)], Path(out) / scan.name)

    return run


if __name__ == "__main__":
    main()
