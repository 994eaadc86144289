"""The benchmarks start, do what they say on very little, and measure what they say. No time is ever asserted."""

from __future__ import annotations

import contextlib
import gc
import gzip
import importlib
import json
import random
import runpy
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from pathlib import Path

import pytest

pytest.importorskip("psutil")
import numpy as np
import torch

import medseg
from benchmarks import (
    _curve,
    _described,
    _mutations,
    _reader,
    array_to_mask,
    cohort,
    convert,
    fuzz_io,
    memory_scaling,
    metrics,
    predict,
    small_models,
    time_to_dice,
    train_step,
)
from benchmarks import _measure as measure
from benchmarks import _operation as operation
from benchmarks._child import measured
from benchmarks._described import Described
from benchmarks._operation import Variant
from benchmarks._phantom import Scan, places_mm, waves
from medseg import bundle as bundles
from medseg import config, geometry, models, overrides, preprocess
from medseg.inference import windows
from medseg.resources import shipped

TINY = {  # what makes each comparison of operations take next to no time
    "sliding_window": "--shape 16 16 24 --network-shape 16 16 24 --window 16 --classes 3",
    "memory_scaling": "--plane 16 16 --lengths 24 --classes 2 --at-classes 3 --at-length 16 --window 16 --body 16 16 24 --body-classes 3",
    "resample": "--shape 40 40 16",
    "metrics": "--size 24",
    "loader": "--size 24 --patch 12 --patches 2",
    "train_step": "--hippocampus 16 16 16 --ct 32 32 32",
    "losses": "--size 8",
    "distance": "--size 8 --masks 2",
    "two_stages": "--shape 40 40 20 --structure 10 --window 16 --margin 4",
}
BENCHMARKS = (
    *("startup", "predict", "array_to_mask", "time_to_dice", "cohort", "small_models", "convert", "fuzz_io"),
    *TINY,
)
FACTS = {"median_s", "low_s", "high_s", "peak_mb", "others", "runs"}
peers = pytest.mark.filterwarnings("ignore")  # their warnings are theirs
needs_nnunet = pytest.mark.skipif(bool(operation.missing("nnunetv2")), reason="nnunetv2 is not installed")
HIPPOCAMPUS = Described((36, 50, 35), (1.0, 1.0, 1.0), labels=2, cases=203, modality="MRI")
HOLD = "import time; block = b'x' * {mb}_000_000; time.sleep({s})"


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", code


