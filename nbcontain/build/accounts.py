"""What is known of a build when it is over, gathered for its provenance and for those who ask for it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from nbcontain.build import exports, outputs
from nbcontain.build.annotations import Annotations
from nbcontain.build.arguments import PROXIES, build_arguments
from nbcontain.build.graph import BuildGraph, RemoteFile, Vertex, hash_of
from nbcontain.build.http import Fetched, redacted
from nbcontain.build.inputs import Inputs
from nbcontain.build.operations import Workshop
from nbcontain.build.plan import BuildOptions
from nbcontain.build.provenance import Account, Material, ProvenanceOptions, image_material, predicate
from nbcontain.errors import UsageError
from nbcontain.oci.attestations import Subject, attested, statement
from nbcontain.oci.image import Descriptor, Image, Platform, timestamp
from nbcontain.oci.indexes import ImageIndex
from nbcontain.oci.reference import Reference
from nbcontain.options import labels_of
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
            materials.append(Material(f"{redacted(remote.url)}{ref}", hash_of(str(found)), str(found)))
    named = {name: each.url for name, each in given.origins.items() if name in options.contexts}
    named |= {name: f"docker-image://{each}" for name, each in given.images.items() if isinstance(each, Reference)}
    given_arguments = build_arguments(options.build_args, environ)
    return Account(
        graph=graph, dockerfile=given.dockerfile, path=options.dockerfile_name,
        # Proxies change nothing about what is built, and their addresses may have passwords in them.
        arguments={name: value for name, value in given_arguments.items() if name not in PROXIES},
        labels=labels_of(options.labels),
        target=options.target, platform=Platform.here(), materials=tuple(dict.fromkeys(materials)),
        locals=tuple(locals_), started=started, finished=timestamp(), invocation=secrets.token_hex(12),
        origin=origin, named=named, layers=layers,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Built:
    """The image for one platform, what is to be said of it, and how it came about."""

    image: Image
    annotations: Annotations
    account: Account


@dataclass(frozen=True, slots=True)
class Delivery:
    """Images with what is said of them, and the account of how each came about, for --metadata-file."""

    product: exports.Product
    provenances: Sequence[Mapping[str, Any]]


def delivery_of(built: Sequence[Built], index: ImageIndex | None, names: Sequence[Reference],
                options: BuildOptions) -> Delivery:  # fmt: skip
    """What is handed out; statements only if provenance was asked for. Of several images `index` names them all."""
    names, asked, said = tuple(names), options.provenance, built[0].annotations
    provenances = [predicate(each.account, asked or ProvenanceOptions()) for each in built]
    if asked is None:
        # Where there is no index, the entry of index.json is the manifest's descriptor.
        about = said.index_descriptor if index is not None else said.manifest_descriptor
        variants = tuple(exports.Variant(each.image) for each in built)
        return Delivery(exports.Product(variants, names, index, None, about), provenances)
    subjects, variants = [], ()
    for each, told in zip(built, provenances, strict=True):
        image = each.image
        uris = [image_material(name.familiar, name, image.digest, image.config.platform).uri for name in names]
        text = statement(asked.predicate_type, told, [(uri, image.digest) for uri in uris or ["_"]])
        subjects.append(Subject(image, [(asked.predicate_type, text)], each.annotations.manifest_descriptor))
        variants = (*variants, exports.Variant(image, text))
    held = attested(subjects, said.index)
    return Delivery(exports.Product(variants, names, index, held, said.index_descriptor), provenances)


def checked(options: BuildOptions, tags: Sequence[Reference], annotations: Annotations) -> None:
    """Whether all that is asked for can be handed out. Raises UsageError."""
    outputs.checked(options.outputs, tags)
    if annotations.needs_index and options.provenance is None and len(options.platforms) < 2:
        raise UsageError(
            "there is no index to annotate",
            why="an image for one platform is a manifest alone",
            hint="--provenance=true puts both into an index, where the image is pushed or goes to -o type=oci",
        )
