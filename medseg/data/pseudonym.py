"""Patients by another name: an HMAC under a random key. A bare hash of a short number is guessed by trying all numbers."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from medseg.errors import DataError

_BYTES = 32
_PASSING = secrets.token_bytes(_BYTES)  # of a process that keeps no key


def key(cache: Path | None) -> bytes:
    """The key that is kept beside a cache of prepared cases, as `NAME.key`, made if there is none; or one of this process alone.

    It is as good as a list of the patients: whoever has it may try their numbers. Nobody else may read it.

    Raises:
        DataError: it cannot be written, or is damaged.
    """
    if cache is None:
        return _PASSING
    path = cache.with_name(f"{cache.name}.key")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            contextlib.suppress(FileExistsError),
            os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream,
        ):
            stream.write(secrets.token_bytes(_BYTES))
        found = path.read_bytes()
    except OSError as error:
        raise DataError(f"the key of patients' groups '{path}' cannot be kept: {error.strerror or error}") from error
    if len(found) != _BYTES:
        raise DataError(f"the key of patients' groups '{path}' is damaged. Delete it; groups get other names.")
    return found


def group(patient: str, secret: bytes) -> str:
    """The name of a patient's group."""
    return hmac.new(secret, patient.encode(), hashlib.sha256).hexdigest()[:12]
