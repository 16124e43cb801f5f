"""SLSA provenance: how an image came about, as far as it is known here, in the form that BuildKit gives it. Pure.

Extensions have BuildKit's names (its docs/attestations/slsa-definitions.md). With mode=max the steps, the Dockerfile
and the build arguments are told, too; an argument whose name is a secret's has no value there, a URL no credentials.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from nbcontain import __version__
from nbcontain.build.graph import Base, BuildGraph, ExecOp, SecretMount, SshMount, Vertex
from nbcontain.build.http import redacted
from nbcontain.dockerfile.checks import is_secret_name
from nbcontain.errors import UsageError
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Descriptor, Platform
from nbcontain.oci.reference import Reference
from nbcontain.truth import truth
from nbcontain.values import dataclass, field

BUILD_TYPE = "urn:nbcontain:build:dockerfile:v1"
"""docs/building.md says what it means."""
PREDICATES = {"v1": "https://slsa.dev/provenance/v1", "v0.2": "https://slsa.dev/provenance/v0.2"}
_HINT = "--provenance=true, =false, or =mode=min|max[,version=v1|v0.2][,builder-id=URI][,reproducible=true]"


@dataclass(frozen=True, slots=True)
class ProvenanceOptions:
    """What --provenance and --attest type=provenance ask for."""

    mode: str = "min"
    version: str = "v1"
    builder_id: str = ""
    is_reproducible: bool = False

    @property
    def predicate_type(self) -> str:
        return PREDICATES[self.version]


@dataclass(frozen=True, slots=True)
class Material:
    """Something from outside that went into a build."""

    uri: str
    algorithm: str
    hex: str


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of a build when it is over."""

    graph: BuildGraph
    dockerfile: str
    path: str
    """Where the Dockerfile is called, in its context."""
    arguments: Mapping[str, str]
    labels: Mapping[str, str]
    target: str
    platform: Platform
    materials: Sequence[Material]
    locals: Sequence[str]
    """Contexts of this machine, by name."""
    started: str
    finished: str
    """RFC 3339."""
    invocation: str
    origin: Material | None = None
    """Where the context was fetched."""
    named: Mapping[str, str] = field(default_factory=dict)
    """What the names stand for that contexts of elsewhere have."""
    layers: Mapping[Vertex, Sequence[Descriptor]] = field(default_factory=dict)
    """Of each file system."""


def provenance_of(provenance: str, attests: Sequence[str]) -> ProvenanceOptions | None:
    """What the values of --provenance and --attest ask for; None for nothing. Raises UsageError."""
    asked: ProvenanceOptions | None = None
    for word in attests:
        fields = dict(part.partition("=")[::2] for part in word.split(","))
        kind = fields.pop("type", "")
        if kind == "sbom":
            if truth(fields.get("disabled", "false")) is not True:
                refuse_sbom(f"--attest {word}")
            continue
        if kind != "provenance":
            raise UsageError(f"--attest {word}: there is no such attestation", hint="--attest type=provenance,mode=max")
        asked = _read(fields, f"--attest {word}")
    if not provenance:
        return asked
    if (wanted := truth(provenance)) is not None:
        return (asked or ProvenanceOptions()) if wanted else None
    return _read(dict(part.partition("=")[::2] for part in provenance.split(",")), f"--provenance={provenance}")


def refuse_sbom(what: str) -> None:
    """Raises UsageError."""
    raise UsageError(
        f"{what}: there are no bills of materials here",
        why="it takes a scanner that knows every package format, and docker runs one as an image of its own",
        hint="nbcontain save IMAGE -o image.tar; then a scanner of your choice on image.tar",
    )


def _read(fields: dict[str, str], what: str) -> ProvenanceOptions | None:
    mode, version = fields.pop("mode", "min"), fields.pop("version", "v1")
    builder = fields.pop("builder-id", "")
    reproducible, disabled, inline = (
        truth(fields.pop(name, "false")) for name in ("reproducible", "disabled", "inline-only")
    )
    if fields or mode not in ("min", "max") or version not in PREDICATES or None in (reproducible, disabled, inline):
        raise UsageError(f"{what}: {next(iter(fields), 'this')} makes no sense", hint=_HINT)
    return None if disabled else ProvenanceOptions(mode, version, builder, reproducible is True)


# --- the predicate ----------------------------------------------------------------------------


def image_material(name: str, reference: Reference | None, digest: Digest, platform: Platform) -> Material:
    """An image as a package URL."""
    if reference is None:
        return Material(f"pkg:oci/{quote(name, safe='')}?digest={digest}", digest.algorithm, digest.hex)
    version = reference.tag or str(reference.digest)
    familiar = quote(reference.familiar_repository, safe="/.-_")
    uri = f"pkg:docker/{familiar}@{quote(version, safe=':.-_')}?platform={quote(str(platform), safe='')}"
    return Material(uri, digest.algorithm, digest.hex)