@pytest.fixture
def frozen() -> Iterator[None]:
    """Garbage is collected before each measurement: all that the suite has loaded takes longer than what is measured."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, frozen: None) -> None:
    """Commands of Python without processes of their own, whose start costs seconds; other tests see to `measure.run`."""
    start = measure.run

    def run(command: Sequence[str]) -> measure.Sample:
        if sys.executable not in command:
            return start(command)
        _, *words = command[command.index(sys.executable) :]
        call, words = (runpy.run_module, words[1:]) if words[0] == "-m" else (runpy.run_path, words)
        with monkeypatch.context() as patched, contextlib.redirect_stdout(StringIO()) as printed:
            patched.setattr(sys, "argv", words)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    call(words[0], run_name="__main__")
                except SystemExit as end:
                    if end.code:
                        raise measure.Failed(printed.getvalue()) from end
        return measure.Sample(1.0, 1.0, 100.0, 0.0, printed.getvalue())

    monkeypatch.setattr(measure, "run", run)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"benchmarks.{name}").main(["--help"])
    assert stopped.value.code == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched by Linux")
def test_readers_of_broken_files_are_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("a secret")

    def refuse() -> None:
        raise medseg.MedsegError("two\nlines")

    assert _reader.look(fail)["kind"] == "traceback"
    assert _reader.look(refuse)["kind"] == "several lines"
    assert _reader.look(lambda: np.ones(500_000_000, np.uint8))["peak_mb"] > 250  # some may be kept heap
    reader = fuzz_io.Reader(limit_s=20)
    assert [answer["kind"] for answer in reader.look("a.mha", {"a.mha": b"NDims = 1e+30\n"})] == ["DataError"] * 3
    reader.process.kill()
    assert reader.look("a.mha", {"a.mha": b""})[0]["kind"] == "crash"
    assert reader.look("a.mha", {"a.mha": b""})[0]["kind"] == "DataError"
    reader.close()
    with pytest.raises(SystemExit) as stopped:
        fuzz_io.main(
            [
                "--seconds",
                "1",
                "--data",
                "--only",
                "metaimage",
                "--keep",
                str(tmp_path),
                "--json",
                str(tmp_path / "a.json"),
            ]
        )
    assert stopped.value.code == 0
    assert json.loads((tmp_path / "a.json").read_text())["found"]["metaimage"]["inputs"] > 0
    assert "metaimage" in capsys.readouterr().out


def test_breaking_a_file_is_repeatable_and_reaches_what_is_packed() -> None:
    content = gzip.compress(bytes(range(256)) * 20)
    made = [_mutations.mutated(content, random.Random(seed)) for seed in range(60)]
    assert made == [_mutations.mutated(content, random.Random(seed)) for seed in range(60)]
    assert len(set(made)) > 50
    unpacked = set()
    for data in made:
        with contextlib.suppress(OSError, EOFError, zlib.error):
            unpacked.add(gzip.decompress(data))
    assert len(unpacked) > 20


def test_every_benchmark_is_in_the_readme() -> None:
    text = (Path(measure.__file__).parent / "README.md").read_text()
    assert all(f"python -m benchmarks.{name}" in text for name in BENCHMARKS)


def test_the_peak_is_the_commands_whatever_this_process_holds() -> None:
    ballast = bytearray(b"x") * 400_000_000
    small, large = (measure.run(python(HOLD.format(mb=mb, s=0))).peak_mb for mb in (1, 200))
    assert len(ballast) > 1e6 * small
    assert 190 < large - small < 210


def test_the_peak_counts_children() -> None:
    child = HOLD.format(mb=200, s=1.5)
    both = f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {child!r}]); {child}; c.wait()"
    assert 400 < measure.run(python(both)).peak_mb < 500


def test_a_command_that_fails_shows_its_words() -> None:
    with pytest.raises(SystemExit, match="ended with code 3:\nno such scan"):
        measure.run(python("print('no such scan'); raise SystemExit(3)"))


def test_commands_take_turns_and_the_warm_up_is_not_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    commands = {name: python(f"open({str(log)!r}, 'a').write('{name}')") for name in "ab"}
    samples = measure.alternate(commands, 2, warm_up=True)
    assert log.read_text() == "baabba"
    assert [len(found) for found in samples.values()] == [2, 2]


def test_summaries_and_tables_of_known_figures() -> None:
    def summary(*seconds: float) -> dict[str, object]:
        return measure.summary([measure.Sample(s, s, 100.0 + s, 0.0, "") for s in seconds])

    found = {"ours": summary(1.0, 4.0, 2.0), "theirs": summary(5.0)}
    assert {name: found["ours"][name] for name in ("median_s", "low_s", "high_s", "peak_mb")} == {
        "median_s": 2.0,
        "low_s": 1.0,
        "high_s": 4.0,
        "peak_mb": 104.0,
    }
    found["theirs"] |= {"peak_mb": 52.0, "facts": {"batch": "2x8", "Dice": 0.9}}
    _, ours, theirs = measure.times(found, "ours").splitlines()
    assert ours.split() == ["ours", "2.000", "1.000", "-", "4.000", "1.00", "104", "1.00", "0.0"]
    assert theirs.split() == ["theirs", "5.000", "5.000", "-", "5.000", "2.50", "52", "0.50", "0.0", "2x8", "0.9"]


def test_a_peer_that_fails_is_left_out_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    works, fails = python("pass"), python("print('too much'); raise SystemExit(9)")
    samples = measure.alternate({"ours": works, "theirs": fails}, 2)
    assert {name: len(some) for name, some in samples.items()} == {"ours": 2}
    assert "ended with code 9:\ntoo much" in capsys.readouterr().err
    with pytest.raises(measure.Failed):
        measure.alternate({"ours": fails, "theirs": works}, 1)


def test_every_table_says_what_machine_and_which_peers() -> None:
    found = measure.machine()
    assert {"cpu", "cores", "threads", "gpu", "load_before", "bf16_in_hardware"} <= found.keys()
    assert "monai " in found["peers"]


def test_the_synthetic_ct_is_a_ct(tmp_path: Path) -> None:
    ct = medseg.read(predict._write_ct(tmp_path / "ct.nii.gz", (32, 24, 8)))
    assert ct.geometry.shape == (32, 24, 8)
    assert ct.geometry.spacing_mm == pytest.approx((0.8, 0.8, 1.5))
    assert ct.array.dtype == "int16"
    air, body = ct.array[0, 0, 0], ct.array[0, 16, 12]
    assert abs(air + 1000).max() < 100
    assert abs(body - 40).max() < 100


def test_startup_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module("benchmarks.startup").main(
        ["--repeats", "1", "--peers", "--json", str(tmp_path / "out.json")]
    )
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["machine"]["cores"] >= 1
    assert written["loads_torch"] is False
    assert list(written["results"]) == ["python -c pass", "import medseg", "medseg --help"]
    assert all(set(found) == FACTS for found in written["results"].values())
    assert "import medseg loads torch or monai: no" in capsys.readouterr().out


@peers
@pytest.mark.parametrize("name", TINY)
def test_every_variant_that_can_be_run_gives_figures(name: str, frozen: None) -> None:
    benchmark = importlib.import_module(f"benchmarks.{name}")
    for title, variants in benchmark.sections(benchmark.parser().parse_args(TINY[name].split())).items():
        assert not next(iter(variants.values())).left_out or "nnU-Net" in title or "bf16" in next(iter(variants)), title
        for variant in variants.values():
            if not variant.left_out:
                found = measured(variant, 1)
                assert len(found["seconds"]) == 1
                assert found["peak_mb"] >= 0
                numbers = [value for value in found["facts"].values() if not isinstance(value, str)]
                assert np.isfinite(numbers).all()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak cannot be begun anew")
def test_memory_of_an_operation_counts_from_before_it() -> None:
    ballast = bytearray(b"x") * 100_000_000
    found = measured(Variant(lambda: lambda: bytearray(b"x") * 50_000_000), 2)
    assert len(ballast) == 100_000_000
    assert 49 < found["peak_mb"] < 60
    assert len(found["seconds"]) == 2


def test_operations_are_compared_in_fresh_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--size", "8", "--repeats", "1", "--times", "2", "--threads", "1", "--only", "cross_entropy"]
    importlib.import_module("benchmarks.losses").main([*words, "--json", str(tmp_path / "out.json")])
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["operation_threads"] == 1
    section = written["results"]["cross_entropy, 2x4x8x8x8"]
    assert {name: len(item["runs"][0]["seconds"]) for name, item in section.items()} == {"medseg": 2, "torch": 2}
    assert section["medseg"]["facts"]["value"] == pytest.approx(section["torch"]["facts"]["value"], rel=1e-5)
    assert "cross_entropy, 2x4x8x8x8" in capsys.readouterr().out.splitlines()


def test_a_peer_that_is_not_installed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert operation.missing("json", "no_such_package", "nor_this") == "no_such_package and nor_this not installed"
    assert operation.missing("json") == ""
    asked = operation.parser("").parse_args(["--repeats", "1", "--threads", "1"])
    sections = {"title": {"peer": Variant(lambda: print, left_out=operation.missing("no_such_package"))}}
    operation.publish("test", sections, operation.compare("test", sections, asked, []), asked)
    assert capsys.readouterr().out.endswith("title\npeer: left out, no_such_package not installed\n")


def test_results_are_judged_where_their_voxels_lie() -> None:
    scan = Scan(medseg.Geometry((40, 40, 20), np.diag([0.8, 0.8, 2.5, 1.0])), 1.5)
    affine = scan.target.affine
    right = waves(places_mm(scan.target.shape, affine))
    moved = affine.copy()
    moved[0, 3] += 1
    assert scan.image_error((right, affine))["RMS error"] == pytest.approx(0, abs=1e-3)
    assert scan.image_error((right, moved))["RMS error"] > 10
    assert scan.labels_error((scan.labels(), scan.grid.affine))["mean Dice"] == 1
    assert scan.labels_error((np.roll(scan.labels(), 1, 2), scan.grid.affine))["mean Dice"] < 0.9


@peers
def test_scores_agree_with_those_of_surface_distance_on_thick_slices() -> None:
    pytest.importorskip("surface_distance")
    both = (made(40, (0.8, 0.8, 3.0))() for made in (metrics.ours, metrics.surface_distance))
    assert max(metrics._differences(*both).values()) < 1e-5


def test_memory_is_drawn_against_length_and_classes(tmp_path: Path) -> None:
    words = ["--lengths", "24", "48", "--classes", "2", "3", "--at-classes", "2", "--at-length", "48"]
    asked = memory_scaling.parser().parse_args([*words, "--plot", str(tmp_path / "memory.png")])
    titles = enumerate(memory_scaling.sections(asked), 1)
    found = {title: {"medseg": {"peak_mb": 10.0 + n, "median_s": 0.1 * n}} for n, title in titles}
    memory_scaling.draw(found, asked)
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


@peers
def test_a_cohort_is_segmented_by_both(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    network = medseg.create_model("unet", spatial_dims=3, in_channels=1, out_channels=4, preset="tiny")
    described = bundles.Bundle(
        name="test",
        model={"name": "unet", "preset": "tiny"},
        spatial_dims=3,
        channels=("mr",),
        labels=medseg.Labels.of((1, 2, 3)),
        preprocess=preprocess.Config(),
        inference=windows.Config(window=(32, 32, 32)),
    )
    bundles.save(tmp_path / "bundle", described, [network.state_dict()])
    folder = cohort.fill(tmp_path / "scans", shipped("sample_data/mr"), 2)
    assert [path.name for path in sorted(folder.iterdir())] == ["scan000.nii.gz", "scan001.nii.gz"]
    words = ["--run", str(tmp_path / "bundle"), "--folder", str(folder)]
    ((title, variants),) = cohort.sections(cohort.parser().parse_args(words)).items()
    assert title == "2 scans"
    assert [len(measured(variant, 1)["seconds"]) for variant in variants.values()] == [1, 1]


def test_the_planned_networks_are_those_that_medseg_trains() -> None:
    small = _described.plan(HIPPOCAMPUS, coarsens=True)
    assert small.sample.patch == small.inference.window == (40, 56, 40)
    ct = Described((512, 512, 200), _described.CT_SPACING_MM, labels=20)
    own, coarser = (_described.plan(ct, coarsens=coarsens).preprocess.spacing_mm for coarsens in (False, True))
    assert own == _described.CT_SPACING_MM
    assert np.prod(coarser) >= np.prod(own)
    first, second = (_described.network(HIPPOCAMPUS, small).state_dict() for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)


@needs_nnunet
@peers
def test_nnunet_plans_as_published_and_both_steps_begin_with_the_same_weights(tmp_path: Path) -> None:
    from benchmarks.peers import nnunet

    made = nnunet.trainer(HIPPOCAMPUS, tmp_path / "first")
    assert nnunet.batch(made) == (7, 1, 40, 56, 40)  # as its own commands plan for the 203 cases
    assert sum(parameter.numel() for parameter in made.network.parameters()) == pytest.approx(5.60e6, rel=1e-3)
    wrapped, image, target = train_step.nnunets(HIPPOCAMPUS)
    theirs = made.network.state_dict()
    assert all((tensor == wrapped.network.state_dict()[name]).all() for name, tensor in theirs.items())
    assert (tuple(image.shape), tuple(target.shape)) == ((7, 1, 40, 56, 40), (7, 40, 56, 40))


def test_one_network_gives_every_library_the_same_labels(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    """In a single window there is nothing to stitch."""
    pytest.importorskip("monai")
    predictor = medseg.load(make_bundle(tmp_path / "bundle"))
    window = predictor.bundle.inference.window
    image = torch.randn(1, *window, generator=torch.Generator().manual_seed(0))
    ours, theirs = (make(predictor, window)(image) for make in (array_to_mask.ours, array_to_mask.monai))
    assert float((ours == theirs).float().mean()) > 0.99
    assert ours.any()


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """As much of a run, in the folder of a comparison, as the peers' cases are made from."""
    labels = [{"name": name, "values": [n]} for n, name in enumerate(("left nucleus", "right nucleus", "arch"), 1)]
    run = tmp_path / "medseg_20s" / "run"
    (run / "bundle").mkdir(parents=True)
    split = {"held_out": ["mr_01"], "train": ["mr_02"], "validation": ["mr_03"]}
    described = {"labels": {"exclusive": True, "items": labels}, "channels": ["MRI"]}
    (run / "splits.json").write_text(json.dumps([split]))
    (run / "bundle" / "config.json").write_text(json.dumps(described))
    return run


