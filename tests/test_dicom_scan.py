"""The first pass agrees with a full parse, and stops what a full parse should not see."""

from __future__ import annotations

import io
import struct

import numpy as np
import pydicom
import pytest
from dicom_files import DX, PLANE, make, save
from pydicom.uid import ImplicitVRLittleEndian

from domains.formats import dicom
from domains.formats.dicom import scan as dicom_scan
from domains.formats.dicom.header import _read
from domains.formats.dicom.scan import scan
from fovea.errors import InputError, LimitError


def without_path(header):
    kept = {name: value for name, value in vars(header).items() if name not in ("native", "tiles")}
    return kept | {"tiles": header.tiles is not None}


def test_headers_of_real_files_are_those_of_a_full_parse(data_dir, monkeypatch):
    agreed = 0
    for path in sorted((data_dir / "med").rglob("*.dcm")):
        try:
            quick = _read(path, path.stat().st_size)
        except InputError as error:
            quick = str(error)
        if isinstance(quick, str) or quick.native is None:
            continue
        with monkeypatch.context() as patch:
            patch.setattr("domains.formats.dicom.header.scan", lambda file: dicom_scan.Scan(None, None))
            full = _read(path, path.stat().st_size)
        assert without_path(quick) == without_path(full), path
        one = dicom.decode(quick, [0])
        other = dicom.decode(full, [0])
        assert np.array_equal(one[0], other[0]), path
        assert np.array_equal(one[1], other[1]), path
        agreed += 1
    assert agreed > 60


@pytest.mark.parametrize(
    "program", [b"MZ\x90\0", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"#!/bin/sh\n", b"PK\x03\x04", b"%PDF-1.7"]
)
def test_a_program_in_the_preamble_is_refused_and_a_tiff_is_not(tmp_path, program):
    path = save(make(np.ones((4, 4), np.uint16), modality="DX", sop=DX), tmp_path / "a.dcm")
    data = path.read_bytes()
    path.write_bytes(program.ljust(128, b"\0") + data[128:])
    with pytest.raises(InputError, match="preamble"):
        dicom.read([path])
    path.write_bytes(b"II*\0".ljust(128, b"\0") + data[128:])
    assert dicom.read([path]).images


def sequence(depth):
    head = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    tail = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    return head * depth + tail * depth


def with_more(tmp_path, more):
    path = save(make(np.ones((4, 4), np.uint16), modality="DX", sop=DX), tmp_path / "a.dcm")
    data = path.read_bytes()
    at = data.index(b"\x08\x00\x60\x00CS")  # in front of Modality
    path.write_bytes(data[:at] + more + data[at:])
    return path


def test_nesting_and_numbers_of_elements_have_limits(tmp_path, monkeypatch):
    assert dicom.read([with_more(tmp_path, sequence(20))]).images
    with pytest.raises(LimitError, match="nested"):
        dicom.read([with_more(tmp_path, sequence(1000))])
    monkeypatch.setattr(dicom_scan, "MAX_ELEMENTS", 5000)
    with pytest.raises(LimitError, match="too many elements"):
        dicom.read([with_more(tmp_path, b"\x08\x00\x50\x00SH\0\0" * 6000)])
    monkeypatch.setattr(dicom_scan, "MAX_HEADER", 2**20)
    with pytest.raises(LimitError, match="too long"):
        dicom.read([with_more(tmp_path, b"\x08\x00\x50\x00UT\0\0" + struct.pack("<I", 2**21) + bytes(2**21))])


def test_what_it_cannot_follow_is_left_to_the_full_parse(tmp_path):
    path = save(make(np.ones((4, 4), np.uint16), **PLANE, SliceThickness=2), tmp_path / "a.dcm", ImplicitVRLittleEndian)
    for data in (b"", b"no DICOM", path.read_bytes()[:300], path.read_bytes()[132:]):
        assert scan(io.BytesIO(data)) == dicom_scan.Scan(None, None)
    found = scan(io.BytesIO(path.read_bytes()))
    ds = pydicom.dcmread(path)
    assert found.fields == {name: getattr(ds, name) for name in found.fields}
    assert path.read_bytes()[found.pixels[0] :][: found.pixels[1]] == ds.PixelData
