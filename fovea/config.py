"""Recipes: frozen pydantic models read from YAML, with `key=value` overrides and all errors at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from fovea.errors import ConfigError


class Config(BaseModel):
    """The base of every recipe part: frozen, unknown keys refused, help text under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


C = TypeVar("C", bound=Config)


def load(model: type[C], path: Path, overrides: Iterable[str] = ()) -> C:
    """Read a recipe and apply overrides such as `stage1.steps=20`; raises ConfigError naming every fault."""
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", "a YAML recipe", "Check the path.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}", "a YAML recipe") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {type(data).__name__}", "keys and values")
    for override in overrides:
        _override(data, override)
    return parse(model, data)


def parse(model: type[C], data: Mapping[str, Any]) -> C:
    """Check `data` against a recipe model; raises ConfigError naming every fault and the nearest known key."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = [_fault(model, fault["type"], fault["loc"], fault["msg"]) for fault in error.errors()]
        raise ConfigError("; ".join(faults), remedy="Correct the recipe and start again.") from None


def _override(data: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ConfigError(f"override {text!r}", "key=value, such as stage1.steps=20")
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise ConfigError(f"override {text!r}: {parent!r} is a value, not a group", "a key inside a group")
    data[last] = yaml.safe_load(value)


def _fault(model: type[BaseModel], kind: str, place: tuple[int | str, ...], message: str) -> str:
    key = ".".join(map(str, place))
    if kind != "extra_forbidden":
        return f"{key}: {message}"
    near = get_close_matches(str(place[-1]), _fields(model, place[:-1]), 1)
    return f"unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else "")


def _fields(model: Any, place: tuple[int | str, ...]) -> list[str]:
    """The keys known at a place, through nested models, lists, dicts and unions."""
    models = _models(model)
    for step in place:
        if not isinstance(step, str):
            continue
        inner = [m.model_fields[step].annotation for m in models if step in m.model_fields]
        models = [found for annotation in inner for found in _models(annotation)] or models
    return [name for m in models for name in m.model_fields]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in _models(argument)]
