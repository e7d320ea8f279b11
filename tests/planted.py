"""Files whose headers are full of what must not get out, and the search for it."""

from __future__ import annotations

import gzip
import re
import warnings
import zipfile
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import rasterio
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo
from pydicom import DataElement, Dataset, config
from pydicom.datadict import DicomDictionary, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from rasterio.crs import CRS

WORD, NUMBER, DAY, CLOCK, ROOT = "ZZ7319KORVAX28ZZ", 731973184, "19010203", "010203.7319", "1.2.826.0.7319731"
SECRETS = (WORD, str(NUMBER), DAY, CLOCK, ROOT)
"""What stands in headers. The number is whole as a 32-bit float too."""
NAME = "QQ4826BELINDA5QQ"
"""What stands in the names of files and folders, and in the names by which a corpus tells patients apart."""

VALUES: dict[str, Any] = {
    **dict.fromkeys(("AE", "AS", "CS", "LO", "LT", "SH", "ST", "UC", "UT"), WORD),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), WORD.encode()),
    **dict.fromkeys(("DS", "IS"), str(NUMBER)),
    **dict.fromkeys(("FD", "FL", "SL", "SV", "UL", "UV"), NUMBER),
    "DA": DAY, "DT": f"{DAY}{CLOCK}", "TM": CLOCK, "PN": f"{WORD}^{WORD}={WORD}", "UI": ROOT, "UR": f"urn:{WORD}",
}  # fmt: skip
NEEDED = {
    "SpecificCharacterSet", "SOPClassUID", "Modality", "BurnedInAnnotation", "PhotometricInterpretation",
    "SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleIntercept", "RescaleSlope", "WindowCenter", "WindowWidth", "PixelSpacing", "ImagerPixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness",
}  # fmt: skip
"""What has to stay for a file to be a picture."""
CHANGING = {
    "PixelData", "RescaleType", "NumberOfFrames", "FloatPixelData", "DoubleFloatPixelData",
    "NominalScannedPixelSpacing",
    "VOILUTSequence", "ModalityLUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
}  # fmt: skip
"""What would make another picture of it."""
TOLD = {"ViewPosition", "BodyPartExamined", "ImageLaterality", "Laterality"}
"""What comes out as a word of a closed list, where it is one."""
APART = {"EchoNumbers", "EchoTime", "TemporalPositionIdentifier", "DiffusionBValue", "ConvolutionKernel", "ImageType"}
"""What has to be the same in all files of a series."""


def secrets(data: bytes, words: Iterable[str] = (*SECRETS, "1901-02-03", NAME)) -> set[str]:
    """Which words stand in bytes: as they are, as UTF-16, as base64, in a data URI, in a gzip or zip file."""
    found = {word for word in words if any(form in data for form in _forms(word))}
    inside = [b64decode(text + b"==") for text in re.findall(rb"base64,([A-Za-z0-9+/]+)", data)]
    if data[:2] == b"\x1f\x8b":
        inside.append(gzip.decompress(data))
    if data[:4] == b"PK\3\4":
        with zipfile.ZipFile(BytesIO(data)) as archive:
            inside += [archive.read(name) + name.encode() for name in archive.namelist()]
    return found.union(*(secrets(part, words) for part in inside))


def _forms(word: str) -> Iterator[bytes]:
    yield from (word.encode(), word.encode("utf-16-le")[:-1])
    for shift in range(3 * (len(word) > 12)):  # what of the base64 does not depend on the neighbours
        yield b64encode(b"\0" * shift + word.encode())[4 if shift else 0 : -4]


def element(tag: int | str, vr: str, value: Any = None) -> DataElement:
    """An element by its number or keyword; its value need not be valid."""
    return DataElement(tag, vr, VALUES[vr] if value is None else value, validation_mode=config.IGNORE)


def wrong(tag: int | str, vr: str) -> RawDataElement:
    """An element whose bytes are the word, whatever its kind."""
    return RawDataElement(Tag(tag), vr, len(WORD), WORD.encode(), 0, False, True)


