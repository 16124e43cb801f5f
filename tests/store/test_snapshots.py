from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import needs
from archives import archive, member
from nbcontain.errors import InUse, StoreError
from nbcontain.oci.digest import ChainID, Digest, chain_id
from nbcontain.store import Store
from stores import add_image, add_layer, check

X = ChainID(Digest.of(b"x"))


def options(store: Store, key: str, parent: ChainID | None) -> dict[str, str]:
    [mount] = store.snapshots.prepare(key, parent).mounts
    return dict(option.partition("=")[::2] for option in mount.options)


def test_a_container_writes_to_an_overlay_on_its_images_layers(store: Store) -> None:
    image = add_image(store, "one", "two")
    found = options(store, "c1", image.chain_id)
    tops = [Path(path) / f"file{number}" for path, number in zip(found["lowerdir"].split(":"), (1, 0), strict=True)]
    assert [path.read_text() for path in tops] == ["two", "one"]
    assert (found["upperdir"], "userxattr" in found) == (str(store.layout.active("c1") / "fs"), True)
    assert Path(found["workdir"]).is_dir()


def test_as_root_the_kernels_own_ideas_are_turned_off(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", userxattr=False)
    layer = add_layer(store, archive(member("f")))
    found = options(store, "c1", ChainID(layer.diff_id))
    assert (found["redirect_dir"], found["metacopy"], "userxattr" in found) == ("off", "off", False)


def test_on_scratch_there_is_nothing_to_overlay(store: Store) -> None:
    [mount] = store.snapshots.prepare("c1", None).mounts
    assert (mount.type, mount.source, mount.options) == ("bind", str(store.layout.active("c1") / "fs"), ("bind", "rw"))


def test_a_view_of_one_layer_is_a_read_only_bind(store: Store) -> None:
    image = add_image(store, "one")
    [mount] = store.snapshots.view(image.chain_id)
    assert (mount.type, mount.options) == ("bind", ("bind", "ro"))


def test_a_view_of_several_layers_cannot_be_written(store: Store) -> None:
    [mount] = store.snapshots.view(add_image(store, "one", "two").chain_id)
    assert not any(option.startswith("upperdir") for option in mount.options)


def test_a_stack_of_128_layers_is_described_whole(store: Store) -> None:
    image = add_image(store, *map(str, range(128)))
    found = options(store, "c1", image.chain_id)
    assert len(found["lowerdir"].split(":")) == 128
    assert (Path(found["lowerdir"].split(":")[-1]) / "file0").read_text() == "0"


def test_a_layer_whose_root_is_opaque_ends_the_stack(store: Store) -> None:
    below = add_layer(store, archive(member("hidden")))
    layer = add_layer(store, archive(member(".wh..wh..opq")), ChainID(below.diff_id))
    assert len(store.snapshots.chain(chain_id(ChainID(below.diff_id), layer.diff_id))) == 1


def test_what_is_committed_can_be_built_upon(store: Store) -> None:
    active = store.snapshots.prepare("step", None)
    (store.snapshots.upper(active) / "f").write_text("x")
    store.snapshots.commit(active, X)
    assert (store.snapshots.chain(X)[0] / "f").read_text() == "x"
    assert list(store.snapshots.actives()) == []


def test_of_two_twins_one_is_kept_and_the_other_thrown_away(store: Store) -> None:
    one, two = store.snapshots.prepare("one", None), store.snapshots.prepare("two", None)
    store.snapshots.commit(one, X)
    store.snapshots.commit(two, X)
    assert (store.snapshots.exists(X), list(store.snapshots.actives())) == (True, [])
    assert os.listdir(store.layout.tmp) == []


def test_an_active_snapshot_is_found_again(store: Store) -> None:
    image = add_image(store, "x")
    made = store.snapshots.prepare("c1", image.chain_id)
    assert Store.open(store.layout.root, userxattr=True).snapshots.active("c1") == made


def test_a_key_is_taken_until_it_is_discarded(store: Store) -> None:
    active = store.snapshots.prepare("c1", None)
    with pytest.raises(InUse):
        store.snapshots.prepare("c1", None)
    store.snapshots.discard(active)
    store.snapshots.discard("c1")
    store.snapshots.prepare("c1", None)


@pytest.mark.parametrize("key", ["", "..", ".hidden", "a/b", "a\n", "x" * 129])
def test_a_key_never_becomes_a_path(store: Store, key: str) -> None:
    with pytest.raises(StoreError, match="no name for a snapshot"):
        store.snapshots.prepare(key, None)


def test_a_snapshot_on_nothing_is_refused_and_leaves_nothing(store: Store) -> None:
    with pytest.raises(StoreError, match="there is no snapshot"):
        store.snapshots.prepare("c1", X)
    assert os.listdir(store.layout.actives) == []


@pytest.mark.parametrize("text", [b"", b"sha256:00\n", b"scratch", b"\xff", b"x" * 500])
def test_a_damaged_parent_is_told(store: Store, text: bytes) -> None:
    store.snapshots.prepare("c1", None)
    (store.layout.active("c1") / "parent").write_bytes(text)
    with pytest.raises(StoreError):
        store.snapshots.active("c1")


def test_a_failed_unpacking_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.snapshots.staging() as staging:
        (staging.fs / "f").touch()
        raise ZeroDivisionError
    assert os.listdir(store.layout.tmp) == []
    check(store)


def test_what_this_process_may_not_remove_is_given_to_who_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def forbidden(path: Path) -> None:
        raise PermissionError

    store = Store.open(tmp_path / "store", asked.append)
    active = store.snapshots.prepare("c1", None)
    monkeypatch.setattr("nbcontain.store.removal.remove_tree", forbidden)
    store.snapshots.discard(active)
    assert [path.parent for path in asked] == [store.layout.tmp]


def test_the_kernel_sees_what_the_layers_say(store: Store, tmp_path: Path) -> None:
    below = add_layer(store, archive(member("gone"), member("dir/hidden"), member("kept", data=b"1"), member("etc/x")))
    layer = add_layer(
        store,
        archive(member(".wh.gone"), member("dir/.wh..wh..opq"), member("dir/new"), member("etc/y")),
        ChainID(below.diff_id),
    )
    [mount] = store.snapshots.view(chain_id(ChainID(below.diff_id), layer.diff_id))
    script = 'mount -t overlay overlay -o "$1" "$2" && cd "$2" && find . | sort'
    done = subprocess.run(
        [needs.program("unshare", "util-linux"), "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh",
         ",".join(mount.options), str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        needs.missing(f"overlays in a user namespace: {done.stderr.strip()}")
    assert done.stdout.split() == [".", "./dir", "./dir/new", "./etc", "./etc/x", "./etc/y", "./kept"]
