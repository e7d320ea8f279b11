"""The nouns as JSON and back: what caches, truth files and reports on disk hold."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from fovea.errors import InputError
from fovea.types import Bools, Box, Mask, OrientedBox, Patch, Polygon

T = TypeVar("T")
_TAGGED = {kind.__name__: kind for kind in (Mask, Patch, Box, OrientedBox, Polygon)}


def to_json(value: Any) -> Any:
    """Plain dicts, lists and scalars; a mask becomes its shape and run lengths, starting with False."""
    if isinstance(value, Mask):
        return {"region": "Mask", **_runs(value.data)}
    if isinstance(value, Patch):
        return {"region": "Patch", "start": list(value.start), **_runs(value.data)}
    if is_dataclass(value) and not isinstance(value, type):
        tag = {"region": type(value).__name__} if type(value) in _TAGGED.values() else {}
        return tag | {item.name: to_json(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (frozenset, set)):
        return sorted(to_json(item) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_json(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def from_json(kind: type[T], data: Any) -> T:
    """The inverse of `to_json` for a dataclass of `fovea.types`; raises InputError on data of another form."""
    try:
        return cast(T, _decode(kind, data))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"JSON that is no {kind.__name__} ({error!r})", f"what to_json wrote of a {kind.__name__}"
        ) from error


def _decode(kind: Any, data: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if data is None:
            return None
        if isinstance(data, dict) and "region" in data:
            return _decode(_TAGGED[data["region"]], {key: value for key, value in data.items() if key != "region"})
        return _decode(next(a for a in arguments if a is not type(None)), data)
    if origin is Literal:
        return data
    if origin is tuple:
        inner = [arguments[0]] * len(data) if arguments[1:] == (...,) else arguments
        return tuple(_decode(k, item) for k, item in zip(inner, data, strict=True))
    if origin is frozenset:
        return frozenset(_decode(arguments[0], item) for item in data)
    if origin is not None and issubclass(origin, Mapping):
        return {key: _decode(arguments[1], item) for key, item in data.items()}
    if kind is Mask:
        return Mask(_bits(data))
    if kind is Patch:
        start, row, column = data["start"]
        return Patch((start, row, column), _bits(data))
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return cast(Any, kind)(**{key: _decode(hints[key], value) for key, value in data.items()})
    return float(data) if kind is float else data


def _runs(mask: Bools) -> dict[str, Any]:
    """The shape of a mask, and the lengths of its runs, False first."""
    flat = mask.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flat.view(np.uint8), [0]))))
    bounds = np.concatenate(([0], edges, [flat.size]))
    return {"shape": list(mask.shape), "runs": np.diff(bounds).tolist()}


def _bits(data: Mapping[str, Any]) -> Bools:
    runs = np.array(data["runs"], int)
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(data["shape"])
