"""One family of errors; the leaves are named by the decision that the caller has to take."""

from __future__ import annotations


class FoveaError(Exception):
    """Something was not as it must be.

    The text says what was given, what was expected and what to do; it holds no identifier and no
    pixel data, so it may be logged and shown.
    """

    def __init__(self, given: str, expected: str = "", remedy: str = "") -> None:
        self.given, self.expected, self.remedy = given, expected, remedy
        parts = [given.rstrip("."), f"expected {expected}" if expected else "", remedy]
        super().__init__(". ".join(part for part in parts if part))

    def __reduce__(self) -> tuple[type[FoveaError], tuple[str, str, str]]:
        return type(self), (self.given, self.expected, self.remedy)


class InputError(FoveaError):
    """A file or study cannot be used: leave it out, or mend it."""


class UnsupportedError(InputError):
    """A file is whole but of a kind that no reader takes: convert it, or install what is named."""


class GeometryError(InputError):
    """Positions, spacing or reference system are missing or contradict each other: nothing is guessed."""


class LimitError(InputError):
    """A file declares more than the limit allows: raise the limit if the file is trusted."""


class ConfigError(FoveaError):
    """A recipe or option is wrong: correct it and start again."""


class PluginError(FoveaError):
    """A plugin is missing, doubled or lacks a package: install or remove what is named."""


class ExpertError(FoveaError):
    """An expert could not answer: the answer has to do without it, and to say so."""


class ModelError(FoveaError):
    """Weights or a model folder do not fit: choose another, or train again."""
