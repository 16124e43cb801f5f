"""What a registry's refusal or silence means: the typed error, and what to try."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from typing import Any

from nbcontain.errors import (
    BadAnswer,
    BadDocument,
    ManifestUnknown,
    RateLimited,
    RegistryError,
    Unauthorized,
    Unreachable,
)  # fmt: skip
from nbcontain.registry.challenges import retry_after_s
from nbcontain.registry.configuration import is_loopback, split_host
from nbcontain.registry.credentials import Credentials
from nbcontain.registry.wire import Response

_ANSWER_LIMIT = 1 << 20
_REPOSITORY = re.compile(
    r"/v2/(.*?)(?:/(?:manifests|blobs|tags|referrers)/.*)?|repository:([^: ]+):[a-z,*]+", re.DOTALL
)
"""Of a path, or of a scope."""
_WANTS_CERTIFICATE = frozenset({
    "TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_REVOKED", "SSLV3_ALERT_CERTIFICATE_UNKNOWN", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "TLSV1_ALERT_UNKNOWN_CA", "TLSV1_ALERT_ACCESS_DENIED",
})  # fmt: skip
"""OpenSSL's words for what a server says of a client's certificate, or of there being none (RFC 8446 § 6.2)."""
_OF_NO_TLS = frozenset({
    "WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL",
    "UNEXPECTED_EOF_WHILE_READING",
})  # fmt: skip
"""And for what is no TLS at all."""
_PASSWORD = "are the name and the password right?"


def unreachable(error: Exception, host: str) -> RegistryError:
    """What an error of the network means, in words."""
    if isinstance(error, RegistryError):
        return error
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(
            f"nobody listens at {host}", why="connection refused",
            hint="is the registry running? %nbcontain registry start begins one of your own"
            if is_loopback(split_host(host, 443)[0])
            else "is it plain http on another port? is the registry running?",
        )  # fmt: skip
    if isinstance(error, ssl.SSLError):
        return _of_tls(error, host)
    if isinstance(error, TimeoutError):
        return Unreachable(f"{host} is silent", why=str(error) or "timed out", hint="try again; what came is kept")
    return Unreachable(f"the connection to {host} was cut", why=str(error) or type(error).__name__,
                       hint="try again; what came is kept")  # fmt: skip


def _of_tls(error: ssl.SSLError, host: str) -> Unreachable:
    reason = error.reason or str(error)
    place = f"~/.config/nbcontain/certs.d/{host}"
    certificate = f"a client certificate goes into {place}/client.cert, its key into client.key"
    if reason in _WANTS_CERTIFICATE:
        return Unreachable(f"{host} asks for a client certificate that it trusts", why=reason, hint=certificate)
    if speaks_tls(error):
        return Unreachable(f"{host} ends the TLS handshake", why=reason, hint=f"does it ask who we are? {certificate}")
    hint = "is it plain http? then name it in [registries] insecure of ~/.config/nbcontain/config.toml"
    return Unreachable(
        f"{host} does not speak TLS as expected", why=reason, hint=hint if reason in _OF_NO_TLS else ""
    )


def speaks_tls(error: Exception) -> bool:
    """Whether it was by TLS that somebody said no to TLS: then it is no use to try plain http there."""
    return isinstance(error, ssl.SSLError) and "_ALERT_" in (error.reason or "")


def unauthorized(host: str, who: Credentials | None, what: str, message: str) -> Unauthorized:
    """It does not let this user, or nobody, at a repository; `what` is a path or scopes."""
    why = message or ("nobody is logged in" if who is None else f"as {who.username or 'the stored token'}")
    asked = _REPOSITORY.fullmatch(what)
    repository = (asked[1] or asked[2] or "") if asked else what
    if who is None:
        hint = f"%nbcontain login {host}"
    else:
        hint = "does the repository exist, and may this user use it?" if repository else _PASSWORD
    return Unauthorized(
        f"{host} does not let us at {repository}" if repository else f"{host} does not let us in", why=why, hint=hint
    )


def refusal(host: str, response: Response, path: str, message: str) -> RegistryError:
    """What a status that is none of the wanted ones means; `message` is what the registry said with it."""
    status = response.status
    what = path.partition("?")[0].removeprefix("/v2/")
    if status == 404:
        name = what.replace("/manifests/", ":" if "/manifests/sha" not in what else "@")
        return ManifestUnknown(f"{host} has no {name}", why=message, hint="is the name right, tag included?")
    if status == 429:
        seconds = retry_after_s(response.headers.get("Retry-After", ""))
        return RateLimited(f"{host} says that it is asked too much", seconds, why=message,
                           hint=f"%nbcontain login {host} may raise the limit; or try later")  # fmt: skip
    return BadAnswer(f"{host} answers {status} to {what or '/v2/'}", why=message)


def spoken(response: Response) -> str:
    """What a registry says in an answer went wrong; nothing if that cannot be read."""
    try:
        return message_of(response.read(_ANSWER_LIMIT))
    except (OSError, http.client.HTTPException, BadDocument):
        response.close()
        return ""


def message_of(data: bytes) -> str:
    """The same of an answer's bytes (distribution-spec § Error Codes)."""
    try:
        document = json.loads(data)
        errors = document.get("errors") or [document]
        said = (str(each.get("message") or each.get("details") or each.get("code", "")) for each in errors)
        return "; ".join(said)[:300]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return ""


def json_object(data: bytes, what: str) -> dict[str, Any]:
    """An object out of JSON; raises BadDocument with `what` it should have been."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadDocument(f"the {what} is not valid JSON") from error
    if not isinstance(document, dict):
        raise BadDocument(f"the {what} is no object")
    return document
