"""ICC profiles without texts: the tags that colours are computed from, and nothing else. Source: ICC.1:2022 section 7.

Table E.1-1 does not list ICCProfile, and microscopy asks for it; but its descriptions can name a person or a place.
"""

from __future__ import annotations

import struct

_KEPT = frozenset(
    b"rXYZ gXYZ bXYZ rTRC gTRC bTRC kTRC wtpt bkpt chad lumi A2B0 A2B1 A2B2 B2A0 B2A1 B2A2 D2B0 D2B1 D2B2 D2B3 B2D0 "
    b"B2D1 B2D2 B2D3 gamt cicp".split()
)
_HEADER, _SIGNATURE = 128, b"acsp"
_CLASSES = frozenset(b"scnr mntr prtr link spac abst nmcl".split())
_SPACES = frozenset((b"XYZ ", b"Lab ", b"Luv ", b"YCbr", b"Yxy ", b"RGB ", b"GRAY", b"HSV ", b"HLS ", b"CMYK", b"CMY "))
_D50 = struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
"""The illuminant of every profile, as s15Fixed16."""
_TEXTS = {b"desc": "A profile", b"cprt": "None"}
"""The texts that a profile must have, and what they become."""


def without_texts(profile: bytes) -> bytes | None:
    """The profile with the same colours; None for what is none, and for one that takes tags of another type than
    vectors, curves, matrices and tables of 8 and 16 bits.

    Its header is written anew, without date, device, maker and number. LittleCMS is not asked: bytes from outside are
    parsed here, in Python, alone.
    """
    try:
        return _built(_header(profile), dict(_numbers(profile)))
    except (struct.error, LookupError, ValueError):
        return None


def _header(profile: bytes) -> bytes:
    """A header of the same version, class, colour spaces and intent, as yet without a size; ValueError for others."""
    major, minor, kind, space, connection, signature, intent = struct.unpack_from(">8xBB2x4s4s4s12x4s24xI", profile)
    known = kind in _CLASSES and {space, connection} <= _SPACES and signature == _SIGNATURE
    if not known or major not in (2, 4) or intent > 3:
        raise ValueError(signature)
    first = struct.pack(">8xBB2x4s4s4s6H", major, minor, kind, space, connection, 1900, 1, 1, 0, 0, 0)
    return first + struct.pack(">4s24xI12s48x", signature, intent, _D50)


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


def _built(header: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A profile of a header and some tags; tags with the same data share it."""
    text = _text_4 if header[8] >= 4 else _text_2
    tags = {name: text(name, words) for name, words in _TEXTS.items()} | tags
    start = _HEADER + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}
    body = b""
    for data in tags.values():
        if data not in places:
            places[data] = start + len(body)
            body += data + b"\0" * (-len(data) % 4)
    table = b"".join(struct.pack(">4sII", name, places[data], len(data)) for name, data in tags.items())
    return struct.pack(">I", start + len(body)) + header[4:] + struct.pack(">I", len(tags)) + table + body


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
