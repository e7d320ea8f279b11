"""Finding and reading scenes: products of satellites, STAC items, single rasters, and colour pictures from the air."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from domains.formats import dicom, picture
from domains.formats.content import Content
from domains.formats.rasters import geotiff
from domains.remote_sensing import products
from domains.remote_sensing.products import stac
from fovea.errors import InputError, LimitError
from fovea.types import Channel, Floats, Grid, Image, Pixels, Source, Study, Window
from fovea.verbal import number

_RASTERS = frozenset({".tif", ".tiff", ".jp2"})
_PICTURES = frozenset({".png", ".jpg", ".jpeg"})
_TINT = 1.0
"""Mean distance between the channels of a colour picture, of 255."""
_MASK_ENDS = ("_mask", "_masks", "_label", "_labels")
"""How the names of label pictures end, that lie beside their scene."""
_FLAGS = re.compile(r".*(_QA_(PIXEL|RADSAT|AEROSOL)|_ST_QA|_SCL(_[126]0m)?|_udm2?(_clip)?|\.Fmask)", re.IGNORECASE)
"""How the names of rasters of flags and classes end, that come with a scene."""
_READER = "remote-sensing/2"


def sniff(path: Path) -> bool:
    """Whether a file is a raster, a colour picture or the first of a product; of a folder, whether a file in it is.

    A picture without a georeference does not tell what it shows: coloured ones are taken, grey ones left to others,
    even when they are TIFFs. `studies` and `load` take any that is named.
    """
    if path.is_dir():
        return any(sniff(file) for file in _files(path))
    if products.product(path) or stac.lists(path):
        return True
    try:
        return _is_single(path) and (not picture.is_picture(path) or _is_colored(path))
    except LimitError:
        return geotiff.is_geotiff(path)  # too large for a picture, while rasters are read by window
    except InputError:
        return False


def studies(path: Path) -> list[tuple[Path, ...]]:
    """The scenes in a file or folder: a product or STAC item with all its files, or a single raster.

    In a folder these are all files named as rasters, whole or not, so that `load` can say what is wrong with them, and
    colour pictures; sidecars, flags and label masks beside a scene are left out. A STAC collection or catalog gives its
    items.
    """
    if stac.lists(path):
        return products.gather(stac.items(path))[0]
    if not path.is_dir():
        found, rest = products.gather([path])
        return [*found, *((file,) for file in rest if _is_single(file))]
    found, rest = products.gather(_files(path))
    stems = {file.with_suffix("") for file in rest}
    alone = [(file,) for file in rest if _is_ours(file) and not _is_mask(file, stems) and not _is_flags(file, rest)]
    return sorted([*found, *alone])


def load(path: Path | Sequence[Path], window: Window | None = None) -> Study:
    """Read a scene, or the dates of one place as the images of one study; a window is taken of each.

    A product is given by the file it begins with (alone, or with its other files) or by its folder. `meta` has
    "modality" (one of `bands.MODALITIES`), "resolution" on the ground and what is known of sensor, platform, level,
    date, baseline and cloud cover. Scenes of several dates come in the order of their dates where all are known, and
    `meta` has "date_before" and "date_after", the first and the last, instead of "date". Raises leaves of InputError;
    pixels are read when asked for, under the same family.
    """
    paths = [file for given in ([path] if isinstance(path, Path) else path) for file in _one_scene(given)]
    if not paths:
        raise InputError("no files", "the file of a scene")
    scenes = _scenes(paths)
    if all(content.meta.get("date") for content, _ in scenes):
        scenes.sort(key=lambda scene: scene[0].meta["date"])
    contents = [content for content, _ in scenes]
    images = tuple(_part(image, window) if window else image for content in contents for image in content.images)
    kinds = {content.meta["modality"] for content in contents}
    if len(kinds) > 1:
        raise InputError(f"files of several modalities ({', '.join(sorted(kinds))})", "one modality a study")
    meta = dict(contents[0].meta)
    days = [content.meta.get("date", "") for content in contents]
    if len(set(days)) > 1:
        meta.pop("date", None)
        meta |= {f"date_{end}": day for end, day in (("before", days[0]), ("after", days[-1])) if day}
    resolution = _resolution(images[0].grid)
    if resolution:
        meta["resolution"] = resolution
    hashes = tuple(digest for content in contents for digest in content.hashes)
    readers = " ".join(dict.fromkeys(reader for _, reader in scenes))
    return Study("remote_sensing", images, Source(hashes, f"{readers}{_written(window)}"), meta)


def _one_scene(path: Path) -> tuple[Path, ...]:
    """The files of the one scene in a folder, collection or catalog; any other file itself."""
    if not path.is_dir() and not stac.lists(path):
        return (path,)
    found = studies(path)
    if len(found) != 1:
        raise InputError(f"a folder of {len(found)} scenes", "one scene", "Load the scenes one by one")
    return found[0]


def _scenes(paths: Sequence[Path]) -> list[tuple[Content, str]]:
    """What is in each product or single file, in the order of their first files, and who read it."""
    found, rest = products.gather(paths)
    scenes = []
    for path in sorted([group[0] for group in found] + rest, key=paths.index):
        kind = products.product(path)
        scenes.append((kind.read(path), f"{_READER} {kind.reader}") if kind else (_content(path), _READER))
    return scenes


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, in order of name; links to folders are not followed."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(root, name) for name in sorted(names))


def _is_ours(file: Path) -> bool:
    suffix = file.suffix.lower()
    return suffix in _RASTERS or (suffix in _PICTURES and sniff(file))


def _is_single(path: Path) -> bool:
    """Whether a file is a raster or a picture by itself; DICOM is neither, though it may begin as TIFF does."""
    return (geotiff.is_geotiff(path) or picture.is_picture(path)) and not dicom.is_dicom(path)


def _is_colored(path: Path) -> bool:
    """Whether a picture has three channels that differ, if only as those of sand and haze do."""
    image = picture.read(path).images[0]
    if len(image.channels) != 3:
        return False
    if not picture.is_gray(path):
        return True
    rows, columns = image.grid.shape[1:]
    small = _Photograph(image)(None, (min(rows, 64), min(columns, 64)))[0]
    return float(np.ptp(small, axis=0).mean()) > _TINT


def _is_mask(file: Path, stems: set[Path]) -> bool:
    """Whether the name is that of another file with an ending for labels: "tile_1__mask.png" beside "tile_1.jpg"."""
    bare = next((file.stem.removesuffix(end) for end in _MASK_ENDS if file.stem.endswith(end)), "")
    return bool(bare) and any(file.with_name(name) in stems for name in (bare, bare.rstrip("_-")))


def _is_flags(file: Path, files: Sequence[Path]) -> bool:
    """Whether the name is that of flags or classes, with a raster in the folder that they may belong to."""
    if not _FLAGS.fullmatch(file.stem):
        return False
    beside = (other for other in files if other.parent == file.parent and other.suffix.lower() in _RASTERS)
    return any(not _FLAGS.fullmatch(other.stem) for other in beside)


def _content(file: Path) -> Content:
    pictured = picture.is_picture(file) and (not geotiff.is_geotiff(file) or picture.is_beyond_rasters(file))
    return _photograph(file) if pictured else geotiff.read(file)


def _photograph(path: Path) -> Content:
    """A picture, or each page of one, as a scene: digital numbers from 0 to 255, as an 8-bit TIFF would have."""
    content = picture.read(path)
    scenes = tuple(Image(_bands(image), image.grid, _Photograph(image)) for image in content.images)
    return content._replace(images=scenes, meta={"modality": "optical", "geometry": "no georeference"})


def _bands(image: Image) -> tuple[Channel, ...]:
    names = ("red", "green", "blue") if len(image.channels) == 3 else ("gray",)
    return tuple(Channel(name, "digital number") for name in names)


@dataclass(frozen=True, eq=False)
class _Photograph:
    """Reads a picture; a reduced read averages all pixels of the full one."""

    image: Image

    def __call__(self, window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        values, valid = self.image.read(window, None)
        size = values.shape[2:]
        if shape is not None and shape != size:
            if shape[0] <= size[0] and shape[1] <= size[1]:
                values = _averaged(values, shape)
                valid = np.ones((1, *shape), bool)
            else:
                values, valid = self.image.read(window, shape)
        return values * np.float32(255), valid


def _averaged(values: Floats, shape: tuple[int, int]) -> Floats:
    """Mean over the blocks of pixels that the reduced ones cover, along the last two axes."""
    for axis, size in zip((-2, -1), shape, strict=True):
        edges = np.arange(size + 1) * values.shape[axis] // size
        counts = np.diff(edges).astype(np.float32)
        values = np.add.reduceat(values, edges[:-1], axis) / (counts[:, None] if axis == -2 else counts)
    return values


def _part(image: Image, window: Window) -> Image:
    """A window as an image of its own, which can be windowed and reduced again."""
    return replace(image, grid=image.grid.crop(window), read=_Part(image, window))


@dataclass(frozen=True, eq=False)
class _Part:
    image: Image
    window: Window

    def __call__(self, window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        if window is None:
            return self.image.read(self.window, shape)
        self.image.grid.crop(self.window).crop(window)
        top, left = self.window.rows[0], self.window.columns[0]
        rows, columns = (
            (top + window.rows[0], top + window.rows[1]),
            (left + window.columns[0], left + window.columns[1]),
        )
        return self.image.read(Window(rows, columns), shape)


def _resolution(grid: Grid) -> str:
    """The size of a pixel on the ground in words, such as "10 m" or "20 x 10 m" (columns first)."""
    sizes = geotiff.ground_size(grid)
    if not sizes:
        return ""
    row, column = sizes
    if abs(row - column) < 0.02 * row:
        return f"{number((row + column) / 2)} m"
    return f"{number(column)} x {number(row)} m"


def _written(window: Window | None) -> str:
    """A window as part of the reader's name, so that two windows of one file have two digests."""
    return f" rows {window.rows} columns {window.columns}" if window else ""
