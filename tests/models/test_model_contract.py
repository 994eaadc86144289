"""What every architecture keeps to: being listed means being tested."""

import contextlib
import importlib
import itertools
import math

import pytest
import safetensors.torch
import torch
from torch import nn

from medseg import memory
from medseg.errors import ConfigError, MedsegError
from medseg.losses import create_loss
from medseg.models import Output, about, create_model, list_models, names, parameters, presets, resolve
from medseg.models._about import FAMILIES

SIZE = {2: (18, 12), 3: (10, 12, 8)}
HALVES = {2: (40, 16), 3: (40, 8, 12)}  # of which each half has elements of its own at stride 32
CASES = [(row.name, dims) for row in list_models() for dims in row.dims]
every_model = pytest.mark.parametrize("name", names())
every_case = pytest.mark.parametrize(("name", "dims"), CASES, ids=[f"{name}-{dims}d" for name, dims in CASES])


def options_of(name):
    return importlib.import_module(f"medseg.models.{name}").Config.model_fields


def having(*options):
    """Those of the architectures that have an option."""
    return pytest.mark.parametrize("name", [name for name in names() if set(options) & set(options_of(name))])


def make(name, dims, channels=1, classes=3, **options):
    """The tiny preset, with the same weights whenever it is made."""
    torch.manual_seed(0)
    return create_model(
        name, spatial_dims=dims, in_channels=channels, out_channels=classes, preset="tiny", **options
    ).eval()


def image(size, batch=2, channels=1):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def logits_of(output):
    return output.logits if isinstance(output, Output) else output


def steady(net):
    """The network without what is drawn anew each time."""
    for module in net.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return net


@every_case
@pytest.mark.parametrize("channels", [1, 5])
def test_logits_have_the_size_of_the_image(name, dims, channels):
    logits = make(name, dims, channels)(image(SIZE[dims], channels=channels))
    assert logits.shape == (2, 3, *SIZE[dims])
    assert logits.isfinite().all()
    assert logits.std() > 1e-5  # not dead, though its running figures are those of no data


ODD = {2: [(13, 7), (17, 1), (1, 1)], 3: [(9, 5, 7), (5, 1, 11), (1, 1, 1)]}
SIZES = [(name, size) for name, dims in CASES for size in ODD[dims]]


@pytest.mark.parametrize(("name", "size"), SIZES, ids=str)
def test_any_size_and_a_batch_of_one(name, size):
    net = make(name, len(size))
    assert net(image(size, batch=1)).shape == (1, 3, *size)
    output = net.train()(image(size, batch=1))
    assert logits_of(output).shape == (1, 3, *size)
    logits_of(output).square().sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in net.parameters())


@every_case
def test_every_weight_learns(name, dims):
    aux = {"aux": True} if "aux" in options_of(name) else {}
    net = make(name, dims, **aux).train()
    for weight in net.parameters():
        if not weight.any():  # the scale of an attention that begins at 0 lets nothing through
            nn.init.normal_(weight, std=0.1)
    output = net(image(SIZE[dims]))
    levels = (logits_of(output), *getattr(output, "auxiliary", ()))
    sum((level**3).mean() for level in levels).backward()
    slopes = {key: weight.grad for key, weight in net.named_parameters()}
    assert all(slope is not None and slope.isfinite().all() for slope in slopes.values())
    idle = [key for key, slope in slopes.items() if not slope.any()]
    assert all(slopes[key].ndim == 1 for key in idle), idle  # a bias before a normalisation has no effect


