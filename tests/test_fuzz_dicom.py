"""Damaged DICOM files: whatever is wrong with the bytes, the answer is pixels or one family of errors, and soon."""

from __future__ import annotations

import time
from random import Random

import numpy as np
import pytest
from dicom_files import seeds
from mutations import mutate

from domains.formats import dicom
from fovea.errors import InputError


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return seeds(tmp_path_factory.mktemp("seeds"))


@pytest.mark.parametrize("seed", range(4))
def test_damage_is_an_input_error(tmp_path, originals, seed):
    random = Random(seed)
    refused = 0
    for number in range(150):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(mutate(random.choice(originals), random, originals, protect=132))
        started = time.process_time()
        try:
            dicom.is_dicom(path)
            for image in dicom.read([path]).images:
                assert np.isfinite(image.pixels).all()
        except InputError:
            refused += 1
        assert time.process_time() - started < 2
        path.unlink()
    assert 30 < refused < 145  # the damage neither always nor never matters


def test_the_seeds_themselves_are_read(tmp_path, originals):
    for number, data in enumerate(originals):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(data)
        assert dicom.is_dicom(path)
        assert all(image.pixels.size for image in dicom.read([path]).images)
