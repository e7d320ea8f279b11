"""DICOM pixels in physical units. Source of the transforms: DICOM PS3.3 C.11.1 and C.11.2.

Plain grey pixels are read as they stand; whatever else is not compressed goes through pydicom; compressed frames are
decoded in a child process, since their decoders are foreign C code. Overlay planes are not drawn and their bits are
cleared: they may hold text.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from domains.formats.content import foreign
from domains.formats.dicom.header import PYDICOM, Header, Kind, Native
from domains.formats.dicom.mosaic import tiles
from domains.formats.dicom.planes import first_item
from domains.formats.dicom.scan import Bounded
from domains.formats.dicom.units import real_world
from domains.formats.isolation import isolated
from fovea.errors import InputError, UnsupportedError
from fovea.types import Bools, Floats, Pixels

Stored = NDArray[Any]
_EXACT = 2**24
"""Integers below it are exact in float32."""
_PACE = 2e6
"""Pixels a second that the slowest decoder must reach."""


def decode(header: Header, frames: Sequence[int]) -> Pixels:
    """Some frames of a file: values (channel, frame, row, column), and where they are no padding.

    Radiographs come with rows towards the feet and columns towards the patient's left where the file says how they lie.
    Raises UnsupportedError when no decoder for the compression is installed, InputError when decoding fails.
    """
    if header.native:
        values, valid = _plain(header, header.native)
    else:
        arguments = header.path, header.kind, [0] if header.across else list(frames), header.factor
        if header.compressed:
            seconds = 1.5 + len(frames) * header.rows * header.columns / _PACE
            values, valid = isolated(read_frames, *arguments, seconds=seconds)
        else:
            values, valid = read_frames(*arguments)
        if header.across:
            values, valid = (tiles(part, header.across)[..., frames, :, :] for part in (values, valid))
    return lay(values, header.orientation), lay(valid, header.orientation)


def read_frames(path: Path, kind: Kind, frames: Sequence[int], factor: float) -> Pixels:
    """Frames of a file by pydicom, as they lie in the file."""
    with foreign("DICOM pixels", *PYDICOM), Bounded(path) as file:
        ds = dcmread(file, force=True)
        if not any(name in ds for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            raise InputError("DICOM without its pixels", "PixelData", "Fetch it again.")
        decoder = _decoder(ds)
        count = int(ds.get("NumberOfFrames") or 1)
        if ds.get("PhotometricInterpretation") == "PALETTE COLOR":
            _check_palette(ds)
            _swap_palette(ds)
        parts = []
        for frame in frames:
            if decoder.UID.is_encapsulated:
                _check_declared(ds, get_frame(ds.PixelData, frame, number_of_frames=count))
            stored = _stored(decoder, ds, frame if count > 1 else None)
            parts.append(_color(stored, ds) if kind == "color" else _gray(stored, ds, kind, frame, factor))
        return np.stack([values for values, _ in parts], 1), np.stack([valid for _, valid in parts])


def fill_plain(header: Header, native: Native, rows: slice, columns: slice, values: Floats, valid: Bools) -> bool:
    """Write a window of a plain slice into arrays (row, column); False, with nothing written, where that takes more.

    The same as `decode` of measured values that are linear, exact in float32 and nowhere padded, in one pass.
    """
    fields = native.fields
    slope, intercept = fields.get("RescaleSlope"), fields.get("RescaleIntercept")
    linear = 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
    measured = header.kind in ("HU", "value") and header.factor == 1 and (slope is None) == (intercept is None)
    if not measured or fields.get("PixelPaddingValue") is not None or not _exact(native.dtype, *linear):
        return False
    stored = _stored_plain(header, native)[rows, columns]
    values[...] = stored
    if linear[0] != 1:
        values *= np.float32(linear[0])
    if linear[1]:
        values += np.float32(linear[1])
    valid[...] = True
    return True


def _plain(header: Header, native: Native) -> Pixels:
    stored = _stored_plain(header, native)
    with foreign("DICOM pixels"):
        values, valid = _gray(stored, native.fields, header.kind, 0, header.factor)
    return values[:, None], valid[None]


def _stored_plain(header: Header, native: Native) -> Stored:
    count = header.rows * header.columns
    with foreign("DICOM pixels", warns=False):
        stored = np.fromfile(header.path, native.dtype, count, offset=native.start)
    if stored.size != count:
        raise InputError("DICOM pixels that end too early", "a whole file", "Fetch it again.")
    stored = stored.reshape(header.rows, header.columns)
    return (stored << native.unused) >> native.unused if native.unused else stored


def _decoder(ds: Dataset) -> Decoder:
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if not syntax:
        implicit, little = ds.original_encoding
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = syntax
    name = syntax.name if syntax.name != syntax else "an unknown transfer syntax"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnsupportedError(f"pixels in {name}", "a transfer syntax of images", "Convert the file.") from None
    if not decoder.is_available:
        raise UnsupportedError(
            f"pixels in {name}",
            "a compression with a decoder",
            f"Install one: {'; '.join(decoder.missing_dependencies)}",
        )
    return decoder


def _stored(decoder: Decoder, ds: Dataset, frame: int | None) -> Stored:
    plugin = "pylibjpeg" if RLELossless == decoder.UID and "pylibjpeg" in decoder.available_plugins else ""
    try:
        return decoder.as_array(ds, index=frame, decoding_plugin=plugin)[0]
    except RuntimeError:  # what pydicom raises when every decoder that it has failed
        raise InputError(
            f"pixels in {decoder.UID.name} that no decoder here can read",
            "",
            "Fetch it again, or decompress it elsewhere.",
        ) from None


def _check_declared(ds: Dataset, stream: bytes) -> None:
    """Raise InputError where a compressed picture declares another size than the file: before it is decoded."""
    size = stream_size(stream)
    if size and size != (int(ds.Rows), int(ds.Columns)):
        raise InputError(
            f"a compressed picture of {size[0]} × {size[1]} pixels in an image of {ds.Rows} × {ds.Columns}",
            "the same size in both",
            "Fetch it again.",
        )


def stream_size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 stream declares, or None for what is none of them.

    Source: ITU-T T.81 B.2.2, T.87 C.2.2 and T.800 A.5.1.
    """
    start = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start >= 0 and len(stream) >= start + 24:
        right, lower, left, upper = struct.unpack_from(">4I", stream, start + 8)
        return lower - upper, right - left
    at = 2 if stream[:2] == b"\xff\xd8" else len(stream)
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in (0xF7, *range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)):
            return int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(stream[at + 7 : at + 9], "big")
        at += 1 if marker == 0xFF else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def _color(stored: Stored, ds: Dataset) -> Pixels:
    """RGB in [0, 1]; a palette is applied, and the decoder has turned YBR into RGB."""
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, ds)[..., :3]
        top = np.iinfo(stored.dtype).max
    else:
        top = 2 ** int(ds.BitsStored) - 1
    values = (np.moveaxis(stored, -1, 0) / np.float32(top)).astype(np.float32)
    return values, np.ones(values.shape[1:], bool)


