"""Files after the nine advisories against a DICOM server, CVE-2026-5437 to 5445: each is refused, and nothing large is
allocated on the way. Source: the CERT/CC note of April 2026 on Orthanc up to 1.12.10."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zipfile

import numpy as np
import pydicom
import pytest
from dicom_files import DX, SC, make, save
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from domains.formats import archives, dicom
from fovea.errors import InputError

ALLOWED = 2**26


def picture(folder, **tags):
    return save(make(np.ones((8, 8), np.uint16), modality="DX", sop=DX, **tags), folder / "a.dcm")


def edited(path, old, new):
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    return path


def meta_header_beyond_the_file(folder):  # 5437: a length in the meta header that leads out of it
    return edited(picture(folder), b"\x02\x00\x10\x00UI\x14\x00", b"\x02\x00\x10\x00UI\xff\xff")


def gzip_bomb(folder):  # 5438: a stream without a limit on what it inflates to
    path = folder / "a.dcm.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(80):
            file.write(bytes(2**20))
    return path


def zip_that_lies(folder):  # 5439: sizes in the directory of a zip that are not those of its members
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.dcm", bytes(2**27))
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(signature) + at
        data[start : start + 4] = struct.pack("<I", 100)
    path.write_bytes(data)
    return path


def length_of_four_gigabytes(folder):  # 5440: memory taken by a declared length
    path = picture(folder)
    data = path.read_bytes()
    at = data.index(b"\xe0\x7f\x10\x00OW\0\0") + 8
    path.write_bytes(data[:at] + struct.pack("<I", 0xFFFFFFF0) + data[at + 4 : -20])
    return path


def private_compression(folder):  # 5441: the run lengths of a vendor that point outside of the data
    ds = pydicom.dcmread(picture(folder))
    ds.file_meta.TransferSyntaxUID = RLELossless
    ds.PixelData = encapsulate([struct.pack("<16I", 2, 64, 2**31, *[0] * 13) + b"\x7f\x01\x81\x02"])
    ds["PixelData"].is_undefined_length = True
    ds.add_new((0x07A1, 0x1011), "CS", "PMSCT_RLE1")
    ds.save_as(folder / "a.dcm")
    return folder / "a.dcm"


def sizes_of_32_bits(folder):  # 5442: Rows and Columns as UL, whose product overflows
    path = edited(picture(folder), b"\x28\x00\x10\x00US\x02\x00\x08\x00", b"\x28\x00\x10\x00UL\x04\x00\x00\x00\x01\x00")
    return edited(path, b"\x28\x00\x11\x00US\x02\x00\x08\x00", b"\x28\x00\x11\x00UL\x04\x00\x00\x00\x01\x00")


def palette_of_four_billion_pixels(folder):  # 5443: a product of sizes beyond 32 bits in a palette image
    ds = make(np.zeros((4, 4), np.uint8), modality="US", sop=SC, **colors(256))
    ds.PhotometricInterpretation = "PALETTE COLOR"
    ds.Rows = ds.Columns = 65535
    ds.NumberOfFrames = 65538
    return save(ds, folder / "a.dcm")


def map_of_pixels_inside(folder):  # 5444: a portable arbitrary map whose sizes overflow
    path = folder / "a.dcm"
    path.write_bytes(b"P7\nWIDTH 65537\nHEIGHT 65536\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n" + bytes(64))
    return path


def colors_that_are_missing(folder):  # 5445: pixels that point behind the end of the palette
    ds = make(np.full((4, 4), 200, np.uint8), modality="US", sop=SC, **colors(16))
    ds.PhotometricInterpretation = "PALETTE COLOR"
    return save(ds, folder / "a.dcm")


def colors(count):
    names = [f"{color}PaletteColorLookupTable" for color in ("Red", "Green", "Blue")]
    return {f"{name}Descriptor": [256, 0, 8] for name in names} | {f"{name}Data": bytes(count) for name in names}


@pytest.mark.parametrize(
    "advisory",
    [
        meta_header_beyond_the_file, gzip_bomb, zip_that_lies, length_of_four_gigabytes, private_compression,
        sizes_of_32_bits, palette_of_four_billion_pixels, map_of_pixels_inside, colors_that_are_missing,
    ],
    ids=lambda advisory: advisory.__name__,
)  # fmt: skip
def test_the_file_of_an_advisory_is_refused(tmp_path, advisory):
    path = advisory(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            _everything(path)
        assert tracemalloc.get_traced_memory()[1] < ALLOWED
    finally:
        tracemalloc.stop()


def _everything(path):
    if archives.is_archive(path):
        with archives.unpacked(path) as folder:
            _everything(next(folder.iterdir()))
    else:
        for image in dicom.read([path]).images:
            _ = image.pixels
