"""The command line: read arguments, call one public function, print."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from medseg import progress, system
from medseg.cli import catalogues, datasets, evaluating, predicting, training
from medseg.cli._mistakes import UsageError, one_line
from medseg.errors import Interrupted, MedsegError

app = typer.Typer(
    help="Labelled scans in; a trained model, masks in each scan's own space and a readable report out.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS = (  # in the order of the help
    training.train,
    predicting.predict,
    datasets.convert,
    predicting.export,
    evaluating.evaluate,
    datasets.check,
    training.plan,
    training.demo,
    evaluating.report,
    catalogues.models,
    catalogues.losses,
    catalogues.doctor,
    datasets.cache,
)
for _command in COMMANDS:
    app.command()(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print("medseg", system.version("medseg"))
        raise typer.Exit


@app.callback(help=app.info.help)
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and stop.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Options that need no command."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake, or a file that cannot be used, is one line and exit code 2, a signal during
    training exit code 75."""
    arguments = sys.argv[1:] if arguments is None else arguments
    words = [word for word in arguments if word != "--debug"]
    system.spin_briefly()
    if system.ranks()[0] == 0:  # of processes that train together one speaks
        progress.talk()
    try:
        raise SystemExit(app(words or ["--help"], prog_name="medseg", standalone_mode=False) or 0)
    except (MedsegError, UsageError, OSError) as error:
        if len(words) < len(arguments):
            raise
        stopped = isinstance(error, Interrupted)
        print(one_line(error) if stopped else f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(75 if stopped else 2) from None
    except (KeyboardInterrupt, typer.Abort):
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
