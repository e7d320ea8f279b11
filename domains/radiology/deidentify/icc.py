"""ICC profiles without texts: the tags that colours are computed from, and nothing else. Source: ICC.1:2022 section 7.

Table E.1-1 does not list ICCProfile, and microscopy asks for it; but its descriptions can name a person or a place.
"""

from __future__ import annotations

import struct
from io import BytesIO

from PIL import ImageCms

_KEPT = frozenset(
    b"rXYZ gXYZ bXYZ rTRC gTRC bTRC kTRC wtpt bkpt chad lumi A2B0 A2B1 A2B2 B2A0 B2A1 B2A2 D2B0 D2B1 D2B2 D2B3 B2D0 "
    b"B2D1 B2D2 B2D3 gamt cicp".split()
)
_HEADER = 128
_TEXTS = {b"desc": "A profile", b"cprt": "None"}
"""The texts that a profile must have, and what they become."""


def without_texts(profile: bytes) -> bytes | None:
    """The profile with the same colours; None for what is no profile that LittleCMS opens, and for one that takes tags
    of another type than vectors, curves, matrices and tables of 8 and 16 bits.

    Date, device, maker and number of the profile in its header become zero.
    """
    try:
        ImageCms.ImageCmsProfile(BytesIO(profile))
        kept = dict(_numbers(profile))
        rebuilt = _built(profile, kept)
        ImageCms.ImageCmsProfile(BytesIO(rebuilt))
    except (OSError, struct.error, ImageCms.PyCMSError, LookupError, ValueError):
        return None
    return rebuilt


def _numbers(profile: bytes) -> list[tuple[bytes, bytes]]:
    """The tags of numbers, signature and data; raises ValueError for one of another type or length."""
    (count,) = struct.unpack_from(">I", profile, _HEADER)
    if count > 100:
        raise ValueError(count)
    found = []
    for place in range(count):
        name, start, size = struct.unpack_from(">4sII", profile, _HEADER + 4 + 12 * place)
        if name in _KEPT:
            data = profile[start : start + size]
            length = _length(data)
            if not length <= len(data) < length + 4:  # a text could stand behind the numbers
                raise ValueError(size)
            found.append((name, data[:4] + bytes(4) + data[8:length]))
    return found


def _length(data: bytes) -> int:
    """The bytes that the numbers of a tag take by its type (ICC.1 section 10); raises ValueError for other types."""
    match data[:4]:
        case b"XYZ ":
            return 20
        case b"sf32":
            return 44
        case b"cicp":
            return 12
        case b"curv":
            return 12 + 2 * int.from_bytes(data[8:12])
        case b"para":
            return 12 + 4 * dict(enumerate((1, 3, 4, 5, 7)))[int.from_bytes(data[8:10])]
        case b"mft1":
            inputs, outputs, grid = data[8:11]
            return int(48 + 256 * inputs + grid**inputs * outputs + 256 * outputs)
        case b"mft2":
            inputs, outputs, grid = data[8:11]
            first, last = int.from_bytes(data[48:50]), int.from_bytes(data[50:52])
            return int(52 + 2 * (first * inputs + grid**inputs * outputs + last * outputs))
    raise ValueError(data[:4])


def _built(profile: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A profile of some tags behind the header of another; tags with the same data share it."""
    text = _text_4 if profile[8] >= 4 else _text_2
    tags = {name: text(name, words) for name, words in _TEXTS.items()} | tags
    start = _HEADER + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}
    body = b""
    for data in tags.values():
        if data not in places:
            places[data] = start + len(body)
            body += data + b"\0" * (-len(data) % 4)
    table = b"".join(struct.pack(">4sII", name, places[data], len(data)) for name, data in tags.items())
    header = bytearray(profile[:_HEADER])
    for first, last in ((4, 8), (24, 36), (40, 44), (48, 56), (80, _HEADER)):
        header[first:last] = bytes(last - first)
    header[24:36] = struct.pack(">6H", 1900, 1, 1, 0, 0, 0)
    header[:4] = struct.pack(">I", start + len(body))
    return bytes(header) + struct.pack(">I", len(tags)) + table + body


def _text_4(_: bytes, words: str) -> bytes:
    """A multiLocalizedUnicodeType of one language."""
    packed = words.encode("utf-16-be")
    return b"mluc" + struct.pack(">III2s2sII", 0, 1, 12, b"en", b"US", len(packed), 28) + packed


def _text_2(name: bytes, words: str) -> bytes:
    """A textDescriptionType, or, of a copyright, a textType."""
    ascii_ = words.encode() + b"\0"
    if name == b"cprt":
        return b"text\0\0\0\0" + ascii_
    return b"desc" + struct.pack(">II", 0, len(ascii_)) + ascii_ + bytes(78)
