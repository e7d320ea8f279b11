"""All formats of volumes beside DICOM: NIfTI, NRRD, MetaImage, and those of brain imaging tools."""

from __future__ import annotations

from pathlib import Path

from domains.formats.content import Content, foreign
from domains.formats.volumes import metaimage, neuro, nifti, nrrd
from fovea.errors import UnsupportedError


def kind(path: Path) -> str:
    """The name of the format of a volume, or "" for other files; by content, for some with the name's ending."""
    with foreign("a file"), path.open("rb") as file:
        head = file.read(4)
    if head in (b"\x89PNG", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1", b"II*\0", b"MM\0*"):
        return ""
    if nrrd.is_nrrd(path):
        return "NRRD"
    if nifti.is_nifti(path):
        return "NIfTI"
    return neuro.kind(path) or ("MetaImage" if metaimage.is_metaimage(path) else "")


def read(path: Path) -> Content:
    """The volumes of a file as images in LPS; raises leaves of InputError, and decodes when asked for."""
    found = kind(path)
    readers = {"NRRD": nrrd.read, "NIfTI": nifti.read, "MetaImage": metaimage.read}
    if not found:
        raise UnsupportedError("a file that is no volume", "NIfTI, NRRD, MetaImage, MGH, MINC, PAR/REC or AFNI")
    return readers.get(found, neuro.read)(path)
