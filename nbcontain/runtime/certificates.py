"""This machine's certificate authorities, for programs in containers and build steps; only where somebody asked.

Behind a proxy that opens TLS its certificate is among those that the machine trusts, and no image has it. They are
shown in one file that is in no image and no layer, and programs are told by variables where that is. No file of the
image's is covered: whoever installs certificates replaces that, which fails where something is mounted.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from nbcontain import authorities
from nbcontain.errors import UsageError
from nbcontain.oci.spec import Mount
from nbcontain.runtime.rungs import CERTIFICATES
from nbcontain.truth import truth
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Mapping

_ASKED = "NBCONTAIN_HOST_CERTIFICATES"
_FILE = "certificates.pem"
_VARIABLES = (
    "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE",
)  # fmt: skip
"""OpenSSL, Python, Go and Ruby look at the first; the others have their own."""
_CERTIFICATE = rb"-----BEGIN ((?:TRUSTED )?CERTIFICATE)-----\s[A-Za-z0-9+/=\s]+-----END \1-----"
_LIMIT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Trusted:
    """What one container is given: nothing, unless somebody asked."""

    data: bytes = b""

    @property
    def env(self) -> tuple[str, ...]:
        return tuple(f"{name}={CERTIFICATES}" for name in _VARIABLES) if self.data else ()

    @property
    def files(self) -> dict[str, bytes]:
        """What the bundle keeps of it."""
        return {_FILE: self.data} if self.data else {}

    def mounts(self, bundle: Path) -> tuple[Mount, ...]:
        """Of the file that the bundle keeps."""
        if not self.data:
            return ()
        return (Mount(CERTIFICATES, "bind", str(bundle / _FILE), ("bind", "ro", "nosuid", "nodev", "noexec")),)


def trusted(environ: Mapping[str, str]) -> Trusted:
    """What containers are to trust besides what their images do. Raises UsageError where that cannot be read."""
    word = environ.get(_ASKED, "")
    if not word:
        return Trusted()
    is_asked = truth(word)
    if is_asked is None:
        raise UsageError(f"{_ASKED}={word} is neither true nor false", hint=f"{_ASKED}=true")
    return Trusted(_certificates(environ)) if is_asked else Trusted()


def _certificates(environ: Mapping[str, str]) -> bytes:
    said, path = authorities.named(environ)
    path = path or authorities.of_system()
    places = [path] if path else []
    if os.path.isdir(path):
        places = list(authorities.files(path))
    for directory in authorities.directories(environ):
        said, path = (said, path) if path else (authorities.DIRECTORIES, directory)
        places += _listed(directory)
    if not places and not path:
        raise UsageError(
            "this machine's certificates are asked for, and there are none",
            why=f"{_ASKED} is set; {', '.join(authorities.PLACES)}: none of them is here",
            hint="SSL_CERT_FILE says where they are",
        )
    # Never a key, which may lie in the same file; and each once: OpenSSL's hashed names lead to files beside them.
    found = {match[0]: None for each in places for match in re.finditer(_CERTIFICATE, _read(each, said))}
    if not found:
        raise UsageError(f"there is no certificate in {path}", why=f"{said or _ASKED} is set")
    return b"\n".join(found) + b"\n"


def _listed(directory: str) -> tuple[str, ...]:
    try:
        return authorities.files(directory)
    except OSError as error:
        raise _unreadable(directory, error, authorities.DIRECTORIES) from error


def _read(path: str, said: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT_BYTES)
    except OSError as error:
        raise _unreadable(path, error, said) from error


def _unreadable(path: str, error: OSError, said: str) -> UsageError:
    why = f"{error.strerror}; {said or _ASKED} is set"
    return UsageError(f"this machine's certificates cannot be read: {path}", why=why)