def test_the_peer_learns_from_the_same_cases_and_never_from_the_held_out(finished: Path, tmp_path: Path) -> None:
    data = shipped("sample_data/mr")
    time_to_dice._write_cases(data, finished, tmp_path)
    cases = json.loads((tmp_path / "cases.json").read_text())
    assert cases["classes"] == 4
    assert cases["channels"] == ["MRI"]
    assert [Path(case["label"]).name for case in cases["train"]] == ["mr_02.nii.gz", "mr_03.nii.gz"]
    assert [case["id"] for case in cases["test"]] == ["mr_01"]
    (reference,) = (tmp_path / "references").iterdir()
    assert reference.resolve() == (data / "labelsTr" / "mr_01.nii.gz").resolve()


def test_only_labels_that_the_peer_can_learn(finished: Path, tmp_path: Path) -> None:
    config = finished / "bundle" / "config.json"
    config.write_text(config.read_text().replace("[3]", "[7]"))
    with pytest.raises(SystemExit, match="numbered 1, 2 and so on"):
        time_to_dice._write_cases(shipped("sample_data/mr"), finished, tmp_path)


def test_only_one_fold_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        time_to_dice.main(["--fold", "all"])
    assert "one fold is compared, such as 0/5; got 'all'" in capsys.readouterr().err


