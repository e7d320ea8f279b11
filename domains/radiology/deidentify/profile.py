"""Table E.1-1 of DICOM PS3.15 (edition 2026c): what the profile and its options do to each attribute."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Literal, cast

from fovea.errors import ConfigError

Action = Literal["D", "Z", "X", "K", "C", "U"]
"""Dummy value, zero length, remove, keep, clean, new UID."""

EDITION = "2026c"
METHODS = {
    "basic": ("113100", "Basic Application Confidentiality Profile"),
    "clean-pixel-data": ("113101", "Clean Pixel Data Option"),
    "clean-graphics": ("113103", "Clean Graphics Option"),
    "clean-structured-content": ("113104", "Clean Structured Content Option"),
    "clean-descriptors": ("113105", "Clean Descriptors Option"),
    "modified-dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient-characteristics": ("113108", "Retain Patient Characteristics Option"),
    "device-identity": ("113109", "Retain Device Identity Option"),
    "uids": ("113110", "Retain UIDs Option"),
    "institution-identity": ("113112", "Retain Institution Identity Option"),
}
"""Code and meaning in DCM (PS3.16 CID 7050) of the profile and of each option."""
OPTIONS = tuple(name for name in METHODS if name not in ("basic", "clean-pixel-data"))
"""The options that may be chosen; whether pixels are cleaned is a matter of each file."""
DEFAULT = frozenset({"clean-graphics", "clean-structured-content", "clean-descriptors", "modified-dates"})

_ORDER = (
    "modified-dates", "uids", "clean-descriptors", "clean-structured-content", "clean-graphics",
    "patient-characteristics", "device-identity", "institution-identity",
)  # fmt: skip
"""Which option decides where several do: what cleans comes before what keeps."""
_CONFORMANT: dict[str, Action] = {"Z/D": "D", "X/Z": "Z", "X/D": "D", "X/Z/D": "D", "X/Z/U*": "U"}
"""Of the actions that depend on the type of an attribute, the one that every information object allows."""


def chosen(more: Iterable[str] = (), fewer: Iterable[str] = ()) -> frozenset[str]:
    """The default options with some more and some fewer; raises ConfigError for a name that is not in OPTIONS."""
    more, fewer = frozenset(more), frozenset(fewer)
    unknown = (more | fewer) - set(OPTIONS)
    if unknown:
        raise ConfigError(f"{len(unknown)} unknown option(s) of the profile", f"of {', '.join(OPTIONS)}")
    return DEFAULT - fewer | more


@cache
def table() -> dict[str, dict[str, str]]:
    """Tag in hexadecimal (`50XXXXXX` and `60XX....` for repeating groups) to its row."""
    with Path(__file__).with_name("profile.csv").open(newline="") as file:
        return {row["tag"]: row for row in csv.DictReader(file)}


def basic(tag: int) -> Action | None:
    """What the profile without options does; None for an attribute that is not in the table."""
    name = f"{tag:08X}"
    row = table().get(name) or table().get(f"60XX{name[4:]}" if name.startswith("60") else f"{name[:2]}XXXXXX")
    return cast("Action", _CONFORMANT.get(row["basic"], row["basic"])) if row else None


def action(tag: int, options: Collection[str]) -> Action | None:
    """What the profile with options does; None for an attribute that is not in the table."""
    row = table().get(f"{tag:08X}")
    for option in _ORDER if row else ():
        if option in options and row and row[option]:
            return cast("Action", row[option])
    return basic(tag)
