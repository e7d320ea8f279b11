"""Both built-in domains keep the contract."""

from __future__ import annotations

from fovea.testing import DomainContract
from fovea.types import MEASURING


class TestRadiology(DomainContract):
    name = "radiology"


class TestRemoteSensing(DomainContract):
    name = "remote_sensing"
    kinds = MEASURING | {"presence", "class", "report"}
