"""How registries are reached, as registries.conf, daemon.json and our own config.toml say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from samples import new_engine
from server import Registry

from nbcontain.engine import Engine
from nbcontain.errors import Blocked, ImageNotFound, NbcontainError, UsageError
from nbcontain.oci.reference import Reference
from nbcontain.registry import registries_conf
from nbcontain.registry.configuration import Configuration
from nbcontain.runtime.generate import RunOptions


def configured(tmp_path: Path, text: str = "", **drop_ins: str) -> Configuration:
    """What the system's registries.conf and its drop-ins make of a machine where the user has said nothing."""
    place = tmp_path / "etc/containers"
    (place / "registries.conf.d").mkdir(parents=True, exist_ok=True)
    if text:
        (place / "registries.conf").write_text(text)
    for name, content in drop_ins.items():
        (place / "registries.conf.d" / f"{name}.conf").write_text(content)
    return Configuration.load({"HOME": str(tmp_path / "home")}, tmp_path / "etc")


def places(configuration: Configuration, name: str, *, writing: bool = False) -> list[tuple[str, str, bool]]:
    found = configuration.places(Reference.parse(name), writing=writing)
    return [(each.host, each.repository, each.insecure) for each in found]


MOVED = """\
[[registry]]
prefix = "r.example/foo"
location = "inside.example:5000/bar"
insecure = true
[[registry.mirror]]
location = "m0.example/of/foo"
[[registry.mirror]]
location = "m1.example/foo"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "m2.example/foo"
pull-from-mirror = "tag-only"
[[registry]]
prefix = "r.example/foo/deeper"
[[registry]]
prefix = "*.wild.example"
insecure = true
[[registry]]
location = "evil.example"
blocked = true
[[registry]]
prefix = "docker.io/library"
location = "inside.example:5000/hub"
"""


def test_names_are_fetched_from_where_the_longest_prefix_says(tmp_path: Path) -> None:
    found = configured(tmp_path, MOVED)
    assert places(found, "r.example/foo/app:1") == [
        ("m0.example", "of/foo/app", False), ("m2.example", "foo/app", False), ("inside.example:5000", "bar/app", True),
    ]  # fmt: skip
    assert places(found, f"r.example/foo/app@sha256:{'0' * 64}")[1][0] == "m1.example"
    assert places(found, "r.example/foo/deeper/app:1") == [("r.example", "", False)]
    assert places(found, "r.example/foobar:1") == [("r.example", "", False)]
    assert places(found, "a.b.wild.example:5000/x") == [("a.b.wild.example:5000", "", True)]
    assert places(found, "wild.example/x") == [("wild.example", "", False)]
    assert places(found, "debian") == [("inside.example:5000", "hub/debian", False)]


def test_names_are_sent_to_where_they_say(tmp_path: Path) -> None:
    assert places(configured(tmp_path, MOVED), "r.example/foo/app:1", writing=True) == [("r.example", "", True)]


def test_what_is_blocked_is_neither_fetched_nor_sent(tmp_path: Path) -> None:
    found = configured(tmp_path, MOVED)
    for writing in (False, True):
        with pytest.raises(Blocked, match=r"evil\.example/app:1 is blocked"):
            found.places(Reference.parse("evil.example/app:1"), writing=writing)


def test_the_user_s_file_is_instead_of_the_system_s_and_drop_ins_come_over_both(tmp_path: Path) -> None:
    own = tmp_path / "home/.config/containers"
    (own / "registries.conf.d").mkdir(parents=True)
    (own / "registries.conf").write_text('[[registry]]\nlocation = "own.example"\ninsecure = true\n')
    (own / "registries.conf.d/9.conf").write_text('[[registry]]\nlocation = "drop.example"\ninsecure = false\n')
    found = configured(tmp_path, MOVED, first='[[registry]]\nlocation = "drop.example"\ninsecure = true\n')
    assert places(found, "own.example/x") == [("own.example", "", True)]
    assert places(found, "evil.example/x") == [("evil.example", "", False)]
    assert places(found, "drop.example/x") == [("drop.example", "", False)]


ALIASES = '[aliases]\n"debian" = "quay.example/debian/debian"\n"gone" = "x.example/gone"\n'


def test_a_short_name_means_what_it_means_to_docker_unless_somebody_said_where_to_search(tmp_path: Path) -> None:
    assert configured(tmp_path, short=ALIASES).podman.meant("debian:12") == ("debian:12",)
    search = 'unqualified-search-registries = ["one.example", "docker.io"]'
    found = configured(tmp_path, search, short=ALIASES, z='[aliases]\n"gone"=""').podman
    assert found.meant("debian:12") == ("quay.example/debian/debian:12",)
    assert found.meant(f"debian@sha256:{'0' * 64}") == (f"quay.example/debian/debian@sha256:{'0' * 64}",)
    assert found.meant("gone") == ("one.example/gone", "docker.io/gone")
    assert found.meant("team/app") == ("one.example/team/app", "docker.io/team/app")
    for whole in ("r.example/app:1", "localhost/app", "localhost:5000/app", "r.example:5000/app@sha256:0"):
        assert found.meant(whole) == (whole,)