def test_every_budget_is_trained_and_peers_for_the_longest_in_turn(tmp_path: Path) -> None:
    asked = time_to_dice.parser().parse_args(["--budgets", "5m", "20m"])
    orders = [[name for name, _ in time_to_dice._trainings(asked, tmp_path, 0, turn)] for turn in (0, 1)]
    rest = ["medseg, 20m"] + ([] if operation.missing("monai") else ["monai, 20m"])
    assert orders == [["medseg, 5m", *rest], ["medseg, 5m", *rest[::-1]]]


def test_validations_on_the_way_are_those_of_the_history(tmp_path: Path) -> None:
    rows = ["step,seconds,validation_dice", "1,10.5,", "2,20.5,0.5", "3,30.5,0.75"]
    (tmp_path / "history.csv").write_text("\n".join(rows))
    assert time_to_dice._validations(tmp_path) == [(20.5, 0.5), (30.5, 0.75)]


def trained(dice: float, budget_s: float = 60.0) -> dict[str, object]:
    facts = {"steps": 9, "seconds": 60.0, "waiting": 0.05, "wall_s": 70.0, "peak_mb": 900.0, "others": 0.1}
    scores = {"mean_dice_low": dice - 0.1, "mean_dice_high": dice + 0.1, "hd95_mm": {"arch": 1.5}}
    return {"mean_dice": dice, **scores, "dice": {"arch": dice}, "budget_s": budget_s, **facts}


