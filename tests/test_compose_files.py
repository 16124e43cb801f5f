"""Several compose files as one project: what docker compose 2.40 makes of the same, `config` by `config`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nbcontain.commands import parse_words
from nbcontain.compose.document import parse
from nbcontain.compose.merging import merged
from nbcontain.compose.sources import Source, read
from nbcontain.engine import Engine
from nbcontain.errors import ContainerError, UsageError


@pytest.mark.parametrize(
    ("below", "above", "means"),
    [
        ("image: a", "image: b", {"image": "b"}),
        ("command: [a, b]", "command: c", {"command": "c"}),
        ("healthcheck: {test: [CMD, a], interval: 1s}", "healthcheck: {test: b, retries: 4}",
         {"healthcheck": {"test": "b", "interval": "1s", "retries": 4}}),
        ("environment: {A: 1, B: 2, N: x}", "environment: [B=3, C=4, N]",
         {"environment": {"A": 1, "B": "3", "N": None, "C": "4"}}),
        ("labels: [a=1]", "labels: {b: 2}", {"labels": {"a": "1", "b": 2}}),
        ("ports: ['1:1', '2:2']", "ports: ['2:2', '3:3']", {"ports": ["1:1", "2:2", "3:3"]}),
        ("volumes: ['/x', './a:/d']", "volumes: [{type: volume, target: /d}, /y]",
         {"volumes": ["/x", {"type": "volume", "target": "/d"}, "/y"]}),
        ("dns: 1.1.1.1", "dns: [8.8.8.8, 1.1.1.1]", {"dns": ["1.1.1.1", "8.8.8.8"]}),
        ("build: ./web", "build: {target: t, args: {X: 1}}",
         {"build": {"context": "./web", "target": "t", "args": {"X": 1}}}),
        ("depends_on: [x]", "depends_on: {y: {condition: service_healthy}}",
         {"depends_on": {"x": None, "y": {"condition": "service_healthy"}}}),
        ("extra_hosts: ['a:1.1.1.1']", "extra_hosts: {a: 2.2.2.2}", {"extra_hosts": ["a:1.1.1.1", "a=2.2.2.2"]}),
        ("ulimits: {nofile: 1}", "ulimits: {nofile: {soft: 1, hard: 2}}",
         {"ulimits": {"nofile": {"soft": 1, "hard": 2}}}),
        ("logging: {driver: local, options: {max-size: 1m}}", "logging: {driver: none}",
         {"logging": {"driver": "none"}}),
        ("logging: {options: {max-size: 1m}}", "logging: {options: {max-file: 2}}",
         {"logging": {"options": {"max-size": "1m", "max-file": 2}}}),
        ("image: a\nuser: b", "image:", {"image": "a", "user": "b"}),
        ("image: a\nuser: b", "user: !reset", {"image": "a"}),
        ("environment: {A: 1, B: 2}", "environment: {A: !reset null}", {"environment": {"B": 2}}),
        ("ports: ['1:1']", "ports: !override ['2:2']", {"ports": ["2:2"]}),
    ],
)  # fmt: skip
def test_a_later_file_lies_over_an_earlier_one(below: str, above: str, means: dict[str, Any]) -> None:
    first, second = (
        parse("services:\n  s:\n" + "".join(f"    {line}\n" for line in text.splitlines())) for text in (below, above)
    )
    assert merged(first, second).plain() == {"services": {"s": means}}


def test_what_was_taken_away_can_be_said_again() -> None:
    texts = ("services: {a: {user: x}}", "services: {a: {user: !reset null}}", "services: {a: {user: y}}")
    assert merged(*map(parse, texts)).plain() == {"services": {"a": {"user": "y"}}}


def test_a_service_extends_another_of_its_file_or_of_one_beside_it(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("""\
name: p
services:
  a: {extends: base, environment: [B=2], user: !reset null}
  base: {image: i, command: c, environment: {A: 1}, ports: ["1:1"], user: u, depends_on: [d]}
  b: {extends: {service: a}, ports: ["2:2"], command: !override other}
  d: {extends: {file: more.yaml, service: x}, environment: {Q: z}}
