from medseg.losses import About, create_loss, list_losses, names


def test_every_loss_says_what_it_is():
    table = list_losses()
    assert tuple(row.name for row in table) == names()
    for row in table:
        assert row.summary.endswith("."), row.name
        assert all(len(text) > 5 for text in (row.formula, row.paper, row.equation)), row.name
        assert any(year in row.paper for year in map(str, range(1990, 2026))), row.name


def test_defaults_are_those_of_the_loss():
    for row in list_losses():
        create_loss(row.name, **row.defaults)
        assert not {"activation", "ignore_index", "class_weights"} & set(row.defaults)


def test_as_text():
    row = About("x", "A loss.", "1 - p", "A 2020", "3", {"alpha": 1 / 3, "batch": False, "beta": None})
    assert row.options == "alpha=0.3333333333333333, batch=false, beta=null"
    assert str(row).splitlines()[:2] == ["x: A loss.", "    formula   1 - p"]
