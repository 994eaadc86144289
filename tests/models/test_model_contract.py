"""What every architecture keeps to: being listed means being tested."""

import pytest
import safetensors.torch
import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.models import Output, create_model, names, presets, resolve

SIZE = {2: (18, 12), 3: (10, 12, 8)}
every_model = pytest.mark.parametrize("name", names())
every_dims = pytest.mark.parametrize("dims", [2, 3], ids=["2d", "3d"])


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


@every_model
@every_dims
@pytest.mark.parametrize("channels", [1, 5])
def test_logits_have_the_size_of_the_image(name, dims, channels):
    logits = make(name, dims, channels)(image(SIZE[dims], channels=channels))
    assert logits.shape == (2, 3, *SIZE[dims])
    assert logits.isfinite().all()
    assert logits.std() > 0.01


@every_model
@pytest.mark.parametrize("size", [(13, 7), (17, 1), (1, 1), (9, 5, 7), (5, 1, 11), (1, 1, 1)], ids=str)
def test_any_size_and_a_batch_of_one(name, size):
    net = make(name, len(size))
    assert net(image(size, batch=1)).shape == (1, 3, *size)
    output = net.train()(image(size, batch=1))
    assert logits_of(output).shape == (1, 3, *size)
    logits_of(output).square().sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in net.parameters())


@every_model
@every_dims
def test_every_weight_learns(name, dims):
    net = make(name, dims).train()
    output = net(image(SIZE[dims]))
    levels = (logits_of(output), *getattr(output, "auxiliary", ()))
    sum((level**3).mean() for level in levels).backward()
    slopes = {key: weight.grad for key, weight in net.named_parameters()}
    assert all(slope is not None and slope.isfinite().all() for slope in slopes.values())
    idle = [key for key, slope in slopes.items() if not slope.any()]
    assert all(slopes[key].ndim == 1 for key in idle), idle  # a bias before a normalisation has no effect


@every_model
@every_dims
def test_a_few_steps_fit_an_image(name, dims):
    net = make(name, dims, classes=2).train()
    x = image(SIZE[dims])
    truth = (x[:, 0] > 0).long()
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(logits_of(net(x)), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
    assert losses[-1] < 0.6


@every_model
@every_dims
def test_alone_as_in_a_batch(name, dims):
    net, x = make(name, dims), image(SIZE[dims], batch=3)
    together = net(x)
    for index in range(3):
        torch.testing.assert_close(net(x[index : index + 1]), together[index : index + 1], rtol=1e-4, atol=1e-5)


@every_model
@every_dims
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


@every_model
@every_dims
def test_an_image_is_not_written_to(name, dims):
    x = image(SIZE[dims])
    make(name, dims).train()(x)
    assert torch.equal(x, image(SIZE[dims]))


@every_model
@every_dims
def test_extra_outputs_are_for_training_only(name, dims):
    net = make(name, dims)
    assert isinstance(net(image(SIZE[dims])), torch.Tensor)
    output = net.train()(image(SIZE[dims]))
    if isinstance(output, Output):
        assert output.auxiliary
        assert all(level.shape[:2] == (2, 3) for level in output.auxiliary)


@every_model
@every_dims
def test_half_precision_is_finite_and_near(name, dims):
    net, x = make(name, dims).train(), image(SIZE[dims])
    for module in net.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    expected = logits_of(net(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = logits_of(net(x))
    logits.float().square().sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in net.parameters())
    assert (logits.float() - expected).abs().mean() < 0.1 * expected.std()


@every_model
@pytest.mark.parametrize("axis", range(3))
def test_an_axis_of_its_own(name, axis):
    """Kernels of 1 and strides of 1 along an axis: planes across it are not mixed, where nothing else mixes them."""
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
    assert changed[3] > 1e-3
    changed[3] = 0
    assert changed.max() < 1e-5


@every_model
@every_dims
def test_presets_differ_and_are_complete(name, dims, count):
    assert "tiny" in presets(name)
    weights = {preset: count(name, preset, dims, 1, 2) for preset in presets(name)}
    assert min(weights, key=weights.get) == "tiny"
    assert weights["tiny"] < 25_000
    assert len(set(weights.values())) == len(weights)
    for preset in presets(name):
        settings = resolve({"name": name, "preset": preset})
        assert "preset" not in settings
        assert resolve(settings) == settings


@every_model
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strides": (2,) * 9}, r"^model: .*got .*$"),
        ({"strides": ((2, 2),) * 5}, r"^model.*$"),
        ({"norm": "layer"}, r"^model\.norm: .*got 'layer'$"),
        ({"nrm": "batch"}, r"^model\.nrm: unknown option\. Did you mean 'norm'\?$"),
    ],
    ids=["count", "axes", "norm", "name"],
)
def test_wrong_options_are_one_line(name, wrong, message):
    if "strides" in wrong and "strides" not in resolve(name):
        pytest.skip("keeps one resolution")
    with pytest.raises(ConfigError, match=message):
        make(name, 3, **wrong)


@every_model
def test_even_kernels_are_refused(name):
    kernels = {"kernels": (3, 2, 3)} if name == "unet" else {"kernel": 2}
    with pytest.raises(ConfigError, match=r"^model\.kernel.*odd.*got 2$"):
        make(name, 3, **kernels)
