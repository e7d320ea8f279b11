"""Volumes of brain imaging tools with nibabel: MGH (FreeSurfer), MINC, PAR/REC (Philips), AFNI and Analyze 7.5."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domains.formats.content import Content, check_size, file_hash, foreign
from domains.formats.isolation import isolated
from domains.formats.volumes import minc, orientation
from domains.formats.volumes.nifti import NIBABEL, is_nifti, partner
from domains.formats.volumes.orientation import Stored
from domains.formats.volumes.payload import check_length
from fovea.errors import UnsupportedError

_TO_LPS = np.diag((-1.0, -1.0, 1.0, 1.0))
_GZIP, _MGH = b"\x1f\x8b", b"\0\0\0\1"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ANALYZE = (b"\x5c\x01\0\0", b"\0\0\x01\x5c")
"""sizeof_hdr, 348, in either byte order."""


class _Opened(NamedTuple):
    """A volume whose values nibabel reads when asked for, its affine to RAS, and its files, that of the values last."""

    data: Any
    affine: Any
    numbers: Any
    files: tuple[Path, ...]
    placed: bool = True
    """Whether the file says where its axes lie in the patient."""
    first: int = 0
    """The first of the three axes of space."""
    meta: Mapping[str, str] = MappingProxyType({})


def kind(path: Path) -> str:
    """The name of the format, or "": by the name's ending and the first bytes together."""
    with foreign("a file"), path.open("rb") as file:
        head = file.read(256)
    name = path.name.lower()
    tests = {
        "MGH": (name.endswith(".mgz") and head.startswith(_GZIP)) or (name.endswith(".mgh") and head.startswith(_MGH)),
        "MINC 2": name.endswith(".mnc") and head.startswith(_HDF5),
        "MINC 1": name.endswith(".mnc") and head.startswith((b"CDF\1", b"CDF\2")),
        "PAR/REC": name.endswith(".par") and b"DATA DESCRIPTION FILE" in head,
        "AFNI": name.endswith(".head") and head.lstrip().startswith(b"type"),
        "Analyze": name.endswith(".hdr") and head.startswith(_ANALYZE) and not is_nifti(path),
    }
    return next((found for found, true in tests.items() if true), "")


def read(path: Path) -> Content:
    """Every volume, channel "intensity", in the values that nibabel scales (PAR/REC: displayed values).

    `meta["geometry"]` says where a file does not tell how its axes lie in the patient, as Analyze never does; the grid
    is one of pixels then. Raises UnsupportedError for other formats and where a package lacks, LimitError before
    decoding, InputError for broken and missing files. Decoded when asked for.
    """
    found = kind(path)
    if not found:
        raise UnsupportedError("a file that is none of these volumes", "MGH, MINC, PAR/REC, AFNI or Analyze")
    with _converted(found):
        opened = _OPENERS[found](path)
        shape = [int(size) for size in opened.data.shape]
        check_size(*shape)
        numbers = np.dtype(opened.numbers)
        if numbers.kind not in "iuf":
            raise UnsupportedError(f"{found} of complex or other than real numbers", "real numbers", "Convert it.")
        if not found.startswith("MINC"):
            check_length(opened.files[-1], int(np.prod(shape, dtype=object)) * numbers.itemsize)
        axes = tuple(range(opened.first, min(len(shape), opened.first + 3)))
        sizes = [*(shape[axis] for axis in axes), 1, 1][:3]
        others = tuple(size for axis, size in enumerate(shape) if axis not in axes)
        backwards = found.startswith("MINC") and not opened.placed
        values = _Values(found, path, opened.first, others, tuple(sizes), backwards)
        i, j, k = reversed(sizes) if backwards else sizes
        affine = _TO_LPS @ np.asarray(opened.affine, float) if opened.placed else None
        images = orientation.images(Stored((i, j, k), affine, values, int(np.prod(others, dtype=np.int64))))
        hashes = tuple(file_hash(file) for file in opened.files)
    meta = {**opened.meta, "geometry": "" if opened.placed else "axes without a place in the patient"}
    return Content(images, {key: value for key, value in meta.items() if value}, hashes)