def filled(spared: set[str], first: int, last: int) -> Iterator[DataElement]:
    """An element for each entry of the dictionary, of groups first to last, that can tell something."""
    for tag, (kinds, _, _, _, keyword) in DicomDictionary.items():
        vr = kinds.partition(" ")[0]
        if first <= tag >> 16 <= last and vr in VALUES and keyword not in spared:
            yield element(tag, vr)


def item(private: bool = True) -> Dataset:
    """An item of a sequence, with a sequence and private elements of its own."""
    ds = Dataset()
    for keyword in ("PatientName", "PatientID", "StudyDate", "UnformattedTextValue", "TextValue", "CodeMeaning"):
        ds.add(element(keyword, dictionary_VR(keyword)))
    if private:
        block = ds.private_block(0x0077, WORD, create=True)
        for offset, vr in enumerate(("LO", "PN", "UN", "UT"), 0x10):
            block.add_new(offset, vr, VALUES[vr])
        block.add_new(0x20, "SQ", [item(private=False)])
        ds.ReferencedStudySequence = [item(private=False)]
    return ds


def plant(ds: Dataset, number: int, spared: set[str] = TOLD, whole: bool = True) -> Dataset:
    """Fill a header: preamble, file meta, elements, sequences, private blocks, overlays, and the padding at the end.

    Not `whole` means names, dates, long texts and UIDs only.
    """
    spared = NEEDED | CHANGING | spared
    deep, small = item(), item()
    for found in filled(spared, 0x0004, 0xFFFC):
        if whole or found.VR in ("PN", "DA", "LT", "UI") or found.keyword in APART:
            ds[found.tag] = deep[found.tag] = found
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        ds.add(element(keyword, "UI", f"{ROOT}.{number}"))
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if whole and vr == "SQ" and keyword not in spared and tag >> 16 > 4:
            ds.add_new(tag, "SQ", [small])
    ds.RequestAttributesSequence = [deep]
    block = ds.private_block(0x0099, f"{WORD} CREATOR", create=True)
    for offset, (vr, value) in enumerate(VALUES.items(), 0x10):
        ds.add(element(block.get_tag(offset), vr, value))
    block.add_new(0x80, "SQ", [deep])
    for tag, vr in ((0x50000022, "LO"), (0x60000022, "LO"), (0x60001500, "LO"), (0x60003000, "OB"), (0x60004000, "LT")):
        ds.add_new(tag, vr, VALUES[vr])
    for found in filled({"MediaStorageSOPClassUID", "TransferSyntaxUID", "FileMetaInformationVersion"}, 2, 2):
        if found.keyword != "FileMetaInformationGroupLength":
            ds.file_meta[found.tag] = found
    ds.preamble = (WORD * 8).encode()
    return ds


def save(ds: Dataset, path: Path) -> Path:
    """Write a file; pydicom's doubts about what is planted in it are not those of the code under test."""
    with warnings.catch_warnings(action="ignore"):
        ds.save_as(path)
    return path


