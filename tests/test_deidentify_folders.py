"""De-identification of pixels with text in them, of folders as a whole, and of real files."""

from __future__ import annotations

import io
import json
import os
import re
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from deidentify_files import SECRET, US, cleaned, ct, labelled
from dicom_files import SC, make, save
from PIL import Image as Pillow
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from domains.radiology.deidentify.burned_in import find_text
from domains.radiology.deidentify.folder import Outcome, deidentify
from domains.radiology.deidentify.instance import deidentify_instance
from domains.radiology.deidentify.profile import DEFAULT
from fovea.errors import ConfigError, UnsupportedError

# burned in


@pytest.mark.parametrize("size", [10, 14, 20, 32])
@pytest.mark.parametrize("light", [True, False])
def test_text_is_found_whichever_way_it_shines(size: int, light: bool) -> None:
    picture = labelled("DOE JANE", size).astype(np.float32) / 255
    picture = picture if light else 1 - picture
    boxes = find_text(picture, likely=False)
    assert boxes
    assert all(box.top < 60 for box in boxes)
    assert find_text(picture.T.copy().T[60:], likely=False) == []


def test_what_may_show_text_is_refused_unless_it_is_masked(tmp_path: Path) -> None:
    plain = labelled("", 18)
    with pytest.raises(UnsupportedError, match="kind that often"):
        cleaned(make(plain, "OT", SC), tmp_path)
    assert cleaned(make(plain, "OT", SC, BurnedInAnnotation="NO"), tmp_path).PixelData == plain.tobytes()
    with pytest.raises(UnsupportedError, match="looks like text"):
        cleaned(make(labelled(), "OT", SC, BurnedInAnnotation="NO"), tmp_path)
    for burned_in in ("refuse", "mask"):
        with pytest.raises(UnsupportedError, match="declares text"):
            cleaned(make(plain, "OT", SC, BurnedInAnnotation="YES"), tmp_path, burned_in=burned_in)
    masked = cleaned(make(labelled(), "OT", SC, BurnedInAnnotation="YES"), tmp_path, burned_in="mask")
    assert masked.BurnedInAnnotation == "NO"
    assert not find_text(masked.pixel_array.astype(np.float32) / 255, likely=True)


def test_text_of_one_frame_is_masked_in_all(tmp_path: Path) -> None:
    frames = np.stack([labelled(""), labelled(), labelled("")])
    masked = cleaned(make(frames, "US", US), tmp_path, burned_in="mask").pixel_array
    changed = (masked != frames).any(0)
    assert len(np.unique(masked[:, changed & (frames[1] == 255)])) == 1