def test_the_comparison_is_a_line_a_training_and_their_means() -> None:
    seeds = {n: {"medseg, 1m": trained(dice), "monai, 1m": trained(0.8)} for n, dice in enumerate((0.9, 0.7))}
    lines = _curve.table(seeds).splitlines()
    scores = ["0.9000", "[0.800,", "1.000]", "0.9000", "1.50"]
    assert lines[1].split() == ["medseg,", "1m,", "seed", "0", *scores, "9", "60", "5.0%", "70", "900", "0.1"]
    assert lines[-2] == "mean Dice, medseg, 1m, 2 seed(s): 0.8000 (0.7000 - 0.9000)"
    assert lines[-1] == "mean Dice, monai, 1m, 2 seed(s): 0.8000 (0.8000 - 0.8000)"


def test_dice_is_drawn_against_time(tmp_path: Path) -> None:
    ours = trained(0.9) | {"inner_dice": [(10.0, 0.5), (50.0, 0.8)]}
    alone = trained(0.9, 120.0) | {"mean_dice_low": None, "mean_dice_high": None}  # one patient has no interval
    _curve.draw({0: {"medseg, 1m": ours, "medseg, 2m": alone, "monai, 2m": trained(0.8, 120.0)}}, tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(time_to_dice._PEERS))
