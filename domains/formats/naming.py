"""What format a file has, in the field's words, by its first bytes: for lists of files, whether we read them or not."""

from __future__ import annotations

from pathlib import Path

from domains.formats.content import foreign
from fovea.errors import InputError

PICTURES = frozenset({"PNG", "JPEG", "BMP", "GIF", "WebP", "TIFF", "JPEG 2000"})
"""Formats that say nothing by themselves of what they show."""
TEXT = "text"

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"TRACK\0": "TrackVis streamlines",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"CDF\1": "NetCDF",
    b"CDF\2": "NetCDF",
    b"PK\3\4": "zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"%PDF": "PDF",
}


def format_name(path: Path) -> str:
    """The name of a file's format; "text" for readable text, "empty", or "unknown". Raises InputError if unreadable."""
    from domains.formats import dicom
    from domains.formats.dicom import dicomdir
    from domains.formats.volumes import volume

    with foreign("a file"), path.open("rb") as file:
        head = file.read(4096)
    if not head:
        return "empty"
    if dicomdir.is_dicomdir(path):
        return "DICOMDIR"
    if head[128:132] == b"DICM":
        return "DICOM"
    found = volume.kind(path) or next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")
    if not found and head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        found = "WebP"
    if found:
        return found
    if is_text(head):
        return "GIFTI surface" if b"<GIFTI" in head else TEXT
    return "DICOM" if dicom.is_dicom(path) else "unknown"


def is_companion(path: Path) -> bool:
    """Whether a DICOM file holds labels, text or tables of others instead of a picture."""
    from pydicom import dcmread

    from domains.formats.dicom.header import PYDICOM

    try:
        with foreign("a DICOM file", *PYDICOM):
            found = dcmread(path, stop_before_pixels=True, force=True, specific_tags=["Modality", "Rows"])
            return "Rows" not in found or found.get("Modality") == "SEG"
    except InputError:
        return False


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are UTF-8 without NUL."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and b"\0" not in head
    return b"\0" not in head
