"""Products as they are delivered: several files that are one scene, each known by the file that it begins with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domains.formats.content import Content


@dataclass(frozen=True)
class Product:
    """A kind of product: whether a file is the first of one, all files of that one, and what is in it.

    `reader` names the reader and its version, which changes with what is read.
    """

    reader: str
    begins: Callable[[Path], bool]
    files: Callable[[Path], tuple[Path, ...]]
    read: Callable[[Path], Content]


def product(path: Path) -> Product | None:
    """The kind of product that a file is the first of."""
    return next((kind for kind in _kinds() if kind.begins(path)), None) if path.is_file() else None


def gather(files: Iterable[Path]) -> tuple[list[tuple[Path, ...]], list[Path]]:
    """The products that begin among the files, each with all its files, and the files that belong to none."""
    found: list[tuple[Path, ...]] = []
    rest: list[Path] = []
    claimed: set[Path] = set()
    for path in files:
        if path in claimed:
            continue
        kind = product(path)
        if kind is None:
            rest.append(path)
        else:
            found.append(tuple(file for file in kind.files(path) if file not in claimed))
            claimed.update(found[-1])
    return found, [path for path in rest if path not in claimed]


def _kinds() -> tuple[Product, ...]:
    from domains.remote_sensing.products import landsat, naip, planet, sentinel1, sentinel2
    from domains.remote_sensing.products import stac as stac

    modules = (sentinel2, landsat, sentinel1, planet, naip, stac)
    return tuple(Product(m.READER, m.begins, m.files, m.read) for m in modules)
