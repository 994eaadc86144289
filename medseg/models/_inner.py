"""A listed architecture inside another, as an option of it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from medseg import models


def _whole(model: dict[str, Any]) -> dict[str, Any]:
    if model.get("name") == "crf_rnn":
        raise ValueError("expected a network, got another crf_rnn")
    return models.resolve(model)


# A description as `model:` of a configuration takes it; it is kept with every option of the inner one.
Inner = Annotated[dict[str, Any], AfterValidator(_whole)]
create = models.create_model
