"""Plugins by entry point: the built-in ones and a stranger's, found in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, cast

from fovea.contracts import Domain, ExpertKind
from fovea.errors import PluginError

Group = Literal["fovea.domains", "fovea.experts"]


@dataclass(frozen=True)
class Plugin:
    """A plugin that is installed; `lacks` says what to install when it cannot be loaded."""

    name: str
    origin: str
    value: Any = None
    lacks: str = ""


def plugins(group: Group) -> dict[str, Plugin]:
    """All plugins of a group by name; two with one name raise PluginError."""
    found: dict[str, Plugin] = {}
    for point in _unique(group):
        origin = point.dist.name if point.dist else point.value
        try:
            found[point.name] = Plugin(point.name, origin, point.load())
        except ImportError as error:
            missing = error.name or str(error)
            found[point.name] = Plugin(point.name, origin, lacks=f"needs {missing}: install it beside {origin}")
    return found


def domain(name: str) -> Domain:
    """The domain of that name, made by its entry point's factory; raises PluginError."""
    return cast(Domain, _load("fovea.domains", name)())


def expert_kind(name: str) -> ExpertKind:
    """The kind of expert of that name; raises PluginError."""
    return cast(ExpertKind, _load("fovea.experts", name))


def _load(group: Group, name: str) -> Any:
    points = {point.name: point for point in _unique(group)}
    if name not in points:
        near = get_close_matches(name, points, 1)
        hint = f"Did you mean {near[0]!r}?" if near else "Install the package that brings it."
        raise PluginError(f"{group} has no {name!r}", f"one of {', '.join(sorted(points)) or 'none'}", hint)
    try:
        return points[name].load()
    except ImportError as error:
        raise PluginError(
            f"{name!r} cannot be loaded: {error}", "its packages", f"Install {error.name or 'them'}."
        ) from error


def _unique(group: Group) -> list[EntryPoint]:
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        if point.name in points and points[point.name].value != point.value:
            raise PluginError(
                f"{group} names {point.name!r} twice: {points[point.name].value} and {point.value}",
                "one plugin a name",
                "Uninstall one of the two packages.",
            )
        points[point.name] = point
    return list(points.values())
