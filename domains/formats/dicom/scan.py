"""A first pass over a DICOM file: is it safe to parse, and what do its plain elements say.

It walks the elements in front of the pixels and stops there. Every file goes through it: nesting, number of elements
and size of the header have limits, a preamble that holds a program is refused, and so are sizes of another kind than
the standard's. Of the usual file (little endian, one image) it also gives the elements that a picture needs, faster
than a full parse; of any other it gives none, and pydicom reads the file. Source: DICOM PS3.5 section 7 and PS3.10.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import cache
from io import BufferedReader, FileIO
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.datadict import dictionary_VR, tag_for_keyword

from fovea.errors import InputError, LimitError

MAX_DEPTH = 32
MAX_ELEMENTS = 2_000_000
MAX_HEADER = 2**26
"""Bytes in front of the pixels."""
_FIRST = 2**15
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
     b"ST", b"TM", b"UI", b"UL", b"US"}
)  # fmt: skip
_NATIVE = {"1.2.840.10008.1.2": False, "1.2.840.10008.1.2.1": True}
"""The transfer syntaxes of plain little-endian pixels, and whether they name the kind of each element."""
_PROGRAMS = (
    b"MZ", b"\x7fELF", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe", b"#!", b"PK\x03\x04", b"%PDF", b"<htm", b"<!DO", b"<scr", b"<?ph",
)  # fmt: skip
_PLAIN = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "BurnedInAnnotation",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "PixelPaddingValue", "PixelPaddingRangeLimit",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PatientOrientation",
    "ViewPosition", "BodyPartExamined", "ImageLaterality", "Laterality",
    "EchoNumbers", "EchoTime", "TemporalPositionIdentifier", "DiffusionBValue", "DiffusionGradientOrientation",
    "ConvolutionKernel", "AcquisitionNumber", "InstanceNumber", "TriggerTime", "ContentTime",
)  # fmt: skip
_COMPLEX = (
    "ModalityLUTSequence", "VOILUTSequence", "RealWorldValueMappingSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "RadiopharmaceuticalInformationSequence", "DetectorInformationSequence",
    "TotalPixelMatrixOriginSequence", "RedPaletteColorLookupTableDescriptor", "GridFrameOffsetVector", "Units",
    "MRDiffusionSequence",
)  # fmt: skip
_SIZES = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")


class Bounded(BufferedReader):
    """An open file that never takes memory for more bytes than it has, whatever length is asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(path))
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


@dataclass(frozen=True)
class Scan:
    """The elements that a picture needs, by keyword and typed as pydicom types them, and where the pixels begin.

    `fields` is None where only a full parse will do; `pixels` is (first byte, length) of PixelData.
    """

    fields: dict[str, Any] | None
    pixels: tuple[int, int] | None


def scan(file: BinaryIO) -> Scan:
    """Walk the header of an open file and leave it at its start.

    Raises InputError for a preamble that holds a program and for sizes that are no US, LimitError for deep nesting, too
    many elements and too long a header. What it cannot follow is left to the full parse.
    """
    walker = _Walker(file)
    try:
        return walker.walk()
    except (EOFError, struct.error, UnicodeDecodeError, ValueError):
        return Scan(None, None)
    finally:
        file.seek(0)


