from __future__ import annotations

from medseg.bundle.merging import common_windows
from medseg.inference import windows


def test_members_that_chose_the_same_windows_keep_them() -> None:
    planned, chosen = windows.Config(window=(8, 8, 8)), windows.Config(window=(16, 16, 8), overlap=0.25)
    airs = [chosen.model_copy(update={"air": air}) for air in (-1.0, -1.2, None)]
    assert common_windows(airs[:2], planned) == airs[1]
    assert common_windows(airs, planned) == chosen
    assert common_windows([*airs, planned], planned) == planned