def _check_palette(ds: Dataset) -> None:
    """Raise InputError where a table holds fewer colours than its descriptor declares."""
    for color in ("Red", "Green", "Blue"):
        table = ds.get(f"{color}PaletteColorLookupTableData")
        declared = int(ds[f"{color}PaletteColorLookupTableDescriptor"].value[0]) or 2**16
        if table is not None and len(table) < declared:
            raise InputError(
                f"a palette of {len(table)} bytes for {declared} colours", "all colours", "Export it again."
            )


def _swap_palette(ds: Dataset) -> None:
    """Bring the words of a big-endian palette into the order that pydicom takes those of a plain table to have."""
    for name in (f"{color}PaletteColorLookupTableData" for color in ("Red", "Green", "Blue")):
        if ds.original_encoding[1] is False and name in ds and ds[name].VR == "OW":
            ds[name].value = np.frombuffer(ds[name].value, ">u2").astype("<u2").tobytes()


def _gray(stored: Stored, ds: Any, kind: Kind, frame: int, factor: float) -> Pixels:
    valid = _not_padded(stored, ds)
    mapping = real_world(ds, frame) if kind == "value" else None
    physical = _mapped(stored, mapping) if mapping is not None else _rescaled(stored, ds, frame)
    if kind == "display":
        shown = _shown(physical, valid, first_item(ds, "FrameVOILUTSequence", frame=frame) or ds)
        shown = 1 - shown if ds.get("PhotometricInterpretation") == "MONOCHROME1" else shown
        return np.where(valid, shown, 0).astype(np.float32)[None], valid
    values = np.asarray(physical if factor == 1 else physical * np.float64(factor), np.float32)
    if stored.dtype.kind == "f" or values.dtype != physical.dtype:
        valid = valid & np.isfinite(values)
        values = np.where(valid, values, np.float32(0)) if not valid.all() else values
    return values[None], valid