@every_case
def test_a_few_steps_fit_an_image(name, dims):
    """Two halves, one bright: what a network of any stride can tell apart, and one that lost the places cannot."""
    net, x = steady(make(name, dims, classes=2)).train(), image(HALVES[dims])
    truth = torch.zeros(len(x), *HALVES[dims], dtype=torch.long)
    truth[0, 20:] = truth[1, :20] = 1
    x = 0.3 * x + truth[:, None] * 2 - 1
    optimiser, losses = torch.optim.AdamW(net.parameters(), lr=0.01), []
    for _ in range(20):
        loss = nn.functional.cross_entropy(logits_of(net(x)), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < min(0.8 * losses[0], 0.55)


@every_case
def test_alone_as_in_a_batch(name, dims):
    net, x = make(name, dims), image(SIZE[dims], batch=3)
    together = net(x)
    rounding = 1e-5 * max(1.0, float(together.detach().abs().max()))  # untrained networks may give hundreds
    for index in range(3):
        torch.testing.assert_close(net(x[index : index + 1]), together[index : index + 1], rtol=1e-4, atol=rounding)


@every_case
def test_stored_weights_give_the_same_answer(name, dims):
    net, x = make(name, dims), image(SIZE[dims])
    net.train()(x)  # moves running figures, where there are any
    stored = safetensors.torch.save({key: value.contiguous() for key, value in net.state_dict().items()})
    other = make(name, dims)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(1)
    other.load_state_dict(safetensors.torch.load(stored))
    assert torch.equal(other(x), net.eval()(x))


@every_case
def test_an_image_is_not_written_to(name, dims):
    x = image(SIZE[dims])
    make(name, dims).train()(x)
    assert torch.equal(x, image(SIZE[dims]))


@every_case
def test_extra_outputs_are_for_training_only(name, dims):
    has_aux = "aux" in options_of(name)
    net = make(name, dims, **{"aux": True} if has_aux else {})
    assert isinstance(net(image(SIZE[dims])), torch.Tensor)
    output = net.train()(image(SIZE[dims]))
    assert isinstance(output, Output) or not has_aux
    if isinstance(output, Output):
        assert output.auxiliary or output.boundary is not None
        assert all(level.shape[:2] == (2, 3) for level in output.auxiliary)
        sizes = [level[0, 0].numel() for level in output.auxiliary]
        assert sizes == sorted(sizes, reverse=True), "finest first"
        create_loss("dice_ce")(output, torch.zeros(2, *SIZE[dims], dtype=torch.long)).backward()


@pytest.mark.parametrize("name", [name for name in names() if "aux" in options_of(name)])
def test_without_aux_no_weight_of_it_is_there(name):
    count = {aux: parameters(name, spatial_dims=2, preset="tiny", aux=aux) for aux in (False, True)}
    assert count[True] >= count[False]
    assert isinstance(make(name, 2, aux=False).train()(image(SIZE[2])), torch.Tensor)


@every_case
def test_channels_last_gives_the_same(name, dims):
    net, x = make(name, dims), image(SIZE[dims])
    expected = net(x)
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    torch.testing.assert_close(net.to(memory_format=layout)(x.to(memory_format=layout)), expected, rtol=1e-3, atol=1e-4)


@every_case
def test_half_precision_is_finite_and_near(name, dims):
    net, x = steady(make(name, dims)), image(HALVES[dims])
    expected = net(x)  # normalised by stored figures: those of two elements would turn rounding into signs
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(x)
        logits_of(net.train()(x)).float().square().sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in net.parameters())
    assert (logits.float() - expected).abs().mean() < 0.4 * expected.std()  # places of maxima may change


@having("strides")
@pytest.mark.parametrize("axis", range(3))
def test_an_axis_of_its_own(name, axis):
    """Kernels of 1 and strides of 1 along an axis: planes across it are not mixed, where nothing else mixes them."""
    if axis == 2 and about(name).family == "recurrent":
        pytest.skip("slices along the last axis are a sequence")
    kernel = tuple(1 if n == axis else 3 for n in range(3))
    stride = tuple(1 if n == axis else 2 for n in range(3))
    tiny = resolve({"name": name, "preset": "tiny"})
    options = {"kernels": (kernel,) * 3} if name == "unet" else {"kernel": kernel}
    if "strides" in tiny:
        options["strides"] = (stride,) * len(tiny["strides"])
    options["norm"] = "none" if name == "reversible_unet" else "batch"
    net = make(name, 3, **options)
    x = image((7, 9, 11))
    before = net(x)
    x.select(2 + axis, 3).add_(1)
    changed = (net(x) - before).abs().amax(dim=[n for n in range(5) if n != 2 + axis])
    assert changed[3] > 1e-4
    changed[3] = 0
    assert changed.max() < 1e-5