def predicate(account: Account, options: ProvenanceOptions) -> dict[str, Any]:
    """The predicate of the statement, of the version that is asked for."""
    is_max = options.mode == "max"
    request = _request(account, is_max=is_max)
    materials = [{"uri": each.uri, "digest": {each.algorithm: each.hex}} for each in account.materials]
    source = {}
    if account.origin:
        source = {"uri": account.origin.uri, "digest": {account.origin.algorithm: account.origin.hex}}
    steps = {"buildConfig": {"steps": _steps(account)}} if is_max else {}
    more = _source_and_layers(account) if is_max else {}
    complete = is_max or not (account.arguments or account.labels)
    is_tracked = not account.locals
    hermetic = all(op.network == "none" for op in _programs(account.graph))
    platform = str(account.platform)
    if options.version == "v1":
        metadata: dict[str, Any] = {
            "invocationID": account.invocation,
            "startedOn": account.started,
            "finishedOn": account.finished,
            "buildkit_metadata": more,
            "buildkit_hermetic": hermetic,
            "buildkit_completeness": {"request": complete, "resolvedDependencies": is_tracked},
            "buildkit_reproducible": options.is_reproducible,
        }
        return {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"configSource": {**source, "path": account.path}, "request": request},
                "internalParameters": {"builderPlatform": platform, **steps},
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {"id": options.builder_id, "version": {"nbcontain": __version__}},
                "metadata": metadata,
            },
        }
    extension = "https://mobyproject.org/buildkit@v1"
    return {
        "builder": {"id": options.builder_id},
        "buildType": BUILD_TYPE,
        "materials": materials,
        "invocation": {
            "configSource": {**source, "entryPoint": account.path},
            "parameters": request,
            "environment": {"platform": platform},
        },
        **steps,
        "metadata": {
            "buildInvocationID": account.invocation,
            "buildStartedOn": account.started,
            "buildFinishedOn": account.finished,
            "completeness": {"parameters": complete, "environment": True, "materials": is_tracked},
            "reproducible": options.is_reproducible,
            f"{extension}#metadata": more,
            f"{extension}#hermetic": hermetic,
        },
    }


def _programs(graph: BuildGraph) -> list[ExecOp]:
    return [each.operation for each in graph.vertices() if isinstance(each.operation, ExecOp)]


def _request(account: Account, *, is_max: bool) -> dict[str, Any]:
    args: dict[str, str] = {}
    if account.path and account.path != "Dockerfile":
        args["filename"] = account.path
    if account.target:
        args["target"] = account.target
    args |= {f"context:{name}": redacted(what) for name, what in account.named.items()}
    if is_max:
        for kind, values in (("build-arg", account.arguments), ("label", account.labels)):
            args |= {
                f"{kind}:{name}": "" if is_secret_name(name) else redacted(value) for name, value in values.items()
            }
    request: dict[str, Any] = {
        "frontend": "dockerfile.v0",
        "args": args,
        "locals": [{"name": name} for name in account.locals],
    }
    if is_max:
        mounts = [mount for each in _programs(account.graph) for mount in each.mounts]
        for key, mounted in (("secrets", SecretMount), ("ssh", SshMount)):
            wanted: dict[str, bool] = {}
            for mount in mounts:
                if isinstance(mount, SecretMount | SshMount) and isinstance(mount, mounted) and mount.id:
                    wanted[mount.id] = wanted.get(mount.id, False) or mount.is_required
            request[key] = [{"id": name} if need else {"id": name, "optional": True} for name, need in wanted.items()]
    return request


def _steps(account: Account) -> list[dict[str, Any]]:
    """Each with the steps whose file systems it begins with and reads."""
    ids = {vertex: f"step{number}" for number, vertex in enumerate(account.graph.vertices())}
    names = {step.vertex: step.name for step in reversed(account.graph.steps) if step.vertex is not None}
    found = []
    for vertex, step_id in ids.items():
        kind = type(vertex.operation).__name__
        if isinstance(vertex.operation, Base) and vertex.operation.image is None:
            kind = "Scratch"
        entry: dict[str, Any] = {"id": step_id, "kind": kind, "name": redacted(names.get(vertex, vertex.label))}
        if vertex.span:
            entry["lines"] = [vertex.span.first, vertex.span.last]
        found.append(entry | ({"inputs": [ids[each] for each in vertex.inputs]} if vertex.inputs else {}))
    return found


def _source_and_layers(account: Account) -> dict[str, Any]:
    info = {
        "filename": account.path or "Dockerfile",
        "language": "Dockerfile",
        "data": base64.b64encode(account.dockerfile.encode("utf-8", "surrogateescape")).decode(),
    }
    layers = {
        f"step{number}:0": [
            [
                {"mediaType": each.media_type, "digest": str(each.digest), "size": each.size}
                for each in account.layers[vertex]
            ]
        ]
        for number, vertex in enumerate(account.graph.vertices())
        if account.layers.get(vertex)
    }
    return {"source": {"infos": [info]}, "layers": layers}