def _rescaled(stored: Stored, ds: Any, frame: int) -> Stored:
    """Modality values; float32 where that is exact, else float64."""
    item: Any = first_item(ds, "PixelValueTransformationSequence", frame=frame) or ds
    if item.get("ModalityLUTSequence"):
        return apply_modality_lut(stored, item)
    slope, intercept = item.get("RescaleSlope"), item.get("RescaleIntercept")
    if slope is None or intercept is None:
        return stored
    return _linear(stored, float(slope), float(intercept))


def _linear(stored: Stored, slope: float, intercept: float) -> Stored:
    kind = np.float32 if _exact(stored.dtype, slope, intercept) else np.float64
    values: Stored = stored.astype(kind)
    if slope != 1:
        values *= kind(slope)
    if intercept:
        values += kind(intercept)
    return values


def _exact(kind: np.dtype[Any], slope: float, intercept: float) -> bool:
    """Whether a line through integers of a kind stays exact in float32."""
    whole = kind.kind in "iu" and kind.itemsize <= 2 and slope.is_integer() and intercept.is_integer()
    return whole and abs(slope) * 2**16 + abs(intercept) < _EXACT


def _mapped(stored: Stored, item: Any) -> Stored:
    """Real-world values (PS3.3 C.7.6.16.2.11): a line, or a table; outside of what it maps there is no value."""
    if item.get("RealWorldValueLUTData") is not None:
        table = np.asarray(item.RealWorldValueLUTData, np.float64)
        first = int(item.RealWorldValueFirstValueMapped)
        at = stored.astype(np.int64) - first
        return np.where((at >= 0) & (at < len(table)), table[np.clip(at, 0, len(table) - 1)], np.nan)
    return stored.astype(np.float64) * float(item.RealWorldValueSlope) + float(item.RealWorldValueIntercept)


def _not_padded(stored: Stored, ds: Any) -> Bools:
    """False where a value lies between PixelPaddingValue and PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2)."""
    value = ds.get("PixelPaddingValue")
    if value is None or value == "":
        return np.ones(stored.shape, bool)
    limit = ds.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (stored < low) | (stored > high)


def _shown(values: Stored, valid: Bools, ds: Any) -> Floats:
    """Grey in [0, 1] by the first VOI LUT or window of the file, else stretched from percentile 0.5 to 99.5."""
    if ds.get("VOILUTSequence"):
        top = 2 ** int(ds.VOILUTSequence[0].LUTDescriptor[2]) - 1
        return np.asarray(apply_voi(values, ds, 0) / top, np.float32)
    center, width = (_first(ds.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(ds.get("VOILUTFunction") or "LINEAR").upper()
    if center is None or width is None or width < (1 if function == "LINEAR" else 1e-9):
        inside = values[valid][:: max(1, values.size // 200_000)]
        low, high = np.percentile(inside, (0.5, 99.5)) if inside.size else (0, 1)
        return stretch(values, float(low), float(high))
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (np.asarray(values, float) - center) / width)), np.float32)
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    return stretch(values, center - width / 2, center + width / 2)


def stretch(values: Stored, low: float, high: float) -> Floats:
    """Linear from 0 at `low` to 1 at `high`, clipped; a step where both are the same."""
    if high <= low:
        return (values > low).astype(np.float32)
    return ((np.asarray(values, np.float32) - low) / np.float32(high - low)).clip(0, 1)


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value) if isinstance(value, (int, float, str)) else float(value[0])


def lay(pixels: Stored, orientation: tuple[str, str]) -> Stored:
    """Turn the last two axes so that rows run to the feet and columns to the patient's left, as far as known."""
    across, down = orientation
    if across in ("H", "F") and down in ("L", "R"):
        pixels, across, down = pixels.swapaxes(-1, -2), down, across
    if across == "R":
        pixels = pixels[..., ::-1]
    return pixels[..., ::-1, :] if down == "H" else pixels
