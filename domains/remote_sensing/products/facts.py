"""Metadata files of products: parsed safely, and reduced to facts of closed form."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from domains.formats.content import foreign
from domains.formats.rasters.bands import acquired
from fovea.errors import InputError, LimitError
from fovea.verbal import number as written

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

LIMIT = 2**26
"""Bytes of a metadata file."""


def content(path: Path) -> bytes:
    """The bytes of a metadata file; raises LimitError above LIMIT."""
    with foreign("a metadata file"):
        size = path.stat().st_size
        if size > LIMIT:
            raise LimitError(f"a metadata file of {size / 2**20:.0f} MiB", f"at most {LIMIT / 2**20:.0f} MiB")
        return path.read_bytes()


def xml(path: Path) -> Element:
    """The root of an XML file; entities and external references are refused with InputError."""
    from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

    text = content(path)
    with foreign("an XML file"):
        root: Element = fromstring(text, forbid_dtd=True)
        return root


def elements(root: Element, name: str) -> Iterator[Element]:
    """All elements of a name, whatever their namespace."""
    return (element for element in root.iter() if local(element) == name)


def local(element: Element) -> str:
    """The name of an element without its namespace."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def text(root: Element, *names: str) -> str:
    """The text of the first element that has one of the names, in their order; "" without."""
    found = ((element.text or "").strip() for name in names for element in elements(root, name))
    return next((value for value in found if value), "")


def number(value: object, what: str) -> float:
    """A finite number of a metadata file; raises InputError naming what it was for."""
    try:
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        result = math.nan
    if not math.isfinite(result):
        raise InputError(f"metadata without a readable {what}", "a number", "Fetch the product again")
    return result


def day(value: str) -> str:
    """The day of a time as YYYY-MM-DD, or ""."""
    return acquired({"DATE_ACQUIRED": value})


def percent(value: object) -> str:
    """A share given in percent, such as "12.3 %"; "" where it is none."""
    try:
        share = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    return f"{written(share)} %" if 0 <= share <= 100 else ""


def version(value: str) -> str:
    """A processing baseline such as "05.11", or ""."""
    return value if re.fullmatch(r"\d\d\.\d\d", value) else ""


def known(**facts: str) -> dict[str, str]:
    """The facts that are known."""
    return {name: fact for name, fact in facts.items() if fact}
