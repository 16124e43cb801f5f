"""Every reader of foreign bytes: what it is fed, and what it may raise. Used by the properties and by tests/fuzz."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass

from archives import archive, member
from nbcontain.build import cache_document
from nbcontain.build.sources import is_archive
from nbcontain.build.submodules import submodules_of
from nbcontain.display.harmless import visible
from nbcontain.display.template import Template
from nbcontain.errors import (
    BadAddress,
    BadArchive,
    BadDigest,
    BadDocument,
    BadReference,
    BuildError,
    StoreError,
    UsageError,
)
from nbcontain.events import Output, Record, decode, encode
from nbcontain.linux import foreign, limits
from nbcontain.linux.seccomp import program
from nbcontain.oci import codec, indexes, seccomp, spec_codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import LAYER_TAR, Descriptor, Image, ImageConfig, Layer
from nbcontain.oci.reference import Reference
from nbcontain.oci.strict_json import Fields, load
from nbcontain.registry import refusals, registries_conf
from nbcontain.registry.addresses import joined, parsed
from nbcontain.registry.challenges import next_link, parse_challenges, retry_after_s
from nbcontain.store import cache, compression, contents, file_trees, owners, tar


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


def _cache_document(data: bytes) -> None:
    records = cache_document.parse(data)
    again = cache_document.parse(cache_document.document_of(records)[0])
    assert again == {key: record for key, record in records.items() if record.layers}


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


def _registries_conf(data: bytes) -> None:
    found = registries_conf.parse(data)
    for name in ("a.example/x:1", "x", "r.b.example/team/app"):
        for meant in found.meant(name):
            try:
                reference = Reference.parse(meant)
            except BadReference:
                continue
            found.places(reference)


def _manifest_list(data: bytes) -> None:
    found = indexes.index_from(data)
    assert found.raw == data
    indexes.index_of(found.entries, found.index.annotations, found.media_type)


def _submodules(data: bytes) -> None:
    configured, _, listed = data.decode("utf-8", "replace").partition("\1")
    for each in submodules_of(configured, listed, "https://h.example/g/a.git"):
        assert not each.path.startswith("/") and ".." not in each.path.split("/")


_layer = Layer(Descriptor(LAYER_TAR, Digest.of(b"layer"), 5), Digest.of(b"tar"))  # type: ignore[arg-type]
_image = Image.of(ImageConfig(cmd=("sh",), env=("A=b",)), [_layer])
_key = Digest.of(b"key")
GOOD_TAR = archive(member("a/file", data=b"hello"), member("b", data=b"x" * 700))
_PROCESS = {"process": {"args": ["sh"], "cwd": "/", "user": {"uid": 1}, "env": ["A=b"]}, "linux": {"namespaces": []}}

def _contents(data: bytes) -> None:
    """A layer's tar, laid on a tree; what comes of it must be a tree."""
    root = file_trees.all_of([contents.parse_contents(io.BytesIO(GOOD_TAR), _layer, lambda size_bytes: None)])
    before = file_trees.all_of([contents.parse_contents(io.BytesIO(GOOD_TAR), _layer, lambda size_bytes: None)])
    stream = compression.uncompressed(io.BytesIO(data))
    changes, _ = file_trees.apply(root, contents.parse_contents(stream, _layer, lambda size_bytes: None))
    for path, node in root.walk():
        assert path.startswith("/")
        assert node.totals()[0] >= len(node.children)
    file_trees.compare(before, root, times=True)
    assert all(visible(change.path).isprintable() for change in changes)


def _template(data: bytes) -> str:
    return Template.parse(data.decode("utf-8", "replace")).render(_VALUE)


_VALUE = {"ID": "abc", "L": ["a", 1, 2.5, None, True, {"K": ["x"]}], "M": {"a": "b"}, "E": {}, "N": 7, "T": "äö\n"}

_GITLINK = f"160000 commit {'0' * 40}\tlib/x\0"

