"""DICOM as pydicom and SimpleITK read it, compared slice by slice with what we make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.likeness import CLOSE, Array, Differs, itk, same
from fovea.image import LPS
from fovea.types import Study


def read_pydicom(path: Path) -> tuple[Array, bool]:
    """Frames (frame, row, column, sample) as rescaled, and whether they are colour."""
    from pydicom import dcmread
    from pydicom.pixels import apply_modality_lut, pixel_array

    ds = dcmread(path, force=True)
    if "TransferSyntaxUID" not in ds.file_meta:
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" if ds.original_encoding[0] else "1.2.840.10008.1.2.1"
    stored = pixel_array(ds)
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        return _palette(ds, stored).reshape(-1, ds.Rows, ds.Columns, 3), True
    samples = int(ds.get("SamplesPerPixel", 1))
    frames = stored.reshape(-1, ds.Rows, ds.Columns, samples)
    if samples == 3:
        return frames / (2 ** int(ds.BitsStored) - 1), True
    return np.stack([apply_modality_lut(f, _transform(ds, n)) for n, f in enumerate(frames)]), False


def _palette(ds: Any, stored: Array) -> Array:
    """Colours in [0, 1] by PS3.3 C.7.6.3.1.5 and .6, in the byte order of the file; not by pydicom, which we use."""
    order = "<" if ds.file_meta.TransferSyntaxUID.is_little_endian else ">"
    channels = []
    for color in ("Red", "Green", "Blue"):
        entries, first, bits = map(int, ds[f"{color}PaletteColorLookupTableDescriptor"].value)
        data, entries = ds[f"{color}PaletteColorLookupTableData"].value, entries or 2**16
        table = np.frombuffer(data, f"{order}u{2 if len(data) >= 2 * entries else 1}")[:entries]
        channels.append(table[np.clip(stored.astype(int) - first, 0, len(table) - 1)] / (2**bits - 1))
    return np.stack(channels, -1)


def _transform(ds: Any, frame: int) -> Any:
    """The item that holds the rescale of a frame."""
    for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        found = ds.get(groups)
        if found and index < len(found) and "PixelValueTransformationSequence" in found[index]:
            return found[index].PixelValueTransformationSequence[0]
    return ds


def compare_pydicom(study: Study, reference: tuple[Array, bool]) -> str:
    """Every slice of ours is a frame of the reference: as it lies, or turned as a radiograph is displayed."""
    frames, _ = reference
    ours = [(image.pixels[:, n], image.valid[n]) for image in study.images for n in range(image.grid.shape[0])]
    if len(ours) != len(frames):
        return _tiles(study, frames)
    worst, order = "exact", ("exact", "rounded", "levels", "displayed", "scaled")
    left = list(range(len(frames)))
    for pixels, valid in ours:
        found, verdict = _matched(np.moveaxis(pixels, 0, -1), valid, frames, left)
        left.remove(found)
        worst = max(worst, verdict, key=order.index)
    return worst


def _matched(pixels: Array, valid: Array, frames: Array, left: list[int]) -> tuple[int, str]:
    """The frame that holds these pixels, the first of the best verdict."""
    reasons = []
    for test in (same, _levels, _displayed, _scaled):
        for number in left:
            for turned in _turns(frames[number], pixels.shape[:2]):
                if turned.shape != pixels.shape:
                    continue
                try:
                    return number, test(pixels[valid], turned[valid])
                except Differs as difference:
                    reasons.append(str(difference))
    raise Differs(reasons[0] if reasons else "no frame of this shape")


def _turns(frame: Array, shape: tuple[int, ...]) -> list[Array]:
    views = (frame, frame.swapaxes(0, 1))
    return [
        view
        for base in views
        for view in (base, base[:, ::-1], base[::-1], base[::-1, ::-1])
        if view.shape[:2] == tuple(shape)
    ]


def _levels(found: Array, wanted: Array) -> str:
    if found.shape[-1] != 3 or np.abs(found - wanted).max(initial=0) > 3.01 / 255:
        raise Differs("colours more than 3 levels apart")
    return "levels"


def _displayed(found: Array, wanted: Array) -> str:
    """A monotone function from what is stored to [0, 1]."""
    if found.shape[-1] != 1 or (found.size and not 0 <= found.min() <= found.max() <= 1):
        raise Differs("values that are not displayed")
    order = np.argsort(wanted[:, 0], kind="stable")
    stored, shown = wanted[order, 0], found[order, 0]
    same = np.diff(stored) == 0
    steps = np.diff(shown)
    if np.abs(steps[same]).max(initial=0) > 1e-6 or not ((steps >= -1e-6).all() or (steps <= 1e-6).all()):
        raise Differs("values that are no monotone function of the stored ones")
    return "displayed"


def _scaled(found: Array, wanted: Array) -> str:
    """One factor and one offset: SUV, or a mapping to the real world."""
    if found.shape[-1] != 1 or wanted.size < 2 or np.ptp(wanted) == 0:
        raise Differs("values of another scale")
    low, high = int(wanted[:, 0].argmin()), int(wanted[:, 0].argmax())
    slope = (float(found[high, 0]) - float(found[low, 0])) / (float(wanted[high, 0]) - float(wanted[low, 0]))
    line = float(found[low, 0]) + slope * (wanted - wanted[low, 0])
    if np.abs(line - found).max() > 1e-5 * np.abs(line).max():
        raise Differs("values that are no multiple of the stored ones")
    return "scaled"


def _tiles(study: Study, frames: Array) -> str:
    """A slide: every tile is found at one multiple of its size, whole or cut at the border."""
    rows, columns = frames.shape[1:3]
    pixels = np.moveaxis(study.images[0].pixels[:, 0], 0, -1)
    placed = 0
    known = {}
    for frame in frames:
        known[np.asarray(frame, np.float32).tobytes()] = True
    for top in range(0, pixels.shape[0], rows):
        for left in range(0, pixels.shape[1], columns):
            tile = np.ascontiguousarray(pixels[top : top + rows, left : left + columns], np.float32)
            placed += tile.tobytes() in known
    whole = -(-pixels.shape[0] // rows) * -(-pixels.shape[1] // columns)
    if not placed:
        raise Differs(f"{sum(i.grid.shape[0] for i in study.images)} slices where there are {len(frames)} frames")
    return "exact" if placed == whole else _partly(placed, whole)


def _partly(placed: int, whole: int) -> str:
    raise Differs(f"{placed} of {whole} tiles are frames as they are stored")


def read_itk(path: Path) -> tuple[Array, Array, float]:
    """As `itk`, and by how much the direction cosines are not orthonormal."""
    from pydicom import dcmread

    turn = dcmread(path, force=True, stop_before_pixels=True).get("ImageOrientationPatient")
    axes = np.array(turn or (1, 0, 0, 0, 1, 0), float).reshape(2, 3)
    return *itk(path), float(np.abs(axes @ axes.T - np.eye(2)).max())


def compare_itk(study: Study, reference: tuple[Array, Array, float]) -> str:
    """Values as pydicom's, and the four corners of a single slice."""
    values, affine, skew = reference
    frames = values[:, :, :, 0].transpose(2, 1, 0, 3)
    colored = frames.shape[-1] == 3
    verdict = compare_pydicom(study, (frames / np.iinfo(frames.dtype).max if colored else frames, colored))
    image = study.images[0]
    if image.grid.frame == LPS and len(frames) == 1:
        corners = np.array([(0, r, c) for r in (0, image.grid.shape[1] - 1) for c in (0, image.grid.shape[2] - 1)])
        world = corners[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
        away = np.linalg.norm(world - image.grid.world(corners), axis=1).max()
        extent = float(np.linalg.norm(np.array(image.grid.shape[1:]) * image.grid.spacing[1:]))
        if away > CLOSE + skew * extent:
            raise Differs(f"corners up to {away:.3g} mm apart")
    return verdict
