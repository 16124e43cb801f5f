"""compose files: what they say, what is to be done, and services that run; variables as the specification has them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from machine import until
from nbcontain import draw
from nbcontain.commands import parse_words
from nbcontain.commands.compose import ComposeWords, _followed
from nbcontain.compose import model
from nbcontain.compose.document import parse
from nbcontain.compose.including import Text
from nbcontain.compose.interpolation import env_file, filled
from nbcontain.compose.model import Project
from nbcontain.compose.plan import Existing, planned, run_options
from nbcontain.compose.reading import Reader
from nbcontain.compose.sources import Source
from nbcontain.compose_cells import ComposeCells, _has_verb
from nbcontain.display.values import InProgress
from nbcontain.engine import Engine
from nbcontain.errors import Cancelled, ContainerFailed, Interrupted, NbcontainError, UsageError
from nbcontain.events import Finished, Notice, Output, Record, Started
from nbcontain.task import Task

SHOP = """\
name: shop
services:
  web:
    image: busybox
    init: true
    command: sh -c 'cat /run/secrets/key; echo; exec sleep 600'
    secrets: [key]
    labels: {tier: front}
    depends_on:
      migrate: {condition: service_completed_successfully}
  cache:
    image: busybox
    init: true
    command: ["sh", "-c", "echo cache is up; touch /ok; exec sleep ${SECONDS_UP:-600}"]
    healthcheck: {test: ["CMD", "test", "-e", "/ok"], interval: 200ms}
    volumes: ["data:/data"]
  migrate:
    image: busybox
    command: sh -c 'echo migrated'
    depends_on: {cache: {condition: service_healthy}}
