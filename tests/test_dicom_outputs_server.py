"""A server takes what was written for it and gives it back as it was."""

from __future__ import annotations

import numpy as np
import pydicom
from dicomweb_client import DICOMwebClient
from output_reports import DICOM, RADIOLOGY, blob, finding, report, series
from requests import Session
from test_dicomweb import PASSWORD, USER, orthanc  # noqa: F401


def test_a_server_takes_every_output_and_gives_it_back(orthanc, tmp_path):  # noqa: F811
    files = series(tmp_path / "in", np.eye(3))
    study = RADIOLOGY.load(files)
    one = finding("liver", region=blob(study.images[0].grid.shape, 1))
    paths = RADIOLOGY.write(report(study, one), files, tmp_path / "out", DICOM)
    session = Session()
    session.auth = (USER, PASSWORD)
    client = DICOMwebClient(orthanc, session=session)
    sent = {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, (*files, *paths))}
    stored = client.store_instances(list(sent.values()))
    assert len(stored.ReferencedSOPSequence) == len(sent)
    back = {str(ds.SOPInstanceUID): ds for ds in client.retrieve_study("1.2.3.4")}
    assert back.keys() == sent.keys()
    for path in paths:
        ds = pydicom.dcmread(path)
        assert back[str(ds.SOPInstanceUID)] == ds
        assert str(back[str(ds.SOPInstanceUID)].PatientName) == "Müller^Änne"