@pytest.mark.parametrize(
    "text",
    [
        "[[registry]]\n", "registry = 1", "[[registry]]\nprefix = 7", '[[registry]]\nprefix="a b"',
        '[[registry]]\nprefix="*.x/foo"', '[[registry]]\nlocation="x"\nblocked="yes"',
        '[[registry]]\nlocation="x"\n[[registry.mirror]]\n', '[[registry]]\nlocation="x"\n[[registry]]\nlocation="x"',
        '[[registry]]\nlocation="x"\n[[registry.mirror]]\nlocation="y"\npull-from-mirror="never"',
        'unqualified-search-registries = "x"', 'unqualified-search-registries = ["a b"]', '[aliases]\n"x:1" = "r.e/x"',
        '[aliases]\nx = "y"', "not toml", "a = '\x00'",
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named_and_not_passed_over(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"registries\.conf") as caught:
        configured(tmp_path, text)
    assert caught.value.why


def test_the_old_form_is_read(tmp_path: Path) -> None:
    found = configured(
        tmp_path,
        "[registries.search]\nregistries = ['one.example']\n[registries.insecure]\nregistries = ['plain.example']\n"
        "[registries.block]\nregistries = ['evil.example']\n",
    )
    assert found.podman.meant("app") == ("one.example/app",)
    assert places(found, "plain.example/app") == [("plain.example", "", True)]
    with pytest.raises(Blocked):
        found.places(Reference.parse("evil.example/app"))


def test_dockers_daemon_file_and_ours_are_read_beside_it(tmp_path: Path) -> None:
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").write_text(
        json.dumps({"insecure-registries": ["plain.example:80"], "registry-mirrors": ["https://hub.example"]})
    )
    own = tmp_path / "home/.config/nbcontain"
    own.mkdir(parents=True)
    (own / "config.toml").write_text('[registries.mirrors]\n"r.example" = ["near.example"]\n')
    found = configured(tmp_path, MOVED)
    assert places(found, "plain.example:80/x") == [("plain.example:80", "", True)]
    assert places(found, "r.example/foo/app:1")[0] == ("near.example", "", False)
    assert [host for host, _, _ in places(found, "debian")] == ["hub.example", "inside.example:5000"]
    (tmp_path / "etc/docker/daemon.json").write_text("{")
    assert places(configured(tmp_path), "plain.example:80/x") == [("plain.example:80", "", False)]


# --- with a registry that answers ---


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / ".config/containers/registries.conf"
    path.parent.mkdir(parents=True)
    return path


def test_an_image_comes_from_the_mirror_and_keeps_its_name(
    root: Path, tmp_path: Path, registry: Registry, sample: Any, conf: Path
) -> None:
    registry.add("copies/app", "1", *sample)
    mirror = f'[[registry.mirror]]\nlocation = "{registry.host}/copies"\n'
    conf.write_text(f'[[registry]]\nprefix = "r.invalid/team"\n{mirror}')
    with new_engine(root, tmp_path) as engine:
        [image] = engine.registry.pull("r.invalid/team/app:1").result()
        assert image.digest == sample[0].digest
        assert [str(name) for name, _ in engine.images()] == ["r.invalid/team/app:1"]
        assert engine.registry.tags("r.invalid/team/app") == ["1"]
        with pytest.raises(NbcontainError, match=r"r\.invalid"):
            engine.registry.pull("r.invalid/team/other:1").result()


def test_a_moved_name_is_asked_for_where_it_is_with_that_place_s_credentials(
    root: Path, tmp_path: Path, registry: Registry, sample: Any, conf: Path
) -> None:
    registry.auth = "bearer-private"
    registry.add("inside/app", "1", *sample)
    conf.write_text(f'[[registry]]\nprefix = "r.invalid/team"\nlocation = "{registry.host}/inside"\n')
    with new_engine(root, tmp_path) as engine:
        engine.registry.login(registry.host, "anna", "geheim")
        assert engine.registry.pull("r.invalid/team/app:1").result()[0].digest == sample[0].digest


def test_a_short_name_is_searched_for_and_found_again_by_run(
    root: Path, tmp_path: Path, registry: Registry, sample: Any, conf: Path
) -> None:
    registry.add("team/app", "1", *sample)
    other = Registry()
    conf.write_text(f'unqualified-search-registries = ["{other.host}", "{registry.host}"]\n')

    def run(engine: Engine, name: str, policy: str) -> Any:
        return engine.registry.to_run(RunOptions(image=name, pull=policy), lambda event: None)

    with new_engine(root, tmp_path) as engine:
        assert engine.registry.pull("team/app:1").result()[0].digest == sample[0].digest
        assert [str(name) for name, _ in engine.images()] == [f"{registry.host}/team/app:1"]
        registry.requests.clear()
        assert run(engine, "team/app:1", "missing").digest == sample[0].digest
        assert registry.requests == []
        assert run(engine, "team/app:1", "always").digest == sample[0].digest
        with pytest.raises(ImageNotFound, match="none of the registries"):
            run(engine, "team/missing:1", "missing")
    other.close()


def test_what_is_blocked_is_not_even_asked_for(
    root: Path, tmp_path: Path, registry: Registry, sample: Any, conf: Path
) -> None:
    registry.add("team/app", "1", *sample)
    conf.write_text(f'[[registry]]\nlocation = "{registry.host}/team"\nblocked = true\n')
    with new_engine(root, tmp_path) as engine:
        with pytest.raises(Blocked):
            engine.registry.pull(f"{registry.host}/team/app:1").result()
        assert registry.requests == []


def test_a_file_named_by_the_environment_is_read_alone(tmp_path: Path) -> None:
    (tmp_path / "x.conf").write_text('unqualified-search-registries = ["x.example"]')
    found = registries_conf.load({"CONTAINERS_REGISTRIES_CONF": str(tmp_path / "x.conf")}, tmp_path, tmp_path)
    assert found.meant("app") == ("x.example/app",)
