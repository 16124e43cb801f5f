"""Who one is to which registry: docker's config.json, podman's auth.json, and credential helpers."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbcontain.errors import RegistryError
from nbcontain.oci.reference import DEFAULT_REGISTRY
from nbcontain.store import files
from nbcontain.values import dataclass, field

HUB_KEY = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HELPER_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password, or an identity token. The secrets never show in a repr."""

    username: str
    password: str = field(repr=False, default="")
    identity_token: str = field(repr=False, default="")

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Keychain:
    """The files that hold credentials; the first is where `login` writes."""

    paths: tuple[Path, ...]
    search: str
    """PATH, for helpers."""

    @classmethod
    def of(cls, environ: Mapping[str, str], run: Path = Path("/run")) -> Keychain:
        """docker's file, or the one that is named, and then podman's in the order of containers-auth.json(5)."""
        home = Path(environ.get("HOME", "/nonexistent"))
        docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
        paths = [docker]
        if environ.get("REGISTRY_AUTH_FILE"):
            paths.insert(0, Path(environ["REGISTRY_AUTH_FILE"]))
        elif environ.get("XDG_RUNTIME_DIR"):
            paths.append(Path(environ["XDG_RUNTIME_DIR"]) / "containers" / "auth.json")
        else:
            # A kernel may have been started without it. podman looks for it then; and as root it has another place.
            uid = str(os.getuid())
            places = run / "user" / uid / "containers", run / "containers" / uid
            # Root's podman lets nobody else pass its own, where no other user's can be then.
            paths += [place / "auth.json" for place in places if os.access(place, os.X_OK)]
        paths.append(Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json")
        return cls(tuple(paths), environ.get("PATH", os.defpath))

    def find(self, registry: str, repository: str = "") -> Credentials | None:
        """What is known for a registry, the longest matching namespace first (containers-auth.json(5)).

        Raises RegistryError where a helper fails.
        """
        names = repository.split("/") if repository else []
        keys = [f"{registry}/{'/'.join(names[:count])}" for count in range(len(names), 0, -1)] + _keys(registry)
        for path in self.paths:
            document = _read(path)
            for key in keys:
                helper = document.get("credHelpers", {}).get(key)
                if helper and (found := self._ask(helper, key)):
                    return found
                if (found := _decoded(document.get("auths", {}).get(key))) is not None:
                    return found
            if document.get("credsStore"):
                for key in _keys(registry):
                    if found := self._ask(document["credsStore"], key):
                        return found
        return None

    def troubles(self) -> list[str]:
        """What of these files is passed over, and why: a line for each."""
        found = []
        for path in self.paths:
            try:
                document = _read(path, strict=True)
            except RegistryError as error:
                found.append(f"{error.message}: {error.why}")
                continue
            wrong = [host for host, entry in document["auths"].items() if _is_garbage(entry)]
            if wrong:
                found.append(f"{path} has no credentials for {', '.join(wrong)}: they are not base64 of name:password")
        return found

    def store(self, registry: str, credentials: Credentials) -> Path | str:
        """Keep them as docker does: by the helper if one is configured, else in config.json (0600). Says where."""
        path = self.paths[0]
        document, key = _read(path, strict=True), _keys(registry)[0]
        helper = document.get("credHelpers", {}).get(key) or document.get("credsStore")
        if helper:
            said = {"ServerURL": key, "Username": credentials.username, "Secret": credentials.password}
            self._helper(helper, "store", json.dumps(said))
            return f"docker-credential-{helper}"
        auth = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
        document.setdefault("auths", {})[key] = {"auth": auth}
        _write(path, document)
        return path

    def erase(self, registry: str) -> bool:
        """Forget them; False if there were none."""
        path = self.paths[0]
        document, gone = _read(path, strict=True), False
        for key in _keys(registry):
            helper = document.get("credHelpers", {}).get(key) or document.get("credsStore")
            if helper and self._ask(helper, key):
                self._helper(helper, "erase", key)
                gone = True
            if document.get("auths", {}).pop(key, None) is not None:
                gone = True
                _write(path, document)
        return gone

    def _ask(self, helper: str, key: str) -> Credentials | None:
        said = self._helper(helper, "get", key)
        if said is None:
            return None
        try:
            document = json.loads(said)
            name, secret = str(document["Username"]), str(document["Secret"])
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryError(f"docker-credential-{helper} gave no credentials") from error
        return Credentials("", identity_token=secret) if name == "<token>" else Credentials(name, secret)

    def _helper(self, helper: object, verb: str, text: str) -> str | None:
        """What a helper answers, None if it knows nothing. Its name comes from a file: never a path, never a shell."""
        if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
            raise RegistryError(
                f"{helper!r} is no credential helper", why="a name of letters, digits, - and _ is needed"
            )
        absolute = os.pathsep.join(part for part in self.search.split(os.pathsep) if os.path.isabs(part))
        program = shutil.which(f"docker-credential-{helper}", path=absolute)
        if program is None:
            raise RegistryError(
                f"the credential helper docker-credential-{helper} is not installed",
                why="docker's config.json names it",
            )
        try:
            done = subprocess.run(
                [program, verb], input=text, capture_output=True, text=True, timeout=_HELPER_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RegistryError(f"docker-credential-{helper} does not answer", why=str(error)) from error
        if done.returncode and "credentials not found" in done.stdout + done.stderr:
            return None
        if done.returncode:
            raise RegistryError(f"docker-credential-{helper} failed", why=(done.stdout + done.stderr).strip()[:200])
        return done.stdout


def _keys(registry: str) -> list[str]:
    """The ways a registry is written in these files, docker's own first."""
    if registry in (DEFAULT_REGISTRY, "index.docker.io", "registry-1.docker.io"):
        return [HUB_KEY, "docker.io", "index.docker.io", "registry-1.docker.io"]
    return [registry, f"https://{registry}", f"http://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/"]


def _read(path: Path, strict: bool = False) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict):
            raise ValueError("it is no object")
        for key in ("auths", "credHelpers"):
            if not isinstance(document.setdefault(key, {}) or {}, dict):
                raise ValueError(f"{key} is no object")
            document[key] = document[key] or {}
    except FileNotFoundError:
        return {"auths": {}, "credHelpers": {}}
    except (OSError, ValueError) as error:
        if strict:
            raise RegistryError(f"cannot read {path}", why=str(error)) from error
        return {"auths": {}, "credHelpers": {}}
    return document


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = {key: value for key, value in document.items() if value or key not in ("credHelpers",)}
    files.replace(path, json.dumps(kept, indent="\t").encode() + b"\n", 0o600)


def _is_garbage(entry: object) -> bool:
    if not isinstance(entry, dict):
        return bool(entry)
    return bool(entry.get("auth")) and _decoded(entry) is None


def _decoded(entry: object) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    if token := entry.get("identitytoken"):
        return Credentials("", identity_token=str(token))
    if entry.get("username"):
        return Credentials(str(entry["username"]), str(entry.get("password", "")))
    try:
        name, colon, password = base64.b64decode(str(entry.get("auth", ""))).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return Credentials(name, password.strip("\0")) if colon else None
