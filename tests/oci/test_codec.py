from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import needs
from nbcontain.errors import BadDocument
from nbcontain.oci import codec, spec_codec
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import (
    LAYER_TAR,
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
from nbcontain.oci.spec import Device, Hook, IdMapping, Linux, Mount, Process, Rlimit, Spec, User
from nbcontain.values import replace

ZERO = "sha256:" + "0" * 64
DESCRIPTOR = {"mediaType": "application/x", "digest": ZERO, "size": 1}
MANIFEST: dict[str, object] = {"schemaVersion": 2, "config": DESCRIPTOR, "layers": [DESCRIPTOR]}

texts = st.text(st.characters(codec="utf-8"), max_size=8)
names = st.text("abcXYZ_./:0", min_size=1, max_size=8)
digests = st.binary(max_size=4).map(Digest.of)
tuples = st.lists(texts, max_size=3).map(tuple)
unique = st.lists(names, max_size=3, unique=True).map(tuple)
counts = st.integers(0, 2**63 - 1)
labels = st.dictionaries(names, texts, max_size=3)
configs = st.builds(
    ImageConfig,
    platform=st.builds(Platform, os=names, architecture=texts, variant=texts),
    created=texts,
    author=texts,
    user=texts,
    exposed_ports=unique,
    env=tuples,
    entrypoint=st.none() | tuples,
    cmd=st.none() | tuples,
    volumes=unique,
    working_dir=texts,
    labels=labels,
    stop_signal=texts,
    shell=tuples,
    on_build=tuples,
    healthcheck=st.none() | st.builds(Healthcheck, tuples, counts, counts, counts, counts, counts),
    diff_ids=st.lists(digests.map(DiffID), max_size=3).map(tuple),
    history=st.lists(st.builds(History, texts, texts, texts, texts, st.booleans()), max_size=3).map(tuple),
)
descriptors = st.builds(Descriptor, names, digests, counts, labels)
mappings = st.lists(st.builds(IdMapping, counts, counts, counts), max_size=2).map(tuple)
hooks = st.builds(Hook, names, tuples, tuples, counts)
devices = st.builds(Device, names, names, counts, counts, st.none() | counts, counts, counts)
specs = st.builds(
    Spec,
    process=st.builds(
        Process,
        tuples,
        env=tuples,
        cwd=names,
        user=st.builds(User, counts, counts, st.lists(counts, max_size=2).map(tuple), counts),
        terminal=st.booleans(),
        console_size=st.tuples(counts, counts),
        capabilities=tuples,
        inheritable=tuples,
        ambient=tuples,
        no_new_privileges=st.booleans(),
        apparmor=st.just("") | names,
        label=st.just("") | names,
        oom_score_adj=st.none() | st.integers(-1000, 1000),
        rlimits=st.lists(st.builds(Rlimit, names, counts, st.just(2**64 - 1)), max_size=2).map(tuple),
        scheduler=st.dictionaries(names, texts, max_size=2),
        io_priority=st.none() | st.tuples(names, counts),
    ),
    hostname=texts,
    domainname=texts,
    mounts=st.lists(st.builds(Mount, names, texts, texts, tuples, mappings, mappings), max_size=2).map(tuple),
    root=names,
    hooks=st.dictionaries(names, st.lists(hooks, max_size=2).map(tuple), max_size=2),
    linux=st.builds(
        Linux,
        st.just(("mount", "network")),
        paths=st.just({}) | st.just({"network": "/proc/1/ns/net"}),
        time_offsets=st.dictionaries(names, st.tuples(st.integers(-9, 9), counts), max_size=2),
        uid_mappings=mappings,
        gid_mappings=mappings,
        masked_paths=tuples,
        readonly_paths=tuples,
        rootfs_propagation=texts,
        devices=st.lists(devices, max_size=2).map(tuple),
        cgroups_path=texts,
        mount_label=texts,
        personality=texts,
        seccomp=st.just({}) | st.dictionaries(names, texts, min_size=1, max_size=2),
    ),
    root_readonly=st.booleans(),
    annotations=labels,
)


def manifest(**changes: object) -> bytes:
    return json.dumps({key: value for key, value in (MANIFEST | changes).items() if value is not ...}).encode()


@given(configs)
def test_a_config_survives_the_round_trip(config: ImageConfig) -> None:
    assert codec.parse_config(codec.dump_config(config)) == config


@given(st.builds(Manifest, descriptors, st.lists(descriptors, max_size=2).map(tuple), annotations=labels))
def test_a_manifest_survives_the_round_trip(value: Manifest) -> None:
    assert codec.parse_manifest(codec.dump_manifest(value)) == value


@given(st.builds(Index, st.lists(descriptors, max_size=3).map(tuple)))
def test_an_index_survives_the_round_trip(index: Index) -> None:
    assert codec.parse_index(codec.dump_index(index)) == index


@given(specs)
def test_a_spec_survives_the_round_trip(spec: Spec) -> None:
    assert spec_codec.spec_from_json(json.loads(json.dumps(spec_codec.spec_to_json(spec)))) == spec
    text = spec_codec.spec_to_text(spec)
    assert spec_codec.spec_from_text(text) == spec_codec.spec_from_json(json.loads(text)) == spec
    assert spec_codec.spec_to_text(spec_codec.spec_from_text(text)) == text
    short = spec_codec.spec_from_text(spec_codec.without_profile(text))
    assert bool(short.linux.seccomp) == bool(spec.linux.seccomp)
    assert replace(short, linux=replace(short.linux, seccomp=spec.linux.seccomp)) == spec


def test_an_empty_command_is_not_the_same_as_none() -> None:
    found = codec.parse_config(codec.dump_config(ImageConfig(entrypoint=(), cmd=None)))
    assert (found.entrypoint, found.cmd) == ((), None)


def test_gos_null_reads_as_nothing() -> None:
    config = codec.parse_config(
        b'{"os":"linux","architecture":"amd64","config":{"Env":null,"Labels":null,"Cmd":null,"Volumes":null},'
        b'"rootfs":{"type":"layers","diff_ids":null},"history":null}'
    )
    assert (config.env, dict(config.labels), config.cmd, config.diff_ids) == ((), {}, None, ())


def test_dockers_manifest_reads_as_oci() -> None:
    read = codec.parse_manifest(manifest(mediaType=codec.DOCKER_MANIFEST))
    assert (read.media_type, len(read.layers)) == (codec.DOCKER_MANIFEST, 1)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(manifest(manifests=[]), id="layers and manifests (CVE-2021-41190)"),
        pytest.param(manifest(Layers=[]), id="a key in another case"),
        pytest.param(manifest()[:-1] + b',"layers":[]}', id="a key twice"),
        pytest.param(manifest(mediaType="application/vnd.oci.image.index.v1+json"), id="an index's media type"),
        pytest.param(manifest(schemaVersion=1), id="schema version 1"),
        pytest.param(manifest(config=...), id="no config"),
        pytest.param(manifest(layers=[DESCRIPTOR | {"size": -1}]), id="a negative size"),
        pytest.param(manifest(layers=[DESCRIPTOR | {"size": True}]), id="a size that is a bool"),
        pytest.param(manifest(layers=[DESCRIPTOR | {"size": 1 << 63}]), id="a size beyond 63 bits"),
        pytest.param(manifest(layers=[DESCRIPTOR | {"digest": "sha256:../../x"}]), id="a path as digest"),
        pytest.param(manifest(layers=[DESCRIPTOR | {"digest": "md5:0"}]), id="an unknown algorithm"),
        pytest.param(manifest(layers=[DESCRIPTOR | {"urls": ["http://x"]}]), id="a foreign layer"),
        pytest.param(manifest(config=DESCRIPTOR | {"data": "AAAA"}), id="embedded data that is something else"),
        pytest.param(manifest(layers=[DESCRIPTOR] * 501), id="more layers than can be stacked"),
        pytest.param(b"[" * 100_000, id="JSON without a bottom"),
        pytest.param(b'{"schemaVersion": 2, "x": NaN}', id="NaN"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b" " * (8 << 20) + b"{}", id="too large"),
        pytest.param(b'{"x": ' + b"9" * 10_000 + b"}", id="a number without end"),
    ],
)
def test_a_manifest_that_could_be_read_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(BadDocument):
        codec.parse_manifest(data)


