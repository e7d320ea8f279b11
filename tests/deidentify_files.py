"""Files of a patient that tests de-identify, and what becomes of one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
from dicom_files import PLANE, make, save
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from pydicom.dataset import Dataset

from domains.radiology.deidentify.instance import deidentify_instance
from domains.radiology.deidentify.profile import DEFAULT
from domains.radiology.deidentify.pseudonyms import Key

SECRET = "5a" * 32
US = "1.2.840.10008.5.1.4.1.1.6.1"
KEY = Key(bytes.fromhex(SECRET))


def ct(**tags: object) -> Dataset:
    """A small CT of a patient."""
    values = np.random.default_rng(0).integers(0, 2000, (16, 16)).astype(np.int16)
    given = {"PatientID": "4711", "PatientName": "Doe^Jane", "StudyInstanceUID": "1.2.9", "StudyDate": "20200229"}
    return make(values, **{**PLANE, **given, **tags})


def cleaned(ds: Dataset, folder: Path, options: frozenset[str] = DEFAULT, burned_in: str = "refuse", **how) -> Dataset:
    """What becomes of one file."""
    path = save(ds, folder / "in.dcm", **how)
    _, data = deidentify_instance(path, SECRET, sorted(options), burned_in)
    return pydicom.dcmread(io.BytesIO(data.tobytes()))


def labelled(text: str = "DOE JANE 1961", size: int = 18, shape: tuple[int, int] = (200, 256)) -> np.ndarray:
    """uint8 (row, column): a soft gradient with a text in its upper left corner."""
    sheet = Pillow.fromarray(np.add.outer(np.arange(shape[0]), np.arange(shape[1])).astype(float) / 4).convert("L")
    ImageDraw.Draw(sheet).text((8, 8), text, 255, font=ImageFont.load_default(size))
    return np.array(sheet)
