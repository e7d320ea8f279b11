"""Rasters on the Earth, read by window through GDAL: one file, many windows of it, another grid, and its bands."""
