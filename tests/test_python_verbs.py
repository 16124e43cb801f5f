"""Verbs on images, registries, archives and the store in Python's hands: `nb.images.pull`, `image.save`, `nb.df`."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import nbcontain as nb
import needs
from images import BUSYBOX
from nbcontain import api
from nbcontain.errors import BadArchive, ImageNotFound, InUse, StoreError, Unauthorized, UsageError, VolumeNotFound
from nbcontain.oci.image import Platform
from nbcontain.oci.reference import Reference

sys.path.insert(0, str(Path(__file__).parent / "registry"))

from samples import image_of  # noqa: E402
from server import Registry  # noqa: E402


@pytest.fixture(scope="module")
def own_engine(busybox_context: Path) -> Iterator[nb.Engine]:
    """One store for all of these tests, with an image `box`, as the engine that the names use; credentials of its own.
    """
    with tempfile.TemporaryDirectory(prefix="nbcontain-test-", dir=needs.scratch()) as directory:
        environ = {**os.environ, "HOME": directory}
        with nb.Engine(f"{directory}/store", environ) as engine, pytest.MonkeyPatch.context() as patch:
            patch.setattr(api, "_own_engine", lambda: engine)
            nb.build(busybox_context, dockerfile=BUSYBOX, tag="box")
            yield engine
            for container in engine.containers():
                container.remove(force=True)


@pytest.fixture
def image(own_engine: nb.Engine) -> Iterator[nb.Image]:
    """A small image of two layers with two names, of which nothing is left afterwards."""
    text = "FROM scratch\nCOPY one /one\nCOPY two /dir/two\nLABEL team=data\nCMD [\"/one\"]"
    yield nb.build(dockerfile=text, context={"one": "1" * 100, "two": "22"}, tag=["app:1", "team/app:2"])
    for container in own_engine.containers():
        container.remove(force=True)
    for name, each in own_engine.images():
        if name is None or name.familiar != "box:latest":
            with suppress(ImageNotFound):
                own_engine.remove_image(name.familiar if name else str(each.id), force=True)


@pytest.fixture
def registry() -> Iterator[Registry]:
    found = Registry()
    yield found
    found.close()


# --- lists ---


def test_images_are_listed_by_name_pattern_and_filters(image: nb.Image) -> None:
    assert image in nb.images.list() and nb.images["box"] in nb.images.list(all=True)
    assert nb.images.list("app") == nb.images.list("team/app:2") == nb.images.list(name="team/*") == [image]
    assert nb.images.list(filters={"label": "team=data"}) == nb.images.list("app", filters=["label=team"]) == [image]
    assert nb.images.list("none") == nb.images.list("app", filters={"dangling": True}) == []
    assert all(isinstance(each, nb.Image) for each in nb.images.list())


def test_an_image_is_got_inspected_and_removed_by_name_or_as_itself(image: nb.Image) -> None:
    assert nb.images.get("app:1") == image
    assert image.attrs["Config"]["Labels"] == {"team": "data"}
    assert nb.images.remove("app:1") == ["Untagged: app:1"]
    assert nb.images.remove(image) == ["Untagged: team/app:2", f"Deleted: {image.id}"]
    with pytest.raises(ImageNotFound):
        nb.images.remove("app:1", force=True)


def test_an_image_in_use_is_removed_by_force(image: nb.Image) -> None:
    nb.images.remove("team/app:2")
    nb.create("app:1")
    with pytest.raises(InUse):
        nb.images.remove("app:1")
    assert nb.images.remove("app:1", force=True)[0] == "Untagged: app:1"


def test_a_tag_is_one_name_or_docker_pys_two_words(image: nb.Image) -> None:
    assert image.tag("other/app:3") == Reference.parse("other/app:3")
    assert image.tag("other/app", tag="4", force=True).familiar == "other/app:4"
    assert {"other/app:3", "other/app:4"} <= set(image.tags)


def test_a_history_is_newest_first_with_the_layers_that_came_of_it(image: nb.Image) -> None:
    history = image.history()
    assert [each.created_by.split()[0] for each in history] == ["CMD", "LABEL", "COPY", "COPY"]
    assert [bool(each.layer) for each in history] == [False, False, True, True]
    assert sum(each.size_bytes for each in history) == image.size_bytes
    assert history.to_dict()[0]["layer"] == ""
    pytest.importorskip("pandas")
    assert list(history.df["size"]) == [each.size_bytes for each in history]


def test_what_is_in_an_image_is_a_tree_a_difference_and_whole(image: nb.Image) -> None:
    assert image.tree().paths == ["/dir", "/dir/two", "/one"]
    assert image.tree("/dir").paths == ["/dir/two"]
    other = nb.build(dockerfile="FROM app:1\nCOPY one /one", context={"one": "other"}, tag="app:next")
    found = image.diff(other)
    assert [(each.letter, each.path) for each in found.changes] == [("C", "/one")]
    assert image.diff("app:1").changes == ()
    assert other.layers.wasted() == [("/one", 100, 1)] and 0 < other.layers.efficiency < 1
    assert [each.what for each in image.verify()][:3] == ["manifest", "config", "layer 1"]
    assert all(each.is_whole for each in image.verify())


# --- archives ---


def test_an_image_is_saved_in_pieces_and_loaded_with_its_names(image: nb.Image) -> None:
    pieces = [*image.save(chunk_size=4096)]
    assert len(pieces) > 1 and {len(each) for each in pieces[:-1]} == {4096}
    image.remove()
    [loaded] = nb.images.load(b"".join(pieces))
    assert loaded == image and sorted(loaded.tags) == ["app:1", "team/app:2"]


def test_an_image_is_saved_without_names_or_with_one_of_them(image: nb.Image) -> None:
    nameless, one = b"".join(image.save(named=False)), b"".join(image.save(named="app:1"))
    image.remove()
    assert nb.images.load(nameless)[0].tags == []
    assert nb.images.load(one)[0].tags == ["app:1"]
    with pytest.raises(UsageError, match="box is no name of this image"):
        image.save(named="box")


def test_of_a_name_for_several_platforms_the_image_alone_is_saved(image: nb.Image, registry: Registry) -> None:
    other, blobs = image_of(b"elsewhere", platform=Platform("linux", "s390x"))
    registry.add("team/other", "1", other, blobs)
    nb.manifests.create("both:1", ["app:1", f"{registry.host}/team/other:1"])
    nb.images.remove("app:1")
    nb.images.remove("team/app:2")
    held = nb.images.get("both:1")
    assert held == image and held.tags == ["both:1"]
    data = b"".join(held.save())
    nb.manifests.remove("both:1")
    assert nb.images.load(data) == [image] and nb.images.get("both:1") == image


@pytest.mark.parametrize("how", ["path", "text", "file", "bytes", "pieces", "stream", "directory"])
def test_an_archive_is_loaded_however_it_is_given(image: nb.Image, tmp_path: Path, how: str) -> None:
    path = image.save(tmp_path / "app.tar")
    assert path == tmp_path / "app.tar"
    data = path.read_bytes()

    class Stream:
        def __init__(self) -> None:
            self.read = io.BytesIO(data).read

    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "directory", filter="data")
    nb.images.remove("app:1")
    with path.open("rb") as file:
        given = {
            "path": path, "text": str(path), "file": file, "bytes": bytearray(data), "pieces": [data[:999], data[999:]],
            "stream": Stream(), "directory": tmp_path / "directory",
        }[how]  # fmt: skip
        [loaded] = nb.images.load(given)  # type: ignore[arg-type]
        assert not file.closed
    assert loaded == image and "app:1" in loaded.tags


def test_several_images_are_saved_to_one_archive(image: nb.Image, tmp_path: Path) -> None:
    path = nb.images.save(["app:1", "box"], tmp_path / "both.tar")
    assert len(nb.images.load(path)) == 2


def test_whoever_wants_no_more_of_an_archive_ends_its_writing(own_engine: nb.Engine) -> None:
    from threading import enumerate as threads

    from machine import until

    pieces = nb.images["box"].save(chunk_size=512)
    assert len(next(pieces)) == 512
    pieces.close()  # type: ignore[attr-defined]
    until(lambda: not [each for each in threads() if each.name == "nbcontain save"])


@pytest.mark.parametrize("data", [b"no archive", [b"a", b"b"]])
def test_what_is_no_archive_is_said_to_be_none(own_engine: nb.Engine, data: object) -> None:
    with pytest.raises((BadArchive, StoreError)):
        nb.images.load(data)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a int is no archive"):
        nb.images.load(7)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="cannot read"):
        nb.images.load("/nothing/here.tar")


def test_a_container_is_exported_and_imported_as_an_image(image: nb.Image, tmp_path: Path) -> None:
    container = nb.create("app:1", name="made")
    container["/new"] = "here"
    pieces = container.export(chunk_size=1000)
    flat = nb.images.import_image(pieces, "flat", tag="1", changes="ENV A=b\nCMD [\"/one\"]", message="by hand")
    assert flat.tags == ["flat:1"] and flat["/new"].text == "here" and len(flat.layers) == 1
    assert flat.attrs["Config"]["Env"] == ["A=b"] and flat.history()[0].comment == "by hand"
    path = container.export(tmp_path / "made.tar")
    assert nb.images.import_image(path)["/one"].text == "1" * 100


def test_a_container_is_committed_under_one_name_or_two_words(image: nb.Image) -> None:
    container = nb.create("app:1")
    container["/new"] = "here"
    made = container.commit(repository="kept", tag="2", changes="LABEL a=b", message="m", author="me")
    assert (made.tags, made["/new"].text, made.labels["a"]) == (["kept:2"], "here", "b")
    assert container.commit("kept:3").tags == ["kept:3"]


# --- registries ---


def test_images_are_pushed_pulled_and_their_tags_told(image: nb.Image, registry: Registry) -> None:
    name = f"{registry.host}/team/app"
    image.tag(name, "1")
    image.tag(name, "2")
    [(sent, digest)] = nb.images.push(name, tag="1")
    assert (sent.tag, digest) == ("1", image.digest)
    assert len(nb.images.push(name, all_tags=True)) == 2
    nb.images.push("app:1", to=f"{name}:3")
    assert nb.images.search_tags(name) == ["1", "2", "3"] and nb.images.search_tags(name, limit=1) == ["1"]
    nb.images.remove(image)
    pulled = nb.images.pull(name, tag="3")
    assert pulled == image and pulled.tags == [f"{name}:3"]
    assert nb.images.pull(name, str(image.digest)) == nb.images.pull(f"{name}:1") == image
    assert nb.images.pull(name, all_tags=True) == [image] * 3
    with pytest.raises(UsageError, match="all tags of a repository"):
        nb.images.push(name, tag="1", all_tags=True)


def test_who_one_is_is_told_once_and_forgotten(
    own_engine: nb.Engine, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.auth = "basic"
    with pytest.raises(Unauthorized):
        nb.login("anna", "wrong", registry=registry.host)
    assert nb.login("anna", "geheim", registry=registry.host).endswith("config.json")
    assert nb.logout(registry.host) and not nb.logout(registry.host)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "geheim" if registry.host in prompt else "")
    assert nb.login("anna", registry=registry.host)
    with pytest.raises(UsageError, match="a name and a password"):
        nb.login("anna", "", registry=registry.host)


def test_manifest_lists_are_made_looked_at_and_sent(image: nb.Image, registry: Registry) -> None:
    other, blobs = image_of(b"elsewhere")
    registry.add("team/other", "1", other, blobs)
    made = nb.manifests.create("list:1", ["app:1"], annotations={"a": "b"})
    assert [each.digest for each in made.entries] == [image.digest]
    made = nb.manifests.add("list:1", f"{registry.host}/team/other:1", arch="riscv64")
    assert [str(each) for each in made.platforms][1:] == ["linux/riscv64"]
    assert "list:1" in nb.manifests and nb.manifests["list:1"] == made and nb.manifests.list() == [made]
    assert nb.manifests.keys() == ["list:1"] and repr(nb.manifests) == "<Manifests 1: list:1>"
    assert nb.manifests.to_dict()[0]["list"] == "list"
    assert nb.manifests.inspect("list:1")["annotations"] == {"a": "b"}
    assert nb.manifests.annotate("list:1", "app:1", variant="v3").platforms[0].variant == "v3"
    [(_, digest)] = nb.manifests.push("list:1", f"{registry.host}/team/list:1")
    assert nb.manifests.inspect(f"{registry.host}/team/list:1") == json.loads(nb.manifests.get("list:1").raw)
    assert digest == nb.manifests["list:1"].digest
    assert len(nb.manifests.take_out("list:1", str(other.digest)).entries) == 1
    nb.manifests.remove("list:1")
    assert nb.manifests.list() == []
    with pytest.raises(ImageNotFound, match="no manifest list"):
        nb.manifests.remove("app:1")


# --- room, and whether all is sound ---


def test_what_takes_room_is_measured_and_given_back(image: nb.Image) -> None:
    used = nb.df()
    assert {each.kind for each in used.shares} >= {"Images", "Containers", "Local Volumes", "Build Cache"}
    assert used.size_bytes > image.size_bytes and repr(used).startswith("<Usage ")
    assert nb.system.df().shares[0].total == used.shares[0].total
    container = nb.create("app:1")
    assert nb.containers.prune(filters={"label": "none"}).containers == ()
    assert nb.containers.prune().containers == (container.id,)
    assert nb.images.prune().images == ()
    assert nb.images.prune(filters={"dangling": False, "label": "team=data"}).images == (
        "untagged: app:1", "untagged: team/app:2", f"deleted: {image.id}",
    )  # fmt: skip


def test_all_of_an_image_without_containers_is_pruned_where_that_is_asked_for(image: nb.Image) -> None:
    assert f"deleted: {image.id}" in nb.images.prune(all=True, filters=["label=team"]).images
    with pytest.raises(UsageError, match="there is no filter"):
        nb.images.prune(filters={"colour": "red"})


def test_the_store_is_pruned_and_checked(image: nb.Image) -> None:
    container = nb.create("app:1")
    gone = nb.system.prune(all=True, filters={"label": "team=data"})
    assert gone.containers == (container.id,) and f"deleted: {image.id}" in gone.images
    report = nb.system.check(full=True)
    assert report.is_clean and report.looked.bytes_read > 0
    assert nb.system.check(repair=True).left == ()


# --- volumes, networks, containers ---


def test_volumes_are_listed_and_pruned(own_engine: nb.Engine) -> None:
    kept, anonymous = nb.volumes.create("kept", labels={"a": "b"}), nb.volumes.create()
    assert nb.volumes.list() == sorted([kept, anonymous], key=lambda each: each.name)
    assert nb.volumes.list(filters={"label": "a=b"}) == nb.volumes.list(filters=["name=kep"]) == [kept]
    assert nb.volumes.prune().volumes == (anonymous.name,)
    assert nb.volumes.prune(all=True).volumes == ("kept",)
    nb.volumes.remove("kept", force=True)
    with pytest.raises(VolumeNotFound):
        nb.volumes.remove(kept)


def test_networks_are_listed_by_name_id_and_filters(own_engine: nb.Engine) -> None:
    host = nb.networks.get("host")
    assert {each.name for each in nb.networks.list()} >= {"bridge", "host", "none"}
    assert nb.networks.list(names=["hos"]) == nb.networks.list(ids=[host.id[:8]]) == [host]
    assert nb.networks.list(filters={"driver": "host"}) == [host]
    assert nb.networks.prune(filters={"label": "none"}) == []


def test_containers_are_run_and_made_by_docker_pys_names_too(own_engine: nb.Engine) -> None:
    assert nb.containers.run("box", "echo hi", remove=True).stdout == "hi\n"
    made = nb.containers.create("box", "true", name="made")
    assert nb.containers.list(all=True, filters={"name": "made"}) == [made]
    made.remove()


# --- what there is not ---


@pytest.mark.parametrize(
    ("noun", "verb", "hint"),
    [
        ("images", "lst", "did you mean .list?"), ("images", "rmi", "there is .remove(name)"),
        ("images", "history", "there is .get(name).history()"), ("images", "cat", "there is .get(name)[path].text"),
        ("containers", "ps", "there is .list()"), ("containers", "logs", "there is .get(name).logs()"),
        ("volumes", "rm", "there is .remove(name)"), ("manifests", "psh", "did you mean .push?"),
    ],
)  # fmt: skip
def test_a_verb_that_is_called_otherwise_is_said_to_be(noun: str, verb: str, hint: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(getattr(nb, noun), verb)
    assert hint in str(caught.value) and f"no attribute '{verb}'" in str(caught.value)


def test_what_is_like_nothing_is_simply_not_there() -> None:
    assert not hasattr(nb.images, "_repr_svg_") and not hasattr(nb.volumes, "xyzzy")


def test_every_hint_leads_somewhere() -> None:
    from nbcontain.listing import Listing

    for listing in (nb.images, nb.containers, nb.volumes, nb.networks, nb.manifests):
        assert isinstance(listing, Listing)
        for verb, instead in listing._elsewhere.items():
            assert not hasattr(type(listing), verb)
            first, _, rest = instead.partition("(")
            assert hasattr(type(listing), first)
            kind = {"Images": nb.Image, "Containers": nb.Container}.get(type(listing).__name__)
            if ")." in rest and kind is not None:
                assert hasattr(kind, rest.partition(").")[2].partition("(")[0])