secrets: {key: {content: hidden}}
volumes: {data: }
"""


def read(text: str, environ: dict[str, str] | None = None, name: str = "shop") -> Project:
    """A project in /srv whose files are all the same."""
    reader = Reader(Path("/srv"), environ or {}, lambda path: "FROM_FILE=1\nB=file\n")
    return reader.project([Text(text)], name)[0]


def one(yaml: str, **environ: str) -> Any:
    """How the container of a service with these keys is run."""
    indented = "".join(f"    {line}\n" for line in yaml.splitlines())
    return read(f"services:\n  s:\n    image: i\n{indented}volumes: {{v: }}\n", environ).services[0].run


# --- the language ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("$A ${A}b $$A", "1 1b $A"), ("${N}", ""), ("${N:-d}", "d"), ("${N-d}", "d"), ("${E:-d}", "d"), ("${E-d}", ""),
        ("${A:+x}${E:+y}${E+z}${N+w}", "xz"), ("${N:-${A}-${M:-m}}", "1-m"), ("${A:?no}", "1"), ("${A-${N:?x}}", "1"),
    ],
)  # fmt: skip
def test_variables_are_filled_in_as_the_specification_says(text: str, means: str) -> None:
    assert filled(text, {"A": "1", "E": ""}) == means


@pytest.mark.parametrize("text", ["$1", "${", "${A", "${A!b}", "a $", "${N:?is needed}", "${E:?is needed}"])
def test_what_is_no_variable_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        filled(text, {"A": "1", "E": ""})


def test_env_files_have_quotes_comments_and_variables() -> None:
    text = "# no\nA=1 # one\nexport B='$A #'\nC=\"x\\ny\"\nD=${A}2\nE\n"
    assert env_file(text, {}) == {"A": "1", "B": "$A #", "C": "x\ny", "D": "12", "E": None}


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ('KEY="one\ntwo ${A}"\nB=2', {"KEY": "one\ntwo x", "B": "2"}),
        ("KEY='one\ntwo $A'\nB=2", {"KEY": "one\ntwo $A", "B": "2"}),
        ("A=pa$1x\nB=\"p$\"\nC=$(cmd)\nD=a$$b", {"A": "pa$1x", "B": "p$", "C": "$(cmd)", "D": "a$b"}),
        (r'C="x\ty\\z\"q\$A"', {"C": 'x\ty\\z"q$A'}),
        (r"D='it\'s a\tb'", {"D": r"it's a\tb"}),
        ("J: yaml\n\n# no\nE=a#b\nG=\nH # c\nI= ' x' # c\r\nK=1", {
            "J": "yaml", "E": "a#b", "G": "", "H": None, "I": " x", "K": "1",
        }),
    ],
)  # fmt: skip
def test_env_files_say_what_they_say_to_compose(text: str, means: dict[str, str]) -> None:
    assert env_file(text, {"A": "x"}) == means


def test_an_env_file_takes_no_longer_for_each_line_the_more_there_are() -> None:
    """Sixty thousand lines took a minute and a half; now a fiftieth of the time-out."""
    text = "".join(f"A{number}=$A{number - 1}\n" for number in range(1, 60_000))
    assert len(env_file(text, {"A0": "x"})) == 59_999
    # A name alone means the one of who asks, whatever was said before.
    assert env_file("A=1\nA\nB=$A\n", {"A": "x"}) == {"A": None, "B": "x"}
    with pytest.raises(UsageError, match="line 4 of an env file: a quote is not closed"):
        env_file("A=1\n\n# b\nB='c\n", {})


@pytest.mark.parametrize("text", ["OK=1\nfoo bar", "OK=1\nA='b", 'OK=1\nA="b\n', "OK=1\n=x"])
def test_what_an_env_file_cannot_mean_is_told_with_its_line(text: str) -> None:
    with pytest.raises(UsageError, match="line 2 of an env file"):
        env_file(text, {})


def test_yaml_is_read_as_compose_reads_it() -> None:
    tree = parse("a: on\nb: 22:22\nc: &x {d: 0x10}\ne: {<<: *x, f: ~}\n")
    assert tree.plain() == {"a": "on", "b": "22:22", "c": {"d": "0x10"}, "e": {"d": "0x10", "f": None}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services:\n  a: {imagee: x}", "line 2: services.a.imagee: there is no such key"),
        ("services:\n  a:\n    image: x\n    gpus: all", "line 4: services.a.gpus: is not here"),
        ("services:\n  a: {}", "neither an image nor a build context"),
        ("services:\n  a: {image: x, volumes: [v:/v]}", "refers to undefined volume v"),
        ("services:\n  a: {image: x, volumes: [{type: bind, target: /v}]}", "line 2: services.a.volumes[0]: source is"),
        ("services:\n  a: {image: x, networks: [n]}", "refers to undefined network n"),
        ("services:\n  a: {image: x, depends_on: [b]}", "depends on b"),
        ("services:\n  a: {image: x, init: perhaps}", "must be true or false"),
        ("services:\n  a: {image: x, scale: 2, container_name: n}", "cannot have one container_name"),
        ("services:\n  a: {image: x, scale: 2, deploy: {replicas: 3}}", "not the same"),
        ("services:\n  a: {image: $1}", "begins no variable"),
        ("services:\n  a: {image: x, ports: ['99999:80']}", "line 2: services.a.ports[0]: invalid hostPort: 99999"),
        ("services:\n  a: {image: x, ports: ['80:99999']}", "invalid containerPort: 99999"),
        ("services:\n  a: {image: x, ports: [{target: 80, published: '65536'}]}", "invalid hostPort: 65536"),
        ("services:\n  a: {image: x, ports: ['8000-8001:80-82']}", "invalid ranges"),
        ("services:\n  a: {image: x, expose: ['99999']}", "services.a.expose[0]"),
        ("services:\n  a: {image: x, cpus: -1}", "services.a.cpus"),
        ("services:\n  a: {image: x, mem_limit: abc}", "services.a.mem_limit"),
        ("services:\n  a: {image: x, deploy: {resources: {limits: {memory: x}}}}", "resources.limits.memory"),
        ("services:\n  a: {image: x, pids_limit: -7}", "-7 is not between"),
        ("services:\n  a: {image: x, oom_score_adj: 5000}", "5000 is not between -1000 and 1000"),
        ("services:\n  a: {image: x, healthcheck: {test: x, retries: -1}}", "retries: -1 is not between"),
        ("services:\n  a: {image: x, ulimits: {nofile: -5}}", "services.a.ulimits.nofile"),
        ("services:\n  a: {image: x, restart: perhaps}", "there is no such policy"),
        ("services:\n  a: {image: x, pull_policy: perhaps}", "there is no policy perhaps"),
        ("services: [", "line 1: "), ("a: 1\na: 2", "line 2: : a is there twice"), ("", "is empty"),
        ("a: &a [*a]", "more than can be read"), ("a: !!python/object:os.system x", "is not here"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
        ), "more than can be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert said in "\n".join(caught.value.lines())


def test_what_has_no_effect_is_remarked_and_unset_variables_too() -> None:
    project = read("version: '3'\nservices:\n  a: {image: 'x$NONE', attach: true, x-mine: 1}\n")
    about = [each.partition(":")[0] for each in project.warnings]
    assert about == ['the variable "NONE" is not set', "line 1", "line 3"]


def test_a_remark_on_a_secret_is_made_once() -> None:
    text = "services: {a: {image: i, secrets: [{source: s, mode: 0400}]}}\nsecrets: {s: {content: hidden}}"
    project = read(text)
    assert ["have no effect" in each for each in project.warnings] == [True]
    assert [each.path for each in project.services[0].given] == ["/run/secrets/s"]


def test_an_alias_to_what_was_merged_means_the_same_once_more() -> None:
    tree = parse("a: &a {k: 1, l: 2}\nb: &b {<<: *a, k: 3}\nc: *b\nd: {<<: [*b, *a], m: 4}\n").plain()
    assert tree["b"] == tree["c"] == {"k": 3, "l": 2}
    assert tree["d"] == {"k": 3, "l": 2, "m": 4}


def test_merges_of_merges_do_not_grow_without_end() -> None:
    lines = ["a0: &a0 {k: 1, l: 2}", *(f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 20)}]}}" for n in range(1, 20))]
    assert parse("\n".join(lines)).plain()["a19"] == {"k": 1, "l": 2}
    with pytest.raises(UsageError, match="more than can be read"):
        parse(f"a: &a {{k: 1}}\nb: {{<<: [{','.join(['*a'] * 300)}]}}")


def test_an_ipv6_address_of_a_port_is_put_in_brackets() -> None:
    ports = "[{target: 80, published: 8080, host_ip: '::1'}, {target: 53, host_ip: 127.0.0.1, protocol: udp}]"
    assert one(f"ports: {ports}").publish == ("[::1]:8080:80/tcp", "127.0.0.1::53/udp")


def test_a_home_of_nobody_is_a_directory_of_that_name() -> None:
    assert one("volumes: ['~nobody-of-that-name/x:/x']").volumes == ("/srv/~nobody-of-that-name/x:/x",)


# --- what it means ---------------------------------------------------------------------------------


def test_a_service_is_run_in_the_words_of_run() -> None:
    run = one(
        "command: a 'b c'\nentrypoint: [e, f]\nports: [80, '8080:80', {target: 1, published: 2, protocol: udp}]\n"
        "volumes: ['v:/v', './d:/d:ro', {type: tmpfs, target: /t, tmpfs: {size: 1m}}]\nenv_file: e\n"
        "environment: {B: $X, C: , D: 4}\ndeploy: {resources: {limits: {cpus: '.5', memory: 64M}}}\n"
        "ulimits: {nofile: {soft: 1, hard: 2}}\nstop_grace_period: 1m30s\nextra_hosts: ['a=1.2.3.4']",
        X="mine", C="passed",
    )  # fmt: skip
    assert (run.entrypoint, run.command) == ("e", ("f", "a", "b c"))
    assert run.publish == ("80", "8080:80", "2:1/udp")
    assert (run.volumes, run.mount) == (("shop_v:/v", "/srv/d:/d:ro"), ("type=tmpfs,target=/t,tmpfs-size=1m",))
    assert run.environment == ("FROM_FILE=1", "B=mine", "C=passed", "D=4")
    assert (run.cpus, run.memory, run.ulimits, run.stop_timeout) == (".5", "64M", ("nofile=1:2",), 90)
    assert run.add_hosts == ("a:1.2.3.4",)


def test_services_come_after_what_they_depend_on_and_profiles_are_asked_for() -> None:
    project = read(SHOP)
    assert [each.name for each in project.chosen((), ())] == ["cache", "migrate", "web"]
    assert [each.name for each in project.chosen(("migrate",), ())] == ["cache", "migrate"]
    some = read("services: {a: {image: i}, b: {image: i, profiles: [debug]}}")
    assert [len(some.chosen((), each)) for each in ((), ("debug",), ("*",))] == [1, 2, 2]
    perhaps = read("services: {a: {image: i, depends_on: {gone: {condition: service_started, required: false}}}}")
    assert [each.name for each in perhaps.chosen((), ())] == ["a"]
    with pytest.raises(UsageError, match="a -> b -> a"):
        read("services: {a: {image: i, depends_on: [b]}, b: {image: i, depends_on: [a]}}").chosen((), ())


def test_only_what_changed_is_made_anew() -> None:
    project = read(SHOP)
    services = project.chosen((), ())
    there = [Existing(each.name, each.name, each.digest(), "sha256:1", True) for each in services]
    there.append(Existing("old", "old", "", "sha256:1", True))
    images = {each.name: "sha256:1" for each in services}

    def verbs(project: Project, **changed: Any) -> list[str]:
        plan = planned(project, project.chosen((), ()), there, images | changed.pop("images", {}), [], [], **changed)
        assert [each.service for each in plan.orphans] == ["old"]
        return [each.verb for each in plan.steps]

    assert verbs(project) == ["keep", "keep", "keep"]
    assert verbs(read(SHOP, {"SECONDS_UP": "5"})) == ["recreate", "keep", "keep"]
    assert verbs(project, images={"web": "sha256:2"}) == ["keep", "keep", "recreate"]
    assert verbs(project, recreate="always") == ["recreate"] * 3
    assert verbs(read(SHOP, {"SECONDS_UP": "5"}), recreate="never") == ["keep"] * 3


def test_a_service_has_as_many_containers_as_were_asked_for_and_the_last_go_first() -> None:
    project = read("services: {a: {image: i, scale: 3}, b: {image: i, deploy: {replicas: 0}}}")
    a, b = project.services
    there = [Existing("a", f"a{number}", a.digest(), "sha256:1", True, number) for number in (1, 2, 4, 5)]
    there.append(Existing("b", "b1", b.digest(), "sha256:1", True))
    plan = planned(project, (a, b), there, {"a": "sha256:1", "b": "sha256:1"}, [], [])
    assert [(each.verb, each.name, each.container) for each in plan.steps] == [
        ("keep", "a 1", "a1"), ("keep", "a 2", "a2"), ("create", "a 3", ""), ("remove", "a 5", "a5"),
        ("remove", "a 4", "a4"), ("remove", "b", "b1"),
    ]  # fmt: skip
    third = run_options(project, a, "sha256:1", bridges=True, number=3)
    assert (third.name, "com.docker.compose.container-number=3" in third.labels) == ("shop-a-3", True)
    assert project.scaled({"b": 2}).service("b").replicas == 2
    with pytest.raises(UsageError, match="cannot have 2 containers"):
        read("services: {a: {image: i, container_name: n}}").scaled({"a": 2})


def test_containers_have_dockers_labels_and_names_of_their_services() -> None:
    project = read(SHOP)
    web = run_options(project, project.service("web"), "sha256:1", bridges=True)
    assert (web.name, web.network) == ("shop-web-1", ("name=shop_default,alias=web",))
    assert {"com.docker.compose.project=shop", "com.docker.compose.service=web", "tier=front",
            "com.docker.compose.container-number=1"} <= set(web.labels)  # fmt: skip
    alone = run_options(project, project.service("web"), "sha256:1", bridges=False)
    assert (alone.network, alone.add_hosts) == (("host",), ("web:127.0.0.1", "cache:127.0.0.1", "migrate:127.0.0.1"))


class Talkative:
    """A container that never stops saying something."""

    name = "talkative"
    info = SimpleNamespace(labels={})

    def output(self, *, follow: bool, tail: int | None) -> Iterator[Record]:
        while True:
            yield Record(1.0, Output("c", "stdout", b"and so on\n"))


def test_nobody_listens_on_to_what_is_not_followed_any_more() -> None:
    records = _followed([Talkative()], tail=None)  # type: ignore[list-item]
    assert next(records).event.data == b"talkative-1  | and so on\n"  # type: ignore[union-attr]
    listening = next(each for each in threading.enumerate() if each.name == "nbcontain logs talkative")
    records.close()
    listening.join(10)
    assert not listening.is_alive()


class Endless:
    """A container whose line has no end."""

    name = id = "endless"
    info = SimpleNamespace(labels={})

    def output(self, *, follow: bool, tail: int | None) -> Iterator[Record]:
        for _ in range(3 * 1024):
            yield Record(1.0, Output("c", "stdout", b"x" * 1024))
        yield Record(2.0, Output("c", "stdout", b"yz\na"))


def test_a_line_without_an_end_is_cut_and_nothing_of_it_is_lost() -> None:
    records = _followed([Endless()], tail=None)  # type: ignore[list-item]
    said = b"".join(record.event.data for record in records if isinstance(record.event, Output))
    lines = said.splitlines()
    assert [len(line) for line in lines[:3]] == [len(b"endless-1  | ") + (1 << 20)] * 3
    assert lines[3:] == [b"endless-1  | yz", b"endless-1  | a"]


def test_a_cell_without_a_command_is_brought_up() -> None:
    assert [_has_verb(words.split()) for words in ("", "-p x", "-p x up", "--profile=a", "down")] == [
        False, False, True, False, True,
    ]  # fmt: skip


def test_a_line_may_name_the_project_of_the_last_cell(engine: Engine) -> None:
    cells = ComposeCells()
    cells.cell(engine, ["-p", "shop", "config"], "services: {a: {image: box}}")
    same, other = (cells.seen(ComposeWords(project=name)) for name in ("shop", "other"))
    assert (same.text, other.text) == ("services: {a: {image: box}}", None)


# --- services that run -----------------------------------------------------------------------------


def test_a_project_comes_up_in_order_changes_where_it_changed_and_leaves_nothing(
    engine: Engine, busybox_image: str
) -> None:
    told: list[Any] = []

    def up(text: str) -> dict[str, str]:
        project, _ = engine.compose.read(Source(text=text))
        engine.compose.up(project, project.chosen((), ()), told.append)
        return {each.info.labels[model.SERVICE]: each.id for each in engine.compose.containers("shop")}

    first = up(SHOP)
    began = {name: engine.container(each).state().started_at for name, each in first.items()}
    assert began["cache"] < began["migrate"] < began["web"]
    web = engine.container("shop-web-1")
    end = time.monotonic() + 5
    said = b""
    while not said.endswith(b"\n") and time.monotonic() < end:
        said = b"".join(getattr(each.event, "data", b"") for each in web.output())
    assert said == b"hidden\n"
    assert any("no networks can be made here" in getattr(each, "message", "") for each in told)
    second = up(SHOP.replace("cat /run", "cat  /run"))
    assert (second["cache"], second["migrate"]) == (first["cache"], first["migrate"])
    assert second["web"] != first["web"]
    assert Started("cache", "cache runs already", "compose") in told
    assert [each.name for each in engine.containers(("label=com.docker.compose.project=shop",))]
    gone = engine.compose.down("shop", told.append, volumes=True, timeout_s=5)
    assert gone == ["shop-web-1", "shop-migrate-1", "shop-cache-1", "shop_data"]
    assert (engine.containers(), list(engine.volumes)) == ([], [])


def test_a_failure_halfway_says_what_is_up(engine: Engine, busybox_image: str) -> None:
    text = SHOP.replace("echo migrated", "exit 4")
    project, _ = engine.compose.read(Source(text=text))
    told: list[Any] = []
    with pytest.raises(ContainerFailed, match="migrate didn't complete successfully: exit 4") as caught:
        engine.compose.up(project, project.chosen((), ()), told.append)
    assert "started before: cache, migrate" in caught.value.why
    begun = {each.task for each in told if isinstance(each, Started)}
    assert begun - {each.task for each in told if isinstance(each, Finished)} == set(), "what waited has ended, too"
    assert [each.name for each in engine.compose.containers("shop")] == ["shop-cache-1", "shop-migrate-1"]


def test_who_waits_for_a_service_says_so_once_and_can_be_stopped(
    engine: Engine, busybox_image: str, tmp_path: Path
) -> None:
    text = SHOP.replace("touch /ok; ", "").replace("interval: 200ms", "interval: 200ms, start_period: 60s")
    (tmp_path / "compose.yaml").write_text(text)
    command, words = parse_words("", ["compose", "-f", str(tmp_path / "compose.yaml"), "up", "-d"])
    task: Task[Any] = command.function(engine, words).task  # type: ignore[attr-defined]
    said = lambda: [each.event for each in task.journal.read()]  # noqa: E731
    waiting = Started("cache service_healthy", "cache", "cache")
    until(lambda: waiting in said())
    time.sleep(0.35)
    assert said().count(waiting) == 1
    task.cancel()
    assert task.wait(2)
    with pytest.raises(Cancelled):
        task.result()
    engine.compose.down("shop", lambda event: None, timeout_s=0)


def test_an_interrupt_of_up_ends_those_that_run_while_others_are_still_waited_for(
    engine: Engine, busybox_image: str, tmp_path: Path
) -> None:
    never = "healthcheck: {test: 'exit 1', interval: 1h, start_period: 1h}"
    first = f"{{image: busybox, command: sleep 600, stop_grace_period: 0s, {never}}}"
    second = "{image: busybox, command: sleep 600, depends_on: {a: {condition: service_healthy}}}"
    (tmp_path / "compose.yaml").write_text(f"name: x\nservices: {{a: {first}, b: {second}}}")
    command, words = parse_words("", ["compose", "-f", str(tmp_path / "compose.yaml"), "up"])
    task: Task[Any] = command.function(engine, words).task  # type: ignore[attr-defined]
    until(lambda: Started("a service_healthy", "a", "a") in [each.event for each in task.journal.read()])
    task.cancel()
    with pytest.raises(Cancelled):
        task.result()
    assert [each.is_active for each in engine.compose.containers("x")] == [False]
    engine.compose.down("x", lambda event: None)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, Interrupted), (signal.SIGTERM, SystemExit)])
def test_an_interrupt_of_up_in_a_terminal_waits_until_all_have_stopped(
    number: signal.Signals, error: type[BaseException], engine: Engine, busybox_image: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """One after the other, and of those that do not heed the signal each as long as it is given."""
    text = "{image: busybox, init: false, command: sleep 600, stop_grace_period: 1s"
    (tmp_path / "compose.yaml").write_text(f"name: x\nservices: {{a: {text}}}, b: {text}, depends_on: [a]}}}}")
    command, words = parse_words("", ["compose", "-f", str(tmp_path / "compose.yaml"), "up"])
    progress: Any = command.function(engine, words)

    def interrupted(progress: object) -> None:
        until(lambda: len([each for each in engine.containers() if each.is_active]) == 2)
        handler = signal.getsignal(number)
        assert callable(handler)
        handler(number, None)

    monkeypatch.setattr(draw, "_followed", interrupted)
    monkeypatch.setattr(draw, "_ENDING_S", 0.1)
    with pytest.raises(error):
        draw.draw(progress)
    assert [each.is_active for each in engine.containers()] == [False, False]
    assert "stopping" in capsys.readouterr().err
    engine.compose.down("x", lambda event: None)


def test_who_has_enough_while_an_old_container_is_stopped_gets_no_new_one(engine: Engine, busybox_image: str) -> None:
    text = "name: x\nservices: {a: {image: busybox, command: sleep 600, stop_grace_period: 1s}}"
    first, _ = engine.compose.read(Source(text=text))
    engine.compose.up(first, first.services, lambda event: None)
    second, _ = engine.compose.read(Source(text=text.replace("600", "500")))
    is_over = threading.Event()

    def told(event: object) -> None:
        if isinstance(event, Notice) and "made anew" in event.message:
            is_over.set()

    with pytest.raises(Cancelled):
        engine.compose.up(second, second.services, told, is_over=is_over)
    assert engine.containers() == []


def test_services_that_do_not_need_each_other_are_taken_down_at_once(engine: Engine, busybox_image: str) -> None:
    # A first process without a handler does not hear SIGTERM: each takes all of its time.
    deaf = "{image: busybox, command: sleep 600, stop_grace_period: 2s}"
    needs = deaf.replace("}", ", depends_on: [a]}")
    text = f"name: three\nservices:\n  a: {deaf}\n  b: {deaf}\n  c: {needs}\n  d: {needs}\n"
    project, _ = engine.compose.read(Source(text=text))
    engine.compose.up(project, project.chosen((), ()), lambda event: None)
    began = time.monotonic()
    gone = engine.compose.down("three", lambda event: None)
    assert 4 <= time.monotonic() - began < 6, "two waves of two seconds, not four times two"
    order = [gone.index(f"three-{each}-1") for each in "cda"]
    assert max(order[:2]) < order[2]
    assert engine.containers() == []


def test_a_service_is_scaled_up_and_down(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    ready = "{image: busybox, init: true, command: sh -c 'echo here; exec sleep 600', " \
            "healthcheck: {test: 'true', interval: 200ms}}"  # fmt: skip
    waits = "{image: busybox, command: 'true', depends_on: {web: {condition: service_healthy}}}"
    (tmp_path / "compose.yaml").write_text(f"name: many\nservices:\n  web: {ready}\n  after: {waits}\n")

    def compose(*words: str) -> Any:
        command, options = parse_words("", ["compose", "-f", str(tmp_path / "compose.yaml"), *words])
        value = command.function(engine, options)
        return value.task.result() if isinstance(value, InProgress) else value

    def names() -> list[str]:
        return sorted(each.name for each in engine.compose.containers("many", ("web",)))

    compose("up", "-d", "--scale", "web=3")
    assert names() == ["many-web-1", "many-web-2", "many-web-3"]
    first = engine.container("many-web-1").id
    until(lambda: all(b"here" in said(engine, name) for name in names()))
    told = b"".join(each.event.data for each in compose("logs").records)
    assert sorted(told.split(b"\n")[:3]) == [b"web-%d    | here" % number for number in (1, 2, 3)]
    compose("scale", "web=2")
    assert names() == ["many-web-1", "many-web-2"]
    compose("exec", "--index", "2", "-T", "web", "touch", "/mark")
    assert [("A", "/mark") in engine.diff(engine.container(each)) for each in names()] == [False, True]
    with pytest.raises(UsageError, match="no container 3"):
        compose("exec", "--index", "3", "-T", "web", "true")
    compose("up", "-d")
    assert (names(), engine.container("many-web-1").id) == (["many-web-1"], first)
    with pytest.raises(UsageError, match="says no number"):
        compose("up", "--scale", "web")
    compose("down")
    assert engine.containers() == []


RUNS = """\
name: once
services:
  db: {image: busybox, init: true, command: sleep 600, stop_grace_period: 1s}
  tool:
    image: busybox
    profiles: [tools]
    entrypoint: [sh, -c]
    command: ["echo by itself$NOBODY"]
    environment: {WHO: file}
    ports: ["80:80"]
    restart: always
    secrets: [key]
    depends_on: [db]
