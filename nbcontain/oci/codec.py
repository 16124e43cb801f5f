"""Frozen values ⇄ the JSON of the image specification.

Reading is strict, since the bytes are foreign: whatever a second reader could understand otherwise
(duplicate keys, keys in another case, a manifest that is an index too) is refused as BadDocument.
Unknown keys are left alone, as the specifications ask. Go writes `null` for nothing; so it reads.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping, Sequence

from nbcontain.errors import BadDocument
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import (
    CONFIG,
    INDEX,
    LAYER_TAR,
    LAYER_TAR_GZIP,
    MANIFEST,
    Descriptor,
    Healthcheck,
    History,
    Image,
    ImageConfig,
    Index,
    Layer,
    Manifest,
    Platform,
)
from nbcontain.oci.strict_json import Fields, digest_of, load
from nbcontain.values import replace

LAYER_LIMIT = 500
"""What overlayfs can stack."""

INLINE_CACHE = "moby.buildkit.cache.v0"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_LAYERS = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": LAYER_TAR_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar": LAYER_TAR,
}
"""What docker's documents call a layer, and OCI's word for it."""
MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({INDEX, DOCKER_INDEX})
_KNOWN = frozenset({"schemaVersion", "mediaType", "config", "layers", "manifests", "annotations", "digest", "size"})
_KNOWN_LOWER = frozenset(key.lower() for key in _KNOWN)


# --- images ---------------------------------------------------------------------------------------


def image_of(config: ImageConfig, layers: Sequence[Layer]) -> Image:
    """The image of these layers, lowest first; `config.diff_ids` is set from them."""
    config = replace(config, diff_ids=tuple(layer.diff_id for layer in layers))
    raw_config = dump_config(config)
    manifest = Manifest(
        Descriptor(CONFIG, Digest.of(raw_config), len(raw_config)), tuple(layer.descriptor for layer in layers)
    )
    return Image(manifest, config, dump_manifest(manifest), raw_config)


def image_from(raw_manifest: bytes, raw_config: bytes) -> Image:
    """The image of these bytes, which must belong together: digest, size and number of layers."""
    manifest = parse_manifest(raw_manifest)
    if manifest.config.size != len(raw_config) or not manifest.config.digest.is_of(raw_config):
        raise BadDocument("the image's config is not the one its manifest names")
    config = parse_config(raw_config)
    if len(config.diff_ids) != len(manifest.layers):
        raise BadDocument(
            "the image's manifest and config differ",
            why=f"{len(manifest.layers)} layers, but {len(config.diff_ids)} diff IDs",
        )
    return Image(manifest, config, raw_manifest, raw_config)


def parse_manifest(data: bytes) -> Manifest:
    """An image manifest (image-spec manifest.md), or docker's schema 2 twin of it."""
    fields = _document(data, "manifest", MANIFESTS)
    if "manifests" in fields.values:
        raise BadDocument("the manifest has both layers and manifests" if "layers" in fields.values else "an index")
    layers = tuple(_descriptor(layer) for layer in fields.objects("layers", required=True))
    if len(layers) > LAYER_LIMIT:
        raise BadDocument(f"the manifest has {len(layers)} layers", why=f"no more than {LAYER_LIMIT} can be stacked")
    return Manifest(
        config=_descriptor(fields.object("config", required=True)),
        layers=layers,
        media_type=fields.text("mediaType") or MANIFEST,
        annotations=fields.texts_by_name("annotations"),
    )


def dump_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest made here."""
    return _dump(
        {
            "schemaVersion": 2,
            "mediaType": manifest.media_type,
            "config": _descriptor_json(manifest.config),
            "layers": [_descriptor_json(layer) for layer in manifest.layers],
            "annotations": dict(manifest.annotations) or None,
        }
    )


def parse_index(data: bytes) -> Index:
    """An image index (image-spec image-index.md), or docker's manifest list."""
    fields = _document(data, "index", INDEXES)
    if "layers" in fields.values or "config" in fields.values:
        raise BadDocument("the index has both layers and manifests")
    return Index(
        tuple(_descriptor(entry) for entry in fields.objects("manifests", required=True)),
        annotations=fields.texts_by_name("annotations"),
        media_type=fields.text("mediaType") or INDEX,
    )


def dump_index(index: Index) -> bytes:
    """The bytes of an index made here."""
    manifests = [_descriptor_json(entry) for entry in index.manifests]
    document: dict[str, object] = {"schemaVersion": 2, "mediaType": index.media_type, "manifests": manifests}
    return _dump({**document, "annotations": dict(index.annotations) or None})


def _document(data: bytes, name: str, media_types: frozenset[str]) -> Fields:
    """A manifest or index: schema version 2 and, if it says so, of the right media type."""
    fields = load(data, name, is_image=True)
    for key in fields.values:
        # Go reads keys in any case: "Layers" would be a second `layers` to others, and none to us.
        if key not in _KNOWN and key.lower() in _KNOWN_LOWER:
            raise BadDocument(f"the {name} spells {key!r} in another case")
    if fields.count("schemaVersion", required=True) != 2:
        raise BadDocument(f"the {name} has another schemaVersion than 2")
    media_type = fields.text("mediaType")
    if media_type and media_type not in media_types:
        raise BadDocument(f"the {name} says it is a {media_type!r}")
    return fields


