"""What is known of a build when it is over, gathered for its provenance and for those who ask for it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from nbcontain.build import exports, outputs
from nbcontain.build.annotations import Annotations
from nbcontain.build.arguments import build_arguments, labels_of
from nbcontain.build.graph import BuildGraph, RemoteFile, Vertex
from nbcontain.build.http import Fetched, redacted
from nbcontain.build.inputs import Inputs
from nbcontain.build.operations import Workshop
from nbcontain.build.plan import BuildOptions
from nbcontain.build.provenance import Account, Material, ProvenanceOptions, image_material, predicate
from nbcontain.errors import UsageError
from nbcontain.oci.attestations import attested, statement
from nbcontain.oci.image import Descriptor, Image, Platform, timestamp
from nbcontain.oci.reference import Reference
from nbcontain.values import dataclass


def account_of(
    graph: BuildGraph, options: BuildOptions, given: Inputs, workshop: Workshop, started: str,
    layers: Mapping[Vertex, Sequence[Descriptor]], environ: Mapping[str, str],
) -> Account:  # fmt: skip
    """All of it. The Dockerfile's own place is no context of this machine where it came with a fetched one."""
    place = given.origin
    origin = Material(place.url, place.algorithm, place.hex) if place else None
    locals_ = [] if origin else ["dockerfile"]
    if "" in given.directories and not origin:
        locals_.insert(0, "context")
    locals_ += [name for name in given.directories if name and name not in given.origins]
    materials = [
        image_material(base.name, base.reference, base.image.digest, base.image.config.platform) for base in graph.bases
    ]
    materials += [Material(each.url, each.algorithm, each.hex) for each in given.origins.values()]
    for remote, found in workshop.remotes.items():
        if isinstance(remote, RemoteFile) and isinstance(found, Fetched):
            materials.append(Material(redacted(remote.url), found.digest.algorithm, found.digest.hex))
        elif not isinstance(remote, RemoteFile):
            ref = f"#{remote.ref}" if remote.ref else ""
            materials.append(Material(f"{redacted(remote.url)}{ref}", "sha1", str(found)))
    return Account(
        graph=graph, dockerfile=given.dockerfile, path=options.dockerfile_name,
        arguments=build_arguments(options.build_args, environ), labels=labels_of(options.labels),
        target=options.target, platform=Platform.here(), materials=tuple(dict.fromkeys(materials)),
        locals=tuple(locals_), started=started, finished=timestamp(), invocation=secrets.token_hex(12),
        origin=origin, layers=layers,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Delivery:
    """An image with what is said of it, and the account of how it came about, for --metadata-file."""

    product: exports.Product
    provenance: Mapping[str, Any]


def delivery_of(
    image: Image, names: Sequence[Reference], annotations: Annotations | None, account: Account, options: BuildOptions
) -> Delivery:
    """What is handed out; an index with statements only if provenance was asked for."""
    asked, said = options.provenance, annotations or Annotations()
    told = predicate(account, asked or ProvenanceOptions())
    about = dict(said.manifest_descriptor)
    names = tuple(names)
    if asked is None:
        return Delivery(exports.Product(image, names, entry_annotations=about), told)
    platform = image.config.platform
    subjects = [(image_material(name.familiar, name, image.digest, platform).uri, image.digest) for name in names]
    text = statement(asked.predicate_type, told, subjects or [("_", image.digest)])
    held = attested(image, [(asked.predicate_type, text)], annotations=said.index, entry_annotations=about)
    return Delivery(exports.Product(image, names, held, text, said.index_descriptor), told)


def checked(options: BuildOptions, tags: Sequence[Reference], annotations: Annotations) -> None:
    """Whether all that is asked for can be handed out. Raises UsageError."""
    outputs.checked(options.outputs, tags)
    if annotations.needs_index and options.provenance is None:
        raise UsageError(
            "there is no index to annotate",
            why="an image for one platform is a manifest alone",
            hint="--provenance=true puts both into an index, where the image is pushed or goes to -o type=oci",
        )
