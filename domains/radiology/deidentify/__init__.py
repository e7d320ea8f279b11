"""De-identification of DICOM by the Basic Application Level Confidentiality Profile of PS3.15 and its options."""
