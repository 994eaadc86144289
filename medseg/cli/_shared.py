"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of a dataset, its dataset.json, or a CSV manifest.")]
Modality = Annotated[str | None, typer.Option(help="What the images are (CT, MR, ...), if the dataset does not say.")]
DEVICES = typer.Option(help="auto, cpu, cuda, cuda:1, mps.")
