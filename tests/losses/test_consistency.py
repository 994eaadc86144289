from types import SimpleNamespace

import pytest
import torch

from medseg.errors import ConfigError
from medseg.losses import LossContext, create_loss


def test_a_second_prediction_that_is_given(batch):
    logits, target = batch
    second = torch.randn(logits.shape)
    expected = (logits.softmax(1) - second.softmax(1)).square().sum(1).mean()
    context = LossContext(extras={"second": second})
    torch.testing.assert_close(create_loss("consistency")(logits, target, context), expected)
    same = LossContext(extras={"second": logits.detach()})
    assert create_loss("consistency")(logits, target, same).item() == 0


def test_the_network_is_asked_once_about_a_noisy_image():
    torch.manual_seed(0)
    network, asked = torch.nn.Conv2d(1, 2, 3, padding=1), []

    def predict(image):
        asked.append(image)
        logits = network(image)
        return SimpleNamespace(logits=logits, auxiliary=(logits[..., ::2, ::2],))

    image, target = torch.randn(2, 1, 64, 64), torch.zeros(2, 64, 64, dtype=int)
    loss = create_loss("consistency", noise=0.5)
    context = LossContext(image=image, predict=predict)
    output = predict(image)
    value = loss(output, target, context)
    value.backward()
    assert len(asked) == 2
    assert (asked[1] - image).std().item() == pytest.approx(0.5, rel=0.05)
    assert value > 0
    assert network.weight.grad.any()


def test_without_noise_a_network_agrees_with_itself():
    network, image = torch.nn.Conv2d(1, 2, 3, padding=1), torch.randn(1, 1, 8, 8)
    context = LossContext(image=image, predict=network)
    value = create_loss("consistency", noise=0)(network(image), torch.zeros(1, 8, 8, dtype=int), context)
    assert value.item() == 0


def test_a_second_prediction_of_other_channels():
    context = LossContext(extras={"second": torch.zeros(1, 2, 4, 4)})
    with pytest.raises(ConfigError, match="needs 3 channels, as the first has, got 2"):
        create_loss("consistency")(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=int), context)


def test_nothing_to_compare_with(batch):
    with pytest.raises(ConfigError, match=r"two predictions: give it LossContext\(extras="):
        create_loss("consistency")(*batch)
