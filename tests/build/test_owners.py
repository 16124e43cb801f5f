"""Whose files are, and which are devices: the same layers as root, with a range of ids and with one id only."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import needs
from archives import archive, directory, listing, member
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.oci.image import Image, Layer
from nbcontain.runtime.generate import RunOptions
from nbcontain.store import tar
from nbcontain.store.owners import OWNER

Header = tuple[str, str, str, int, int]
"""Name, kind, mode, uid, gid."""


def headers(data: bytes) -> list[Header]:
    with tarfile.open(fileobj=io.BytesIO(data)) as stream:
        return [
            (each.name, each.type.decode(), f"{each.mode:o}", each.uid, each.gid)
            + ((f"{each.devmajor}:{each.devminor}",) if each.isdev() and not each.isfifo() else ())
            for each in stream
        ]  # type: ignore[misc]


def of_layer(engine: Engine, layer: Layer) -> list[Header]:
    with engine.store.blobs.open(layer.descriptor.digest) as blob:
        return headers(gzip.decompress(blob.read()))


def built(engine: Engine, dockerfile: str, context: Path, tag: str = "made") -> Image:
    engine.build(dockerfile, BuildOptions(tags=(tag,), context=context)).result()
    return engine.image(tag)


def exported(engine: Engine, name: str, destination: Path) -> bytes:
    container = engine.create(RunOptions(image=name, command=("/bin/sh",)))
    engine.archives.export(container, str(destination)).result()
    engine.remove_container(container, force=True)
    return destination.read_bytes()


@pytest.fixture
def context(tmp_path: Path, busybox: Path) -> Path:
    made = tmp_path / "context"
    (made / "tree/deep").mkdir(parents=True)
    (made / "tree/deep/file").write_text("x")
    (made / "tree/link").symlink_to("deep/file")
    (made / "plain").write_text("y")
    for path in (made / "tree", made / "tree/deep"):
        path.chmod(0o755)
    for path in (made / "tree/deep/file", made / "plain"):
        path.chmod(0o644)
    shutil.copy2(busybox, made / "busybox")
    (made / "owned.tar").write_bytes(
        archive(
            directory("d/", uid=3, gid=4),
            member("d/program", data=b"#!", mode=0o6755, uid=7, gid=8),
            member("d/link", tar.SYMLINK, mode=0o777, link=b"program", uid=9, gid=10),
            member("d/pipe", tar.FIFO, mode=0o620, uid=11, gid=12),
        )
    )
    return made


TREE = [("tree", "5", "755", 12, 34), ("tree/deep", "5", "755", 12, 34), ("tree/deep/file", "0", "644", 12, 34)]
LINK = ("tree/link", "2", "777", 12, 34)
OWNED = [
    ("d", "5", "755", 3, 4),
    ("d/link", "2", "777", 9, 10),
    ("d/pipe", "6", "620", 11, 12),
    ("d/program", "0", "6755", 7, 8),
]


def test_copy_and_add_give_files_to_whom_they_are_told(profile: str, engine: Engine, context: Path) -> None:
    image = built(
        engine,
        "FROM scratch\nCOPY --chown=12:34 tree /tree\nADD owned.tar /\nUSER 5:6\nWORKDIR /there\nCOPY plain /there/\n",
        context,
    )
    found = [of_layer(engine, layer) for layer in image.layers]
    assert found[0] == [TREE[0], LINK, *TREE[1:]]
    assert found[1] == OWNED
    assert found[2] == [("there", "5", "755", 5, 6)]
    assert found[3] == [("there", "5", "755", 5, 6), ("there/plain", "0", "644", 0, 0)]


def test_what_is_copied_from_a_stage_stays_its_owners(profile: str, engine: Engine, context: Path) -> None:
    image = built(
        engine,
        "FROM scratch AS one\nCOPY --chown=12:34 tree /tree\nADD owned.tar /\n"
        "FROM scratch\nCOPY --from=one / /\nCOPY --from=one --chown=1:2 /d /e\n",
        context,
    )
    assert of_layer(engine, image.layers[0]) == [*OWNED[:1], *OWNED[1:], TREE[0], LINK, *TREE[1:]]
    assert {each[3:5] for each in of_layer(engine, image.layers[1])} == {(1, 2)}


def test_an_image_from_elsewhere_is_exported_as_it_came(
    profile: str, engine: Engine, tmp_path: Path, busybox: Path
) -> None:
    root = archive(
        directory("bin/", uid=0, gid=0),
        member("bin/sh", data=busybox.read_bytes(), mode=0o755, uid=0, gid=0),
        member("bin/su", mode=0o4755, data=b"x", uid=0, gid=0),
        directory("srv/", mode=0o2775, uid=33, gid=50),
        member("srv/app", data=b"app", uid=1000, gid=1000),
        member("srv/current", tar.SYMLINK, mode=0o777, link=b"app", uid=1000, gid=1000),
        member("srv/sda", tar.BLOCK_DEVICE, mode=0o660, uid=0, gid=6, major=8, minor=0),
        member("srv/wall", data=b"w", mode=0o2755, uid=0, gid=5),
    )
    (tmp_path / "root.tar").write_bytes(root)
    engine.archives.import_image(str(tmp_path / "root.tar"), "came").result()
    # A container has /proc and the like besides; they are not the image's.
    assert exported(engine, "came", tmp_path / "out.tar") and headers((tmp_path / "out.tar").read_bytes()) == headers(
        root
    )
    # Nobody needs to make a device to copy it.
    image = built(engine, "FROM scratch\nCOPY --from=came /srv /srv\n", tmp_path)
    assert ("srv/sda", "4", "660", 0, 6, "8:0") in of_layer(engine, image.layers[0])


def test_who_owns_a_file_is_not_forgotten_when_a_container_changes_it(
    profile: str, engine: Engine, context: Path
) -> None:
    built(
        engine,
        'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
        "COPY --chown=12:34 tree /tree\nRUN echo more >> /tree/deep/file && chmod 700 /tree/deep "
        "&& mv /tree/link /moved && ln -s nothing /tree/link\n",
        context,
    )
    changed = of_layer(engine, engine.image("made").layers[-1])
    assert ("tree/deep", "5", "700", 12, 34) in changed
    assert ("tree/deep/file", "0", "644", 12, 34) in changed
    # A new one of root's.
    assert ("tree/link", "2", "777", 0, 0) in changed
    command = ("/bin/sh", "-c", "echo > /tree/new; chmod 700 /tree")
    engine.run(RunOptions(image="made", name="changing", command=command)).result()
    container = engine.container("changing")
    committed = engine.archives.commit(container, "committed").result()
    assert ("tree", "5", "700", 12, 34) in of_layer(engine, committed.layers[-1])


def test_umoci_reads_our_records_and_we_read_its(profile: str, engine: Engine, tmp_path: Path) -> None:
    if profile != "rootless-single":
        pytest.skip("umoci --rootless is for one id")
    umoci = needs.program("umoci")
    data = archive(
        directory("etc/", uid=1, gid=0),
        member("etc/shadow", data=b"root", mode=0o640, uid=0, gid=42),
        member("home", data=b"me", uid=1000, gid=70000),
        member("plain", uid=0, gid=0),
    )
    (tmp_path / "root.tar").write_bytes(data)
    image = engine.archives.import_image(str(tmp_path / "root.tar"), "came").result()
    engine.archives.save(["came"], str(tmp_path / "saved.tar")).result()
    (tmp_path / "oci").mkdir()
    subprocess.run(["tar", "-xf", str(tmp_path / "saved.tar"), "-C", str(tmp_path / "oci")], check=True)
    [entry] = json.loads((tmp_path / "oci/index.json").read_text())["manifests"]
    name = entry["annotations"]["org.opencontainers.image.ref.name"]
    subprocess.run(
        [umoci, "unpack", "--rootless", "--image", f"{tmp_path}/oci:{name}", str(tmp_path / "bundle")],
        check=True, capture_output=True,
    )  # fmt: skip
    engine.workshop(lambda event: None).unpack(image.layers)
    [ours] = engine.store.snapshots.chain(image.chain_id)
    theirs = tmp_path / "bundle/rootfs"
    assert listing(ours) == listing(theirs)

    def records(root: Path) -> dict[str, bytes]:
        paths = [path for path in sorted(root.rglob("*")) if OWNER.decode() in os.listxattr(path)]
        return {str(path.relative_to(root)): os.getxattr(path, OWNER) for path in paths}

    assert records(ours) == records(theirs) != {}


def test_symlinks_of_the_same_place_keep_apart(profile: str, engine: Engine, tmp_path: Path) -> None:
    first = archive(member("l", tar.SYMLINK, mode=0o777, link=b"a", uid=5, gid=5))
    second = archive(member("l", tar.SYMLINK, mode=0o777, link=b"b", uid=0, gid=0, mtime_ns=2_000_000_000))
    for name, data in (("one", first), ("two", second)):
        (tmp_path / f"{name}.tar").write_bytes(data)
    image = built(engine, "FROM scratch\nADD one.tar /\nADD two.tar /\n", tmp_path)
    assert [of_layer(engine, layer)[0][3:] for layer in image.layers] == [(5, 5), (0, 0)]
    destination = tmp_path / "all.tar"
    engine.archives.export(engine.create(RunOptions(image="made", command=("x",))), str(destination)).result()
    assert headers(destination.read_bytes()) == [("l", "2", "777", 0, 0)]
