"""Plugins by entry point: the built-in ones and a stranger's, found in the same way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, resolve_name
from pathlib import Path
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
            found[point.name] = Plugin(point.name, origin, lacks=_lacks(error.name or str(error), origin))
    return found


def listed(group: Group) -> dict[str, Plugin]:
    """The plugins of a group without values: what they lack is read from the text of their modules, and none is run.

    Packages that a plugin's own module imports inside a function count too, those that it can do without do not.
    """
    found: dict[str, Plugin] = {}
    for point in _unique(group):
        origin = point.dist.name if point.dist else point.value
        missing = _missing(point.module)
        found[point.name] = Plugin(point.name, origin, lacks=_lacks(missing, origin) if missing else "")
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


def _lacks(missing: str, origin: str) -> str:
    return f"needs {missing}: install it beside {origin}"


def _missing(module: str) -> str:
    """The first package that is not there and that a module needs, or one of its own package that it imports; or ""."""
    if _spec(module) is None:
        return module
    root = module.partition(".")[0]
    seen, waiting = {module}, [module]
    while waiting:
        name = waiting.pop()
        for needed in _imports(name, name == module):
            head = needed.partition(".")[0]
            if head == root and needed not in seen:
                seen.add(needed)
                waiting.append(needed)
            elif head != root and find_spec(head) is None:
                return head
    return ""


def _spec(module: str) -> ModuleSpec | None:
    """Where a module lies, without running the packages above it; None for what is no module."""
    head, *inner = module.split(".")
    spec, name = find_spec(head), head
    for part in inner:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec


@lru_cache(maxsize=512)
def _imports(module: str, functions: bool) -> tuple[str, ...]:
    """What a module imports when it is loaded and, with `functions`, inside its functions too, by full names."""
    spec = _spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return ()
    package = module if spec.submodule_search_locations else module.rpartition(".")[0]
    return tuple(dict.fromkeys(_imported(ast.parse(Path(spec.origin).read_bytes()), package, functions)))


def _imported(node: ast.AST, package: str, functions: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = resolve_name("." * child.level + (child.module or ""), package)
            yield from (base, *(f"{base}.{alias.name}" for alias in child.names))
        elif not _optional(child) and (functions or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))):
            yield from _imported(child, package, functions)


def _optional(node: ast.AST) -> bool:
    """Whether a block is for type checkers alone, or goes on without what it could not import."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.Try) and any(
        not any(isinstance(inner, ast.Raise) for inner in ast.walk(handler)) for handler in node.handlers
    )
