"""Which texts may stay: phrases and words of closed lists; whatever else a person typed does not."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

from pydicom import Dataset

from domains.formats.dicom.codes import concept
from domains.radiology.deidentify.lists import words
from domains.radiology.vocabulary import VOCABULARY

REMOVED = "REMOVED"
"""What stands where a text was and the standard wants one."""
UNKNOWN = ("261665006", "SCT", "Unknown")
"""The code in place of one that is in no public list: value, scheme, meaning."""

_SIZE = re.compile(r"\d{1,2}(\.\d{1,2})?mm")
_BREAKS = re.compile(r"[\s_\-/^+,;()\[\]{}:=*&]+")


def kept_label(text: str) -> str | None:
    """The text when all of it is a phrase of a closed list or made of its words; else None."""
    folded = _folded(text)
    if len(text) <= 64 and text.isascii() and (folded in _phrases() or _known(folded.split(), 4)):
        return text.strip()
    return None


def kept_words(text: str) -> str | None:
    """The words of a descriptor that are in the closed list, in their order; None when there is none."""
    found = [word for word in _folded(text).split() if word in words("words") or _SIZE.fullmatch(word)]
    return " ".join(found).upper()[:64].rstrip() or None


def standard_code(item: Dataset) -> tuple[str, str, str]:
    """Value, scheme and meaning of a code item as the standard's tables or our vocabulary have them, else UNKNOWN."""
    code = concept(item)
    if code and code.meaning:
        return code.value, code.scheme, _plain(code.meaning)
    ours = {(term.code.scheme, term.code.value): term.code.meaning for term in VOCABULARY}
    value, scheme = (str(item.get(name) or "") for name in ("CodeValue", "CodingSchemeDesignator"))
    value = value or str(item.get("LongCodeValue") or "")
    return (value, scheme, ours[scheme, value]) if (scheme, value) in ours else UNKNOWN


def _folded(text: str) -> str:
    return " ".join(_BREAKS.split(text.lower())).strip()


def _known(parts: list[str], longest: int) -> bool:
    return 0 < len(parts) <= longest and words("words").issuperset(parts)


@cache
def _phrases() -> frozenset[str]:
    from pydicom.sr import _concepts_dict

    schemes: Any = _concepts_dict.concepts
    found = [name for term in VOCABULARY for name in (term.label, term.code.meaning, *term.synonyms)]
    for names in schemes.values():
        found += [meaning for codes in names.values() for meaning, _ in codes.values()]
    return frozenset(map(_folded, found))


def _plain(meaning: str) -> str:
    return unicodedata.normalize("NFKD", meaning).replace("μ", "u").encode("ascii", "ignore").decode()[:64]
