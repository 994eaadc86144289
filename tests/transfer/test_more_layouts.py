"""Layouts of newer trunks, written down a second time as names with shapes; no file of others is read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medseg import transfer
from medseg.models import _backbones, create_model
from medseg.transfer import matched

Shapes = dict[str, tuple[int, ...]]
Row = tuple[int, int, int, int]  # kernel, channels within and after, and of the squeeze

V3: list[list[Row]] = [  # stages as timm divides MobileNetV3-Large
    [(3, 16, 16, 0)],
    [(3, 64, 24, 0), (3, 72, 24, 0)],
    [(5, 72, 40, 24), (5, 120, 40, 32), (5, 120, 40, 32)],
    [(3, 240, 80, 0), (3, 200, 80, 0), (3, 184, 80, 0), (3, 184, 80, 0)],
    [(3, 480, 112, 120), (3, 672, 112, 168)],
    [(5, 672, 160, 168), (5, 960, 160, 240), (5, 960, 160, 240)],
]


def b0() -> list[list[Row]]:
    """EfficientNet-B0: a squeeze to a quarter of what a block is given."""
    rows, inputs = [], 32
    for wider, width, repeats, kernel in (
        (1, 16, 1, 3),
        (6, 24, 2, 3),
        (6, 40, 2, 5),
        (6, 80, 3, 3),
        (6, 112, 3, 5),
        (6, 192, 4, 5),
        (6, 320, 1, 3),
    ):
        rows.append([(kernel, wider * n, width, n // 4) for n in (inputs, *[width] * (repeats - 1))])
        inputs = width
    return rows


def conv(name: str, outputs: int, inputs: int, kernel: int = 1, *, bias: bool = False) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, kernel, kernel)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}


def unit(names: tuple[str, str], outputs: int, inputs: int, kernel: int = 1) -> Shapes:
    return conv(names[0], outputs, inputs, kernel) | norm(names[1], outputs)


def squeeze(names: tuple[str, str], width: int, narrow: int) -> Shapes:
    return conv(names[0], narrow, width, bias=True) | conv(names[1], width, narrow, bias=True)


def torchvision(stages: list[list[Row]], base: int, *, flat: bool) -> Shapes:
    """Blocks numbered over the whole trunk in MobileNetV3, and by stage in EfficientNet."""
    found, inputs, number = unit(("features.0.0", "features.0.1"), base, 3, 3), base, 0
    for stage, rows in enumerate(stages, start=1):
        for n, (kernel, hidden, outputs, narrow) in enumerate(rows):
            number, rank = number + 1, 0
            ahead = f"features.{number}.block" if flat else f"features.{stage}.{n}.block"
            if hidden != inputs:
                found |= unit((f"{ahead}.0.0", f"{ahead}.0.1"), hidden, inputs)
                rank = 1
            found |= unit((f"{ahead}.{rank}.0", f"{ahead}.{rank}.1"), hidden, 1, kernel)
            if narrow:
                rank += 1
                found |= squeeze((f"{ahead}.{rank}.fc1", f"{ahead}.{rank}.fc2"), hidden, narrow)
            found |= unit((f"{ahead}.{rank + 1}.0", f"{ahead}.{rank + 1}.1"), outputs, hidden)
            inputs = outputs
    last = (number if flat else len(stages)) + 1
    return found | unit((f"features.{last}.0", f"features.{last}.1"), 960 if flat else 1280, inputs)


def in_segmenter(shapes: Shapes) -> Shapes:
    """torchvision's lraspp_mobilenet_v3_large, whose trunk is the features without their name."""
    return {name.replace("features.", "backbone."): shape for name, shape in shapes.items()}


def timm(stages: list[list[Row]], base: int) -> Shapes:
    found, inputs = unit(("conv_stem", "bn1"), base, 3, 3), base
    for stage, rows in enumerate(stages):
        for n, (kernel, hidden, outputs, narrow) in enumerate(rows):
            ahead, wide = f"blocks.{stage}.{n}", hidden != inputs
            found |= unit((f"{ahead}.conv_pw", f"{ahead}.bn1"), hidden, inputs) if wide else {}
            found |= unit((f"{ahead}.conv_dw", f"{ahead}.bn{1 + wide}"), hidden, 1, kernel)
            found |= squeeze((f"{ahead}.se.conv_reduce", f"{ahead}.se.conv_expand"), hidden, narrow) if narrow else {}
            found |= unit((f"{ahead}.conv_pw{'l' * wide}", f"{ahead}.bn{2 + wide}"), outputs, hidden)
            inputs = outputs
    if len(stages) == 6:
        return (
            found | unit(("blocks.6.0.conv", "blocks.6.0.bn1"), 960, inputs) | conv("conv_head", 1280, 960, bias=True)
        )
    return found | unit(("conv_head", "bn2"), 1280, inputs)


def xception41() -> Shapes:
    """timm's xception41; an eighth of its channels."""
    widths = [(8, (16, 16, 16)), (16, (32, 32, 32)), (32, (91, 91, 91)), *[(91, (91, 91, 91))] * 8]
    widths += [(91, (91, 128, 128)), (128, (192, 192, 256))]
    found = unit(("stem.0.conv", "stem.0.bn"), 4, 3, 3) | unit(("stem.1.conv", "stem.1.bn"), 8, 4, 3)
    for n, (inputs, outputs) in enumerate(widths):
        if n in (0, 1, 2, 11):
            found |= unit((f"blocks.{n}.shortcut.conv", f"blocks.{n}.shortcut.bn"), outputs[-1], inputs)
        for k, (before, after) in enumerate(zip((inputs, *outputs), outputs, strict=False), start=1):
            ahead = f"blocks.{n}.stack.conv{k}"
            found |= unit((f"{ahead}.conv_dw", f"{ahead}.bn_dw"), before, 1, 3)
            found |= unit((f"{ahead}.conv_pw", f"{ahead}.bn_pw"), after, before)
    return found | {"head.fc.weight": (1000, 256)}


