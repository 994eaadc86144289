"""A dry run: the plan, and a few real steps on this device for seconds, memory and disk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medseg import progress, system
from medseg.engine.trial import Trial
from medseg.training import build, learning, trials
from medseg.training.study import Study, settle
from medseg.wording import counted

_CASES = 8  # prepared for the measurement


@dataclass(frozen=True)
class DryRun:
    """What a run would do here.

    Args:
        study: what was settled; of several that hold back one part each, the first.
        models: trained by the run, one per study.
        trial: steps that were made.
        around_s: seconds to prepare all cases, to try steps out, and to report.
        disk_gb: of prepared cases and checkpoints.
        steps: that the run makes, over all models.
        run_s: seconds of the whole run: its budget, or without one those of the steps and of what is around them. Predictions on
            the way and of held-out cases come on top.
    """

    study: Study
    models: int
    trial: Trial
    around_s: float
    disk_gb: float
    steps: int
    run_s: float

    def yaml(self) -> str:
        """The plan, each choice with its reason as a comment."""
        lines = []
        for choice in self.study.plan["choices"]:
            value = yaml.safe_dump(choice["value"], default_flow_style=True, width=10_000).replace("\n...", "").strip()
            lines += [f"# {choice['reason']}", f"{choice['name']}: {value}"]
        return "\n".join(lines)

    def table(self) -> str:
        """The plan and what was measured, as text."""
        steps = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in self.trial.seconds.items())
        cases = counted(len(self.study.inner.train), "case")
        shared = f", for {self.models} models together" if self.models > 1 else ""
        return "\n".join(
            [
                self.yaml(),
                "",
                f"a step        {self.trial.step_s:.3g} s in {self.trial.precision} ({steps})",
                f"memory        {self.trial.memory_gb:.2g} GB",
                f"disk          {self.disk_gb:.2g} GB for prepared cases and checkpoints",
                f"besides       {progress.clock(self.around_s)} to prepare cases (less where that was done before), try steps out and report",
                f"whole run     {progress.clock(self.run_s)} for {counted(self.steps, 'step')} on {cases}{shared}",
            ]
        )


def dry_run(data: str | Path, user: Mapping[str, Any]) -> DryRun:
    """Plan a run and measure a few steps of it; nothing is kept.

    Args:
        data: a dataset in any known layout.
        user: settings that win over the plan.

    Raises:
        MedsegError: as for a run.
    """
    studies = settle(data, user)
    study, models = studies[0], len(studies)
    with tempfile.TemporaryDirectory(prefix="medseg-plan-") as folder:
        began = time.monotonic()
        ids = study.inner.train[:_CASES]
        cases = build.cases(study, ids, Path(folder))
        share = len({name for study in studies for name in study.fold.train}) / len(ids)
        prepare_s = (time.monotonic() - began) * share
        disk_gb = sum(file.stat().st_size for file in Path(folder).rglob("*.npy")) / 1e9 * share
        device, config = system.pick_device(study.config.device), study.config
        model = build.network(study)
        began = time.monotonic()
        trial = trials.tried(study, model, build.criterion(study, device), cases, device)
        tried_s = time.monotonic() - began
    copies = 6 * models + (models if models > 1 else 0)  # checkpoints and bundle, and the ensemble's bundle
    weights_gb = sum(tensor.numel() for tensor in model.state_dict().values()) * 4 / 1e9
    steps = models * config.train.steps
    around_s = prepare_s + models * (tried_s + learning.REPORT_S)
    run_s = around_s + steps * trial.step_s
    if config.train.budget_s:
        budget_s = models * config.train.budget_s
        # a model gets one step, whatever the clock says
        steps = max(models, int((budget_s - around_s) / trial.step_s))
        run_s = max(budget_s, around_s + models * trial.step_s)
    fitting = study.with_batch(trial.batch)
    return DryRun(fitting, models, trial, around_s, disk_gb + copies * weights_gb, steps, run_s)
