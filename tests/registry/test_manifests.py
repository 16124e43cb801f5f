"""Manifest lists: made here of images here and elsewhere, kept with what they name, pushed whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from samples import image_of, new_engine
from server import Registry, status

from nbcontain.build.plan import BuildOptions
from nbcontain.commands.manifests import size_bytes
from nbcontain.commands.table import parse_words
from nbcontain.engine import Engine
from nbcontain.errors import ImageNotFound, InUse, NoSuchPlatform, RegistryError, UsageError
from nbcontain.manifests import Said
from nbcontain.oci.image import INDEX, Platform
from nbcontain.oci.indexes import entry_of, index_of
from nbcontain.oci.reference import Reference
from nbcontain.runtime.generate import RunOptions

ARM = Platform("linux", "arm64")


def said(engine: Engine, *words: str) -> Any:
    """What a command gives."""
    command, options = parse_words("", words)
    found = command.function(engine, options)
    return found.task.result() if hasattr(found, "task") else found


@pytest.fixture
def there(registry: Registry, sample: Any) -> str:
    """A list in a registry: an image for this machine and one for another."""
    other, blobs = image_of(b"of another machine", platform=Platform("linux", "s390x"))
    registry.add("team/app", "here", *sample)
    registry.add("team/app", "other", other, blobs)
    found = index_of([entry_of(other), entry_of(sample[0])])
    registry.manifests["team/app", "list"] = INDEX, found.raw
    return f"{registry.host}/team/app:list"


@pytest.fixture
def made(engine: Engine, registry: Registry, sample: Any) -> Iterator[str]:
    """A list here, of two images of which one has no name."""
    registry.add("team/app", "1", *sample)
    other, blobs = image_of(b"for arm", platform=ARM)
    registry.add("team/arm", "1", other, blobs)
    engine.registry.pull(f"{registry.host}/team/app:1").result()
    engine.manifests.create("list:1", [f"{registry.host}/team/app:1", f"{registry.host}/team/arm:1"]).result()
    yield "list:1"


def test_a_list_of_images_here_and_elsewhere_is_kept_with_all_that_it_names(
    engine: Engine, made: str, registry: Registry
) -> None:
    index = engine.manifests.get(made)
    assert sorted(map(str, index.platforms)) == sorted([str(Platform.here()), str(ARM)])
    engine.prune()
    assert len(engine.store.images.children(index)) == 2
    for image in engine.store.images.children(index):
        for layer in image.layers:
            assert engine.store.blobs.has(layer.descriptor)
    assert engine.soundness.look(full=True).is_clean
    named = [(str(name), image.config.platform) for name, image in engine.images()]
    assert sorted(map(str, named)) == sorted(map(str, [
        (f"{registry.host}/team/app:1", Platform.here()),
        *(("docker.io/library/list:1", each) for each in index.platforms),
    ]))  # fmt: skip


def test_what_only_a_list_held_goes_with_it(engine: Engine, made: str) -> None:
    arm = engine.store.images.children(engine.manifests.get(made))[1]
    assert engine.remove_image(made) == ["Untagged: list:1", f"Deleted: {arm.id}"]
    engine.prune()
    assert not engine.store.blobs.has(arm.layers[0].descriptor)
    assert len(engine.images()) == 1
    with pytest.raises(ImageNotFound, match="no manifest list"):
        engine.manifests.get(made)


def test_a_list_is_pushed_after_all_its_images_and_pulled_by_each_platform(
    engine: Engine, made: str, registry: Registry, root: Path, tmp_path: Path
) -> None:
    other = Registry()
    index = engine.manifests.get(made)
    said(engine, "manifest", "push", made, f"docker://{other.host}/pushed:2")
    assert other.manifests["pushed", "2"] == (INDEX, index.raw)
    with new_engine(root / "second", tmp_path) as second:
        for platform in index.platforms:
            [image] = second.registry.pull(f"{other.host}/pushed:2", platform=str(platform)).result()
            assert image.config.platform == platform
            assert image.digest in {entry.digest for entry in index.entries}
    other.fault("PUT .*/manifests/sha256", status(403), 9)
    with pytest.raises(RegistryError):
        said(engine, "manifest", "push", made, f"{other.host}/again:1")
    assert ("again", "1") not in other.manifests
    other.close()


def test_of_a_list_elsewhere_one_image_is_added_or_all(engine: Engine, there: str) -> None:
    assert engine.manifests.create("one:1", [there]).result().platforms == (Platform.here(),)
    every = engine.manifests.create("every:1", [there], every=True).result()
    assert {each.architecture for each in every.platforms} == {"s390x", Platform.here().architecture}
    assert engine.manifests.create("copy:1", ["every:1"], every=True).result().raw == every.raw


def test_an_image_in_a_list_is_for_what_one_says(engine: Engine, made: str, sample: Any) -> None:
    before = engine.manifests.get(made)
    said(engine, "manifest", "annotate", made, before.entries[1].digest.short, "--arch", "arm", "--variant", "v7",
         "--annotation", "a=b")  # fmt: skip
    entry = engine.manifests.get(made).entries[1]
    assert (str(entry.platform), dict(entry.annotations)) == ("linux/arm/v7", {"a": "b"})
    said(engine, "manifest", "remove", made, str(entry.digest))
    assert [each.digest for each in engine.manifests.get(made).entries] == [sample[0].digest]
    with pytest.raises(ImageNotFound, match="no image"):
        said(engine, "manifest", "annotate", made, "sha256:0123456789", "--arch", "arm")
    with pytest.raises(UsageError, match="NAME=value"):
        engine.manifests.annotate(made, str(sample[0].digest), Said(annotations=("nonsense",)))


def test_a_name_is_a_list_s_or_an_image_s(engine: Engine, made: str, registry: Registry) -> None:
    with pytest.raises(UsageError, match="already"):
        engine.manifests.create(made)
    with pytest.raises(UsageError, match="is an image"):
        engine.manifests.create(f"{registry.host}/team/app:1")
    engine.tag(made, "further:1")
    assert engine.manifests.get("further:1") == engine.manifests.get(made)
    engine.tag(f"{registry.host}/team/app:1", "further:1")
    with pytest.raises(ImageNotFound):
        engine.manifests.get("further:1")


def test_a_list_stands_for_the_image_of_this_machine(
    engine: Engine, made: str, registry: Registry, sample: Any
) -> None:
    assert engine.image(made).digest == sample[0].digest
    assert engine.registry.to_run(RunOptions(image=made, pull="never"), lambda event: None).digest == sample[0].digest
    engine.manifests.create("arms:1", [f"{registry.host}/team/arm:1"]).result()
    if Platform.here().architecture != "arm64":
        with pytest.raises(NoSuchPlatform, match="arms:1"):
            engine.image("arms:1")


def test_images_shows_lists_and_inspect_shows_what_is_in_them(engine: Engine, made: str, there: str) -> None:
    table = said(engine, "images")
    assert any(row[:2] == ("list", "1") for row in table.rows)
    assert f"list:1 is for {Platform.here()}, linux/arm64" in table.footer
    assert said(engine, "manifest", "ls").rows[0][4] == size_bytes(engine, engine.manifests.get(made))
    assert len(said(engine, "manifest", "inspect", made).value["manifests"]) == 2
    verbose = said(engine, "manifest", "inspect", "-v", there).value
    machines = [each["Descriptor"]["platform"]["architecture"] for each in verbose]
    assert machines == ["s390x", Platform.here().architecture]
    assert all("@sha256:" in each["Ref"] for each in verbose)


def test_a_list_can_be_amended_and_removed_by_the_words_of_docker_and_podman(
    engine: Engine, made: str, registry: Registry, there: str
) -> None:
    said(engine, "manifest", "create", "--amend", made, f"{registry.host}/team/app:other")
    assert len(engine.manifests.get(made).entries) == 3
    said(engine, "manifest", "add", made, f"{registry.host}/team/app:other", "--arch", "ppc64le")
    assert str(engine.manifests.get(made).entries[2].platform) == "linux/ppc64le"
    assert said(engine, "manifest", "exists", made).exit_status == 0
    said(engine, "manifest", "rm", made)
    assert said(engine, "manifest", "exists", made).exit_status == 1


def test_an_image_is_pushed_to_another_name_and_asked_for_by_podmans_word(
    engine: Engine, registry: Registry, sample: Any
) -> None:
    registry.add("team/app", "1", *sample)
    said(engine, "pull", f"{registry.host}/team/app:1")
    [sent] = said(engine, "push", f"{registry.host}/team/app:1", f"{registry.host}/mine/other:2").lines
    assert sent == f"{registry.host}/mine/other:2@{sample[0].digest}"
    assert engine.registry.tags(f"{registry.host}/mine/other") == ["2"]
    with pytest.raises(UsageError):
        said(engine, "push", "-a", f"{registry.host}/team/app", f"{registry.host}/mine/other")
    assert said(engine, "image", "exists", f"{registry.host}/team/app:1").exit_status == 0
    no = said(engine, "image", "exists", f"{registry.host}/mine/other:2")
    assert (no.exit_status, "no image" in no.value.lines[0]) == (1, True)


@pytest.mark.skipif(Platform.here().architecture == "arm64", reason="needs a list without this machine")
def test_a_list_without_an_image_for_this_machine_exists_all_the_same(
    engine: Engine, made: str, registry: Registry
) -> None:
    engine.manifests.create("arms:1", [f"{registry.host}/team/arm:1"]).result()
    assert said(engine, "image", "exists", "arms:1").exit_status == 0
    assert said(engine, "manifest", "exists", "arms:1").exit_status == 0


def test_a_container_s_image_stays_known_when_its_list_goes(engine: Engine, registry: Registry, there: str) -> None:
    engine.manifests.create("list:2", [there]).result()
    digest = engine.image("list:2").digest
    engine.create(RunOptions(image="list:2", name="stands"))
    with pytest.raises(InUse, match="list:2"):
        engine.remove_image("list:2")
    engine.remove_image("list:2", force=True)
    engine.prune()
    assert digest in {image.digest for _, image in engine.images()}


def test_the_store_s_index_names_the_list_for_others(engine: Engine, made: str) -> None:
    document = json.loads(engine.layout.index.read_bytes())
    [entry] = [each for each in document["manifests"] if each["mediaType"] == INDEX]
    assert entry["digest"] == str(engine.manifests.get(made).digest)
    assert engine.store.images.index(Reference.parse(made)) is not None


@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
def test_a_damage_in_a_list_is_found_and_the_rest_of_it_kept(
    engine: Engine, made: str, registry: Registry, what: str
) -> None:
    arm = engine.store.images.children(engine.manifests.get(made))[1]
    lost = {"manifest": arm.digest, "config": arm.id, "layer": arm.layers[0].descriptor.digest}[what]
    engine.tag(made, f"{registry.host}/x:1")
    engine.store.blobs.path(lost).unlink()
    with Engine(engine.layout.root) as other:
        found = {(each.kind, each.subject) for each in other.soundness.look().findings}
        assert ("image-incomplete", str(Reference.parse(made))) in found
        if what != "layer":
            with pytest.raises(ImageNotFound, match="is not whole"):
                other.registry.push(f"{registry.host}/x:1").result()
        assert other.soundness.look(fix=True).left == ()
        assert other.soundness.look().is_clean
        assert [image.config.platform for _, image in other.images()] == [Platform.here()]


def test_an_empty_list_is_shown_tagged_and_removed(engine: Engine) -> None:
    engine.manifests.create("empty:1").result()
    assert said(engine, "manifest", "ls").rows[0][3] == "nothing"
    assert "empty:1 is for nothing" in said(engine, "images").footer
    engine.tag("empty:1", "empty:2")
    with pytest.raises(NoSuchPlatform):
        engine.image("empty:1")
    assert said(engine, "manifest", "rm", "empty:1").lines == ("Untagged: empty:1",)
    assert engine.remove_image("empty:2") == ["Untagged: empty:2"]
    assert engine.store.images.indexes() == []


def test_a_list_goes_with_no_prune_while_a_container_stands_on_one_of_its_images(engine: Engine, there: str) -> None:
    engine.manifests.create("list:3", [there], every=True).result()
    holder = engine.create(RunOptions(image="list:3", name="holder"))
    engine.housekeeping.prune(containers=False, all_images=True).result()
    assert len(engine.store.images.children(engine.manifests.get("list:3"))) == 2
    usage = engine.housekeeping.usage().result()
    assert "Unused Layers" not in {share.kind for share in usage.shares}
    assert (usage.shares[0].total, usage.shares[0].active) == (2, 1)
    engine.remove_container(holder)
    gone = engine.housekeeping.prune(all_images=True).result()
    assert [line for line in gone.images if line.startswith("untagged")] == ["untagged: list:3"]
    assert (engine.images(), list(engine.store.blobs.walk())) == ([], [])


def test_an_id_of_an_image_in_lists_stands_for_all_their_names(engine: Engine, made: str) -> None:
    arm = engine.store.images.children(engine.manifests.get(made))[1]
    engine.tag(made, "further:1")
    with pytest.raises(InUse, match="several repositories"):
        engine.remove_image(str(arm.id))
    lines = engine.remove_image(str(arm.id), force=True)
    assert sorted(lines) == sorted(["Untagged: list:1", "Untagged: further:1", f"Deleted: {arm.id}"])
    assert len(engine.images()) == 1


def test_what_is_built_for_platforms_is_a_list_like_any_other(engine: Engine, there: str, registry: Registry) -> None:
    engine.build("FROM scratch\nCOPY <<a /a\nhere\na\n", BuildOptions(
        tags=("built:1",), platforms=(Platform.here(), ARM), platform=Platform.here()
    )).result()  # fmt: skip
    said(engine, "manifest", "add", "built:1", f"{registry.host}/team/app:other")
    index = engine.manifests.get("built:1")
    assert {each.architecture for each in index.platforms} == {Platform.here().architecture, "arm64", "s390x"}
    said(engine, "manifest", "push", "built:1", f"{registry.host}/built:1")
    assert registry.manifests["built", "1"] == (INDEX, index.raw)
    assert engine.store.images.get(Reference.parse("built:1"), Platform("linux", "s390x")).config.platform.architecture
