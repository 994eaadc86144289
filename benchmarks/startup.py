"""How long the first answer takes: `import medseg` and `medseg --help`, beside Python itself, torch and the peers."""

from __future__ import annotations

import importlib.util
import sys

from benchmarks import _measure as measure

_LOADED = "import sys, medseg; print('torch' in sys.modules or 'monai' in sys.modules)"


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = measure.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peers", nargs="*", default=["torch", "monai", "nnunetv2"], help="imports to compare with")
    asked = parser.parse_args(arguments)
    commands = {
        "python -c pass": (sys.executable, "-c", "pass"),
        "import medseg": (sys.executable, "-c", "import medseg"),
        "medseg --help": (*measure.MEDSEG, "--help"),
    }
    for name in asked.peers:
        if importlib.util.find_spec(name):
            commands[f"import {name}"] = (sys.executable, "-c", f"import {name}")
    samples = measure.alternate(commands, asked.repeats, warm_up=True)
    results = {name: measure.summary(found) for name, found in samples.items()}
    loaded = measure.run((sys.executable, "-c", _LOADED)).output.strip() == "True"
    text = f"{measure.times(results, 'import medseg')}\nimport medseg loads torch or monai: {'YES' if loaded else 'no'}"
    measure.publish(text, {"benchmark": "startup", "loads_torch": loaded, "results": results}, asked.json)


if __name__ == "__main__":
    main()
