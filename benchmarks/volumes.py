"""A CT series of 64 slices to a volume: this reader against MONAI, SimpleITK and pydicom."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROUNDS = 7
SLICES, SIZE = 64, 512
Row = tuple[str, float, float]
"""What was compared, and the best seconds of ours and of the peer."""


def compare(rounds: int = ROUNDS) -> list[Row]:
    """Seconds of a round each, in turns; raises RuntimeError where two readers give other values."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_series(folder)
        time.sleep(1.1)  # a file that was just written is not trusted to stay as it is, and is read twice
        peers: dict[str, Callable[[Path], NDArray[np.float32]]] = {
            "fovea": _fovea, "MONAI PydicomReader": _monai, "SimpleITK series": _simpleitk, "pydicom stack": _pydicom,
        }  # fmt: skip
        volumes = {peer: read(folder) for peer, read in peers.items()}
        for peer, volume in volumes.items():
            if not np.array_equal(volume, volumes["fovea"]):
                raise RuntimeError(f"{peer} reads other values")
        best = dict.fromkeys(peers, float("inf"))
        for _ in range(rounds):
            for peer, read in peers.items():
                started = time.perf_counter()
                read(folder)
                best[peer] = min(best[peer], time.perf_counter() - started)
    ours = best.pop("fovea")
    return [(f"CT {SLICES} × {SIZE}² to volume / {peer}", ours, seconds) for peer, seconds in best.items()]


def write_series(folder: Path) -> None:
    """Uncompressed CT slices with the elements that scanners write, in an order that their names do not tell."""
    rng = np.random.default_rng(0)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for index in range(SLICES):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = series, study, frame
        ds.Modality, ds.ImageType, ds.InstanceNumber = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], index + 1
        ds.PatientID, ds.PatientName, ds.StudyDate, ds.Manufacturer = "1", "A^B", "20200101", "maker"
        for number in range(60):  # what the usual header holds beside
            ds.add_new((0x0018, 0x9A00 + number), "LO", f"value {number}")
        ds.ImagePositionPatient = [-200.0, -180.0, -300 + 1.5 * index]
        ds.ImageOrientationPatient, ds.PixelSpacing, ds.SliceThickness = [1, 0, 0, 0, 1, 0], [0.8, 0.8], 1.5
        ds.Rows = ds.Columns = SIZE
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
        ds.WindowCenter, ds.WindowWidth = 40, 400
        ds.PixelData = rng.integers(0, 3000, (SIZE, SIZE)).astype(np.int16).tobytes()
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        name = folder / f"{(index * 37) % SLICES:03}.dcm"
        FileDataset(str(name), ds, file_meta=meta, preamble=bytes(128)).save_as(name, enforce_file_format=True)


def _fovea(folder: Path) -> NDArray[np.float32]:
    from domains.radiology import reader

    return reader.load(folder).images[0].pixels[0]


def _monai(folder: Path) -> NDArray[np.float32]:
    from monai.transforms import LoadImage

    volume = LoadImage(reader="PydicomReader", image_only=True, dtype=np.float32)(folder)
    return np.asarray(volume).transpose(2, 1, 0)  # x, y, z


def _simpleitk(folder: Path) -> NDArray[np.float32]:
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return SimpleITK.GetArrayFromImage(reader.Execute()).astype(np.float32)


def _pydicom(folder: Path) -> NDArray[np.float32]:
    slices = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda ds: ds.ImagePositionPatient[2])
    return np.stack([ds.pixel_array.astype(np.float32) * ds.RescaleSlope + ds.RescaleIntercept for ds in slices])