""")
    more = "services:\n  x: {extends: y, image: x}\n  y: {image: y, cap_add: [SYS_TIME]}\n"
    (tmp_path / "more.yaml").write_text(more)
    project, tree = engine.compose.read(Source(files=(str(tmp_path / "compose.yaml"),)))
    assert tree.plain()["services"]["b"] == {
        "image": "i", "command": "other", "environment": {"A": 1, "B": "2"}, "ports": ["1:1", "2:2"],
        "depends_on": ["d"],
    }  # fmt: skip
    assert [each.name for each in project.services] == ["a", "base", "b", "d"]
    found = project.service("d")
    assert (found.image, found.run.cap_add, found.run.environment) == ("x", ("SYS_TIME",), ("Q=z",))


@pytest.mark.parametrize(
    ("services", "said"),
    [
        ("a: {extends: b}\n  b: {extends: a}", "a -> b -> a is a circle"),
        ("a: {extends: c, image: i}", "line 2: services.a.extends: there is no service c"),
        ("a: {extends: {service: a, file: x.yaml}}", "cannot read"),
        ("a: {extends: {service: b, flie: x}}", "there is no such key: flie"),
    ],
)
def test_what_cannot_be_extended_is_told(engine: Engine, tmp_path: Path, services: str, said: str) -> None:
    (tmp_path / "compose.yaml").write_text(f"services:\n  {services}\n")
    with pytest.raises(UsageError, match=said):
        engine.compose.read(Source(files=(str(tmp_path / "compose.yaml"),)))


def _write(directory: Path, **files: str) -> Source:
    """Files by their names, with __ for a / and _ for a dot; the project of compose.yaml."""
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Source(files=(str(directory / "compose.yaml"),), name="p")


def test_what_is_extended_has_the_paths_of_its_own_directory(engine: Engine, tmp_path: Path) -> None:
    source = _write(
        tmp_path,
        compose_yaml="services: {q: {extends: {file: ext/c.yaml, service: b}, volumes: ['./own:/own']}}\n",
        ext__c_yaml="""\
services:
  b: {build: ./x, env_file: [e, {path: f, required: false}], extends: {file: more/m.yaml, service: m},
      volumes: ['./v:/v', '../u:/u', '/w:/w', {type: bind, source: l, target: /l}, /anonymous]}
""",
        ext__more__m_yaml="services: {m: {image: m, volumes: ['./mm:/mm']}}\n", ext__e="X=1\n",
    )  # fmt: skip
    found = engine.compose.read(source)[0].service("q")
    assert found.build is not None and found.build.context == tmp_path / "ext/x"
    assert found.run.environment == ("X=1",)
    assert found.run.volumes == (
        f"{tmp_path}/ext/more/mm:/mm", f"{tmp_path}/ext/v:/v", f"{tmp_path}/u:/u", "/w:/w", f"{tmp_path}/ext/l:/l",
        "/anonymous", f"{tmp_path}/own:/own",
    )  # fmt: skip


def test_what_is_included_has_its_own_directory_and_variables_and_is_the_projects(
    engine: Engine, tmp_path: Path
) -> None:
    source = _write(
        tmp_path,
        compose_yaml="""\
include: [sub/compose.yaml]
services: {web: {image: 'w${V}', depends_on: [db], networks: [n]}}
""",
        sub__compose_yaml="""\
name: other
include: [deep/x.yaml]
services:
  db: {image: 'db${V}', build: ., environment: [FOO, BAR], env_file: a.env, configs: [c], volumes: ['data:/e']}
configs: {c: {file: ./c.txt}}
volumes: {data: {}}
networks: {n: {}}
""",
        sub__deep__x_yaml="services: {x: {image: i, volumes: ['.:/x'], environment: {FOO: }}}\n",
        sub___env="V=sub\nFOO=foo\n", sub__a_env="A=1\n",
    )  # fmt: skip
    project, tree = engine.compose.read(source)
    db, x = project.service("db"), project.service("x")
    assert (project.name, project.service("web").image, db.image) == ("p", "w", "dbsub")
    assert db.build is not None and db.build.context == tmp_path / "sub"
    assert (db.run.environment, x.run.environment) == (("A=1", "FOO=foo"), ("FOO=foo",))
    assert db.run.mount == (f"type=bind,source={tmp_path}/sub/c.txt,target=/c,readonly",)
    assert (db.run.volumes, x.run.volumes) == (("p_data:/e",), (f"{tmp_path}/sub/deep:/x",))
    assert "include" not in tree.plain()
    (tmp_path / ".env").write_text("V=main\n")
    assert engine.compose.read(source)[0].service("db").image == "dbmain"


def test_an_include_may_say_its_files_its_directory_and_its_variables(engine: Engine, tmp_path: Path) -> None:
    source = _write(
        tmp_path,
        compose_yaml="""\