keys = st.sampled_from(["config", "rootfs", "diff_ids", "history", "Env", "Labels", "Healthcheck", "os"])
documents = st.recursive(
    st.none() | st.integers() | texts, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=12
)


@given(st.binary(max_size=200) | documents.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=200)
def test_any_bytes_are_a_config_or_a_named_error(data: bytes) -> None:
    try:
        codec.parse_config(data)
    except BadDocument as error:
        assert error.message


def test_an_image_is_named_by_its_config_and_its_manifest() -> None:
    layer = Layer(Descriptor(LAYER_TAR, Digest.of(b"tar"), 3), DiffID(Digest.of(b"tar")))
    image = Image.of(ImageConfig(cmd=("sh",)), [layer])
    assert image.id == Digest.of(image.raw_config)
    assert image.digest == Digest.of(image.raw_manifest)
    assert codec.image_from(image.raw_manifest, image.raw_config) == image


def test_a_config_of_another_image_is_refused() -> None:
    image = Image.of(ImageConfig(), [])
    with pytest.raises(BadDocument, match="not the one its manifest names"):
        codec.image_from(image.raw_manifest, Image.of(ImageConfig(author="x"), []).raw_config)


def test_as_many_diff_ids_as_layers() -> None:
    image = Image.of(ImageConfig(), [])
    raw = codec.dump_config(ImageConfig(diff_ids=(DiffID(Digest.of(b"")),)))
    lying = json.loads(image.raw_manifest) | {
        "config": {"mediaType": "x", "digest": str(Digest.of(raw)), "size": len(raw)}
    }
    with pytest.raises(BadDocument, match="differ"):
        codec.image_from(json.dumps(lying).encode(), raw)


