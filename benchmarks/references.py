"""One file read by us and by pydicom, SimpleITK, nibabel and GDAL, compared pixel by pixel and corner by corner.

Values agree when they are the reference's float64 after one rounding to float32 ("exact"), or within 2 units in the
last place of the largest ("rounded": the reference computes in float32, or in another order). Further words name a
weaker test, where no stronger one applies:

- displayed: grey that DICOM displays in [0, 1] is a monotone function of the stored values
- scaled: one factor and offset from the stored values: SUV, dose, mappings to the real world
- levels: colour of SimpleITK within 3 levels of 255, which GDCM converts in whole numbers
- brightness: colour of lossy JPEG within a level of 255 in brightness; decoders interpolate halved colour differently

Places agree when voxel centres lie within 1e-4 mm in LPS. A single DICOM slice may be further from SimpleITK's by what
its direction cosines lack in being orthonormal, since ITK makes them so; the formula of PS3.3 C.7.6.2.1.1 does not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import dicom_references
from benchmarks.likeness import CLOSE, Array, Differs, brightness, itk, same
from domains.formats import picture
from domains.formats.naming import PICTURES, TEXT, format_name
from fovea import registry
from fovea.contracts import Domain
from fovea.errors import FoveaError, UnsupportedError
from fovea.image import LPS, Image
from fovea.types import Study

_VOXELS = 400_000
"""Voxels that are compared of one volume, at random where it has more."""
VOLUMES = ("NIfTI", "NRRD", "MetaImage", "MGH", "MINC 1", "MINC 2", "PAR/REC", "AFNI", "Analyze")


def compare(path: Path) -> dict[str, Any]:
    """What we make of a file ("read", or the reason), and what each reference that reads it says to that."""
    kind = format_name(path)
    row: dict[str, Any] = {"format": kind, "ours": "", "library": "", "references": {}}
    try:
        study = _ours(path, kind)
    except FoveaError as error:
        study, row["ours"] = None, f"{type(error).__name__}: {error}"
    for name, reader, check in _references(kind):
        try:
            found = reader(path)
        except Exception as error:  # noqa: BLE001 # whatever a reference raises, it does not read the file
            row["references"][name] = f"cannot read: {type(error).__name__}"
            continue
        if study is None:
            row["references"][name] = "reads"
            continue
        try:
            row["references"][name] = check(study, found)
        except FoveaError as error:
            study, row["ours"] = None, f"{type(error).__name__}: {error}"
            row["references"][name] = "reads"
        except Differs as difference:
            row["references"][name] = f"differs: {difference}"
    if study is not None:
        row["ours"], row["library"] = "read", _library(kind, study)
    return row


def _library(kind: str, study: Study) -> str:
    """What decodes our side: a reference of that name is no independent witness."""
    if kind in PICTURES:
        return "GDAL" if study.domain else "Pillow"
    return "own" if kind in ("NRRD", "MetaImage") else "nibabel" if kind in VOLUMES else "pydicom"


def _ours(path: Path, kind: str) -> Study:
    """By the domain whose format it is; a picture as the picture reader has it."""
    if kind in (TEXT, "GIFTI surface", "empty", "unknown") and not _domain("radiology").sniff(path):
        raise UnsupportedError("no image")
    if kind in PICTURES and picture.is_picture(path):
        content = picture.read(path)
        study = Study("", content.images, None, {})  # type: ignore[arg-type]
    else:
        study = _domain("remote_sensing" if kind in PICTURES else "radiology").load(path)
    for image in study.images[:1]:
        _ = image.pixels
    return study


def _domain(name: str) -> Domain:
    found: Domain = registry.domain(name)
    return found


Reading = tuple[str, Callable[[Path], Any], Callable[[Study, Any], str]]


def _references(kind: str) -> list[Reading]:
    if kind in VOLUMES:
        return [("SimpleITK", itk, _volume), ("nibabel", _nibabel, _volume)]
    if kind in PICTURES:
        return [("GDAL", _gdal, _raster), ("Pillow", _pillow, _raster_pillow)]
    return (
        [
            ("pydicom", dicom_references.read_pydicom, dicom_references.compare_pydicom),
            ("SimpleITK", dicom_references.read_itk, dicom_references.compare_itk),
        ]
        if kind in ("DICOM", "unknown")
        else []
    )


# volumes


def _nibabel(path: Path) -> tuple[Array, Array]:
    import nibabel

    image: Any = nibabel.load(path)
    values = np.asarray(image.dataobj)
    affine = np.diag((-1, -1, 1, 1)) @ image.affine
    if type(image).__name__.startswith("Minc") and values.ndim == 4:
        values = np.moveaxis(values, 0, 3)
    if values.dtype.names:
        values = np.stack([values[name] for name in values.dtype.names], -1)
        return values.reshape(*values.shape[:3], -1, values.shape[-1], order="F"), affine
    return values.reshape(*values.shape[:3], -1, 1, order="F"), affine


def _volume(study: Study, reference: tuple[Array, Array]) -> str:
    values, affine = reference
    images = study.images
    if len(images) == values.shape[4] > 1 == values.shape[3]:
        values = values.transpose(0, 1, 2, 4, 3)
    if len(images) != values.shape[3]:
        raise Differs(f"{len(images)} volumes where there are {values.shape[3]}")
    worst = "exact"
    for number, image in enumerate(images):
        worst = max(worst, _same_volume(image, values[:, :, :, number], affine), key=("exact", "rounded").index)
    return worst


def _same_volume(image: Image, values: Array, affine: Array) -> str:
    shape = values.shape[:3]
    if int(np.prod(shape)) != int(np.prod(image.grid.shape)):
        raise Differs(f"{image.grid.shape} voxels where there are {shape[::-1]}")
    rng = np.random.default_rng(0)
    total = int(np.prod(shape))
    chosen = np.arange(total) if total <= _VOXELS else rng.choice(total, _VOXELS, replace=False)
    points = np.stack(np.unravel_index(chosen, shape), 1)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1).T
    points = np.concatenate([points, corners])
    if image.grid.frame == LPS:
        world = points @ affine[:3, :3].T + affine[:3, 3]
        places = image.grid.index(world)
        away = np.linalg.norm((places - places.round()) * image.grid.spacing, axis=1).max()
        if away > CLOSE or (places.round() < 0).any() or (places.round() >= image.grid.shape).any():
            raise Differs(f"voxels lie up to {away:.3g} mm apart, or outside")
        index = places.round().astype(int)
    else:
        index = points[:, ::-1] if image.grid.shape == shape[::-1] else points
    wanted = values[tuple(points.T)].astype(float)
    found = image.pixels[:, index[:, 0], index[:, 1], index[:, 2]].T
    if len(image.channels) == 3:
        wanted, found = wanted[:, :3], found * 255
    known = image.valid[tuple(index.T)]
    return same(found[known], wanted[known])


# rasters and pictures


def _gdal(path: Path) -> dict[str, Any]:
    import rasterio
    from rasterio.enums import ColorInterp

    with rasterio.open(path) as file:
        data = [n for n, color in enumerate(file.colorinterp, 1) if color != ColorInterp.alpha] or [1]
        values = file.read(data)
        palette = file.colormap(1) if file.colorinterp[0] == ColorInterp.palette else None
        return {
            "values": values,
            "scales": [(file.scales[n - 1], file.offsets[n - 1]) for n in data],
            "palette": palette,
            "transform": tuple(file.transform)[:6],
            "bits": int(file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 0)),
            "apart": _apart(path),
            "inks": file.colorinterp[0] == ColorInterp.cyan,
            "lossy": "JPEG" in file.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "").upper() + file.driver.upper()
            or file.driver == "JP2OpenJPEG",
        }


def _apart(path: Path) -> str:
    """What of a picture GDAL leaves as it is, and we undo."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        with Pillow.open(path) as file:
            if file.mode == "LAB":
                return "LAB"
            multiplied = 1 in getattr(file, "tag_v2", {}).get(338, ())
            return "alpha in the colours" if multiplied else "rotation" if file.getexif().get(274, 1) != 1 else ""
    except UnidentifiedImageError:
        return ""