secrets: {key: {content: hidden}}
"""


def test_a_container_of_its_own_is_run_as_the_service_says(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(RUNS)

    def compose(*words: str) -> Any:
        command, options = parse_words("", ["compose", "-f", str(tmp_path / "compose.yaml"), *words])
        value = command.function(engine, options)
        return value.task.result() if isinstance(value, InProgress) else value

    told = subprocess.run(
        [sys.executable, "-m", "nbcontain", "compose", "run", "--rm", "--no-deps", "tool"], capture_output=True,
        text=True, env={**os.environ, "NBCONTAIN_ROOT": str(engine.layout.root)}, cwd=tmp_path, check=True,
    )  # fmt: skip
    assert told.stdout == "by itself\n"
    assert told.stderr.count('the variable "NOBODY" is not set') == 1
    assert engine.containers() == []
    asked = compose("run", "-e", "WHO=me", "tool", "echo $WHO; cat /run/secrets/key; exit")
    assert asked.stdout == "me\nhidden"
    assert [each.name for each in engine.compose.containers("once")] == ["once-db-1"]
    (other,) = (each for each in engine.containers() if each.name.startswith("once-tool-run-"))
    assert (other.info.restart, other.info.labels[model.ONE_OFF]) == ("", "True")
    with pytest.raises(ContainerFailed, match="exit code 3"):
        compose("run", "--rm", "-T", "--entrypoint", "sh", "tool", "-c", "exit 3")
    assert compose("run", "-d", "--name", "mine", "tool", "sleep 600").status == "running"
    compose("down", "-t", "0")
    assert engine.containers() == []


def test_whoever_runs_one_and_has_enough_ends_it(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(RUNS)
    command, options = parse_words("", ["compose", "-f", str(tmp_path / "compose.yaml"), "run", "--rm", "--no-deps",
                                        "tool", "sleep 600"])  # fmt: skip
    task: Task[Any] = command.function(engine, options).task  # type: ignore[attr-defined]
    until(lambda: [each.status for each in engine.containers()] == ["running"])
    task.cancel()
    assert task.wait(5)
    assert engine.containers() == []


def said(engine: Engine, name: str) -> bytes:
    """What a container has said."""
    return b"".join(getattr(each.event, "data", b"") for each in engine.container(name).output())


def test_an_image_that_is_not_here_stops_before_anything_is_made(engine: Engine) -> None:
    project, _ = engine.compose.read(Source(text="name: x\nservices: {a: {image: nothing-here}}"))
    with pytest.raises(NbcontainError):
        engine.compose.up(project, project.chosen((), ()), lambda event: None)
    assert engine.containers() == []


def test_the_terminal_has_docker_composes_words(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(SHOP)
    (tmp_path / ".env").write_text("SECONDS_UP=700\n")
    environ = {**os.environ, "NBCONTAIN_ROOT": str(engine.layout.root)}

    def compose(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nbcontain", "compose", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path, check=False)

    assert "sleep 700" in compose("config").stdout
    assert compose("config", "--services").stdout.split() == ["cache", "migrate", "web"]
    up = compose("-f", "compose.yaml", "-p", "other", "up", "-d", "cache")
    assert up.returncode == 0, up.stderr
    assert "other-cache-1  busybox  sh -c 'echo cache is up; touch …  cache" in compose("-p", "other", "ps").stdout
    assert compose("-p", "other", "logs").stdout == "cache-1  | cache is up\n"
    assert compose("-p", "other", "exec", "-T", "cache", "echo", "hi").stdout == "hi\n"
    assert "running(1)" in compose("ls").stdout
    assert compose("-p", "other", "rm", "-f").stdout == "", "it runs"
    assert compose("-p", "other", "stop", "-t", "1").returncode == 0
    assert compose("-p", "other", "rm", "-f").stdout == "other-cache-1\n"
    assert compose("-p", "other", "up", "-d", "cache").returncode == 0
    assert compose("-p", "other", "rm", "-fs", "cache").stdout == "other-cache-1\n"
    assert compose("-p", "other", "down", "-v").returncode == 0
    assert engine.containers() == []
    assert "no such service: nobody" in compose("up", "nobody").stderr


def test_a_file_without_an_end_is_an_error_and_not_the_end_of_the_memory(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "endless").symlink_to("/dev/zero")
    text = f"services: {{a: {{image: x, env_file: {tmp_path}/endless}}}}"
    others = (Source(files=(str(tmp_path / "endless"),)), Source(text="{}", env_files=("/dev/zero",)))
    for source in (Source(text=text), *others):
        with pytest.raises(UsageError, match="is not read"):
            engine.compose.read(source)