include:
  - {path: [sub/one.yaml, two.yaml], project_directory: seen, env_file: [vars]}
""",
        sub__one_yaml="services: {a: {image: 'x${V}', volumes: ['./d:/d']}}\n",
        two_yaml="services: {a: {command: two}}\n", vars="V=1\n", sub___env="V=2\n",
    )  # fmt: skip
    found = engine.compose.read(source)[0].service("a")
    assert (found.image, found.run.command) == ("x1", ("two",))
    assert found.run.volumes == (f"{tmp_path}/seen/d:/d",)


def test_what_lies_over_a_file_may_change_what_it_includes_and_the_same_twice_is_once(
    engine: Engine, tmp_path: Path
) -> None:
    source = _write(
        tmp_path, compose_yaml="include: [a/x.yaml, a/x.yaml]\nservices: {b: {image: b}}\n",
        a__x_yaml="services: {a: {image: a}}\n", over_yaml="services: {a: {image: c}}\n",
    )  # fmt: skip
    files = (*source.files, str(tmp_path / "over.yaml"))
    project, _ = engine.compose.read(Source(files=files))
    assert [(each.name, each.image) for each in project.services] == [("b", "b"), ("a", "c")]


@pytest.mark.parametrize(
    ("include", "said"),
    [
        ("[x.yaml]", r"services\.z: conflicts with line 1 of x.yaml"),
        ("[none.yaml]", r"include\[0\]: cannot read .*/none.yaml"),
        ("[{path: y.yaml, env_file: none}]", r"include\[0\].env_file: cannot read .*/none"),
        ("[circle.yaml]", "compose.yaml -> circle.yaml -> compose.yaml is a circle"),
        ("[many.yaml, many.yaml]", "includes more than can be read"),
        ("x.yaml", "include: must be a list"),
        ("[{env_file: x}]", "path is missing"),
        ("[{path: y.yaml, directory: x}]", "there is no such key"),
    ],
)
def test_what_cannot_be_included_is_told(engine: Engine, tmp_path: Path, include: str, said: str) -> None:
    source = _write(
        tmp_path, compose_yaml=f"include: {include}\nservices: {{z: {{image: i}}}}\n",
        x_yaml="services: {z: {image: j}}\n", y_yaml="services: {y: {image: j}}\n",
        circle_yaml="include: [compose.yaml]\n", many_yaml="include: [" + "y.yaml," * 60 + "]\n",
    )  # fmt: skip
    with pytest.raises(UsageError, match=said):
        engine.compose.read(source)


def test_a_long_chain_is_no_matter_and_a_circle_through_another_file_is_told(engine: Engine, tmp_path: Path) -> None:
    chain = "".join(f"  s{number}: {{extends: s{number - 1}}}\n" for number in range(1, 1500))
    (tmp_path / "compose.yaml").write_text(f"services:\n  s0: {{image: x}}\n{chain}")
    project, _ = engine.compose.read(Source(files=(str(tmp_path / "compose.yaml"),)))
    assert {each.image for each in project.services} == {"x"} and len(project.services) == 1500
    for name, other in (("one", "two"), ("two", "one")):
        text = f"services:\n  web: {{extends: {{file: {other}.yaml, service: web}}}}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(UsageError, match="web -> web -> .* is a circle"):
        engine.compose.read(Source(files=(str(tmp_path / "one.yaml"),)))


def test_what_is_wrong_is_told_with_its_file(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("services:\n  a: {image: x, cap_add: [SYS_TIME]}\n")
    (tmp_path / "two.yaml").write_text("services:\n  a:\n    cap_add: {A: b}\n")
    files = tuple(str(tmp_path / name) for name in ("one.yaml", "two.yaml"))
    with pytest.raises(UsageError, match=r"^two\.yaml, line 3: services\.a\.cap_add: is of another kind .* 2 of one"):
        engine.compose.read(Source(files=files))


def test_what_config_shows_means_the_same_when_it_is_read_again(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("name: p\nservices: {a: {image: i, command: [echo, '$$HOME ${A:-b$$}']}}\n")
    command, words = parse_words("", ["compose", "-f", str(tmp_path / "compose.yaml"), "config"])
    shown = command.function(engine, words).bytes  # type: ignore[attr-defined]
    project, _ = engine.compose.read(Source(text=shown.decode()))
    assert project.service("a").run.command == ("echo", "$HOME b$")


def test_who_waits_for_a_service_hears_that_it_has_ended(engine: Engine, busybox_image: str) -> None:
    text = "name: p\nservices: {a: {image: busybox, command: 'false'}}"
    project, _ = engine.compose.read(Source(text=text))
    with pytest.raises(ContainerError, match=r"container p-a-1 exited \(1\)"):
        engine.compose.up(project, project.chosen((), ()), lambda event: None, wait=True)
    text = """name: q
