"""Whom this machine's programs trust when they speak TLS: the authorities that its environment, or it itself, names."""

from __future__ import annotations

import contextlib
import os
import re
import sys

from nbcontain.errors import BadCertificate

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where an environment says which they are: programs look there, the first by OpenSSL itself."""
DIRECTORIES = "SSL_CERT_DIR"
"""It names directories of certificates, with colons between (SSL_CTX_set_default_verify_paths(3))."""
PLACES = (
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
)  # fmt: skip
"""Debian and what comes of it, Arch and Alpine; Fedora; older ones of Red Hat; SUSE; Alpine, and the BSDs."""
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+").fullmatch
_ENDINGS = (".pem", ".crt", ".cer")


def named(environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable that says where they are, and what it says; twice "" where none does."""
    variable = next((name for name in VARIABLES if environ.get(name)), "")
    return variable, environ.get(variable, "")


def directories(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Those that are named besides, which OpenSSL and Go look at, too."""
    return tuple(filter(None, environ.get(DIRECTORIES, "").split(":")))


def files(directory: str) -> tuple[str, ...]:
    """The certificates in a directory: by the names that OpenSSL looks for, where c_rehash made them, or whatever else.

    A directory that is not there has none. Raises OSError for one that cannot be read.
    """
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    found = list(filter(_HASHED, names)) or [name for name in names if name.endswith(_ENDINGS)]
    return tuple(os.path.join(directory, name) for name in found)


def of_system() -> str:
    """The file of this machine's own; "" if it has none."""
    return next((each for each in PLACES if os.path.isfile(each)), "")


def context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """How to speak TLS with whom these vouch for. Raises BadCertificate."""
    import ssl

    # Not create_default_context: it writes the session's keys to wherever SSLKEYLOGFILE points.
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    trust(made, environ)
    return made


def trust(made: ssl.SSLContext, environ: Mapping[str, str]) -> None:
    """Have that context trust them, which takes some 10 ms. Raises BadCertificate.

    What Python trusts, what variables say besides, and where none does and Python brought a list of its own, as
    conda's does, what the machine trusts: the authority of a proxy that opens TLS is there, and not in that list.
    """
    import ssl

    made.load_default_certs()
    variable, path = named(environ)
    if not variable:
        own = os.path.realpath(ssl.get_default_verify_paths().cafile or "/")
        path = of_system() if own.startswith(f"{os.path.realpath(sys.base_prefix)}/") else ""
    for name, place in ((variable, path), *((DIRECTORIES, each) for each in directories(environ))):
        try:
            if os.path.isdir(place):
                _trust_directory(made, place)
            elif os.path.exists(place):
                made.load_verify_locations(cafile=place)
        except OSError as error:  # ssl's own are such, too
            raise BadCertificate(f"cannot use the certificates in {place}", why=f"{name}: {error}") from error


def _trust_directory(made: ssl.SSLContext, directory: str) -> None:
    """OpenSSL itself looks for hashed names alone, when it needs one; others are what somebody put there by hand."""
    import ssl

    made.load_verify_locations(capath=directory)
    for path in files(directory):
        if _HASHED(os.path.basename(path)):
            break
        with contextlib.suppress(ssl.SSLError):  # Not all that ends so is a certificate: a key may.
            made.load_verify_locations(cafile=path)
