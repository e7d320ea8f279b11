"""Radiology: radiographs and CT or MR volumes, read from DICOM, NIfTI and pictures."""
