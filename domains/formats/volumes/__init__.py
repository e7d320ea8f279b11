"""Volumes other than DICOM: NIfTI, NRRD, MetaImage and what neuroimaging keeps, all in LPS."""
