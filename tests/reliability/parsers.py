"""Every reader of foreign bytes: what it is fed, and what it may raise. Used by the properties and by tests/fuzz."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass

from archives import archive, member
from nbcontain.build.sources import is_archive
from nbcontain.build.submodules import submodules_of
from nbcontain.display.template import Template
from nbcontain.errors import BadArchive, BadDigest, BadDocument, BadReference, BuildError, StoreError, UsageError
from nbcontain.events import Output, Record, decode, encode
from nbcontain.oci import codec, spec_codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import LAYER_TAR, Descriptor, Image, ImageConfig, Layer
from nbcontain.oci.reference import Reference
from nbcontain.oci.strict_json import Fields, load
from nbcontain.store import cache, compression, owners, tar


@dataclass(frozen=True)
class Parser:
    """One reader. `read` gives whether the bytes were taken; whatever else it raises is a bug."""

    function: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    seed: bytes
    keys: tuple[str, ...] = ()

    def read(self, data: bytes) -> bool:
        try:
            self.function(data)
        except self.errors:
            return False
        return True


def _tar(data: bytes) -> None:
    limits = tar.Limits(entries=1000, stream_bytes=1 << 20, header_bytes=1 << 16)
    reader = tar.Reader(compression.uncompressed(io.BytesIO(data)), limits)
    while reader.next() is not None:
        reader.skip()


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("utf-8", "replace"))


def _spec(data: bytes) -> object:
    values = load(data, "config.json").values
    spec = spec_codec.spec_from_json(values)
    assert spec_codec.spec_from_json(spec_codec.spec_to_json(spec)) == spec
    return spec


def _manifest(data: bytes) -> None:
    manifest = codec.parse_manifest(data)
    assert codec.parse_manifest(codec.dump_manifest(manifest)).layers == manifest.layers


def _index(data: bytes) -> None:
    index = codec.parse_index(data)
    assert codec.parse_index(codec.dump_index(index)) == index


def _submodules(data: bytes) -> None:
    configured, _, listed = data.decode("utf-8", "replace").partition("\1")
    for each in submodules_of(configured, listed, "https://h.example/g/a.git"):
        assert not each.path.startswith("/") and ".." not in each.path.split("/")


_layer = Layer(Descriptor(LAYER_TAR, Digest.of(b"layer"), 5), Digest.of(b"tar"))  # type: ignore[arg-type]
_image = Image.of(ImageConfig(cmd=("sh",), env=("A=b",)), [_layer])
_key = Digest.of(b"key")
GOOD_TAR = archive(member("a/file", data=b"hello"), member("b", data=b"x" * 700))
_PROCESS = {"process": {"args": ["sh"], "cwd": "/", "user": {"uid": 1}, "env": ["A=b"]}, "linux": {"namespaces": []}}

def _template(data: bytes) -> str:
    return Template.parse(data.decode("utf-8", "replace")).render(_VALUE)


_VALUE = {"ID": "abc", "L": ["a", 1, 2.5, None, True, {"K": ["x"]}], "M": {"a": "b"}, "E": {}, "N": 7, "T": "äö\n"}

_GITLINK = f"160000 commit {'0' * 40}\tlib/x\0"

PARSERS: dict[str, Parser] = {
    "submodules": Parser(
        _submodules, (BuildError,), f"submodule.x.path\nlib/x\0submodule.x.url\n../x\0\1{_GITLINK}".encode()
    ),
    "kind of context": Parser(is_archive, (), GOOD_TAR[:1024]),
    "tar": Parser(_tar, (BadArchive,), GOOD_TAR),
    "template": Parser(
        _template,
        (UsageError,),
        b'{{range $i, $e := .L}}{{if eq $i 1}}{{json $e | upper}}{{else}}{{printf "%5s" .}}{{end}}{{end}}',
    ),
    "manifest": Parser(
        _manifest,
        (BadDocument,),
        _image.raw_manifest,
        ("schemaVersion", "mediaType", "config", "layers", "annotations"),
    ),
    "index": Parser(
        _index, (BadDocument,), b'{"schemaVersion":2,"manifests":[]}', ("schemaVersion", "mediaType", "manifests")
    ),
    "config": Parser(
        codec.parse_config, (BadDocument,), _image.raw_config, ("architecture", "os", "config", "rootfs", "history")
    ),
    "strict JSON": Parser(lambda data: load(data, "document"), (BadDocument,), b'{"a": [1, {"b": null}]}', ("a",)),
    "runtime config": Parser(
        _spec, (BadDocument,), json.dumps(_PROCESS).encode(), ("process", "root", "mounts", "linux", "hostname")
    ),
    "mounts": Parser(
        lambda data: spec_codec.mounts_from_json(Fields({"m": json.loads(data)}, "rootfs.json").values["m"]),
        (BadDocument, ValueError, RecursionError),
        b'[{"destination": "/", "type": "bind", "source": "/x", "options": ["ro"]}]',
        ("destination", "type", "source", "options"),
    ),
    "reference": Parser(_text(Reference.parse), (BadReference,), b"registry.example:5000/team/app:1"),
    "digest": Parser(_text(Digest.parse), (BadDigest,), str(_key).encode()),
    "journal line": Parser(decode, (ValueError,), encode(Record(1.0, Output("t", "stdout", b"x"))).rstrip(b"\n")),
    "cache record": Parser(
        lambda data: cache.decode(data, _key),
        (BadDocument,),
        cache.encode(cache.CacheRecord((_layer,), "2026-01-01T00:00:00Z", "RUN"), _key),
        ("key", "layers", "created", "created_by"),
    ),
    "owner": Parser(owners.decode, (StoreError,), owners.encode(1000, 70000)),
    "ledger": Parser(
        owners.Ledger, (StoreError,), b'["a/link", 5, 6, 1000000000, null]\n["dev", 0, 6, null, ["b", 8, 0]]\n'
    ),
}
