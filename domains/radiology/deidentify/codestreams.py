"""Compressed frames without what they hold beside the picture: comments, application data, bytes after the end."""

from __future__ import annotations

from fovea.errors import InputError, UnsupportedError

_REMEDY = "Decompress the file with a tool that you trust."


def strip_jpeg(frame: bytes) -> bytes:
    """A JPEG or JPEG-LS stream (ITU-T T.81, T.87) without comments and application segments, up to its end marker.

    Kept are the Adobe and JFIF segments in their shortest form and the colour transform of JPEG-LS, as they say how
    colours are meant. Raises InputError when markers do not lead from the start to the end.
    """
    if frame[:2] != b"\xff\xd8":
        raise InputError("a JPEG frame without its start", "", _REMEDY)
    kept, at = [b"\xff\xd8"], 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xD9:
            break
        if 0xE0 <= marker <= 0xEF:
            kept.append(_application(marker, frame[at:end]))
        elif marker != 0xFE:
            kept.append(frame[at:end])
        at = end
        if marker == 0xDA:
            end = _scan_end(frame, at)
            kept.append(frame[at:end])
            at = end
    if frame[at : at + 2] != b"\xff\xd9":
        raise InputError("a JPEG frame whose markers do not lead to its end", "a whole frame", _REMEDY)
    return b"".join([*kept, b"\xff\xd9"])


def strip_jpeg2000(frame: bytes) -> bytes:
    """A JPEG 2000 code stream (ITU-T T.800) without comments in its main header, up to its end marker.

    A wrapper around the stream goes. Raises UnsupportedError for comments in the header of a tile, whose length other
    markers repeat, and InputError when markers do not lead from the start to the end.
    """
    at = frame.find(b"\xff\x4f\xff\x51")
    if at < 0:
        raise InputError("a JPEG 2000 frame without its start", "", _REMEDY)
    kept, at = [b"\xff\x4f"], at + 2
    while frame[at : at + 2] != b"\xff\x90":
        if at + 4 > len(frame) or frame[at] != 0xFF:
            raise InputError("a JPEG 2000 frame whose markers do not lead to its tiles", "a whole frame", _REMEDY)
        end = at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        if frame[at + 1] != 0x64:
            kept.append(frame[at:end])
        at = end
    while frame[at : at + 2] == b"\xff\x90":
        length = int.from_bytes(frame[at + 6 : at + 10], "big")
        end = at + length if length else frame.rfind(b"\xff\xd9")
        _check_tile(frame[at:end])
        if end <= at:
            break
        kept.append(frame[at:end])
        at = end
    return b"".join([*kept, b"\xff\xd9"])


def _application(marker: int, segment: bytes) -> bytes:
    if marker == 0xE0 and segment[4:9] == b"JFIF\0":
        return b"\xff\xe0\x00\x10" + segment[4:16] + b"\0\0"
    if marker == 0xEE and segment[4:9] == b"Adobe" and len(segment) >= 16:
        return b"\xff\xee\x00\x0e" + segment[4:16]
    return segment[:9] if marker == 0xE8 and segment[2:8] == b"\x00\x07mrfx" else b""


def _scan_end(frame: bytes, at: int) -> int:
    """Where the coded data of a scan ends: at the first marker that is neither an escape nor a restart."""
    while True:
        at = frame.find(b"\xff", at)
        if at < 0 or at + 1 >= len(frame):
            raise InputError("a JPEG frame without its end", "a whole frame", _REMEDY)
        if frame[at + 1] >= 0x80 and not 0xD0 <= frame[at + 1] <= 0xD7 and frame[at + 1] != 0xFF:
            return at
        at += 1


def _check_tile(tile: bytes) -> None:
    at = 12
    while at + 4 <= len(tile) and tile[at : at + 2] != b"\xff\x93":
        if tile[at : at + 2] == b"\xff\x64":
            raise UnsupportedError("a JPEG 2000 frame with comments inside its tiles", "none", _REMEDY)
        at += 2 + int.from_bytes(tile[at + 2 : at + 4], "big")