def _descriptor(fields: Fields) -> Descriptor:
    """descriptor.md; embedded `data` must be what the digest says, `urls` (foreign layers) are refused."""
    if fields.texts("urls"):
        raise BadDocument(f"{fields.place} is kept elsewhere", why="its descriptor has urls: a foreign layer")
    digest, size = fields.digest("digest"), fields.count("size", required=True)
    if data := fields.text("data"):
        try:
            embedded = binascii.a2b_base64(data.encode(), strict_mode=True)
        except ValueError as error:
            raise BadDocument(f"{fields.place}.data is not base64") from error
        if len(embedded) != size or Digest.of(embedded) != digest:
            raise BadDocument(f"{fields.place}.data is not what its digest says")
    said = fields.object("platform")
    platform = Platform(said.text("os"), said.text("architecture"), said.text("variant")) if said.values else None
    return Descriptor(
        fields.text("mediaType", required=True), digest, size, fields.texts_by_name("annotations"), platform
    )


def _descriptor_json(descriptor: Descriptor) -> dict[str, object]:
    return {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        "annotations": dict(descriptor.annotations) or None,
        "platform": _platform_json(descriptor.platform) if descriptor.platform else None,
    }


def dump_document(document: Mapping[str, object]) -> bytes:
    """The bytes of one of these documents as JSON."""
    return _dump(document)


def _platform_json(platform: Platform) -> dict[str, object]:
    return {"architecture": platform.architecture, "os": platform.os, "variant": platform.variant or None}


def _dump(document: Mapping[str, object]) -> bytes:
    """Compact UTF-8; members that are None are left out, also in nested descriptors."""

    def cleaned(value: object) -> object:
        if isinstance(value, dict):
            return {key: cleaned(member) for key, member in value.items() if member is not None}
        return [cleaned(member) for member in value] if isinstance(value, list) else value

    return json.dumps(cleaned(document), separators=(",", ":")).encode()


# --- configs --------------------------------------------------------------------------------------


def parse_config(data: bytes) -> ImageConfig:
    """An image config (image-spec config.md)."""
    top = load(data, "config", is_image=True)
    rootfs, config = top.object("rootfs", required=True), top.object("config")
    if rootfs.text("type") not in ("", "layers"):
        raise BadDocument(f"rootfs.type {rootfs.text('type')!r} is unknown")
    diff_ids = rootfs.texts("diff_ids") or ()
    if len(diff_ids) > LAYER_LIMIT:
        raise BadDocument(f"the config has {len(diff_ids)} layers", why=f"no more than {LAYER_LIMIT} can be stacked")
    return ImageConfig(
        platform=Platform(top.text("os") or "linux", top.text("architecture"), top.text("variant")),
        created=top.text("created"),
        author=top.text("author"),
        user=config.text("User"),
        exposed_ports=tuple(config.values_of("ExposedPorts")),
        env=config.texts("Env") or (),
        entrypoint=config.texts("Entrypoint"),
        cmd=config.texts("Cmd"),
        volumes=tuple(config.values_of("Volumes")),
        working_dir=config.text("WorkingDir"),
        labels=config.texts_by_name("Labels"),
        stop_signal=config.text("StopSignal"),
        shell=config.texts("Shell") or (),
        on_build=config.texts("OnBuild") or (),
        healthcheck=_healthcheck(config.object("Healthcheck")) if config.values.get("Healthcheck") else None,
        diff_ids=tuple(DiffID(digest_of(text, "rootfs.diff_ids")) for text in diff_ids),
        history=tuple(_history(entry) for entry in top.objects("history")),
        inline_cache=top.text(INLINE_CACHE),
    )


def dump_config(config: ImageConfig) -> bytes:
    """The bytes of a config made here."""
    return _dump(config_to_json(config))


def config_to_json(config: ImageConfig) -> dict[str, object]:
    """A config as the specification writes it; what is empty is left out, but an empty Cmd or Entrypoint stays."""
    inner: dict[str, object] = {
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Env": list(config.env),
        "WorkingDir": config.working_dir,
        "Volumes": {volume: {} for volume in config.volumes},
        "Labels": dict(sorted(config.labels.items())),
        "StopSignal": config.stop_signal,
        "Shell": list(config.shell),
        "OnBuild": list(config.on_build),
        "Healthcheck": _healthcheck_json(config.healthcheck) if config.healthcheck else None,
    }
    inner = {key: value for key, value in inner.items() if value}
    if config.entrypoint is not None:
        inner["Entrypoint"] = list(config.entrypoint)
    if config.cmd is not None:
        inner["Cmd"] = list(config.cmd)
    document: dict[str, object] = {
        "created": config.created,
        "author": config.author,
        "architecture": config.platform.architecture,
        "os": config.platform.os,
        "variant": config.platform.variant,
        "config": inner,
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in config.diff_ids]},
        "history": [_history_json(entry) for entry in config.history],
        INLINE_CACHE: config.inline_cache,
    }
    always = ("architecture", "os", "config", "rootfs")
    return {key: value for key, value in document.items() if value or key in always}


def _history(fields: Fields) -> History:
    return History(
        created=fields.text("created"),
        created_by=fields.text("created_by"),
        comment=fields.text("comment"),
        author=fields.text("author"),
        empty_layer=fields.flag("empty_layer"),
    )


def _history_json(entry: History) -> dict[str, object]:
    values = {name: getattr(entry, name) for name in ("created", "created_by", "comment", "author", "empty_layer")}
    return {name: value for name, value in values.items() if value}


_HEALTHCHECK = (
    ("Interval", "interval_ns"),
    ("Timeout", "timeout_ns"),
    ("StartPeriod", "start_period_ns"),
    ("StartInterval", "start_interval_ns"),
    ("Retries", "retries"),
)


def _healthcheck(fields: Fields) -> Healthcheck:
    return Healthcheck(fields.texts("Test") or (), **{name: fields.count(key) for key, name in _HEALTHCHECK})


def _healthcheck_json(healthcheck: Healthcheck) -> dict[str, object]:
    values: dict[str, object] = {"Test": list(healthcheck.test)}
    return values | {key: value for key, name in _HEALTHCHECK if (value := getattr(healthcheck, name))}