def _pillow(path: Path) -> Array:
    """Values (band, row, column) as Pillow decodes them."""
    from PIL import Image as Pillow

    with Pillow.open(path) as file:
        values = np.asarray(file)
    return values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)


def _raster_pillow(study: Study, values: Array) -> str:
    """Values alone, of what we read with GDAL and Pillow neither maps to colours nor reduces to 8 bits."""
    pixels, valid = study.images[0].pixels[:, 0], study.images[0].valid[0]
    if not study.domain:
        return "not compared: Pillow is what we read it with"
    if values.shape != pixels.shape or values.dtype == bool:
        return "not compared: Pillow lays it out otherwise"
    wanted = values[:, valid].astype(float)
    try:
        return same(pixels[:, valid], wanted)
    except Differs:
        if len(pixels) != 3:
            raise
    return brightness(pixels[:, valid], wanted, 255)


def _raster(study: Study, reference: dict[str, Any]) -> str:
    image = study.images[0]
    values = reference["values"].astype(float)
    if reference["palette"] is not None:
        table = np.array([reference["palette"].get(n, (0, 0, 0, 0)) for n in range(256)], float)
        values = np.moveaxis(table[reference["values"][0]][..., :3], -1, 0)
    else:
        values = np.stack(
            [band * scale + offset for band, (scale, offset) in zip(values, reference["scales"], strict=True)]
        )
    pixels, valid = image.pixels[:, 0], image.valid[0]
    if image.grid.georeferenced and not np.allclose(
        image.grid.to_gdal(), reference["transform"], rtol=1e-12, atol=1e-9
    ):
        raise Differs("another transform")
    if reference["inks"]:
        return "not compared: GDAL keeps CMYK as it is"
    if reference["apart"] and (not study.domain or reference["apart"] == "LAB"):
        return f"not compared: GDAL leaves {reference['apart']}"
    if not study.domain:
        top = 2 ** reference["bits"] - 1 if reference["bits"] else np.iinfo(reference["values"].dtype).max
        values = values[: len(pixels)] / (255 if reference["palette"] is not None else top)
    if len(values) == 1 and len(pixels) == 3:
        values = np.broadcast_to(values, pixels.shape)
    elif len(values) == 3 and len(pixels) == 1:
        values = values[:1]
    if values.shape != pixels.shape:
        raise Differs(f"{pixels.shape} values where there are {values.shape}")
    try:
        return same(pixels[:, valid], values[:, valid])
    except Differs:
        if not reference["lossy"] or len(pixels) != 3:
            raise
    return brightness(pixels[:, valid], values[:, valid], 255 if study.domain else 1)
