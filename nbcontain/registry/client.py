"""One registry: requests with who we are, redirects, and patience (distribution-spec)."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode, urlsplit

from nbcontain.errors import (
    BadAnswer,
    BadDigest,
    BadDocument,
    DigestMismatch,
    ManifestUnknown,
    RegistryError,
    Unauthorized,
)  # fmt: skip
from nbcontain.oci import codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import INDEX, MANIFEST, Descriptor
from nbcontain.oci.reference import is_tag
from nbcontain.oci.strict_json import DOCUMENT_LIMIT
from nbcontain.registry import refusals
from nbcontain.registry.addresses import check_address, joined, parsed, shown
from nbcontain.registry.challenges import merged_scopes, next_link, parse_challenges, retry_after_s
from nbcontain.registry.configuration import Endpoint
from nbcontain.registry.credentials import Credentials
from nbcontain.registry.wire import Body, Response, Wire
from nbcontain.values import dataclass, field

SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
ACCEPT = ", ".join((MANIFEST, INDEX, codec.DOCKER_MANIFEST, codec.DOCKER_INDEX))
_AGAIN = frozenset({408, 429, 500, 502, 503, 504, 522})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECT_LIMIT = 5
_ANSWER_LIMIT = 1 << 20
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How often something is tried, and how long is waited between (full jitter, in seconds)."""

    tries: int = 6
    first_s: float = 0.5
    longest_s: float = 30.0

    def delay_s(self, failures: int) -> float:
        return random.uniform(0, min(self.longest_s, self.first_s * 2 ** (failures - 1)))


@dataclass(slots=True)
class _Token:
    value: str = field(repr=False)
    scopes: tuple[str, ...]
    expires_at: float


