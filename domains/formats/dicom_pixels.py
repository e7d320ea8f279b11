"""DICOM pixels in physical units. Source of the transforms: DICOM PS3.3 C.11.1 and C.11.2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from domains.formats.content import foreign
from domains.formats.dicom_header import PYDICOM, Kind, first_item
from fovea.errors import InputError, UnsupportedError
from fovea.types import Bools, Floats, Pixels

Stored = NDArray[Any]


def decode(path: Path, kind: Kind, frames: Sequence[int], orientation: tuple[str, str]) -> Pixels:
    """Some frames of a file: values (channel, frame, row, column), and where they are no padding.

    Radiographs come with rows towards the feet and columns towards the patient's left where the file says how they lie.
    Raises UnsupportedError when no decoder for the compression is installed, InputError when decoding fails.
    """
    with foreign("DICOM pixels", *PYDICOM):
        ds = dcmread(path, force=True)
        if not any(name in ds for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            raise InputError("DICOM without its pixels", "PixelData", "Fetch it again.")
        decoder = _decoder(ds)
        several = int(ds.get("NumberOfFrames") or 1) > 1
        parts = []
        for frame in frames:
            stored = _stored(decoder, ds, frame if several else None)
            values, valid = _color(stored, ds) if kind == "color" else _gray(stored, ds, kind, frame)
            parts.append((_lay(values, orientation), _lay(valid, orientation)))
        return np.stack([values for values, _ in parts], 1), np.stack([valid for _, valid in parts])


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
    try:
        return decoder.as_array(ds, index=frame)[0]
    except RuntimeError:  # what pydicom raises when every decoder that it has failed
        raise InputError(
            f"pixels in {decoder.UID.name} that no decoder here can read",
            "",
            "Fetch it again, or decompress it elsewhere.",
        ) from None


def _color(stored: Stored, ds: Dataset) -> Pixels:
    """RGB in [0, 1]; a palette is applied, and the decoder has turned YBR into RGB."""
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, ds)[..., :3]
        top = np.iinfo(stored.dtype).max
    else:
        top = 2 ** int(ds.BitsStored) - 1
    values = (np.moveaxis(stored, -1, 0) / np.float32(top)).astype(np.float32)
    return values, np.ones(values.shape[1:], bool)


def _gray(stored: Stored, ds: Dataset, kind: Kind, frame: int) -> Pixels:
    valid = _not_padded(stored, ds)
    physical = apply_modality_lut(stored, first_item(ds, "PixelValueTransformationSequence", frame=frame) or ds)
    if kind == "display":
        shown = _shown(physical, valid, first_item(ds, "FrameVOILUTSequence", frame=frame) or ds)
        shown = 1 - shown if ds.PhotometricInterpretation == "MONOCHROME1" else shown
        return np.where(valid, shown, 0).astype(np.float32)[None], valid
    values = np.asarray(physical, np.float32)
    if not np.isfinite(values).all():
        raise InputError("pixels that are not finite", "finite values")
    return values[None], valid


def _not_padded(stored: Stored, ds: Dataset) -> Bools:
    """False where a value lies between PixelPaddingValue and PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2)."""
    value = ds.get("PixelPaddingValue")
    if value is None or value == "":
        return np.ones(stored.shape, bool)
    limit = ds.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (stored < low) | (stored > high)


def _shown(values: Stored, valid: Bools, ds: Dataset) -> Floats:
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


def _lay(pixels: Stored, orientation: tuple[str, str]) -> Stored:
    """Turn the last two axes so that rows run to the feet and columns to the patient's left, as far as known."""
    across, down = orientation
    if across in ("H", "F") and down in ("L", "R"):
        pixels, across, down = pixels.swapaxes(-1, -2), down, across
    if across == "R":
        pixels = pixels[..., ::-1]
    return pixels[..., ::-1, :] if down == "H" else pixels
