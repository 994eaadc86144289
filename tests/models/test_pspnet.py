import pytest

from medseg.models import parameters


@pytest.mark.parametrize(("aux", "expected"), [(False, 46_592_597), (True, 48_957_802)])
def test_weights(aux, expected):
    assert parameters("pspnet", preset="resnet50", aux=aux, spatial_dims=2, in_channels=3, out_channels=21) == expected
