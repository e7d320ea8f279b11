"""DICOMweb (DICOM PS3.18): search by QIDO-RS, and retrieval by WADO-RS into files, of one server that the user names.

The connection is encrypted and the certificate checked; plain http is for this machine, or where it is allowed.
Redirects are not followed. Credentials come from the environment (FOVEA_DICOMWEB_TOKEN, or FOVEA_DICOMWEB_USER and
FOVEA_DICOMWEB_PASSWORD) or from netrc, never from an address or an argument.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from domains.formats.content import foreign
from fovea.errors import ConfigError, InputError, LimitError

BYTES = 2**36
"""The most bytes of one retrieval."""
FILES = 100_000
"""The most files of one retrieval, and results of one search."""
_CONNECT, _READ = 10.0, 120.0
"""Seconds until a connection stands, and between two pieces of an answer."""
_CHUNK = 2**16
_HEAD = 2**14
"""The most bytes of the headers of one part."""
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_STATUS = {
    401: ("a server that asks for other credentials (401)", "a name and password, or a token, in the environment"),
    403: ("a server that does not permit this (403)", "an account that may read the study"),
    404: ("a study or series that the server does not have (404), or no DICOMweb there", "the address and UID of one"),
    406: ("a server that does not send DICOM as it is stored (406)", "one that does"),
}


@dataclass(frozen=True)
class Series:
    """One series that a server has. The UIDs are identifiers: for retrieval, not for logs or reports."""

    study: str = field(repr=False)
    series: str = field(repr=False)
    modality: str
    instances: int | None


class Server:
    """A DICOMweb server at its base address, such as https://pacs.example.org/dicom-web.

    Raises ConfigError for an address that holds credentials or is not safe to use; `allow_http` permits plain http to
    other machines.
    """

    def __init__(self, url: str, *, allow_http: bool = False) -> None:
        self._url = _checked(url, allow_http)
        self._session = _session(self._url)

    def series(self, study: str = "", **filters: str) -> list[Series]:
        """The series of a study, or of all studies that match the filters (keywords of DICOM, "StudyDate": "2024")."""
        from dicomweb_client import DICOMwebClient

        with _served():
            client = DICOMwebClient(self._url, session=self._session, timeout=(_CONNECT, _READ))
            client.set_http_retry_params(retry=False)
            found = client.search_for_series(
                _valid(study) if study else None,
                fields=["NumberOfSeriesRelatedInstances", "Modality", "StudyInstanceUID"],
                search_filters=filters,
                limit=FILES,
            )
            return [_series(item, study) for item in found]

    def pull(self, folder: Path, study: str, series: str = "") -> int:
        """Retrieve a study or series into a new folder, readable by this user only; returns how many files.

        Files are written as they come, in pieces, and named by a hash of their content. The folder appears when all of
        it is there. Raises InputError, LimitError, and ConfigError where the folder is in use.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError("a folder that is in use", "a new or empty folder", "Name another.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            path = f"/studies/{_valid(study)}" + (f"/series/{_valid(series)}" if series else "")
            with _served(), self._stream(path) as response:
                count = _write(response, part)
            part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return count

    @contextmanager
    def _stream(self, path: str) -> Iterator[Any]:
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        response = self._session.get(
            self._url + path, headers={"Accept": accept}, stream=True, timeout=(_CONNECT, _READ)
        )
        with response:
            response.raise_for_status()
            yield response


def _checked(url: str, allow_http: bool) -> str:
    """The address without a slash at its end."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError("an address that is none", "https://host/path") from None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ConfigError("an address that is none", "https://host/path, without ? and #")
    if parts.username or parts.password:
        raise ConfigError(
            "an address with credentials in it", "them in the environment or netrc", "FOVEA_DICOMWEB_USER and _PASSWORD"
        )
    if parts.scheme == "http" and not _loopback(host) and not allow_http:
        raise ConfigError("plain http to another machine", "https", "Or allow it where the network is safe.")
    return url.rstrip("/")


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _session(url: str) -> Any:
    """A session that knows the credentials, checks certificates and follows no redirect; a proxy of the environment
    serves other machines only."""
    import requests  # type: ignore[import-untyped, unused-ignore]

    session = requests.Session()
    session.max_redirects = 0
    session.trust_env = not _loopback(urlsplit(url).hostname or "")
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
    token, user = os.environ.get("FOVEA_DICOMWEB_TOKEN"), os.environ.get("FOVEA_DICOMWEB_USER")
    if token:
        session.auth = lambda request: request.headers.update(Authorization=f"Bearer {token}") or request
    elif user:
        session.auth = (user, os.environ.get("FOVEA_DICOMWEB_PASSWORD", ""))
    else:
        session.auth = requests.utils.get_netrc_auth(url)
    return session


@contextmanager
def _served() -> Iterator[None]:
    """Errors of the connection and of the server become InputError, without addresses or UIDs."""
    import requests  # type: ignore[import-untyped, unused-ignore]

    with foreign("an answer that is not DICOMweb"):
        try:
            yield
        except requests.HTTPError as error:
            code = error.response.status_code if error.response is not None else 0
            given, expected = _STATUS.get(code, (f"a server that answers with status {code}", "200"))
            raise InputError(given, expected) from None
        except requests.TooManyRedirects:
            raise InputError("a server that sends elsewhere", "the address that it sends to, if you trust it") from None
        except requests.exceptions.SSLError:
            raise InputError(
                "a server whose certificate is not trusted", "a valid one", "REQUESTS_CA_BUNDLE names further ones."
            ) from None
        except requests.Timeout:
            raise InputError("a server that does not answer in time", "an answer", "Try again later.") from None
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            raise InputError(
                "a server that is not there, or breaks off", "a DICOMweb server", "Check address and network."
            ) from None


def _valid(uid: str) -> str:
    if not _UID.fullmatch(uid) or len(uid) > 64:
        raise ConfigError("a UID that is none", "up to 64 digits and dots (DICOM PS3.5 chapter 9)")
    return uid


def _series(item: Any, study: str) -> Series:
    """One result in the DICOM JSON model (PS3.18 annex F)."""

    def value(tag: str) -> Any:
        return next(iter(item.get(tag, {}).get("Value") or ()), None)

    count = value("00201209")
    modality = str(value("00080060") or "")
    return Series(
        str(value("0020000D") or study),
        str(value("0020000E") or ""),
        modality if re.fullmatch(r"[A-Z0-9_]{2,16}", modality) else "OT",
        None if count is None else int(count),
    )


def _write(response: Any, folder: Path) -> int:
    """The parts of an answer as files; raises InputError for one that is no DICOM, or where the end is missing."""
    kind, _, rest = str(response.headers.get("Content-Type", "")).partition(";")
    boundary = re.search(r'boundary="?([^";]+)"?', rest)
    if kind.strip().lower() != "multipart/related" or boundary is None:
        raise InputError("an answer that is not multipart", "a DICOMweb server", "Check the address.")
    pieces = _limited(response.iter_content(_CHUNK))
    count = 0
    for part in split(pieces, boundary[1].encode()):
        count += 1
        if count > FILES:
            raise LimitError(f"an answer of more than {FILES} files", "fewer", "Retrieve its series one by one.")
        _save(part, folder)
    if not count:
        raise InputError("an answer without files", "a study or series that the server has")
    return count


def _limited(pieces: Iterator[bytes]) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > BYTES:
            raise LimitError(f"an answer of more than {BYTES >> 30} GiB", "less", "Retrieve its series one by one.")
        yield piece


def _save(part: Iterator[bytes], folder: Path) -> None:
    unfinished, digest, head = folder / ".part", hashlib.sha256(), b""
    with unfinished.open("wb") as file:
        for piece in part:
            head = head if len(head) > 131 else (head + piece)[:132]
            digest.update(piece)
            file.write(piece)
    if head[128:132] != b"DICM":
        raise InputError("a part of an answer that is no DICOM file", "application/dicom", "Check the server.")
    unfinished.replace(folder / f"{digest.hexdigest()[:32]}.dcm")


def split(pieces: Iterator[bytes], boundary: bytes) -> Iterator[Iterator[bytes]]:
    """The bodies of a multipart message (RFC 2046, 5.1), each in pieces and to be used up before the next.

    Holds two pieces in memory, whatever the size of a body. Raises InputError where the message ends too early.
    """
    message = _Message(pieces, boundary)
    message.skip()  # what stands before the first boundary
    while message.enter():
        yield message.body()
        message.skip()


class _Message:
    """A multipart message that is read once, from one boundary to the next."""

    def __init__(self, pieces: Iterator[bytes], boundary: bytes) -> None:
        self._pieces, self._mark = pieces, b"\r\n--" + boundary
        self._held, self._inside = b"\r\n", True

    def enter(self) -> bool:
        """Go behind the headers of the next part; False behind the last."""
        while len(self._held) < 2:
            self._more()
        if self._held.startswith(b"--"):
            return False
        while (end := self._held.find(b"\r\n\r\n", 0, _HEAD)) < 0:
            if len(self._held) > _HEAD:
                raise InputError("a part of an answer without end of its headers", "multipart/related")
            self._more()
        self._held, self._inside = self._held[end + 2 :], True
        return True

    def body(self) -> Iterator[bytes]:
        """The bytes up to the next boundary, which may follow the headers at once."""
        first = 2  # the line break in front belongs to the headers
        while (end := self._held.find(self._mark)) < 0:
            keep = len(self._mark) - 1
            if len(self._held) > keep + first:
                yield self._held[first:-keep]
                self._held, first = self._held[-keep:], 0
            self._more()
        if end > first:
            yield self._held[first:end]
        self._held, self._inside = self._held[end + len(self._mark) :], False

    def skip(self) -> None:
        """Go to the next boundary, if that has not been done."""
        if self._inside:
            for _ in self.body():
                pass

    def _more(self) -> None:
        piece = next(self._pieces, b"")
        if not piece:
            raise InputError("an answer that breaks off", "all of it", "Try again.")
        self._held += piece