@dataclass(frozen=True)
class _Values:
    """Reads single volumes, opening the file for each; `backwards` gives the slowest of the stored axes last."""

    format: str
    path: Path
    first: int
    others: tuple[int, ...]
    sizes: tuple[int, ...]
    backwards: bool

    def __call__(self, number: int) -> NDArray[Any]:
        with _converted(self.format):
            data = _OPENERS[self.format](self.path).data
            place = tuple(int(n) for n in np.unravel_index(number, self.others, order="F")) if self.others else ()
            values = np.asarray(data[(*place, ...)] if self.first else data[(..., *place)]).reshape(self.sizes)
            return values.T if self.backwards else values


@contextmanager
def _converted(found: str) -> Iterator[None]:
    from nibabel.freesurfer.mghformat import MGHError
    from nibabel.minc1 import MincError
    from nibabel.parrec import PARRECError

    with foreign(f"{found or 'a'} file", MGHError, MincError, PARRECError, *NIBABEL):
        yield


def _opened(image: Any, *files: Path, placed: bool = True) -> _Opened:
    return _Opened(image.dataobj, image.affine, image.get_data_dtype(), files, placed)


def _mgh(path: Path) -> _Opened:
    from nibabel import MGHImage

    image: Any = MGHImage.from_filename(path)
    return _opened(image, path, placed=bool(image.header["goodRASFlag"] > 0))


def _minc1(path: Path) -> _Opened:
    from nibabel import Minc1Image

    image: Any = Minc1Image.from_filename(path)
    file = image.dataobj.minc_file
    study = file._mincfile.variables.get("study")
    return _minc(path, minc.facts(file, getattr(study, "modality", "")), image.dataobj)


def _minc2(path: Path) -> _Opened:
    facts = isolated(minc.read_header, path)
    return _minc(path, facts, minc.Values(path, facts["shape"]))


def _minc(path: Path, facts: Mapping[str, Any], values: Any) -> _Opened:
    meta = {"modality": facts["modality"], "content": facts["content"]}
    first = len(facts["shape"]) - 3
    return _Opened(values, facts["affine"], np.dtype(facts["numbers"]), (path,), facts["placed"], first, meta)


def _parrec(path: Path) -> _Opened:
    from nibabel import parrec

    tools: Any = parrec  # untyped
    data = partner(path, ".par", ".rec")
    with path.open(encoding="latin-1") as file:
        header: Any = tools.PARRECHeader.from_fileobj(file)
    values: Any = tools.PARRECArrayProxy(str(data), header, mmap=False)
    return _Opened(values, header.get_affine(), header.get_data_dtype(), (path, data), meta={"modality": "MR"})


def _afni(path: Path) -> _Opened:
    from nibabel.brikhead import AFNIImage

    data = partner(path, ".head", ".brik")
    return _opened(AFNIImage.from_filename(str(path)), path, data)


def _analyze(path: Path) -> _Opened:
    """Values as stored; the field that SPM made a scale factor of has to be unused, or 1."""
    from nibabel import AnalyzeImage

    data = partner(path, ".hdr", ".img")
    format_: Any = AnalyzeImage
    image = format_.from_file_map(format_.make_file_map({"header": str(path), "image": str(data)}))
    order = "<" if path.read_bytes()[:4] == _ANALYZE[0] else ">"
    if float(np.frombuffer(path.read_bytes()[112:116], f"{order}f4")[0]) not in (0.0, 1.0):
        raise UnsupportedError("Analyze with a scale factor of SPM", "plain values", "Convert it to NIfTI with SPM.")
    return _opened(image, path, data, placed=False)


_OPENERS: dict[str, Callable[[Path], _Opened]] = {
    "MGH": _mgh,
    "MINC 1": _minc1,
    "MINC 2": _minc2,
    "PAR/REC": _parrec,
    "AFNI": _afni,
    "Analyze": _analyze,
}