def test_the_peers_learn_and_segment(name: str, finished: Path, tmp_path: Path) -> None:
    pytest.importorskip(name)
    time_to_dice._write_cases(shipped("sample_data/mr"), finished, tmp_path)
    command = (*time_to_dice._PEERS[name], str(tmp_path / "cases.json"), "-o", str(tmp_path / name), "--budget", "1")
    facts = measure.last_json(measure.run(command).output)
    assert facts["steps"] >= 1
    assert 0 <= facts["waiting"] <= 1
    assert medseg.evaluate(tmp_path / name, tmp_path / "references").summary["cases"] == 1


def test_predict_runs_and_both_masks_agree(tmp_path: Path, in_this_process: None) -> None:
    """The same network in the same window on the same values: what is left is rounding and the window's lattice."""
    pytest.importorskip("monai")
    run = tmp_path / "run"
    train = (*measure.MEDSEG, "train", str(shipped("sample_data/mr")), "-o", str(run), "fold=none", "model.preset=tiny")
    measure.run((*train, "train.steps=5", "train.validations=1"))
    words = ["--run", str(run), "--repeats", "1", "--ct-repeats", "0", "--json", str(tmp_path / "out.json")]
    importlib.import_module("benchmarks.predict").main(words)
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert list(results) == ["scan of the dataset", "the same, model loaded once"]
    assert all({"medseg", "monai"} <= set(found) for found in results.values())
    assert results["scan of the dataset"]["agreement"] > 0.95
    asked = array_to_mask.parser().parse_args(["--run", str(run), "--scans", "1"])
    ((_, variants),) = array_to_mask.sections(asked).items()
    found = {name: measured(variants[name], 1)["facts"] for name in ("medseg", "monai")}  # to compile takes long
    assert all(item["scans"] == 1 and 0 <= item["mean Dice"] < 1 for item in found.values())


def test_a_synthetic_ct_goes_from_file_to_file(tmp_path: Path, in_this_process: None) -> None:
    pytest.importorskip("monai")
    words = ["--repeats", "0", "--shape", "40", "40", "24", "--classes", "3", "--json", str(tmp_path / "out.json")]
    importlib.import_module("benchmarks.predict").main(words)
    ((title, found),) = json.loads((tmp_path / "out.json").read_text())["results"].items()
    assert title == "synthetic CT 40x40x24, 3 classes"
    assert {"medseg", "monai", "medseg, own grid"} <= found.keys()
    assert ("nnunetv2" in found) != ("nnunetv2" in found["left_out"])
    assert found["agreement"] > 0.9


