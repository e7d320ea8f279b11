"""Readers of file formats, free of any specialty: each gives images in physical units and nothing that identifies."""
