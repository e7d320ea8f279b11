"""Start the viewer's server on the loopback interface."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from fovea.errors import ConfigError, PluginError

UPLOAD_MB = 512
SETTINGS = {
    "server.address": "127.0.0.1",
    "server.maxUploadSize": str(UPLOAD_MB),
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.toolbarMode": "viewer",
    "theme.base": "light",
    "theme.primaryColor": "#0f5c78",
    "theme.backgroundColor": "#ffffff",
    "theme.secondaryBackgroundColor": "#f1f4f7",
    "theme.textColor": "#1c2530",
    "theme.baseRadius": "small",
    "theme.baseFontSize": "14",
}
"""Loopback only, no usage statistics, no error text in the page, bounded uploads, and a calm theme."""


def command(script: Path, port: int, *arguments: str) -> list[str]:
    """The command line of the server for a script."""
    options = [part for name, value in SETTINGS.items() for part in (f"--{name}", value)]
    return [
        sys.executable, "-m", "streamlit", "run", str(script), "--server.port", str(port), *options, "--", *arguments,
    ]  # fmt: skip


def launch(demo: Path, port: int) -> NoReturn:
    """Become the viewer's server on the runs in `demo`; raises ConfigError without them."""
    if find_spec("streamlit") is None:
        raise PluginError("the viewer needs streamlit", "the extra 'app'", "Install fovea[app].")
    if not demo.is_dir():
        raise ConfigError("the folder of runs is not there", "a folder made by `fovea demo`", "Run `fovea demo` first.")
    line = command(Path(__file__).with_name("main.py"), port, "--demo", str(demo))
    os.execv(line[0], line)  # noqa: S606  our own command; signals then reach the server itself
