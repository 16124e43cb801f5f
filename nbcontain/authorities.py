"""Whom this machine's programs trust when they speak TLS: the authorities that its environment, or it itself, names."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where an environment says which they are: programs look there, the first by OpenSSL itself."""
PLACES = (
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
)  # fmt: skip
"""Debian and what comes of it, Arch and Alpine; Fedora; older ones of Red Hat; SUSE; Alpine, and the BSDs."""


def named(environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable that says where they are, and what it says; twice "" where none does."""
    variable = next((name for name in VARIABLES if environ.get(name)), "")
    return variable, environ.get(variable, "")


def of_system() -> str:
    """The file of this machine's own; "" if it has none."""
    return next((each for each in PLACES if os.path.isfile(each)), "")


def context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """How to speak TLS with whom these vouch for. Raises OSError, ssl.SSLError for a file that cannot be used."""
    import ssl

    # Not create_default_context: it writes the session's keys to wherever SSLKEYLOGFILE points.
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    trust(made, environ)
    return made


def trust(made: ssl.SSLContext, environ: Mapping[str, str]) -> None:
    """Have that context trust them, which takes some 10 ms. Raises as above.

    What Python trusts, what a variable says besides, and where none does and Python brought a list of its own, as
    conda's does, what the machine trusts: the authority of a proxy that opens TLS is there, and not in that list.
    """
    import ssl

    made.load_default_certs()
    variable, path = named(environ)
    if not variable:
        own = os.path.realpath(ssl.get_default_verify_paths().cafile or "/")
        path = of_system() if own.startswith(f"{os.path.realpath(sys.base_prefix)}/") else ""
    if os.path.isdir(path):
        made.load_verify_locations(capath=path)
    elif os.path.exists(path):
        made.load_verify_locations(cafile=path)
