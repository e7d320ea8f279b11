"""Dates and times of DICOM, moved by whole days; the precision that was given stays."""

from __future__ import annotations

import re
from datetime import date, timedelta

_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})|(\d{4})\.(\d{2})\.(\d{2})")
_TIME = re.compile(r"([01]\d|2[0-3])(?:([0-5]\d)(?:([0-5]\d|60)(\.\d{1,6})?)?)?")
_OLD_TIME = re.compile(r"(\d{2}):(\d{2}):(\d{2}(?:\.\d{1,6})?)")
_DATETIME = re.compile(r"(\d{4})(\d{2})?(\d{2})?(\d{2,6}(?:\.\d{1,6})?)?(?:[+-]\d{4})?")


def shift_date(text: str, days: int) -> str | None:
    """A DA value (YYYYMMDD, or YYYY.MM.DD of old files), moved; None when it is no date."""
    found = _DATE.fullmatch(text.strip())
    return _moved([int(part) for part in found.groups() if part], days) if found else None


def shift_datetime(text: str, days: int) -> str | None:
    """A DT value, moved; the offset from UTC, which tells the place, is left out. None when it is none."""
    found = _DATETIME.fullmatch(text.strip())
    if not found:
        return None
    year, month, day, clock = found.groups()
    if clock and not _TIME.fullmatch(clock):
        return None
    moved = _moved([int(year), int(month or 7), int(day or 1)], days)
    given = 4 + 2 * (month is not None) + 2 * (day is not None)
    return moved[:given] + (clock or "") if moved else None


def plain_time(text: str) -> str | None:
    """A TM value as PS3.5 writes it, of old files (HH:MM:SS) too; None when it is none."""
    text = text.strip()
    old = _OLD_TIME.fullmatch(text)
    text = "".join(old.groups()) if old else text
    return text if _TIME.fullmatch(text) else None


def _moved(parts: list[int], days: int) -> str | None:
    try:
        moved = date(*parts) + timedelta(days)
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04}{moved.month:02}{moved.day:02}"
