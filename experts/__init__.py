"""Networks that measure: trained here, opened from a folder, answering with findings in real units."""