def plant_study(path: Path, number: int, whole: bool) -> Path:
    """Plant a DICOM file, or the files of a series, the first of them whole, and give them a person's name."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for at, file in enumerate(files):
        ds = pydicom.dcmread(file)
        save(plant(ds, number, whole=whole and at == 0), file)
        if path.is_dir():
            file.rename(file.with_name(f"{NAME}^{file.name}"))
    return path.rename(path.with_name(f"{NAME}^{path.name}"))


def pictures(folder: Path) -> list[Path]:
    """Radiographs as PNG, JPEG and TIFF, with remarks in each place that the formats have."""
    pixels = (np.random.default_rng(0).random((64, 48)) * 255).astype(np.uint8)
    gray = Pillow.fromarray(pixels)
    exif = Pillow.Exif()
    for tag in (0x010E, 0x010D, 0x0131, 0x013B, 0x013C, 0x8298, 0x9C9B, 0xA420):
        exif[tag] = WORD
    info = PngInfo()
    info.add_text("Comment", WORD)
    info.add_text(WORD, WORD, zip=True)
    info.add_itxt("XML:com.adobe.xmp", f"<x:xmpmeta><dc:title>{WORD}</dc:title></x:xmpmeta>")
    files = [folder / f"{NAME}{end}" for end in (".png", ".jpg", ".tif")]
    gray.save(files[0], pnginfo=info, exif=exif)
    gray.save(files[1], exif=exif, comment=WORD.encode(), xmp=WORD.encode())
    gray.save(files[2], tiffinfo=dict.fromkeys((269, 270, 271, 285, 305, 306, 315, 316, 33432), WORD))
    return files


def volume(folder: Path) -> Path:
    """A NIfTI volume with remarks and extensions."""
    values = np.random.default_rng(0).normal(0, 500, (12, 14, 6)).astype(np.int16)
    image = nibabel.Nifti1Image(values, np.diag((2.0, 2.0, 3.0, 1.0)))
    for name in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[name] = WORD.encode()
    image.header.set_intent("none", name=WORD)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", WORD.encode()))
    path = folder / f"{NAME}.nii.gz"
    nibabel.save(image, path)
    return path


SYSTEMS = {
    "known": CRS.from_epsg(32633).to_wkt().replace("WGS 84 / UTM zone 33N", WORD),
    "own": CRS.from_proj4("+proj=tmerc +lat_0=12.3 +lon_0=4.5 +k=0.99 +x_0=1 +y_0=2 +ellps=GRS80 +units=m")
    .to_wkt()
    .replace("unknown", WORD)
    .replace("GRS 1980", WORD),
    "datum": f'PROJCS["{WORD}",GEOGCS["{WORD}",DATUM["European_Datum_1950",SPHEROID["{WORD}",6378388,297]],'
    f'PRIMEM["{WORD}",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["latitude_of_origin",1],PARAMETER["central_meridian",4],PARAMETER["scale_factor",0.9996],'
    'PARAMETER["false_easting",0],PARAMETER["false_northing",0],UNIT["metre",1]]',
    "degrees": f'GEOGCS["{WORD}",DATUM["{WORD}",SPHEROID["{WORD}",6378000,298.1]],PRIMEM["{WORD}",0],'
    'UNIT["degree",0.0174532925199433]]',
    "local": f'LOCAL_CS["{WORD}",UNIT["metre",1]]',
}
"""Coordinate reference systems that a person has named."""


def scene(folder: Path, system: str) -> Path:
    """A GeoTIFF with remarks in its tags, bands and coordinate reference system."""
    path = folder / f"{NAME}_{system}.tif"
    values = np.random.default_rng(0).integers(1, 255, (3, 40, 48), np.uint8)
    shape: dict[str, Any] = {"height": 40, "width": 48, "count": 3, "dtype": "uint8"}
    place = rasterio.Affine(1e-4, 0, 4.5, 0, -1e-4, 12.3)
    with rasterio.open(path, "w", "GTiff", crs=CRS.from_wkt(SYSTEMS[system]), transform=place, **shape) as file:
        file.write(values)
        remarks = ("IMAGEDESCRIPTION", "ARTIST", "COPYRIGHT", "DOCUMENTNAME", "SOFTWARE", "HOSTCOMPUTER", "DATETIME")
        file.update_tags(**{f"TIFFTAG_{name}": WORD for name in remarks}, OWNER=WORD)
        file.update_tags(ns="IMAGERY", SATELLITEID=WORD, ACQUISITIONDATETIME=WORD, CLOUDCOVER=WORD)
        file.update_tags(ns=WORD, NAME=WORD)
        for band in (1, 2, 3):
            file.set_band_description(band, WORD)
            file.set_band_unit(band, WORD)
            file.update_tags(band, NAME=WORD, wavelength=WORD, wavelength_units=WORD)
    return path