class RegistryClient:
    """Speaks with one endpoint as one user. Safe among threads."""

    def __init__(
        self, endpoint: Endpoint, wire: Wire, credentials: Callable[[], Credentials | None] = lambda: None,
        patience: Patience = Patience(),  # noqa: B008 - a frozen value
    ) -> None:  # fmt: skip
        self.endpoint, self.wire, self.patience = endpoint, wire, patience
        self._credentials = credentials
        self._lock = threading.Lock()
        self._base = ""
        self._address = ""
        self._tokens: list[_Token] = []
        self._is_basic = False

    def _there(self, repository: str) -> str:
        """What a repository is called at this endpoint, for reading."""
        return self.endpoint.repository or repository

    # --- what the specification has ---

    def ping(self) -> None:
        """end-1: it is a registry, and it knows us. Raises RegistryError."""
        self.request("GET", "/v2/", ()).read(_ANSWER_LIMIT)

    def manifest(self, repository: str, which: str) -> tuple[Descriptor, bytes]:
        """end-2: a manifest or index by tag or digest, verified. Raises ManifestUnknown, BadAnswer.

        Its descriptor has the digest by which it is known here, SHA-256, whatever it was asked for by.
        """
        repository = self._there(repository)
        response, data = self._document(
            f"/v2/{repository}/manifests/{which}", _pulling(repository), {"Accept": ACCEPT}
        )
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        # By whatever algorithm somebody named it: one that is passed over would be a name that nobody keeps to.
        asked = [Digest.parse(which)] if ":" in which else []
        name = f"{repository}{'@' if asked else ':'}{which}"
        _verify(data, asked + _digests_said(response), f"the manifest of {name} is altered")
        return Descriptor(media_type or MANIFEST, Digest.of(data), len(data)), data

    def blob(self, repository: str, digest: Digest, start: int = 0) -> Response:
        """end-3: a blob's bytes from `start` on: 206, or 200 with all, or 416. Not verified."""
        repository = self._there(repository)
        headers = {"Range": f"bytes={start}-"} if start else {}
        return self.request(
            "GET", f"/v2/{repository}/blobs/{digest}", _pulling(repository), headers, ok=(200, 206, 416), once=True
        )

    def has_blob(self, repository: str, descriptor: Descriptor) -> bool:
        response = self.request(
            "HEAD", f"/v2/{repository}/blobs/{descriptor.digest}", _pushing(repository), ok=(200, 404)
        )
        response.read(0)
        return response.status == 200

    def put_manifest(self, repository: str, which: str, media_type: str, raw: bytes) -> Digest:
        """end-7. Gives the digest that the registry now knows it by, which is ours."""
        response = self.request(
            "PUT", f"/v2/{repository}/manifests/{which}", _pushing(repository), {"Content-Type": media_type}, raw,
            ok=(201, 200, 202),
        )  # fmt: skip
        response.read(_ANSWER_LIMIT)
        _verify(raw, _digests_said(response), f"the registry stored something else as {repository}:{which}")
        return Digest.of(raw)

    def tags(self, repository: str, limit: int = 0, last: str = "") -> list[str]:
        """end-8: the tags of a repository, all pages of it, at most `limit` if that is not 0."""
        repository = self._there(repository)
        query = urlencode([(k, v) for k, v in (("n", str(limit or 1000)), ("last", last)) if v])
        path = f"/v2/{repository}/tags/list?{query}"
        found: list[str] = []
        for _ in range(1000):
            response, data = self._document(path, _pulling(repository))
            document = refusals.json_object(data, "list of tags")
            page = document.get("tags") or []
            # They become names here, and parts of paths there.
            if not isinstance(page, list) or not all(isinstance(tag, str) and is_tag(tag) for tag in page):
                raise BadDocument(f"the list of tags of {repository} has something in it that is no tag")
            found += page
            link = next_link(response.headers.get("Link", ""))
            if not link or not page or (limit and len(found) >= limit):
                break
            path = self._same_host(joined(response.url, link))
        return found[:limit] if limit else found

    def referrers(self, repository: str, digest: Digest, artifact_type: str = "") -> list[dict[str, Any]]:
        """end-12: what refers to a manifest; older registries keep the list under a tag (referrers tag schema)."""
        repository = self._there(repository)
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        response, data = self._document(
            f"/v2/{repository}/referrers/{digest}{query}", _pulling(repository), {"Accept": INDEX}, ok=(200, 404)
        )
        if response.status == 404:
            try:
                data = self.manifest(repository, f"{digest.algorithm}-{digest.hex}")[1]
            except ManifestUnknown:
                return []
        entries = refusals.json_object(data, "list of referrers").get("manifests") or []
        found = [entry for entry in entries if isinstance(entry, dict)]
        return [entry for entry in found if not artifact_type or entry.get("artifactType") == artifact_type]

    # --- requests ---

    def request(
        self, method: str, path: str, scopes: tuple[str, ...], headers: Mapping[str, str] | None = None,
        body: Body = b"", ok: tuple[int, ...] = (200,), once: bool = False,
        on_sent: Callable[[int], None] = lambda count: None,
    ) -> Response:  # fmt: skip
        """An answer with one of the statuses `ok`; unless `once`, what fails on the way is tried again.

        `path` is one of this registry's, or a whole URL that it gave. Raises RegistryError; with `once` OSError
        and HTTPException too.
        """
        failures = 0
        while True:
            try:
                response = self._authorized(method, path, scopes, headers or {}, body, on_sent)
                if response.status in ok:
                    return response
                error = self._error(response, path)
                if response.status not in _AGAIN or once and response.status not in (429, 503):
                    raise error
                wait_s = retry_after_s(response.headers.get("Retry-After", ""))
            except (OSError, http.client.HTTPException) as trouble:
                self.wire.strike()
                if once or not self._base:
                    raise trouble if once else self.unreachable(trouble) from trouble
                error, wait_s = self.unreachable(trouble), None
            failures += 1
            if failures >= self.patience.tries:
                raise error
            self.wire.pause(self.patience.delay_s(failures) if wait_s is None else wait_s)

    def _document(
        self, path: str, scopes: tuple[str, ...], headers: Mapping[str, str] | None = None, ok: tuple[int, ...] = (200,)
    ) -> tuple[Response, bytes]:
        """A small answer with all of its bytes; one that is cut off is asked for again."""
        failures = 0
        while True:
            response = self.request("GET", path, scopes, headers, ok=ok)
            try:
                return response, response.read(DOCUMENT_LIMIT)
            except (OSError, http.client.HTTPException) as trouble:
                response.close()
                self.wire.strike()
                failures += 1
                if failures >= self.patience.tries:
                    raise self.unreachable(trouble) from trouble
            self.wire.pause(self.patience.delay_s(failures))

    def _authorized(
        self, method: str, path: str, scopes: tuple[str, ...], headers: Mapping[str, str], body: Body,
        on_sent: Callable[[int], None],
    ) -> Response:  # fmt: skip
        """Anonymous, then what the registry asks for: one step up per 401, and a token that ran out is renewed."""
        escalations = 0
        while True:
            authorization = self._authorization(scopes)
            response = self._followed(method, self._url(path), headers, authorization, body, on_sent)
            if response.status != 401:
                return response
            challenges = parse_challenges(", ".join(response.headers.get_all("WWW-Authenticate") or []))
            message = refusals.spoken(response)
            escalations += 1
            if escalations > 2 or not self._escalate(challenges, scopes, authorization):
                raise self._unauthorized(path, message)

    def _authorization(self, scopes: tuple[str, ...]) -> str:
        with self._lock:
            for token in self._tokens:
                if set(scopes) <= set(token.scopes) and time.monotonic() < token.expires_at:
                    return f"Bearer {token.value}"
        if self._is_basic and (known := self._credentials()):
            return known.basic
        return ""

    def _escalate(self, challenges: tuple[Any, ...], scopes: tuple[str, ...], refused: str) -> bool:
        """Whether there is one more thing to say."""
        with self._lock:
            self._tokens = [token for token in self._tokens if f"Bearer {token.value}" != refused]
        for challenge in challenges:
            if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                wanted = merged_scopes((*scopes, challenge.parameters.get("scope", "")))
                token = self._token(challenge.parameters["realm"], challenge.parameters.get("service", ""), wanted)
                if f"Bearer {token.value}" == refused:
                    return False
                with self._lock:
                    token.scopes = (*token.scopes, *scopes)
                    self._tokens.append(token)
                return True
        if any(challenge.scheme == "basic" for challenge in challenges) and not refused.startswith("Basic"):
            self._is_basic = self._credentials() is not None and self._may_send_secrets()
            return self._is_basic
        return False

    def _may_send_secrets(self) -> bool:
        return self._base.startswith("https:") or self.endpoint.insecure

    def _token(self, realm: str, service: str, scopes: tuple[str, ...]) -> _Token:
        """Ask the token server (distribution's token authentication). Raises Unauthorized, BadAnswer."""
        parts, home = parsed(realm), urlsplit(self._base)
        is_home = parts.hostname == home.hostname
        if (
            parts.scheme != "https"
            and not (parts.scheme == "http" and home.scheme == "http" and is_home)
            or parts.username
        ):
            raise BadAnswer(
                f"{home.netloc} sends us to {shown(realm)!r} for a token",
                why="only https, or the registry's own host if that speaks plain http, may see credentials",
            )
        known = self._credentials()
        headers: dict[str, str] = {}
        query = [("service", service)] * bool(service)
        if known is not None and known.identity_token:
            form = [("grant_type", "refresh_token"), ("refresh_token", known.identity_token), *query,
                    ("client_id", "nbcontain"), ("scope", " ".join(scopes))]  # fmt: skip
            method, url, body = "POST", realm, urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            query += [("scope", scope) for scope in scopes]
            if known is not None:
                headers["Authorization"] = known.basic
                query.append(("account", known.username))
            url = realm + ("&" if parts.query else "?") + urlencode(query) if query else realm
            method, body = "GET", b""
        failures = 0
        while True:
            try:
                response = self.wire.send(method, url, headers, body, allowed=self._allowed)
                status, data = response.status, response.read(_ANSWER_LIMIT)
                if status == 200:
                    break
                if status in (400, 401, 403):
                    raise self._unauthorized(" ".join(scopes), refusals.message_of(data))
                trouble: RegistryError = BadAnswer(f"the token server {parts.netloc} answers {status}")
                if status not in _AGAIN:
                    raise trouble
                wait_s = retry_after_s(response.headers.get("Retry-After", ""))
            except (OSError, http.client.HTTPException) as error:
                self.wire.strike()
                trouble, wait_s = self.unreachable(error, parts.netloc), None
            failures += 1
            if failures >= self.patience.tries:
                raise trouble
            self.wire.pause(self.patience.delay_s(failures) if wait_s is None else wait_s)
        document = refusals.json_object(data, "token")
        value = document.get("token") or document.get("access_token")
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
            raise BadAnswer(f"the token server {parts.netloc} gave no token")
        lasts_s = _seconds(document.get("expires_in"))
        return _Token(value, scopes, time.monotonic() + max(1.0, lasts_s * 0.9))

    def _followed(
        self, method: str, url: str, headers: Mapping[str, str], authorization: str, body: Body,
        on_sent: Callable[[int], None],
    ) -> Response:  # fmt: skip
        """The answer behind redirects. Credentials stay with the host they are for."""
        home = urlsplit(self._base).netloc
        seen: set[str] = set()
        while True:
            parts = urlsplit(url)
            own = {"Authorization": authorization} if authorization and parts.netloc == home else {}
            response = self.wire.send(method, url, {**headers, **own}, body, on_sent, self._allowed)
            if response.status not in _REDIRECTS or method not in ("GET", "HEAD"):
                return response
            response.close()
            target = joined(url, response.headers.get("Location", ""))
            there = urlsplit(target)
            if there.scheme not in ("http", "https") or (parts.scheme == "https" and there.scheme != "https"):
                raise BadAnswer(f"{parts.netloc} redirects to {there.scheme or 'nowhere'}:", why="only https will do")
            if target in seen or len(seen) >= _REDIRECT_LIMIT:
                raise BadAnswer(f"{parts.netloc} redirects in circles")
            seen.add(target)
            url = target

    def _allowed(self, address: str) -> None:
        if self._address:
            check_address(address, registry_address=self._address)

    def _url(self, path: str) -> str:
        return path if path.startswith(("http://", "https://")) else self.base + path

    def _same_host(self, url: str) -> str:
        if urlsplit(url).netloc != urlsplit(self.base).netloc:
            raise BadAnswer(f"the next page is on another host: {urlsplit(url).netloc}")
        return url

    @property
    def base(self) -> str:
        """scheme://host of this registry, found by asking: https, and plain http where that is allowed."""
        with self._lock:
            if self._base:
                return self._base
            failures = 0
            while True:
                try:
                    self._base = self._found()
                    return self._base
                except (OSError, http.client.HTTPException) as error:
                    self.wire.strike()
                    failures += 1
                    # Who does not listen will not in a second either; who hangs up may be starting.
                    is_cut = isinstance(error, (ConnectionResetError, http.client.HTTPException))
                    if not is_cut or failures >= self.patience.tries:
                        raise self.unreachable(error) from error
                self.wire.pause(self.patience.delay_s(failures))

    def _found(self) -> str:
        def remember(address: str) -> None:
            self._address = address

        def answer(base: str) -> str:
            response = self.wire.send("GET", f"{base}/v2/", {}, allowed=remember)
            try:
                response.read(_ANSWER_LIMIT)
            except (OSError, http.client.HTTPException, BadDocument):
                # It answers, and what it says does not matter.
                response.close()
            return base

        try:
            return answer(f"https://{self.endpoint.host}")
        except (OSError, http.client.HTTPException) as error:
            if not self.endpoint.insecure or refusals.speaks_tls(error):
                raise
            return answer(f"http://{self.endpoint.host}")

    # --- errors ---

    def unreachable(self, error: Exception, host: str = "") -> RegistryError:
        """What an error of the network means, in words."""
        return refusals.unreachable(error, host or self.endpoint.host)

    def _unauthorized(self, what: str, message: str) -> Unauthorized:
        return refusals.unauthorized(self.endpoint.mirror_of or self.endpoint.host, self._credentials(), what, message)

    def _error(self, response: Response, path: str) -> RegistryError:
        message = refusals.spoken(response)
        if response.status in (401, 403):
            return self._unauthorized(path, message)
        return refusals.refusal(self.endpoint.host, response, path, message)


def _digests_said(response: Response) -> list[Digest]:
    """What a registry says in a header of what it sends or has got; nothing if it says none that can be read."""
    with suppress(BadDigest):
        return [Digest.parse(response.headers.get("Docker-Content-Digest", ""))]
    return []


def _verify(data: bytes, promised: Iterable[Digest], otherwise: str) -> None:
    try:
        for digest in promised:
            digest.verify(data)
    except DigestMismatch as error:
        raise BadAnswer(otherwise, why=str(error)) from error


def _seconds(said: object) -> float:
    """How long a token lasts: a day at most, and a minute where nothing is said (token authentication)."""
    if isinstance(said, int | float) and not isinstance(said, bool) and said >= 0:
        return float(min(said, _DAY_S))
    return 60.0


def _pulling(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull",)


def _pushing(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull,push",)