def _seccomp(data: bytes) -> None:
    profile = seccomp.from_docker(load(data, "profile").values, ("CAP_SYS_ADMIN",), "x86_64", (6, 1))
    assert seccomp.from_json(seccomp.to_json(profile)) == profile
    assert len(program(profile, "x86_64")) % 8 == 0


def _resources(data: bytes) -> None:
    found = limits.from_json(load(data, "resources").values)
    assert limits.from_json(limits.to_json(found)) == found
    assert all(limits.settings(found, version) is not None for version in (1, 2))


PARSERS: dict[str, Parser] = {
    "seccomp profile": Parser(
        _seccomp,
        (BadDocument, UsageError),
        json.dumps(
            {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
                "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
                "syscalls": [
                    {
                        "names": ["socket", "read"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"},
                        "args": [{"index": 0, "value": 38, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}],
                    }
                ],
            }
        ).encode(),
        ("defaultAction", "syscalls", "names", "action", "args", "index", "value", "op", "includes", "excludes"),
    ),
    "resources": Parser(
        _resources,
        (BadDocument,),
        json.dumps(
            {
                "memory": {"limit": 1 << 26, "swap": -1}, "cpu": {"shares": 512, "cpus": "0-1"}, "pids": {"limit": 7},
                "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}]},
            }
        ).encode(),
        ("memory", "cpu", "pids", "blockIO", "limit", "throttleReadBpsDevice", "rate"),
    ),
    "submodules": Parser(
        _submodules, (BuildError,), f"submodule.x.path\nlib/x\0submodule.x.url\n../x\0\1{_GITLINK}".encode()
    ),
    "kind of context": Parser(is_archive, (), GOOD_TAR[:1024]),
    "tar": Parser(_tar, (BadArchive,), GOOD_TAR),
    "contents": Parser(_contents, (BadArchive,), GOOD_TAR),
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
    "auth challenge": Parser(
        _text(parse_challenges), (), b'Bearer realm="https://r.example/t",service="s",scope="repository:a:pull", Basic'
    ),
    "page link": Parser(_text(next_link), (), b'</v2/a/tags/list?n=2&last=b>; rel="next"'),
    "URL": Parser(
        _text(lambda text: parsed(joined("https://r.example/v2/", text))), (BadAddress,), b"https://h.example:5000/x?y=z"
    ),
    "retry after": Parser(_text(retry_after_s), (), b"Thu, 01 Jan 2026 00:00:05 GMT"),
    "token": Parser(
        lambda data: refusals.json_object(data, "token"), (BadDocument,), b'{"token": "x", "expires_in": 300}',
        ("token", "access_token", "expires_in"),
    ),
    "registries.conf": Parser(
        _registries_conf, (UsageError,),
        b'unqualified-search-registries = ["a.example"]\n[[registry]]\nprefix = "*.b.example"\nblocked = true\n'
        b'[[registry.mirror]]\nlocation = "c.example/d"\n[aliases]\nx = "y.example/z"\n',
    ),
    "manifest list": Parser(
        _manifest_list, (BadDocument,),
        indexes.index_of([indexes.entry_of(_image)]).raw, ("schemaVersion", "mediaType", "manifests"),
    ),
    "journal line": Parser(decode, (ValueError,), encode(Record(1.0, Output("t", "stdout", b"x"))).rstrip(b"\n")),
    "build cache": Parser(
        _cache_document,
        (BadDocument,),
        cache_document.document_of({_key: cache.CacheRecord((_layer, _layer), "2026-01-01T00:00:00Z", "RUN")})[0],
        ("layers", "records", "blob", "parent", "annotations", "digest", "layer"),
    ),
    "emulator": Parser(
        _text(lambda text: foreign.parse("x", text).takes("arm64")),
        (ValueError,),
        b"enabled\ninterpreter /q\nflags: F\noffset 0\nmagic 7f454c46\nmask ffffffff\n",
    ),
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