services:
  job: {image: busybox, command: 'true'}
  web: {image: busybox, command: sleep 60, init: true, depends_on: {job: {condition: service_completed_successfully}}}
"""
    project, _ = engine.compose.read(Source(text=text))
    engine.compose.up(project, project.chosen((), ()), lambda event: None, wait=True)
    for name in ("p", "q"):
        engine.compose.down(name, lambda event: None)


def test_an_override_beside_the_file_and_those_that_are_named_are_read(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("name: p\nservices:\n  a: {image: one, user: x}\n")
    (tmp_path / "compose.override.yml").write_text("services:\n  a: {image: two}\n  b: {image: b}\n")
    (tmp_path / "third.yaml").write_text("services:\n  a: {image: three}\n")
    environ = {**os.environ, "NBCONTAIN_ROOT": str(engine.layout.root)}

    def images(*words: str, **more: str) -> list[str]:
        command = [sys.executable, "-m", "nbcontain", "compose", *words, "config", "--images"]
        done = subprocess.run(command, capture_output=True, text=True, env=environ | more, cwd=tmp_path, check=True)
        return sorted(done.stdout.split())

    assert images() == ["b", "two"]
    assert images("-f", "compose.yaml") == ["one"]
    assert images("-f", "compose.yaml", "-f", "third.yaml") == ["three"]
    assert images(COMPOSE_FILE="compose.yaml:third.yaml") == ["three"]
    (tmp_path / ".env").write_text("COMPOSE_FILE=third.yaml\n")
    assert images() == ["three"]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")
def test_what_a_stranger_left_where_everybody_may_write_is_no_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever is the first in /tmp has what they like started by who types `compose up` there, or below."""
    # What lies above is found in its place: this too, since nobody knows what a machine's /tmp has.
    (tmp_path / "compose.yaml").write_text("services: {above: {image: c}}")
    os.chown(tmp_path / "compose.yaml", 1234, 1234)
    everybodys = tmp_path / "everybodys"
    (everybodys / "below").mkdir(parents=True)
    everybodys.chmod(0o1777)
    (everybodys / "compose.yaml").write_text("services: {mine: {image: a}}")
    (everybodys / "compose.override.yaml").write_text("services: {theirs: {image: '${WHAT:-none}'}}")
    (everybodys / ".env").write_text("WHAT=b")
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.chdir(everybodys / "below")

    def services(*others: str) -> list[str]:
        for path in everybodys.iterdir():
            os.chown(path, *[4321 if path.name in others else 1234] * 2)
        project, _ = read(Source(), {})
        return sorted(f"{each.name} {each.image}" for each in project.services)

    assert services() == ["mine a", "theirs b"]
    assert services(".env") == ["mine a", "theirs none"]
    assert services("compose.override.yaml") == ["mine a"]
    assert services("compose.yaml") == ["above c"]


def test_where_there_is_none_here_nor_above_one_is_told_what_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc/self/task")
    with pytest.raises(UsageError, match="there is no compose file here"):
        read(Source(), {})
