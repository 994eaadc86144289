"""Files of weights: what torch wrote comes back, and nothing in a file is ever run."""

from __future__ import annotations

import builtins
import collections
import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medseg.errors import BundleError
from medseg.transfer import read


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    return collections.OrderedDict(
        whole=base,
        turned=base.T[1:],  # a view with an offset and other strides
        half=torch.randn(3).half(),
        wide=torch.randn(2, dtype=torch.float64),
        brain=torch.randn(5).bfloat16(),
        count=torch.tensor(7),
        none=torch.empty(0, 3),
    )


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    kinds = all(found[name].dtype == tensor.dtype for name, tensor in wanted.items())
    return list(found) == list(wanted) and kinds and all(torch.equal(found[n], t) for n, t in wanted.items())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_torch_wrote_comes_back(tmp_path: Path, zipped: bool, protocol: int) -> None:
    for content in (state(), {"epoch": 3, "optimizer": {"m": torch.zeros(9)}, "state_dict": state()}):
        path = tmp_path / "weights.pth"
        torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
        assert same(read(path), state())


def test_parameters_and_a_module_of_weights_come_back(tmp_path: Path) -> None:
    layer = torch.nn.Conv2d(2, 3, 3)
    torch.save({"model": dict(layer.named_parameters())}, tmp_path / "a.pt")
    assert torch.equal(read(tmp_path / "a.pt")["weight"], layer.weight)


def test_safetensors_come_back(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    whole = {name: tensor.contiguous() for name, tensor in state().items()}
    save_file(whole, tmp_path / "a.safetensors")
    assert read(tmp_path / "a.safetensors").keys() == whole.keys()


def test_a_checkpoint_as_nnunet_writes_it_comes_back(tmp_path: Path) -> None:
    content = {
        "network_weights": state(),
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "epoch_start_timestamps": [1.5]},
        "_best_ema": np.float64(0.7),
        "current_epoch": 1000,
        "init_args": {"device": torch.device("cuda", 0), "fold": 0, "plans": {"a": (1, [True, False])}},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    torch.save(content, tmp_path / "checkpoint_final.pth")
    assert same(read(tmp_path / "checkpoint_final.pth"), state())


@pytest.mark.parametrize("content", [{"state_dict": state()}, {"model": {}, "net": {"model": state()}}])
def test_tensors_beside_a_state_dict_do_not_hide_it(tmp_path: Path, content: dict[str, object]) -> None:
    torch.save({"epoch": 90, "best_acc1": torch.tensor(76.1)} | content, tmp_path / "imagenet.pth")
    assert same(read(tmp_path / "imagenet.pth"), state())


def test_a_mapping_without_tensors_hides_no_weights(tmp_path: Path) -> None:
    torch.save(state() | {"model": {"depth": 50}}, tmp_path / "flat.pth")
    assert same(read(tmp_path / "flat.pth"), state())


class Runs:
    """Whoever unpickles it runs a command."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.made = (call, arguments)

    def __reduce__(self) -> Any:
        return self.made


def files_of(tmp_path: Path, content: Any, protocol: int) -> list[Path]:
    """The same pickle as all of an old file, and within a new one."""
    data, old, new = pickle.dumps(content, protocol), tmp_path / "old.pth", tmp_path / "new.pth"
    old.write_bytes(data)
    with zipfile.ZipFile(new, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return [old, new]


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_file_runs_nothing(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    attacks = [
        Runs(os.system, f"touch {trace}"),
        Runs(builtins.eval, f"open({str(trace)!r}, 'w')"),
        Runs(builtins.getattr, "a", "join"),
        Runs(open, str(trace), "w"),
        Runs(torch.load, str(trace)),
        Runs(collections.Counter, "abc"),
        Runs(bytearray, 10**12),
    ]
    for attack in attacks:
        for path in files_of(tmp_path, {"weight": torch.zeros(2).tolist(), "more": [attack]}, protocol):
            with pytest.raises(BundleError, match=r"nothing was run|Copy it again"):
                read(path)
    assert not trace.exists()
    with pytest.raises(BundleError, match=f"'{os.system.__module__}.system', which is no weight; nothing was run"):
        read(files_of(tmp_path, attacks[0], protocol)[1])


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"ios\nsystem\n(S'true'\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x02cos\nsystem\n)\x81.",  # NEWOBJ
        b"\x82\x01.",  # an extension's code
        b"c_codecs\nencode\n(S'a'\nS'b'\nS'c'\ntR.",
        b"cnumpy\ndtype\n(S'O8'\ntRcnumpy.core.multiarray\nscalar\n(g0\nS'x'\ntR.",
        b"ctorch.storage\n_load_from_bytes\n(S'x'\ntR.",
        b"0.",
        b"R.",
        b"}q\x00S'model'\nh\x00s.",  # itself within itself
        b"}S'a'\n.",
        b"",
        b"(((((",
    ],
)
def test_programs_that_are_no_weights_are_refused(tmp_path: Path, program: bytes) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    with pytest.raises(BundleError):
        read(path)


def damaged(path: Path, **changes: Any) -> None:
    """A file with a tensor whose facts are no longer true."""
    stream = io.BytesIO()
    torch.save({"w": torch.zeros(4)}, stream)
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(path, "w", changes.get("compression", 0)) as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("data/0"):
                data = data[: changes.get("length", 99)]
            if entry.filename.endswith("byteorder"):
                data = changes.get("order", data)
            new.writestr(entry.filename, data)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    damaged(path)
    assert read(path)["w"].shape == (4,)
    for changes in ({"length": 7}, {"order": b"big"}, {"compression": zipfile.ZIP_DEFLATED}):
        damaged(path, **changes)
        with pytest.raises(BundleError, match="Copy it again"):
            read(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BundleError):
        read(path)
    with pytest.raises(BundleError, match="no file of weights 'b"):
        read(tmp_path / "b.pth")


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path) -> None:
    """A stride of 0 would make a terabyte of four bytes."""
    torch.save({"w": torch.zeros(1).expand(1000, 1000, 1000)}, tmp_path / "a.pth")
    with pytest.raises(BundleError):
        read(tmp_path / "a.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_with_any_bytes_changed_are_read_or_refused(tmp_path: Path, zipped: bool) -> None:
    rng, path, stream = np.random.default_rng(0), tmp_path / "a.pth", io.BytesIO()
    torch.save({"state_dict": state(), "epoch": 3}, stream, _use_new_zipfile_serialization=zipped)
    whole = np.frombuffer(stream.getvalue(), np.uint8)
    for _ in range(150):
        changed, places = whole.copy(), rng.integers(0, len(whole), 3)
        changed[places] = rng.integers(0, 256, 3)
        path.write_bytes(changed.tobytes())
        with contextlib.suppress(BundleError):  # and nothing else
            read(path)
