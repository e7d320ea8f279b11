"""The closed lists of `lists.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any


@cache
def words(name: str) -> frozenset[str]:
    """The words of a list."""
    return frozenset(_lists()[name].split())


@cache
def terms(keyword: str) -> frozenset[str]:
    """The terms that the standard defines for an attribute, of the few that are listed; a term may hold spaces."""
    found = _lists()["terms"].get(keyword, "").split()
    return frozenset(found) | {term.replace("_", " ") for term in found}


@cache
def _lists() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("lists.toml").read_text())
