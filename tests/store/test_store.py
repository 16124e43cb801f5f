"""The store as a whole: opening, the build cache, collection, and crashes at every line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import needs
from archives import archive, member
from nbcontain.errors import DiskFull, StoreError, WrongFormatVersion
from nbcontain.oci.digest import ChainID, Digest
from nbcontain.oci.reference import Reference
from nbcontain.runtime.rootfs import FUNCTIONS
from nbcontain.store import Store, files, settling, snapshots, write_back
from nbcontain.store.cache import CacheRecord
from nbcontain.store.gc import Collected, collect
from rounds import SOAK
from stores import add_image, add_layer, check

KEY = Digest.of(b"key")


def nobody() -> list[str]:
    return []


# --- opening ---


def test_another_format_is_refused_with_a_way_out(store: Store) -> None:
    store.layout.version.write_text("2\n")
    with pytest.raises(WrongFormatVersion) as caught:
        Store.open(store.layout.root)
    assert "NBCONTAIN_ROOT" in caught.value.hint


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b", "a\nb"])
def test_a_root_that_overlayfs_would_misread_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="no store can be at"):
        Store.open(tmp_path / name)


def test_a_root_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as caught:
        Store.open(tmp_path / "file" / "store")
    assert "Not a directory" in caught.value.why


def test_nobody_else_may_look_into_a_store(store: Store) -> None:
    assert {path.stat().st_mode & 0o077 for path in store.layout.root.iterdir()} == {0}


def test_what_a_container_changed_is_told_as_docker_tells_it(store: Store) -> None:
    class Here:
        """Does what a worker does, with the mount's source in front of the paths instead of a new root."""

        def call(
            self, name: str, rootfs: Any, arguments: dict[str, Any], fds: Any = (), *, source: Any = ()
        ) -> dict[str, Any]:
            [mount] = rootfs
            placed = {
                "upper": mount.source + arguments["upper"],
                "lowers": [mount.source + lower for lower in arguments["lowers"]],
            }
            return FUNCTIONS[name](arguments | placed, [])

    image = add_image(store, "one", "two")
    active = store.snapshots.prepare("c1", image.chain_id)
    (store.snapshots.upper(active) / "file0").write_text("changed")
    (store.snapshots.upper(active) / "new").touch()
    (store.snapshots.upper(active) / "stub").touch()
    assert store.changes("c1", Here(), skip=["/stub"]) == [("C", "/file0"), ("A", "/new")]


def test_a_bundle_of_something_short_is_gone_afterwards(store: Store) -> None:
    with store.bundle_directory() as path:
        path.mkdir()
        (path / "config.json").touch()
    assert os.listdir(store.layout.tmp) == []


# --- build cache ---


def test_a_record_is_found_again(store: Store) -> None:
    record = CacheRecord((add_layer(store, archive(member("f"))),), "2024-01-01T00:00:00Z", "RUN true")
    store.cache.put(KEY, record)
    assert Store.open(store.layout.root).cache.get(KEY) == record


def test_a_record_whose_blob_is_gone_is_dropped(store: Store) -> None:
    layer = add_layer(store, archive(member("f")))
    store.cache.put(KEY, CacheRecord((layer,), "", ""))
    store.blobs.remove(layer.descriptor.digest)
    assert store.cache.get(KEY) is None
    assert os.listdir(store.layout.cache) == []


@pytest.mark.parametrize("damage", [b"", b"{}", b"\0" * 100, b"[" * 5000, b'{"key":1}', b"x" * (2 << 20)])
def test_a_damaged_record_is_dropped(store: Store, damage: bytes) -> None:
    store.layout.cache_record(KEY).write_bytes(damage)
    assert store.cache.get(KEY) is None
    assert os.listdir(store.layout.cache) == []


def test_another_keys_record_is_not_believed(store: Store) -> None:
    store.cache.put(KEY, CacheRecord((), "", ""))
    other = Digest.of(b"other")
    store.layout.cache_record(KEY).rename(store.layout.cache_record(other))
    assert store.cache.get(other) is None


