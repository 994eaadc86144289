import pytest

from medseg.models import parameters


@pytest.mark.parametrize(("aux", "expected"), [(False, 39_638_869), (True, 42_004_074)])
def test_weights(aux, expected):
    found = parameters("deeplab_v3", preset="resnet50", aux=aux, spatial_dims=2, in_channels=3, out_channels=21)
    assert found == expected
