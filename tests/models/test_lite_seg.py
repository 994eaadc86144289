from medseg.models import parameters


def test_weights():
    """The paper's 4.38 million (table 4) have the classifier of 1280 to 1000 in them, which segments nothing."""
    found = parameters("lite_seg", spatial_dims=2, in_channels=3, out_channels=19)
    assert found == 3_101_707
    assert round((found + 1281 * 1000) / 1e6, 2) == 4.38


def test_a_branch_costs_its_separable_convolutions():
    """One more rate: 9 + 96 weights for each of 1280 channels, 9 + 96 for each of 96, two norms; its map is squeezed."""
    counts = [
        parameters("lite_seg", spatial_dims=2, in_channels=3, out_channels=19, rates=rates)
        for rates in ((3, 6, 9), (3, 6))
    ]
    assert counts[0] - counts[1] == 105 * (1280 + 96) + 2 * 192 + 97 * 96
