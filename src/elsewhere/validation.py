"""Check what a person wrote against a model, and say what is wrong in plain sentences.

Values have the types of JSON and TOML and are not bent: text is no number, 1 is not true.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from elsewhere.errors import SettingsError, near_miss

ModelT = TypeVar("ModelT", bound=BaseModel)
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Where a value stands: a source (a file, a kernelspec) and the keys that lead to it."""

    source: str
    keys: Path = ()

    def __truediv__(self, key: str | int) -> Place:
        return Place(self.source, (*self.keys, key))

    def __str__(self) -> str:
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys)
        return f"{self.source}: {path.removeprefix('.')}" if path else self.source


@dataclass
class Problems:
    """What was found wrong so far, so that all of it can be told at once."""

    told: list[tuple[Place, str]] = field(default_factory=list)

    def add(self, place: Place, sentence: str) -> None:
        self.told.append((place, sentence))

    def complain(self) -> None:
        """Raise one SettingsError with all the problems, a line each; return if there are none."""
        if self.told:
            (place, sentence), *others = self.told
            raise SettingsError(str(place), "\n".join([sentence, *(f"{at}: {text}" for at, text in others)]))

    def table(self, place: Place, value: object) -> Mapping[str, Any]:
        """Return the value if it is a table, else an empty one and a problem."""
        if isinstance(value, Mapping):
            return value
        self.add(place, f"must be a table, not {_described(value)}")
        return {}

    def unknown(self, place: Place, table: Mapping[str, object], known: Sequence[str]) -> None:
        """Add a problem for each key that is not among the known ones."""
        for key in table:
            if key not in known:
                self.add(place / key, f"unknown key{near_miss(key, known)}")

    def check(
        self,
        model: type[ModelT],
        data: Mapping[str, object],
        where: Place | Callable[[str], Place],
        also_known: Sequence[str] = (),
    ) -> ModelT | None:
        """Return the model made of ``data``, or None and a problem for each thing wrong.

        ``where`` is the table's place, or tells it for each of its keys where they come from several
        tables. ``also_known`` keys are checked by somebody else and only suggested as near misses.
        """
        try:
            return model.model_validate_json(json.dumps(data, default=str), strict=True)
        except ValidationError as error:
            for path, sentence in _problems(model, data, error, also_known):
                place = where if isinstance(where, Place) else where(str(path[0]) if path else "")
                self.add(Place(place.source, (*place.keys, *path)), sentence)
            return None


def _problems(
    model: type[BaseModel], data: object, error: ValidationError, also_known: Sequence[str]
) -> Iterator[tuple[Path, str]]:
    told: dict[Path, list[str]] = {}
    for detail in error.errors(include_url=False):
        path = _path_in(data, detail)
        known = [*_keys(_model_at(model, path[:-1])), *(also_known if len(path) == 1 else ())]
        told.setdefault(path, []).append(_sentence(detail, path, known))
    for path, sentences in told.items():
        yield path, _joined(sentences)


def _joined(sentences: list[str]) -> str:
    """Make one sentence of what the members of a union say of the same value."""
    unique = list(dict.fromkeys(sentences))
    parts = [sentence.partition(", not ") for sentence in unique]
    if len(unique) > 1 and all(sentence.startswith("must be ") for sentence in unique):
        wanted = " or ".join(dict.fromkeys(before.removeprefix("must be ") for before, _, _ in parts))
        found = next((f", not {after}" for _, _, after in parts if after), "")
        return f"must be {wanted}{found}"
    return "; ".join(unique)


def _path_in(data: object, detail: ErrorDetails) -> Path:
    """Return the keys in the error's location; what else is in it names the members of unions."""
    path: list[str | int] = []
    for part in detail["loc"]:
        in_table = isinstance(data, Mapping) and part in data
        if in_table or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            data = data[part]  # type: ignore[index]
            path.append(part)
        elif detail["type"] == "missing" and part == detail["loc"][-1]:
            path.append(part)
    return tuple(path)


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int):
            continue
        fields = current.model_fields.items() if current else ()
        found = [one.annotation for name, one in fields if part in (name, one.alias)]
        current = next(_models_in(found[0]), None) if found else None
    return current


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    # Python 3.10 takes list[str] for a class.
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _keys(model: type[BaseModel] | None) -> list[str]:
    return [one.alias or name for name, one in model.model_fields.items()] if model else []


_NOUNS = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "dict": "a table",
    "model": "a table",
    "model_attributes": "a table",
}


def _sentence(detail: ErrorDetails, path: Path, known: Sequence[str]) -> str:
    kind, found = detail["type"], detail["input"]
    if kind == "missing":
        return "is missing, and has no default"
    if kind == "extra_forbidden":
        return f"unknown key{near_miss(str(path[-1]), known)}"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    noun = _NOUNS.get(kind.removesuffix("_type").removesuffix("_parsing").removesuffix("_from_float"))
    if noun:
        return f"must be {noun}, not {_described(found)}"
    if detail["msg"].startswith("Input should be "):
        return f"must be {detail['msg'].removeprefix('Input should be ')}, not {_described(found)}"
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _described(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return f"the text {json.dumps(value if len(value) <= 60 else value[:57] + '...', ensure_ascii=False)}"
    return str(value)