@every_case
def test_presets_differ_and_are_complete(name, dims, count):
    assert "tiny" in presets(name)
    weights = {preset: count(name, preset, dims, 1, 2) for preset in presets(name)}
    assert min(weights, key=weights.get) == "tiny"
    assert weights["tiny"] < 200_000
    settled = [resolve({"name": name, "preset": preset}) for preset in presets(name)]
    assert settled[0] == resolve(name), "the first preset is the default"
    assert all(settled.count(settings) == 1 for settings in settled)
    for settings in settled:
        assert "preset" not in settings
        assert resolve(settings) == settings


@pytest.mark.zoo
@every_case
def test_torch_compile_sees_the_whole_network(name, dims):
    """Without a break in the graph, forward and back, unless the docstring says `Without: torch.compile`."""
    net, x = make(name, dims), image(SIZE[dims])
    expected = net(x)
    torch.compiler.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    if "torch.compile" in about(name).without:
        with pytest.raises(Exception, match=r"."):
            compiled(x)
        return
    found = compiled(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    found.square().sum().backward()


@every_model
def test_it_says_what_it_is(name):
    row = about(name)
    assert row.summary.endswith(".")
    assert row.family in FAMILIES
    assert row.author
    assert 1980 < row.year < 2100
    assert list(row.presets) == list(presets(name))


@having("strides")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"strides": (2,) * 9}, r"^model: .*got .*$"), ({"strides": ((2, 2),) * 5}, r"^model.*$")],
    ids=["count", "axes"],
)
def test_wrong_strides_are_one_line(name, wrong, message):
    with pytest.raises(ConfigError, match=message):
        make(name, 3, **wrong)


@having("norm")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "layer"}, r"^model\.norm: .*got 'layer'$"),
        ({"nrm": "batch"}, r"^model\.nrm: unknown option\. Did you mean 'norm'\?$"),
    ],
    ids=["norm", "name"],
)
def test_wrong_options_are_one_line(name, wrong, message):
    if "strides" in wrong and "strides" not in resolve(name):
        pytest.skip("keeps one resolution")
    with pytest.raises(ConfigError, match=message):
        make(name, 3, **wrong)


@having("kernel", "kernels")
def test_even_kernels_are_refused(name):
    kernels = {"kernels": (3, 2, 3)} if "kernels" in options_of(name) else {"kernel": 2}
    with pytest.raises(ConfigError, match=r"^model\.kernel.*odd.*got 2$"):
        make(name, 3, **kernels)


@having("width")
@pytest.mark.parametrize("width", [0.0, float("inf"), float("nan")])
def test_no_width_is_one_line(name, width):
    with pytest.raises(ConfigError, match=r"^model\.width: expected"):
        make(name, 2, width=width)


@every_model
def test_absurd_values_are_refused_in_a_line(name):
    dims = about(name).dims[0]
    for option, value in itertools.product(options_of(name), (math.inf, math.nan, -1, 1e30, 10**20, "", [10**9])):
        with contextlib.suppress(ConfigError):
            model = {"name": name, "preset": "tiny", option: value}
            net = create_model(model, spatial_dims=dims, in_channels=1, out_channels=2)
            assert sum(weight.numel() for weight in net.parameters()) < 1e7, (option, value)


def test_what_no_memory_holds_is_refused_before_it_is_taken(monkeypatch):
    make("pspnet", 2, width=1 / 8)
    monkeypatch.setattr(memory, "free_bytes", lambda: 0.0)
    with pytest.raises(MedsegError, match=r"weights take 0 GB, and 0 GB are free.*narrower"):
        make("pspnet", 2, width=1 / 8)


def test_counting_draws_no_random_number():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    parameters("unet", spatial_dims=2, preset="tiny")
    assert torch.equal(torch.rand(3), expected)
