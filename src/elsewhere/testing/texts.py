"""All that a request or a sighting says, as text, and how a secret in it may be spelt."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, is_dataclass

from pydantic import BaseModel


def text_of(value: object) -> str:
    """Return all that a request or a sighting says, as one text."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return value if isinstance(value, str) else json.dumps(value, default=repr, ensure_ascii=False)


def spellings(word: str) -> list[str]:
    """Return how a word may be written: plain, hexadecimal, and within something in base 64."""
    content = word.encode()
    shifted = [base64.b64encode(b"x" * n + content).decode()[4:-4] for n in range(3)]
    return [word, content.hex(), *shifted]
