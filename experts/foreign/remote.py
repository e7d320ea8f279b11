"""Experts behind HTTP: pixels go out, findings come back.

The module is the kind `http` of the entry points `fovea.experts`. One POST of multipart/form-data with the parts
`request` (JSON), `pixels` and `valid` (arrays, see `experts.foreign.wire`); the answer is JSON with `version` and
`findings`. Only this machine and the hosts that the configuration names are spoken to; redirects are not followed, and
proxies of the environment are not used. Opening the folder makes no connection.
"""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pydantic import model_validator

from experts.foreign import settings, wire
from experts.foreign.answers import ForeignExpert, Place
from fovea.errors import ExpertError
from fovea.types import ExpertCard, Finding, Origin, Study

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TYPES = {"request": "application/json", "pixels": "application/octet-stream", "valid": "application/octet-stream"}


class RemoteConfig(wire.ServiceConfig):
    """An expert at an address."""

    url: str
    """Where it answers: http:// or https://."""
    hosts: tuple[str, ...] = ()
    """Names of hosts beside this machine that pixels may be sent to."""

    @model_validator(mode="after")
    def _reachable(self) -> RemoteConfig:
        url = urlsplit(self.url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password or url.fragment:
            raise ValueError("url: http:// or https://, a host, and no user, password or fragment")
        if url.hostname not in (*LOOPBACK, *self.hosts):
            raise ValueError("url: this machine, or a host that `hosts` names")
        return self


class RemoteExpert(ForeignExpert):
    """Asks a service, and checks what it answers."""

    def __init__(self, config: RemoteConfig, card: ExpertCard) -> None:
        super().__init__(config, card)
        self.settings = config

    def look(self, study: Study, found: Sequence[Place], argument: str, by: Origin) -> Mapping[str, Finding]:
        """Findings of the argument's labels; raises ExpertError for every failure of the service."""
        asked, values, valid = wire.question(self, self.settings, study, found, argument)
        body, kind = _multipart({"request": json.dumps(asked).encode(), "pixels": values, "valid": valid})
        data = wire.decoded(self, self._post(body, kind))
        return wire.answer(self, self.settings, data, study, found[0][0], argument, by)

    def _post(self, body: bytes, kind: str) -> bytes:
        """The answer, after some attempts where the service cannot be reached or is busy."""
        for attempt in range(self.settings.attempts):
            if attempt:
                time.sleep(self.settings.pause * 2 ** (attempt - 1))
            try:
                status, answer = self._attempt(body, kind)
            except ConnectionError:
                continue
            except TimeoutError as error:
                raise ExpertError(f"{self.card.name} did not answer within {self.settings.timeout:g} s") from error
            except (OSError, http.client.HTTPException) as error:
                raise ExpertError(f"{self.card.name} cannot be reached ({type(error).__name__})") from error
            if status == 200:
                return answer
            if status != 503:
                raise ExpertError(f"{self.card.name} answered with status {status}", "200")
        raise ExpertError(
            f"{self.card.name} could not be reached or was busy {self.settings.attempts} times",
            "a service that answers",
        )

    def _attempt(self, body: bytes, kind: str) -> tuple[int, bytes]:
        end = time.monotonic() + self.settings.timeout
        connection = _connection(urlsplit(self.settings.url), self.settings.timeout)
        try:
            url = urlsplit(self.settings.url)
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("POST", target, body, {"Content-Type": kind, "Accept": "application/json"})
            _left(connection, end)
            response = connection.getresponse()
            return response.status, self._read(connection, response, end) if response.status == 200 else b""
        finally:
            connection.close()

    def _read(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, end: float) -> bytes:
        limit = self.settings.answer_limit << 20
        parts, size = [], 0
        while part := response.read1(1 << 16):
            _left(connection, end)
            parts.append(part)
            size += len(part)
            if size > limit:
                raise ExpertError(f"{self.card.name} answered more than {self.settings.answer_limit} MB", "less")
        if response.length:
            raise ConnectionError
        return b"".join(parts)


def open(folder: Path | None) -> RemoteExpert:
    """The expert of a folder with `expert.json`; raises ModelError. No connection is made."""
    config, written = settings.read(folder, RemoteConfig, "http")
    card = settings.card_of(
        config,
        settings.version_of(written.parent, [written]),
        summary=f"a service over HTTP, version {config.service_version}",
    )
    return RemoteExpert(config, card)


def _connection(url: SplitResult, timeout: float) -> http.client.HTTPConnection:
    host = url.hostname or ""
    if url.scheme == "https":
        return http.client.HTTPSConnection(host, url.port, timeout=timeout, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, url.port, timeout=timeout)


def _left(connection: http.client.HTTPConnection, end: float) -> None:
    """Let the socket wait no longer than until `end`; raises TimeoutError after it."""
    rest = end - time.monotonic()
    if rest <= 0:
        raise TimeoutError
    if connection.sock is not None:
        connection.sock.settimeout(rest)


def _multipart(parts: Mapping[str, bytes]) -> tuple[bytes, str]:
    """A body of multipart/form-data (RFC 7578), and its type."""
    boundary = secrets.token_hex(16)
    pieces = []
    for name, data in parts.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        pieces += [head.encode(), f"Content-Type: {_TYPES[name]}\r\n\r\n".encode(), data, b"\r\n"]
    return b"".join((*pieces, f"--{boundary}--\r\n".encode())), f"multipart/form-data; boundary={boundary}"
