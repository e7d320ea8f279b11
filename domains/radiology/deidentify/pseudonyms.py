"""A secret key, and what is derived from it: pseudonyms, UIDs and shifts of dates that only its owner can repeat.

Everything is HMAC-SHA256 of what stood in the file under the key: the same key gives the same result in every run,
and results of two keys cannot be linked.
"""

from __future__ import annotations

import hmac
import os
import secrets
from base64 import b32encode
from pathlib import Path

from pydicom._uid_dict import UID_dictionary

from domains.formats.content import foreign
from fovea.errors import ConfigError

_BYTES = 32
_DAYS = 3650


def is_public(uid: str) -> bool:
    """Whether a UID is one of the standard, which tells nobody's origin: those that are listed, and classes."""
    return uid in UID_dictionary or uid.startswith("1.2.840.10008.5.1.4.1.")


class Key:
    """A secret of 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def open(cls, path: Path) -> Key:
        """Read a key file (64 hexadecimal digits), or make one with mode 0600 where there is none.

        Raises ConfigError for a file of another form, and for one that others may read.
        """
        if not path.exists():
            with foreign("a place for a key"):
                path.parent.mkdir(parents=True, exist_ok=True)
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                    file.write(secrets.token_hex(_BYTES) + "\n")
        with foreign("a key file"):
            text, mode = path.read_bytes().strip(), path.stat().st_mode
        if os.name == "posix" and mode & 0o077:
            raise ConfigError("a key file that others may read", "mode 0600", "Run chmod 600, or make a new key.")
        if len(text) != 2 * _BYTES or any(digit not in b"0123456789abcdef" for digit in text):
            raise ConfigError("a file that is no key", f"{2 * _BYTES} hexadecimal digits", "Name a file of its own.")
        return cls(bytes.fromhex(text.decode()))

    def hex(self) -> str:
        """The secret itself, to hand it to a child process."""
        return self._secret.hex()

    def digest(self, kind: str, text: str) -> bytes:
        """32 bytes for a text of one kind."""
        return hmac.digest(self._secret, f"{kind}\0{text}".encode(errors="surrogatepass"), "sha256")

    def name(self) -> str:
        """What tells keys apart and says nothing of them: 16 hexadecimal digits."""
        return self.digest("key", "").hex()[:16]

    def patient(self, identity: str) -> str:
        """A pseudonym: P and 15 letters or digits (75 bits)."""
        return "P" + b32encode(self.digest("patient", identity)).decode()[:15]

    def days(self, identity: str) -> int:
        """By how many days the dates of a patient move: into the past, by 1 to 3650."""
        return -1 - int.from_bytes(self.digest("days", identity)[:8], "big") % _DAYS

    def uid(self, uid: str) -> str:
        """A UID under 2.25 that is a UUID of version 8 (RFC 9562, PS3.5 B.2)."""
        number = int.from_bytes(self.digest("uid", uid)[:16], "big")
        number = number & ~(0xF << 76) | 8 << 76
        return f"2.25.{number & ~(3 << 62) | 2 << 62}"
