"""Experts that others made: bundles, weights and exported networks as they were delivered, and services.

Each kind of the entry points `fovea.experts` is a module here: its `open(folder)` takes a folder that holds
`expert.json` or `expert.yaml` (`experts.foreign.settings`) beside the foreign files. Nothing in it is run as code.
"""
