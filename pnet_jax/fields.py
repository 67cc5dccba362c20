"""Frozen dataclasses as nested dictionaries and back, checked in plain sentences."""

import dataclasses
import difflib
import types
import typing
from typing import Any

from ml_collections import config_dict

from pnet_jax.errors import UserError


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"model": {"name": ...}}` to `{"model.name": ...}`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def suggest(name: str, known: list[str]) -> str:
    """The nearest of the `known` names as a clause, or nothing."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def defaults(instance: Any) -> dict[str, Any]:
    """The values of a dataclass and those in it; an absent one as a placeholder of its type."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            values[field.name] = defaults(value)
        elif value is None:
            values[field.name] = config_dict.placeholder(_types(field.type)[0])
        else:
            values[field.name] = value
    return values


def _types(annotation: Any) -> tuple[type, ...]:
    """The types a field accepts, None's left out."""
    if isinstance(annotation, types.UnionType):
        return tuple(t for t in typing.get_args(annotation) if t is not type(None))
    return (annotation,)


def build(cls: Any, values: dict[str, Any], prefix: str) -> Any:
    """The dataclass of these values.

    Raises:
      UserError: for an unknown field (with the nearest name) or a value of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in values:
        require(
            name in fields,
            f"There is no field {prefix}.{name}{suggest(name, list(fields))}",
        )
    built = {}
    for name, value in values.items():
        annotation = fields[name].type
        if dataclasses.is_dataclass(annotation):
            require(
                isinstance(value, dict),
                f"{prefix}.{name} is {value!r}, but it is a group of fields; set those.",
            )
            built[name] = build(annotation, value, f"{prefix}.{name}")
            continue
        accepted = _types(annotation)
        if isinstance(value, int) and not isinstance(value, bool) and float in accepted:
            value = float(value)
        optional = isinstance(annotation, types.UnionType) and value is None
        wanted = " or ".join(t.__name__ for t in accepted)
        require(
            optional or (type(value) in accepted),
            f"{prefix}.{name} is {value!r}, of type {type(value).__name__}; it must be of type "
            f"{wanted}.",
        )
        built[name] = value
    return cls(**built)


def require(condition: bool, sentence: str) -> None:
    """Raises UserError with the sentence if the condition does not hold."""
    if not condition:
        raise UserError(sentence)