def wide_resnet38(pair: str = "") -> Shapes:
    """In-Place ABN's wider_resnet38; a sixteenth of its channels. `pair`: what a rectifier beside it makes of a name."""
    found, inputs = conv("mod1.conv1", 4, 3, 3), 4
    table = ((3, (8, 8)), (3, (16, 16)), (6, (32, 32)), (3, (32, 64)), (1, (32, 64, 128)), (1, (64, 128, 256)))
    for module, (blocks, widths) in enumerate(table, start=2):
        for n in range(1, blocks + 1):
            ahead = f"mod{module}.block{n}"
            found |= norm(f"{ahead}.bn1{pair}", inputs)
            found |= conv(f"{ahead}.proj_conv", widths[-1], inputs) if n == 1 else {}
            for k, width in enumerate(widths, start=1):
                found |= norm(f"{ahead}.convs.bn{k}{pair}", inputs) if k > 1 else {}
                found |= conv(f"{ahead}.convs.conv{k}", width, inputs, 3 if len(widths) == 2 or k == 2 else 1)
                inputs = width
    return found | norm(f"bn_out{pair}", inputs)


def numbered(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Each tensor of a value of its own."""
    return {name: torch.full(shape, float(n)) for n, (name, shape) in enumerate(shapes.items(), start=1)}


@pytest.mark.parametrize(
    ("layout", "theirs", "trunk", "options"),
    [
        ("MobileNetV3", torchvision(V3, 16, flat=True), "mobilenet_v3", {}),
        ("MobileNetV3", in_segmenter(torchvision(V3, 16, flat=True)), "mobilenet_v3", {"output_stride": 16}),
        ("MobileNetV3", timm(V3, 16), "mobilenet_v3", {"output_stride": 8}),
        ("EfficientNet", torchvision(b0(), 32, flat=False), "efficientnet_b0", {"output_stride": 16}),
        ("EfficientNet", timm(b0(), 32), "efficientnet_b0", {}),
        ("Xception", xception41(), "xception", {"depth": 41, "width": 1 / 8}),
        ("WideResNet", wide_resnet38(), "wide_resnet38", {"width": 1 / 16}),
        ("WideResNet", wide_resnet38(".0"), "wide_resnet38", {"width": 1 / 16, "output_stride": 32}),
    ],
    ids=["v3_torchvision", "v3_segmenter", "v3_timm", "b0_torchvision", "b0_timm", "xception", "wide", "wide_pairs"],
)
def test_every_tensor_of_a_trunk_comes_once(layout: str, theirs: Shapes, trunk: str, options: dict[str, Any]) -> None:
    ours = getattr(_backbones, trunk)(2, 3, **options)
    start = matched({f"module.{name}": tensor for name, tensor in numbered(theirs).items()}, ours, "a file")
    assert start.layout == layout
    assert start.share == 1
    assert not start.random
    values = [float(tensor.flatten()[0]) for tensor in start.weights.values()]
    assert len(set(values)) == len(values), "one for each"
    parts = ("weight", "bias", "running_mean", "running_var")
    given = {value: name.rpartition(".")[2] for value, name in enumerate(theirs, start=1)}
    for name, tensor in start.weights.items():
        part = name.rpartition(".")[2]
        assert part in parts
        assert given[int(tensor.flatten()[0])] == part


def test_units_keep_their_order() -> None:
    """What shapes do not tell: which of two equal convolutions is which."""
    theirs = numbered(xception41())
    start = matched(theirs, _backbones.xception(2, 3, 41, width=1 / 8), "a file").weights
    for ours, name in (
        ("stages.3.3.body.1.2.0.weight", "blocks.5.stack.conv2.conv_pw.weight"),
        ("stages.4.2.1.0.weight", "blocks.12.stack.conv2.conv_pw.weight"),
        ("stages.4.0.past.0.weight", "blocks.11.shortcut.conv.weight"),
    ):
        assert torch.equal(start[ours], theirs[name]), (ours, list(start)[-20:])


@pytest.mark.parametrize("layout", sorted(transfer._TRUNKS))
def test_names_of_others_are_no_error(layout: str) -> None:
    """Each layout is tried on each file."""
    shapes = [torchvision(V3, 16, flat=True), timm(V3, 16), timm(b0(), 32), xception41(), wide_resnet38()]
    odd: Shapes = {"features.0.block.0.0.weight": (1,), "blocks.6.9.bn3.weight": (1,), "blocks.0.0.conv_x.weight": (1,)}
    for theirs in (*shapes, odd, {}):
        transfer._TRUNKS[layout]({name: torch.empty(shape, device="meta") for name, shape in theirs.items()})


def test_a_network_begins_with_its_trunk() -> None:
    network = create_model("lr_aspp", spatial_dims=3, in_channels=1, out_channels=2)
    start = matched(numbered(timm(V3, 16)), network, "a file")
    assert start.layout == "MobileNetV3"
    assert 0.8 < start.share < 1
    assert all("trunk" not in name for name in start.random)
