"""Writes docs/reference.md from the code: commands, recipe keys, contracts, types and errors."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from apps.cli import app
from curriculum import recipe
from experts import settings
from fovea import contracts, errors, image, types

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"
HEAD = "# Reference\n\nWritten by `scripts/docs` from the code; change the docstring, not this page.\n"


def render() -> str:
    """The page as text."""
    lines = [HEAD, "## Commands", *commands(typer.main.get_command(app), "fovea")]
    lines += ["## Recipe keys", *recipe_keys()]
    for title, module in (("Contracts", contracts), ("Types", types), ("Pictures", image), ("Errors", errors)):
        lines += [f"## {title}", *classes(module)]
    return "\n\n".join(line.strip("\n") for line in lines) + "\n"


def commands(command: Any, name: str) -> Iterator[str]:
    """The help of a command and of those below it."""
    with command.make_context(name, [], resilient_parsing=True, terminal_width=100) as context:
        yield f"### `{name}`"
        yield f"```text\n{command.get_help(context).strip()}\n```"
    for inner, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{name} {inner}")


def recipe_keys() -> Iterator[str]:
    """A table of keys for each part of a recipe."""
    for module in (recipe, settings):
        for part in own(module):
            if issubclass(part, BaseModel):
                rows = [
                    f"| `{key}` | {default(field.default)} | {' '.join((field.description or '').split())} |"
                    for key, field in part.model_fields.items()
                ]
                yield (
                    f"### `{part.__name__}`\n\n{inspect.getdoc(part)}\n\n| key | default | |\n|---|---|---|\n"
                    + "\n".join(rows)
                )


def classes(module: ModuleType) -> Iterator[str]:
    """Each class of a module with its docstring, fields and documented methods."""
    for kind in own(module):
        yield f"### `{kind.__name__}`"
        own_doc = kind.__doc__ or ""
        if own_doc and not own_doc.startswith(f"{kind.__name__}("):
            yield inspect.cleandoc(own_doc)
        if is_dataclass(kind):
            yield "\n".join(
                f"- `{f.name}: {f.type}`{'' if f.default is MISSING else f' = `{f.default!r}`'}" for f in fields(kind)
            )
        methods = [
            (n, m) for n, m in vars(kind).items() if not n.startswith("_") and callable(getattr(m, "__func__", m))
        ]
        documented = [(n, getattr(m, "__func__", m)) for n, m in methods if getattr(m, "__doc__", None)]
        if documented:
            yield "\n".join(
                f"- `{n}{signature(m)}`: {' '.join(inspect.cleandoc(m.__doc__).split())}" for n, m in documented
            )


def own(module: ModuleType) -> list[type]:
    """The public classes that a module defines, in the order of the source."""
    return [
        kind
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and kind.__module__ == module.__name__ and not name.startswith("_")
    ]


def signature(method: Any) -> str:
    return re.sub(r"\((self|cls)(, )?", "(", str(inspect.signature(method)).replace("'", ""))


def default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return f"see `{type(value).__name__}`"
    return "" if value is None else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(render())