def test_crun_accepts_the_config_json(tmp_path: Path) -> None:
    crun = needs.program("crun")
    spec = Spec(
        Process(("/bin/true",), ("PATH=/bin",), user=User(0, 0, (5,)), capabilities=("CAP_CHOWN", "CAP_KILL")),
        hostname="box",
        mounts=(Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),),
        linux=Linux(("mount", "pid", "ipc", "uts"), masked_paths=("/proc/kcore",), readonly_paths=("/proc/sys",)),
        annotations={"org.example": "x"},
    )
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(spec_codec.spec_to_json(spec)))
    done = subprocess.run(
        [crun, "--root", str(tmp_path / "state"), "run", "--bundle", str(tmp_path), "h2-codec-test"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    # It read and understood all of it if only the program is missing, or if this machine forbids containers.
    said = done.stderr.replace(str(tmp_path), "").lower().replace("config.json", "")
    assert "config" not in said, done.stderr
    assert any(word in done.stderr for word in ("No such file", "not found", "Permission", "permitted", "cgroup")), (
        done.stderr
    )


def test_half_a_character_in_an_image_is_what_gos_readers_take_it_for() -> None:
    head = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":'
    said = rb'{"Labels":{"\ud800":"a\uDFFFb \ud83d\ude00"},"Env":["A=\ud800\ud83d\ude00"]}}'
    config = codec.parse_config(head + said)
    assert config.labels == {"\ufffd": "a\ufffdb \U0001f600"}
    assert config.env == ("A=\ufffd\U0001f600",)
    with pytest.raises(BadDocument, match="twice"):
        codec.parse_config(head + rb'{"Labels":{"\ud800":"1","\ud801":"2"}}}')