class _Walker:
    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.data = file.read(_FIRST)
        self.elements = 0
        self.explicit = True

    def walk(self) -> Scan:
        head = self.data
        if head[128:132] != b"DICM":
            return Scan(None, None)
        if head.startswith(_PROGRAMS) and head[:4] not in (b"II*\0", b"MM\0*"):
            raise InputError("DICOM with a program in its preamble", "an empty preamble", "Do not open it elsewhere.")
        syntax, start = self._meta()
        if syntax not in _NATIVE:
            self._count_explicit(syntax, start)
            return Scan(None, None)
        self.explicit = _NATIVE[syntax]
        return self._elements(start)

    def _meta(self) -> tuple[str, int]:
        """The transfer syntax, and where the data set begins."""
        at, syntax = 132, ""
        while True:
            self._need(at + 8)
            if self.data[at : at + 2] != b"\x02\x00":
                return syntax, at
            tag, _, length, value = self._element(at)
            if length == _UNDEFINED:
                raise ValueError(tag)
            self._need(value + length)
            if tag == 0x00020010:
                syntax = self.data[value : value + length].rstrip(b"\0 ").decode("ascii")
            at = value + length

    def _count_explicit(self, syntax: str, start: int) -> None:
        """Walk a compressed file, which is explicit little endian, for its limits alone."""
        if syntax not in ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"):
            self.explicit = True
            self._elements(start)

    def _elements(self, at: int) -> Scan:
        plain, complex_ = _wanted()
        raw: dict[str, tuple[bytes, bytes]] = {}
        whole = True
        while True:
            if not self._more(at + 8):
                return Scan(None, None)
            tag, kind, length, value = self._element(at)
            if tag in _PIXELS:
                if tag != 0x7FE00010 or length == _UNDEFINED or not whole:
                    return Scan(None, None)
                return Scan(_typed(raw), (value, length))
            if tag in complex_:
                whole = False
            if length == _UNDEFINED:
                at = self._skip(value, kind == b"UN", 1)
                continue
            if tag in plain:
                self._need(value + length)
                keyword, standard = plain[tag]
                if self.explicit and keyword in _SIZES and kind != b"US":
                    raise InputError(
                        f"{keyword} of the kind {kind.decode('ascii', 'replace')}", "US", "Export it again."
                    )
                raw[keyword] = (kind if self.explicit else standard, self.data[value : value + length])
            at = value + length

    def _element(self, at: int) -> tuple[int, bytes, int, int]:
        """Tag, kind, length and first byte of the value of the element at a position that is loaded."""
        self.elements += 1
        if self.elements > MAX_ELEMENTS:
            raise LimitError("DICOM of too many elements", f"at most {MAX_ELEMENTS}", "Split it.")
        group, number = struct.unpack_from("<HH", self.data, at)
        tag = group << 16 | number
        if group == 0xFFFE or (not self.explicit and group != 2):
            return tag, b"", struct.unpack_from("<I", self.data, at + 4)[0], at + 8
        kind = self.data[at + 4 : at + 6]
        if kind in _SHORT:
            return tag, kind, struct.unpack_from("<H", self.data, at + 6)[0], at + 8
        if kind not in _LONG:
            raise ValueError(kind)
        self._need(at + 12)
        return tag, kind, struct.unpack_from("<I", self.data, at + 8)[0], at + 12

    def _skip(self, at: int, unknown: bool, depth: int) -> int:
        """Where a sequence of undefined length ends."""
        if depth > MAX_DEPTH:
            raise LimitError(f"DICOM of more than {MAX_DEPTH} nested sequences", "fewer", "Export it again.")
        explicit, self.explicit = self.explicit, self.explicit and not unknown
        while True:
            self._need(at + 8)
            tag, _, length, at = self._element(at)
            if tag == _SEQUENCE_END:
                self.explicit = explicit
                return at
            if tag != _ITEM:
                raise ValueError(tag)
            if length != _UNDEFINED:
                at += length
                continue
            while True:
                self._need(at + 8)
                tag, kind, length, at = self._element(at)
                if tag == _ITEM_END:
                    break
                at = self._skip(at, kind == b"UN", depth + 1) if length == _UNDEFINED else at + length

    def _more(self, end: int) -> bool:
        try:
            self._need(end)
        except EOFError:
            return False
        return True

    def _need(self, end: int) -> None:
        """Have at least the first `end` bytes of the file loaded."""
        if end <= len(self.data):
            return
        if end > MAX_HEADER:
            raise LimitError("DICOM with a header that is too long", f"at most {MAX_HEADER} bytes", "Export it again.")
        self.data += self.file.read(max(end, 2 * len(self.data)) - len(self.data))
        if end > len(self.data):
            raise EOFError


@cache
def _wanted() -> tuple[dict[int, tuple[str, bytes]], frozenset[int]]:
    plain = {int(tag_for_keyword(name) or 0): (name, _kind(name)) for name in _PLAIN}
    return plain, frozenset(int(tag_for_keyword(name) or 0) for name in _COMPLEX)


def _kind(keyword: str) -> bytes:
    kind = dictionary_VR(keyword)
    return b"US or SS" if "or" in kind else kind.encode()


def _typed(raw: dict[str, tuple[bytes, bytes]]) -> dict[str, Any] | None:
    """Values as pydicom gives them, a lone one alone; None where one is not as its kind has it."""
    signed = raw.get("PixelRepresentation", (b"", b"\0\0"))[1][:1] == b"\1"
    fields: dict[str, Any] = {}
    for keyword, (kind, value) in raw.items():
        if kind in (b"US", b"SS", b"US or SS"):
            if len(value) % 2 or not value:
                return None
            form = "h" if kind == b"SS" or (kind == b"US or SS" and signed) else "H"
            values: list[Any] = list(struct.unpack(f"<{len(value) // 2}{form}", value))
        elif kind == b"FD":
            values = list(struct.unpack(f"<{len(value) // 8}d", value))
        else:
            text = value.rstrip(b"\0 ").decode("ascii")
            values = text.split("\\") if text else []
            if kind == b"DS":
                values = [_number(item) for item in values]
            elif kind == b"IS":
                values = [int(item) for item in values]
            else:
                values = [item.strip(" ") for item in values]
        fields[keyword] = values[0] if len(values) == 1 else values or None
    return fields


def _number(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(text)
    return value
