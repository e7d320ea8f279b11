"""Code blocks of Markdown pages, and the packages that they spell out.

An HTML comment right before a block says what it is: `<!-- file: a/b.py -->` is written to that place, and
`<!-- needs: model -->` runs where the demo's models are. `<!-- after: page.md -->` lays out that page's files first.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

_NOTE = re.compile(r"<!--\s*(\w+):\s*(.*?)\s*-->")


@dataclass(frozen=True)
class Block:
    """One fenced block: where it stands, its language, its text, and the comments on the line before it."""

    page: Path
    line: int
    language: str
    text: str
    notes: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def pages(repository: Path) -> list[Path]:
    """README, CONTRIBUTING and everything under docs/."""
    return [repository / "README.md", repository / "CONTRIBUTING.md", *sorted((repository / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found, notes, opened, lines = [], {}, None, []
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if opened is None and line.startswith("```"):
            opened, lines = (number, line[3:].strip()), []
        elif opened and line.strip() == "```":
            found.append(Block(page, *opened, "\n".join(lines) + "\n", notes))
            opened, notes = None, {}
        elif opened:
            lines.append(line)
        elif line.strip():
            notes = dict(_NOTE.findall(line))
    if opened:
        raise ValueError(f"{page.name}:{opened[0]}: the block does not end")
    return found


def lay_out(page: Path, folder: Path) -> None:
    """Write the files that a page spells out, and those of the page that it follows."""
    for before in re.findall(r"<!--\s*after:\s*(\S+)\s*-->", page.read_text()):
        lay_out(page.parent / before, folder)
    for block in blocks(page):
        if "file" in block.notes:
            path = folder / block.notes["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)


def install(folder: Path) -> list[Path]:
    """Make the projects under a folder importable as pip would: their entry points stand beside them."""
    roots = []
    for file in folder.glob("*/pyproject.toml"):
        project = tomllib.loads(file.read_text())["project"]
        info = file.parent / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        groups = project["entry-points"].items()
        (info / "entry_points.txt").write_text(
            "\n".join(
                line for group, points in groups for line in (f"[{group}]", *(f"{k}={v}" for k, v in points.items()))
            )
        )
        roots.append(file.parent)
    return roots