def test_colour_and_compression_are_masked_too(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Pillow.fromarray(labelled()).convert("RGB").save(stream, "JPEG", quality=90)
    ds = make(np.stack([labelled()] * 3, -1), "US", US)
    ds.PixelData, ds.PhotometricInterpretation = encapsulate([stream.getvalue()]), "YBR_FULL_422"
    ds["PixelData"].VR = "OB"
    masked = cleaned(ds, tmp_path, burned_in="mask", syntax=JPEGBaseline8Bit)
    assert masked.PhotometricInterpretation == "RGB"
    assert not find_text(masked.pixel_array.max(-1).astype(np.float32) / 255, likely=True)
    assert np.ptp(masked.pixel_array[10:25, 10:100]) == 0


def test_an_ultrasound_image_is_black_outside_its_regions(tmp_path: Path) -> None:
    values, region = labelled(""), Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 20, 30
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 199, 149
    masked = cleaned(make(values, "US", US, SequenceOfUltrasoundRegions=[region]), tmp_path, burned_in="mask")
    inside = np.zeros(values.shape, bool)
    inside[30:150, 20:200] = True
    np.testing.assert_array_equal(masked.pixel_array[inside], values[inside])
    assert not masked.pixel_array[~inside].any()


# folders


def run(source: Path, place: Path, **how: object) -> Outcome:
    return deidentify(source, place / "out", place / "key", **how)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Two patients, one of them with two studies, and things that are no DICOM."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for number, (patient, study) in enumerate((("4711", "1.2.8"), ("4711", "1.2.9"), ("4712", "1.2.10"))):
        save(ct(PatientID=patient, StudyInstanceUID=study, StudyDate=f"2020010{number + 1}"), folder / f"{number}.dcm")
    (folder / "deep" / "Doe.txt").write_text("Doe")
    (folder / "deep" / "scan.Doe").write_bytes(b"Doe")
    return folder


def test_patients_stay_apart_and_times_between_studies_stay(studies: Path, tmp_path: Path) -> None:
    done = run(studies, tmp_path)
    assert (len(done.rows), done.rejected, dict(done.left_out)) == (3, (), {"document": 1, "other": 1})
    files = [pydicom.dcmread(tmp_path / "out" / row["file"]) for row in done.rows]
    assert files[0].PatientID == files[1].PatientID != files[2].PatientID
    days = [date(int(d[:4]), int(d[4:6]), int(d[6:])) for d in (ds.StudyDate for ds in files)]
    assert days[1] - days[0] == timedelta(1)


def test_a_second_run_writes_the_same_bytes_and_another_key_none_of_them(studies: Path, tmp_path: Path) -> None:
    run(studies, tmp_path)
    first = bytes_of(tmp_path / "out")
    run(studies, tmp_path)
    assert bytes_of(tmp_path / "out") == first
    deidentify(studies, tmp_path / "other", tmp_path / "key2")
    names = {part for name in bytes_of(tmp_path / "other") for part in name.split("/")}
    assert names & {part for name in first for part in name.split("/")} == {"deidentification.jsonl"}
    with pytest.raises(ConfigError, match="another key"):
        deidentify(studies, tmp_path / "out", tmp_path / "key2")
    assert bytes_of(tmp_path / "out") == first


def test_a_run_that_was_cut_off_is_taken_up(studies: Path, tmp_path: Path) -> None:
    steps = iter((None, None))
    with pytest.raises(StopIteration):
        run(studies, tmp_path, step=lambda: next(steps))
    assert (tmp_path / "out" / "deidentification.jsonl").is_file()
    assert len(run(studies, tmp_path).rows) == 3
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_a_later_run_adds_to_the_ledger(studies: Path, tmp_path: Path) -> None:
    run(studies / "0.dcm", tmp_path)
    run(studies / "2.dcm", tmp_path)
    rows = (tmp_path / "out" / "deidentification.jsonl").read_text().splitlines()[1:]
    assert len(rows) == 2


def test_rejected_files_are_told_by_number(studies: Path, tmp_path: Path) -> None:
    save(make(labelled(), "US", US), studies / "Doe.dcm")
    (studies / "Cut.dcm").write_bytes((studies / "0.dcm").read_bytes()[:-100])
    twin = ct(PatientID="4711", StudyInstanceUID="1.2.8", StudyDate="20200105")
    twin.SOPInstanceUID = pydicom.dcmread(studies / "0.dcm").SOPInstanceUID
    save(twin, studies / "Twin.dcm")
    done = run(studies, tmp_path)
    order = sorted((p for p in studies.rglob("*") if p.is_file()), key=os.fsencode)
    assert [order[number - 1].name for number, _ in done.rejected] == ["Cut.dcm", "Doe.dcm", "Twin.dcm"]
    text = (tmp_path / "out" / "deidentification.jsonl").read_text()
    assert [json.loads(line)["input"] for line in text.splitlines() if "rejected" in line] == [
        n for n, _ in done.rejected
    ]
    assert "Doe" not in text
    assert len(done.rows) == 3


def test_places_that_would_undo_it_are_refused(studies: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    for source, target, place in (
        (studies, studies / "out", key), (studies / "deep", studies, key), (studies, tmp_path / "out", studies / "key"),
        (studies, tmp_path / "out", tmp_path / "out" / "key"), (tmp_path / "none", tmp_path / "out", key),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            deidentify(source, target, place)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").touch()
    with pytest.raises(ConfigError, match="other things"):
        deidentify(studies, tmp_path / "full", key)
    assert not (tmp_path / "out").exists()


# real files


def test_real_files_are_read_as_before(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "med" / "dicom_series"
    done = run(folder, tmp_path)
    assert not done.rejected
    sources = [pydicom.dcmread(path) for path in folder.rglob("*.dcm")]
    before = {ds.PixelData: ds.ImagePositionPatient for ds in sources}
    after = [pydicom.dcmread(tmp_path / "out" / row["file"]) for row in done.rows]
    assert {ds.PixelData: ds.ImagePositionPatient for ds in after} == before
    written = b"".join(bytes_of(tmp_path / "out").values())
    for word in ("1.3.12.2.1107", sources[0].StudyDate, sources[0].StationName):
        assert not word or str(word).encode() not in written
    serial = str(sources[0].DeviceSerialNumber).encode()  # a digest or a new UID may hold its five digits by chance
    assert not re.search(rb"(?<![0-9a-f])" + re.escape(serial) + rb"(?![0-9a-f])", written)


def test_real_screens_with_names_on_them_are_cleaned(data_dir: Path, tmp_path: Path) -> None:
    sonograms = sorted((data_dir / "med" / "dicom_zoo").rglob("*US*ALOKA*.dcm"))
    assert sonograms
    for path in sonograms:
        with pytest.raises(UnsupportedError):
            deidentify_instance(path, SECRET, sorted(DEFAULT), "refuse")
        row, _ = deidentify_instance(path, SECRET, sorted(DEFAULT), "mask")
        assert row["masked"] > 3
