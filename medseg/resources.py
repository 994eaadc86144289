"""Where the files that travel with medseg lie: in the wheel, or in the checkout."""

from pathlib import Path

from medseg.errors import MedsegError

_PACKAGE = Path(__file__).parent


def shipped(name: str) -> Path:
    """The path of `configs/...`, `pipelines/...` or `sample_data/...`.

    Raises:
        MedsegError: this installation does not hold it.
    """
    for root in (_PACKAGE / "_shipped", _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    raise MedsegError(
        f"this installation of medseg holds no '{name}'. Install it again: pip install --force-reinstall medseg"
    )
