"""Experts that are tools of a Model Context Protocol server, over stdio or streamable HTTP.

The module is the kind `mcp` of the entry points `fovea.experts`. A folder names a server and a tool, never a command:
which program a name stands for is said by a file of the user's own, in the layout that MCP clients share, whose place
is in the environment variable FOVEA_MCP_SERVERS. The tool takes the request of `experts.foreign.wire` with `pixels` and
`valid` in base64, and gives `version` and `findings` as structured content.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from experts.foreign import settings, wire
from experts.foreign.answers import ForeignExpert, Place
from fovea.config import Config, parse
from fovea.errors import ConfigError, ExpertError, ModelError
from fovea.types import ExpertCard, Finding, Origin, Study

SERVERS = "FOVEA_MCP_SERVERS"


class Server(Config):
    """How one server is started or reached."""

    command: str = ""
    """The program, which speaks over stdin and stdout."""
    args: tuple[str, ...] = ()
    """Its arguments."""
    env: dict[str, str] = Field(default_factory=dict)
    """Variables that it gets beside the few that are safe to inherit."""
    url: str = ""
    """Its address instead: http:// or https://."""

    @model_validator(mode="after")
    def _one(self) -> Server:
        if bool(self.command) == bool(self.url):
            raise ValueError("either a command or a url")
        if self.url and (urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname):
            raise ValueError("url: http:// or https:// and a host")
        return self


class Servers(Config):
    """The user's servers by name."""

    mcpServers: dict[str, Server]  # noqa: N815 -- the name that MCP clients share
    """Each server that a folder may name."""


class ToolConfig(wire.ServiceConfig):
    """An expert that is a tool."""

    server: str
    """Name of the server in the user's file of servers."""
    tool: str
    """Name of the tool on that server."""


class ToolExpert(ForeignExpert):
    """Calls a tool, and checks what it gives."""

    def __init__(self, config: ToolConfig, card: ExpertCard) -> None:
        super().__init__(config, card)
        self.settings = config

    def look(self, study: Study, found: Sequence[Place], argument: str, by: Origin) -> Mapping[str, Finding]:
        """Findings of the argument's labels; raises ExpertError for every failure of the server."""
        server = _server(self.settings.server)
        asked, values, valid = wire.question(self, self.settings, study, found, argument)
        asked |= {"pixels": base64.b64encode(values).decode(), "valid": base64.b64encode(valid).decode()}
        data = self._call(server, asked)
        if len(json.dumps(data)) > self.settings.answer_limit << 20:
            raise ExpertError(f"{self.card.name} answered more than {self.settings.answer_limit} MB", "less")
        return wire.answer(self, self.settings, data, study, found[0][0], argument, by)

    def _call(self, server: Server, asked: dict[str, Any]) -> Any:
        """What the tool gives, after some attempts where the server cannot be reached."""
        for attempt in range(self.settings.attempts):
            if attempt:
                time.sleep(self.settings.pause * 2 ** (attempt - 1))
            try:
                # a thread of its own: the caller may stand in an event loop
                with ThreadPoolExecutor(1) as pool:
                    return pool.submit(asyncio.run, self._ask(server, asked)).result()
            except TimeoutError as error:
                raise ExpertError(f"{self.card.name} did not answer within {self.settings.timeout:g} s") from error
            except ExceptionGroup as group:
                self._unless_unreachable(group)
            except OSError as error:
                self._unless_unreachable(ExceptionGroup("", [error]))
        raise ExpertError(
            f"{self.card.name} could not be reached {self.settings.attempts} times", "a server that answers"
        )

    async def _ask(self, server: Server, asked: dict[str, Any]) -> Any:
        from mcp import Client, MCPError, StdioServerParameters
        from mcp.client.stdio import stdio_client
        from pydantic import ValidationError

        name = self.card.name
        with Path(os.devnull).open("w") as silent:
            to: Any = server.url
            if server.command:
                parameters = StdioServerParameters(command=server.command, args=list(server.args), env=server.env)
                to = stdio_client(parameters, errlog=silent)
            async with asyncio.timeout(self.settings.timeout), Client(to) as client:
                try:
                    result = await client.call_tool(self.settings.tool, asked)
                except (MCPError, ValidationError) as error:
                    raise ExpertError(f"{name}: the server refused the call ({type(error).__name__})") from error
        if result.is_error or result.structured_content is None:
            raise ExpertError(f"{name}: the tool failed or gave no structured content", "version and findings")
        return result.structured_content

    def _unless_unreachable(self, group: ExceptionGroup[Exception]) -> None:
        """Nothing for failures to connect; else the failure as an ExpertError."""
        leaves = list(_leaves(group))
        for error in leaves:
            if isinstance(error, ExpertError):
                raise error
            if isinstance(error, TimeoutError):
                raise ExpertError(f"{self.card.name} did not answer within {self.settings.timeout:g} s") from error
        if not all(isinstance(e, ConnectionError) or "Connect" in type(e).__name__ for e in leaves):
            raise ExpertError(f"{self.card.name}: the server failed ({type(leaves[0]).__name__})") from leaves[0]


def open(folder: Path | None) -> ToolExpert:
    """The expert of a folder with `expert.json`; raises ModelError. No server is started."""
    if find_spec("mcp") is None:
        raise ModelError("a tool of an MCP server without the package mcp", remedy="Install fovea[mcp].")
    config, written = settings.read(folder, ToolConfig, "mcp")
    card = settings.card_of(
        config,
        settings.version_of(written.parent, [written]),
        summary=f"the tool {config.tool} of an MCP server, version {config.service_version}",
    )
    return ToolExpert(config, card)


def _server(name: str) -> Server:
    """The user's server of that name; raises ExpertError."""
    file = os.environ.get(SERVERS)
    if not file:
        raise ExpertError("no MCP servers are set up", f"a file of servers whose place is in {SERVERS}")
    try:
        servers = parse(Servers, settings.tree(Path(file))).mcpServers
    except (ModelError, ConfigError) as error:
        raise ExpertError(f"the file of MCP servers cannot be used: {error.given}") from error
    if name not in servers:
        raise ExpertError(f"there is no MCP server {name!r}", f"one of {', '.join(servers)}")
    return servers[name]


def _leaves(group: ExceptionGroup[Exception]) -> list[Exception]:
    out: list[Exception] = []
    for error in group.exceptions:
        out += _leaves(cast("ExceptionGroup[Exception]", error)) if isinstance(error, ExceptionGroup) else [error]
    return out
