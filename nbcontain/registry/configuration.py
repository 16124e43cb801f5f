"""How registries are reached: insecure ones, mirrors and certificates, by our own file, docker's and podman's."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import ssl
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nbcontain import authorities
from nbcontain.errors import BadCertificate, Blocked, UsageError
from nbcontain.oci.reference import DEFAULT_REGISTRY, Reference
from nbcontain.registry import registries_conf
from nbcontain.registry.registries_conf import NOTHING, Place, RegistriesConf
from nbcontain.values import dataclass, field, replace

DOCKER_HUB = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a registry answers. `insecure` allows certificates that nobody vouches for, and plain http."""

    host: str
    """host[:port], as in a name."""
    insecure: bool = False
    mirror_of: str = ""
    """The registry of the name, where this is another one: a mirror, or where registries.conf has moved it."""
    repository: str = ""
    """What the repository is called there, if not as in the name."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What was configured. `certificates` are directories with one directory per host[:port]."""

    insecure: frozenset[str] = frozenset()
    mirrors: Mapping[str, tuple[str, ...]] = ()  # type: ignore[assignment]
    certificates: tuple[Path, ...] = ()
    podman: RegistriesConf = NOTHING
    """What registries.conf says."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """It says whom else to trust."""

    @classmethod
    def load(cls, environ: Mapping[str, str], system: Path = Path("/etc")) -> Configuration:
        """From $NBCONTAIN_CONFIG, or ~/.config/nbcontain/config.toml and /etc/nbcontain/config.toml; and from others'.

        Ours says: [registries] insecure = ["host:5000"], and [registries.mirrors] "docker.io" = ["host"]. Docker's
        daemon.json and podman's registries.conf are read too. Raises UsageError for a file that cannot be read.
        """
        home = Path(environ.get("HOME", "/nonexistent"))
        config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        insecure: set[str] = set()
        mirrors: dict[str, tuple[str, ...]] = {}
        for path in (system / "docker" / "daemon.json", config / "docker" / "daemon.json"):
            said = _docker_daemon(path)
            insecure.update(said.get("insecure-registries", ()))
            if said.get("registry-mirrors"):
                mirrors[DEFAULT_REGISTRY] = tuple(said["registry-mirrors"])
        named = environ.get("NBCONTAIN_CONFIG")
        paths = [Path(named)] if named else [system / "nbcontain" / "config.toml", config / "nbcontain" / "config.toml"]
        for path in paths:
            registries = _ours(path)
            insecure.update(registries.get("insecure", ()))
            for host, hosts in registries.get("mirrors", {}).items():
                mirrors[str(host)] = tuple(hosts)
        places = (config / "nbcontain", config / "containers", home / ".docker")
        shared = (system / "nbcontain", system / "containers", system / "docker")
        directories = tuple(place / "certs.d" for place in (*places, *shared))
        podman = registries_conf.load(environ, config, system)
        return cls(frozenset(insecure), mirrors, directories, podman, environ)

    def endpoints(self, registry: str, *, writing: bool = False) -> tuple[Endpoint, ...]:
        """Whom to ask for this registry's images, in order: its mirrors (for reading), then itself."""
        found = []
        for mirror in () if writing else dict(self.mirrors or {}).get(registry, ()):
            scheme, separator, rest = mirror.partition("://")
            host = (rest if separator else mirror).strip("/")
            found.append(Endpoint(host, self._is_insecure(host) or scheme == "http", mirror_of=registry))
        host = DOCKER_HUB if registry == DEFAULT_REGISTRY else registry
        return (*found, Endpoint(host, self._is_insecure(registry)))

    def places(self, reference: Reference, *, writing: bool = False) -> tuple[Endpoint, ...]:
        """The same for one name, with what registries.conf says of it. Raises Blocked."""
        rule = self.podman.rule_for(reference)
        if rule is None:
            return self.endpoints(reference.registry, writing=writing)
        if rule.blocked:
            raise Blocked(
                f"{reference.familiar} is blocked", why=f"registries.conf says so of {rule.prefix}",
                hint="ask whoever keeps that file",
            )  # fmt: skip
        *mirrors, own = self.endpoints(reference.registry, writing=writing)
        if writing:
            # Names are moved and mirrored for reading only (containers-registries.conf(5)).
            return (replace(own, insecure=own.insecure or rule.insecure),)
        return (*mirrors, *(self._endpoint(place, reference) for place in self.podman.places(reference)))

    def _endpoint(self, place: Place, reference: Reference) -> Endpoint:
        host, _, rest = place.location.partition("/")
        path = rest.partition("@")[0]
        repository = path[: path.index(":")] if ":" in path else path
        insecure = place.insecure or self._is_insecure(host)
        if host == DEFAULT_REGISTRY:
            repository = repository if "/" in repository else f"library/{repository}"
        is_own = (host, repository) == (reference.registry, reference.repository)
        host = DOCKER_HUB if host == DEFAULT_REGISTRY else host
        return Endpoint(host, insecure, "" if is_own else reference.registry, "" if is_own else repository)

    def _is_insecure(self, host: str) -> bool:
        """docker's rule: what is configured so, and this machine itself."""
        name = split_host(host, 443)[0]
        if host in self.insecure or name in self.insecure or is_loopback(name):
            return True
        networks = [network for each in self.insecure if (network := _network(each)) is not None]
        # A name is looked up only where it may matter: somebody spoke of a range.
        return bool(networks) and any(address in network for address in _addresses(name) for network in networks)

    def tls(self, host: str) -> ssl.SSLContext:
        """How to speak TLS with this host[:port]: certs.d/HOST/*.crt are its CAs, *.cert and *.key who we are.

        Raises BadCertificate for files that are none.
        """
        # Not create_default_context: it writes the session's keys to wherever SSLKEYLOGFILE points.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        has_own = False
        for directory in (base / host for base in self.certificates):
            if not os.path.isdir(directory):
                continue
            for path in sorted(directory.glob("*.crt")):
                with _usable(path):
                    context.load_verify_locations(cafile=path)
                has_own = True
            for certificate, key in _identities(directory):
                with _usable(certificate):
                    context.load_cert_chain(certificate, key)
        if self._is_insecure(host) and not has_own:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            # A hundred and more of them: 10 ms that only who verifies should wait.
            authorities.trust(context, self.environ)
        return context


