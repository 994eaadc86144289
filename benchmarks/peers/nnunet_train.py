"""nnU-Net within a budget: plan, preprocess, train until it is over, segment the test cases without mirrors.

    python -m benchmarks.peers.nnunet_train CASES.json -o FOLDER --budget 1200

CASES.json as for `monai_train.py`, with the names of the channels. Everything is nnU-Net's own, but for the length of the
training: its schedule runs over the budget instead of 1000 epochs, and no time goes into its validation. The clock starts with
the imports; the predictions come on top. Leaves NAME.nii.gz in the folder, and prints JSON.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402  the imports are on the clock
import json  # noqa: E402
import os  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from nnunetv2.experiment_planning import plan_and_preprocess_api as api  # noqa: E402
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402

from benchmarks.peers.nnunet import CONFIGURATION, settle  # noqa: E402

_ID, _NAME = 1, "Dataset001_Cases"
_WORKERS = min(8, os.cpu_count() or 1)  # its default is 8, which two cores take longer to start than to use


def main() -> None:
    """Train, predict, say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=1200, help="seconds of wall clock until the end of training")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    torch.set_num_threads(os.cpu_count() or 1)  # as its command does
    files = asked.out.with_name(f"{asked.out.name}_files")
    settle(files)
    content = write(json.loads(asked.cases.read_text()), files)
    trainer = Budgeted(_plans(files), CONFIGURATION, "all", content, torch.device(_device()))
    facts = trainer.train(asked.budget)
    asked.out.mkdir(parents=True)
    predict(trainer, files / "test", asked.out)
    print(json.dumps(facts))


class Budgeted(nnUNetTrainer):
    """Its trainer, with a schedule over seconds."""

    def train(self, budget_s: float) -> dict[str, Any]:
        """Steps until the budget is over."""
        self.on_train_start()
        self.network.train()
        steps, waited_s = 0, 0.0
        while (share := (time.perf_counter() - STARTED) / budget_s) < 1 or steps == 0:
            self.lr_scheduler.step(min(share, 0.999) * self.num_epochs)
            asked = time.perf_counter()
            batch = next(self.dataloader_train)
            waited_s += time.perf_counter() - asked
            self.train_step(batch)
            steps += 1
        seconds = time.perf_counter() - STARTED
        self.on_train_end()
        return {"steps": steps, "seconds": seconds, "waiting": waited_s / seconds}


def write(cases: dict[str, Any], files: Path) -> dict[str, Any]:
    """Links to the cases, as it wants them named, and its `dataset.json`."""
    raw, test = files / "raw" / _NAME, files / "test"
    for folder in (raw / "imagesTr", raw / "labelsTr", test):
        folder.mkdir(parents=True)
    for number, case in enumerate(cases["train"]):
        _link(case["image"], raw / "imagesTr", f"case{number:04d}")
        (raw / "labelsTr" / f"case{number:04d}.nii.gz").symlink_to(case["label"])
    for case in cases["test"]:
        _link(case["image"], test, case["id"])
    labels = {"background": 0, **{f"structure {n}": n for n in range(1, cases["classes"])}}
    channels = {str(n): name for n, name in enumerate(cases["channels"])}
    counted = {"numTraining": len(cases["train"]), "file_ending": ".nii.gz"}
    content = {"channel_names": channels, "labels": labels, **counted}
    (raw / "dataset.json").write_text(json.dumps(content))
    return content


def _link(images: list[str], folder: Path, name: str) -> None:
    for channel, image in enumerate(images):
        (folder / f"{name}_{channel:04d}.nii.gz").symlink_to(image)


def _plans(files: Path) -> dict[str, Any]:
    """Its fingerprint, plan and prepared cases."""
    api.extract_fingerprints([_ID], num_processes=_WORKERS, show_progress_bar=False)
    name = api.plan_experiments([_ID])
    api.preprocess([_ID], name, [CONFIGURATION], [_WORKERS], show_progress_bar=False)
    plans = json.loads((files / "preprocessed" / _NAME / f"{name}.json").read_text())
    return {**plans, "continue_training": False}


def predict(trainer: nnUNetTrainer, scans: Path, out: Path) -> None:
    """Masks by the trained network, one after the other."""
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(use_mirroring=False, device=trainer.device, allow_tqdm=False)
    weights = [trainer.network.state_dict()]
    parts = (trainer.network, trainer.plans_manager, trainer.configuration_manager, weights, trainer.dataset_json)
    predictor.manual_initialization(*parts, type(trainer).__name__, trainer.inference_allowed_mirroring_axes)
    predictor.predict_from_files_sequential(str(scans), str(out))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