# --- collection ---


def test_what_an_image_needs_stays(store: Store) -> None:
    add_image(store, "one", "two")
    assert collect(store, nobody) == Collected()
    check(store)


def test_what_nothing_needs_goes(store: Store) -> None:
    add_image(store, "one", "two")
    store.images.remove(Reference.parse("hello"))
    found = collect(store, nobody)
    assert (found.blobs, found.snapshots, found.size_bytes > 0) == (4, 2, True)
    assert list(store.blobs.walk()) + list(store.snapshots.walk()) == []


def test_a_layer_that_another_image_has_too_stays(store: Store) -> None:
    kept = add_image(store, "one")
    add_image(store, "one", "two", name="other")
    store.images.remove(Reference.parse("other"))
    collect(store, nobody)
    assert [digest for digest in store.blobs.walk() if digest not in (kept.id, kept.digest)] == [
        kept.manifest.layers[0].digest
    ]
    assert store.snapshots.exists(kept.chain_id)  # type: ignore[arg-type]


def test_a_container_keeps_its_layers(store: Store) -> None:
    image = add_image(store, "one", "two")
    store.snapshots.prepare("c1", image.chain_id)
    store.images.forget(image)
    collect(store, lambda: ["c1"])
    assert len(store.snapshots.chain(image.chain_id)) == 2


def test_an_active_snapshot_of_nobody_is_a_crashs_leftover(store: Store) -> None:
    store.snapshots.prepare("c1", None)
    assert collect(store, nobody).actives == 1


def test_a_young_cache_record_keeps_its_layers_and_an_old_one_does_not(store: Store) -> None:
    layer = add_layer(store, archive(member("f")))
    store.cache.put(KEY, CacheRecord((layer,), "", ""))
    assert collect(store, nobody) == Collected()
    os.utime(store.layout.cache_record(KEY), (0, time.time() - 8 * 86400))
    assert collect(store, nobody).cache_records == 1
    assert not store.snapshots.exists(ChainID(layer.diff_id))


def test_an_image_without_name_and_container_goes(store: Store) -> None:
    add_image(store, "x", name=None)
    assert collect(store, nobody, dangling=False).images == 0
    assert collect(store, nobody).images == 1
    assert list(store.blobs.walk()) == []


def test_while_somebody_uses_the_store_collection_can_leave_it_alone(store: Store) -> None:
    add_image(store, "x", name=None)
    with store.shared():
        assert collect(store, nobody, wait=False) == Collected()
    assert collect(store, nobody, wait=False).images == 1


# --- crashes ---


class _Dying:
    """`os`, but the process ends without a word at the n-th call that changes the disk."""

    CALLS = frozenset({"open", "mkdir", "unlink", "rename", "rmdir", "write", "fsync", "chmod", "fchmod", "utime"})

    def __init__(self, at: int) -> None:
        self.left = at

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.CALLS:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                os._exit(77)
            return real(*args, **kwargs)

        return call


def _dies_at(number: int, body: Callable[[], object]) -> bool:
    """Run `body` in a child that dies at the `number`-th call; False if it came to its end before."""
    for thread in threading.enumerate():
        if thread.name in ("nbcontain sync", "nbcontain write-back"):
            # The child would have their locks, and nobody to give them back.
            thread.join()
    child = os.fork()
    if not child:
        try:
            dying = _Dying(number)
            files.os = snapshots.os = dying  # type: ignore[attr-defined,assignment]
            body()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 77), f"the child failed at call {number}"
    return code == 77


