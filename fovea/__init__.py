"""The words that every room of Fovea shares: types, contracts, registry, config and errors."""

__version__ = "0.1.0"