def test_what_sets_the_small_models_apart(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    """All four have the same architecture, in their own settings or in what is pruned."""
    wide = {"name": "unet", "preset": "tiny", "widths": (16, 24, 40)}
    teacher = make_bundle(tmp_path / "teacher", model=wide)
    assert small_models.settings("teacher", teacher, 0.5) == []
    read = {name: overrides.options(small_models.settings(name, teacher, 0.5)) for name in small_models.NAMES[1:]}
    assert [sorted(words) for words in read.values()] == [
        ["model"],
        ["distill", "model"],
        ["prune"],
        ["distill", "prune"],
    ]
    narrow = models.resolve({**wide, "widths": (8, 16, 24)})
    assert all(models.resolve(words["model"]) == narrow for words in read.values() if "model" in words)
    assert all(words["prune"] == {"from": str(teacher), "keep": 0.5} for words in read.values() if "prune" in words)
    assert all(config.check(words) for words in read.values())


def test_the_table_of_small_models_of_known_figures() -> None:
    def model(dice: float, seconds: float, parameters: int) -> dict[str, object]:
        times = {"median_s": seconds, "peak_mb": 90.0, "facts": {"scans": 5}}
        training = {"steps": 9, "train_s": 60.0, "train_others": 0.1}
        size = {"parameters": parameters, "file_mb": parameters * 4 / 1e6}
        return {"mean_dice": dice, "dice": {"arch": dice}, **times, **size, **training}

    head, wide, narrow = small_models.shown(
        {"teacher": model(0.9, 2.0, 3_000_000), "pruned": model(0.8, 1.0, 750_000)}
    ).splitlines()
    assert head.split()[:3] == ["mean", "Dice", "arch"]
    assert " ".join(wide.split()) == "teacher 0.9000 0.9000 400 1.00 90 3.000 M 12.00 9 60 0.1"
    assert " ".join(narrow.split()) == "pruned 0.8000 0.8000 200 0.50 90 0.750 M 3.00 9 60 0.1"


@pytest.mark.slow
def test_small_models_are_trained_and_predict(
    tmp_path: Path, make_dataset: Callable[..., Path], in_this_process: None
) -> None:
    data, out = make_dataset(tmp_path / "data"), tmp_path / "out.json"
    words = ["--data", str(data), "--fold", "0/2", "--repeats", "1", "--threads", "1", "--json", str(out)]
    quick = ["train.budget_s=null", "train.steps=2", "train.validations=1", "train.batch=1", "sample.patch=[16,16,8]"]
    small_models.main([*words, "-o", str(tmp_path / "runs"), "--set", *quick])
    results = json.loads(out.read_text())["results"]
    assert list(results) == list(small_models.NAMES)
    wide, *narrow = (item["parameters"] for item in results.values())
    assert len(set(narrow)) == 1
    assert narrow[0] < wide / 2
    assert all(item["facts"] == {"scans": 2} and item["steps"] == 2 for item in results.values())
    assert results["pruned"]["mean_dice"] != results["alone"]["mean_dice"]


def test_conversions_are_judged_by_their_reference(tmp_path: Path) -> None:
    grid = medseg.Geometry((3, 4, 2), np.diag([-1.0, -1.0, 2.0, 1.0]))
    volume = medseg.Volume(np.arange(24, dtype=np.int16).reshape(3, 4, 2), grid)
    truth, out = tmp_path / "truth.nii.gz", tmp_path / "out"
    medseg.write(volume, truth)
    assert convert.judged(out, truth) == "refused"
    turned = geometry.reorient(volume, "RAS")
    medseg.write(turned, out / "a.nii.gz")
    assert convert.judged(out, truth) == "right"
    moved = medseg.Geometry(grid.shape, turned.geometry.affine + np.eye(4, k=3) * 0.1)
    medseg.write(turned.replace(geometry=moved), out / "a.nii.gz")
    assert convert.judged(out, truth) == "wrong"
    medseg.write(turned, out / "a.nii.gz")
    medseg.write(turned, out / "b.nii.gz")
    assert convert.judged(out, truth) == "wrong"


def test_a_tree_is_planted_and_listed(tmp_path: Path) -> None:
    (seconds,) = convert.listing_s(tmp_path / "tree", 12, 3).values()
    assert seconds > 0