@pytest.mark.parametrize("what", ["image", "commit", "gc", "retag", "open"])
def test_a_process_that_dies_at_any_line_leaves_a_sound_store(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (settling, write_back):
        # Their threads are waited for before each fork.
        monkeypatch.setattr(each, "_TOGETHER_S", 0.01)
    def body() -> None:
        store = Store.open(root, userxattr=True)
        if what == "image":
            add_image(store, "one", "two", name="new")
        elif what == "commit":
            active = store.snapshots.prepare("step", None)
            store.snapshots.commit(active, ChainID(KEY))
            store.cache.put(KEY, CacheRecord((), "", ""))
        elif what == "gc":
            store.images.remove(Reference.parse("hello"))
            collect(store, nobody)
        elif what == "retag":
            store.images.tag(store.images.find("hello"), Reference.parse("again"))

    number = 0
    while True:
        root = tmp_path / f"store{number}"
        if what != "open":
            add_image(Store.open(root, userxattr=True), "base", "top")
        died = _dies_at(number, body)
        store = Store.open(root, userxattr=True)
        check(store)
        if what not in ("open", "gc"):
            assert store.images.find("hello").chain_id is not None
        if died:
            # The same once more gets through, and nothing of the first attempt stays.
            if what == "gc" and not store.images.list():
                collect(store, nobody)
            else:
                collect(store, nobody)
                body()
            check(store)
        collect(store, nobody)
        assert os.listdir(store.layout.tmp) == []
        assert not [name for name in os.listdir(store.layout.oci) if name.startswith(".tmp")]
        if not died:
            break
        # Of each two neighbours one; tests/reliability kills whole commands.
        number += 1 if SOAK else 2
    assert number > 3


# --- other programs ---


def test_skopeo_and_umoci_read_the_store_as_it_is(tmp_path: Path) -> None:
    skopeo = needs.program("skopeo")
    store = Store.open(tmp_path / "store")
    image = add_image(store, "one", "two")
    told = subprocess.run(
        [skopeo, "inspect", "--raw", f"oci:{store.layout.oci}:docker.io/library/hello:latest"],
        capture_output=True,
        check=True,
    ).stdout
    assert told == image.raw_manifest
    config = subprocess.run(
        [skopeo, "inspect", "--config", f"oci:{store.layout.oci}:docker.io/library/hello:latest"],
        capture_output=True,
        check=True,
    ).stdout
    assert json.loads(config)["config"]["Cmd"] == ["sh"]
    subprocess.run(
        [skopeo, "copy", "-q", f"oci:{store.layout.oci}:docker.io/library/hello:latest", f"oci:{tmp_path}/copy:hello"],
        check=True,
    )


def test_umoci_unpacks_what_we_packed(tmp_path: Path) -> None:
    umoci = needs.program("umoci")
    store = Store.open(tmp_path / "store")
    add_image(store, "one", "two", name="hello")
    # umoci takes no slash in a name.
    layout = json.loads(store.layout.index.read_text())
    layout["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = "hello"
    store.layout.index.write_text(json.dumps(layout))
    subprocess.run(
        [umoci, "unpack", "--rootless", "--image", f"{store.layout.oci}:hello", str(tmp_path / "bundle")],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "bundle/rootfs/file1").read_text() == "two"
    assert Store.open(store.layout.root).images.find("hello").config.cmd == ("sh",)


def test_a_volume_of_ones_own_files_goes_without_a_container(tmp_path: Path) -> None:
    """As where nobody can make one."""
    store = Store.open(tmp_path / "store", remove_tree=_cannot)
    store.volumes.create("one", created="2026-01-01T00:00:00Z", labels={}, options={})
    store.volumes.remove("one", list)
    assert store.volumes.all() == [] and list(store.layout.tmp.iterdir()) == []


def _cannot(path: Path) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_on_a_full_disk_images_can_be_removed(tmp_path: Path) -> None:
    """What names them is written anew for that, which takes room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        store = Store.open(disk / "store")
        add_image(store, "x" * 300_000, name="one")
        with suppress(OSError), open(disk / "fill", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(DiskFull):
            add_image(store, "y" * 300_000, name="two")
        store.images.remove(Reference.parse("one"))
        assert collect(store, list).blobs > 0
        assert [name for name, _ in store.images.list() if name] == []
        assert shutil.disk_usage(disk).free > 200_000
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # what the store has open goes later