def _identities(directory: Path) -> list[tuple[Path, Path]]:
    """Who we are to one host: certificates and their keys. Raises BadCertificate where one is without the other."""
    certificates, keys = sorted(directory.glob("*.cert")), sorted(directory.glob("*.key"))
    halves = [(path, "key", path.with_suffix(".key")) for path in certificates]
    halves += [(path, "certificate", path.with_suffix(".cert")) for path in keys]
    for path, other, beside in halves:
        if not beside.exists():
            raise BadCertificate(
                f"cannot use {path}", why=f"it is without its {other}",
                hint=f"its {other} is to be in {beside.name} beside it",
            )  # fmt: skip
    return [(path, path.with_suffix(".key")) for path in certificates]


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """OpenSSL tells what is wrong with a file, and not with which."""
    try:
        yield
    except (ssl.SSLError, OSError) as error:
        why = error.strerror if not isinstance(error, ssl.SSLError) else error.reason
        raise BadCertificate(f"cannot use {path}", why=why or str(error)) from error


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """A range of addresses; None for a host's name."""
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _addresses(name: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Those of a host, by its name or itself; none where nobody knows them."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return []
    return [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]


def split_host(text: str, default_port: int) -> tuple[str, int]:
    """host[:port] or [v6][:port] as host and port. A port that is none gives the default."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    return host, int(port) if port.isascii() and port.isdigit() and 0 < int(port) < 65536 else default_port


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _docker_daemon(path: Path) -> dict[str, Any]:
    """Another program's file: what cannot be read says nothing."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _ours(path: Path) -> dict[str, Any]:
    try:
        registries = tomllib.loads(path.read_text()).get("registries", {})
        insecure, mirrors = registries.get("insecure", []), registries.get("mirrors", {})
        if not (_are_texts(insecure) and isinstance(mirrors, dict) and all(map(_are_texts, mirrors.values()))):
            raise ValueError("insecure is a list of texts, mirrors a table of such lists")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"cannot read {os.fspath(path)}", why=str(error)) from error
    return dict(registries)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
