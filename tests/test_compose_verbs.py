"""docker compose's verbs on a project that is up: what 2.40.3 says of the same."""

from __future__ import annotations

import json
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from nbcontain.commands import parse_words
from nbcontain.compose import model
from nbcontain.display.values import InProgress, Verdict
from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError, UsageError

SHOP = """\
name: shop
services:
  web: {image: busybox, command: sleep 600, scale: 2, network_mode: none, stop_grace_period: 0s}
  job: {image: busybox, command: "sh -c 'exit 3'", network_mode: none, volumes: ["data:/d"], profiles: [later]}
volumes: {data: }
"""


@pytest.fixture
def shop(engine: Engine, busybox_image: str, tmp_path: Path) -> Path:
    """The file of a project that is up: two of web run, and job has ended."""
    path = tmp_path / "compose.yaml"
    path.write_text(SHOP)
    compose(engine, path, "--profile", "later", "up", "-d")
    engine.container("shop-job-1").wait(10)
    return path


def compose(engine: Engine, path: Path, *words: str) -> Any:
    """What a command gives, once it is done."""
    command, options = parse_words("", ["compose", "-f", str(path), *words])
    value = command.function(engine, options)
    return value.task.result() if isinstance(value, InProgress) else value


def lines(value: object) -> list[str]:
    return str(value).splitlines()


def test_ps_has_docker_composes_formats_and_states(engine: Engine, shop: Path) -> None:
    template = "{{.Name}} {{.Service}} {{.State}} {{.Publishers}} {{.Project}} {{.ExitCode}}"
    assert lines(compose(engine, shop, "ps", "--format", template)) == [
        "shop-web-1 web running [] shop 0", "shop-web-2 web running [] shop 0",
    ]  # fmt: skip
    rows = [json.loads(line) for line in lines(compose(engine, shop, "ps", "-a", "--format", "json"))]
    assert {row["Name"]: row["ExitCode"] for row in rows} == {"shop-web-1": 0, "shop-web-2": 0, "shop-job-1": 3}
    assert set(rows[0]) == {
        "Command", "CreatedAt", "ExitCode", "Health", "ID", "Image", "Labels", "LocalVolumes", "Mounts", "Name",
        "Names", "Networks", "Ports", "Project", "Publishers", "RunningFor", "Service", "Size", "State", "Status",
    }  # fmt: skip
    assert lines(compose(engine, shop, "ps", "--services")) == ["web"]
    assert sorted(lines(compose(engine, shop, "ps", "-a", "--services"))) == ["job", "web"]
    for words in (("--status", "exited"), ("--filter", "status=exited")):
        assert lines(compose(engine, shop, "ps", *words, "--format", "{{.Name}}")) == ["shop-job-1"]
    assert lines(compose(engine, shop, "ps", "-q", "job")) == []
    compose(engine, shop, "run", "-d", "-T", "--name", "own", "web", "true")
    assert "own" in lines(compose(engine, shop, "ps", "-a", "--format", "{{.Name}}"))
    with pytest.raises(UsageError, match="there is no such state"):
        compose(engine, shop, "ps", "--status", "bogus")


def test_ls_tells_what_runs_and_with_all_what_has_ended(engine: Engine, shop: Path) -> None:
    told = json.loads(str(compose(engine, shop, "ls", "--format", "json")))
    assert told == [{"Name": "shop", "Status": "running(2)", "ConfigFiles": str(shop)}]
    assert "exited(1), running(2)" in str(compose(engine, shop, "ls", "-a"))
    assert lines(compose(engine, shop, "ls", "-q", "--filter", "name=sho")) == ["shop"]
    assert lines(compose(engine, shop, "ls", "-q", "--filter", "name=x")) == []
    compose(engine, shop, "stop", "-t", "0")
    assert (lines(compose(engine, shop, "ls", "-q")), lines(compose(engine, shop, "ls", "-aq"))) == ([], ["shop"])


def test_images_top_volumes_and_stats_are_of_the_project_alone(engine: Engine, shop: Path) -> None:
    from nbcontain.runtime.generate import RunOptions

    engine.start(engine.create(RunOptions(image="busybox", name="other", command=("sleep", "600"))))
    engine.volumes.create("others")
    rows = json.loads(str(compose(engine, shop, "images", "--format", "json")))
    assert [(row["ContainerName"], row["Repository"], row["Tag"]) for row in rows] == [
        (name, "busybox", "latest") for name in ("shop-job-1", "shop-web-1", "shop-web-2")
    ]
    assert len(lines(compose(engine, shop, "images", "-q"))) == 1
    top = compose(engine, shop, "top")
    assert [(row[0], row[1]) for row in top.rows] == [("web", "1"), ("web", "2")]
    assert lines(compose(engine, shop, "volumes", "-q")) == ["shop_data"]
    assert sorted(lines(compose(engine, shop, "stats", "--no-stream", "--format", "{{.Name}}"))) == [
        "shop-web-1", "shop-web-2",
    ]  # fmt: skip


def test_wait_ends_as_what_it_waited_for(engine: Engine, shop: Path) -> None:
    told: list[Verdict] = []
    waiting = threading.Thread(target=lambda: told.append(compose(engine, shop, "wait", "web")))
    waiting.start()
    compose(engine, shop, "kill", "-s", "9", "web")
    waiting.join(20)
    assert told[0].exit_status == 137
    assert all(line.endswith("exited with status code 137") for line in lines(told[0].value))
    with pytest.raises(UsageError, match="nothing of the project shop runs"):
        compose(engine, shop, "wait")
    with pytest.raises(NbcontainError, match="BOGUS"):
        compose(engine, shop, "kill", "-s", "BOGUS")


def test_cp_and_port_mean_a_services_container(engine: Engine, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    compose(engine, shop, "cp", "--index", "2", str(tmp_path / "file"), "web:/file")
    compose(engine, shop, "cp", "--index", "2", "web:/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "hello"
    with pytest.raises(UsageError, match="no container 3"):
        compose(engine, shop, "cp", "--index", "3", "web:/file", str(tmp_path))
    with pytest.raises(UsageError, match="no public port '80/udp' published for shop-web-1"):
        compose(engine, shop, "port", "--protocol", "udp", "web", "80")


def test_cp_copies_into_all_of_a_service_unless_it_is_told_which(engine: Engine, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    compose(engine, shop, "cp", str(tmp_path / "file"), "web:/file")
    for name in ("shop-web-1", "shop-web-2"):
        assert engine.transfers.read(engine.container(name), "/file") == b"hello"
    with pytest.raises(UsageError, match="standard input can be read once"):
        compose(engine, shop, "cp", "-", "web:/")
    with pytest.raises(UsageError, match="no container of the service nope"):
        compose(engine, shop, "cp", str(tmp_path / "file"), "nope:/file")


def test_commit_export_and_attach_mean_a_services_container(engine: Engine, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    compose(engine, shop, "cp", "--index", "2", str(tmp_path / "file"), "web:/file")
    image = compose(engine, shop, "commit", "--index", "2", "-m", "said", "-c", "CMD [\"true\"]", "web", "kept:1")
    assert (engine.image("kept:1").id, image.config.cmd) == (image.id, ("true",))
    assert image.config.history[-1].comment == "said"
    compose(engine, shop, "export", "--index", "2", "-o", str(tmp_path / "out.tar"), "web")
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert "file" in tar.getnames()
    attached = compose(engine, shop, "attach", "--no-stdin", "--index", "2", "web")
    assert attached.elsewhere().name == "shop-web-2"
    with pytest.raises(UsageError, match="no container 3"):
        compose(engine, shop, "commit", "--index", "3", "web", "other:1")


def test_create_starts_nothing_and_events_tell_what_happened(engine: Engine, shop: Path) -> None:
    compose(engine, shop, "down", "-t", "0")
    compose(engine, shop, "create", "--scale", "web=1")
    assert [each.status for each in engine.compose.containers("shop")] == ["created"]
    engine.start(engine.container("shop-web-1"))
    command, options = parse_words("", ["compose", "-p", "shop", "events", "--since", "10m", "--until", "0s", "--json"])
    task = command.function(engine, options).task  # type: ignore[attr-defined]
    task.result()
    said = b"".join(getattr(each.event, "data", b"") for each in task.journal.follow())
    assert {json.loads(line)["Actor"]["Attributes"][model.PROJECT] for line in said.splitlines()} == {"shop"}


def test_down_takes_images_along_where_it_is_told(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("""\
name: p
services:
  a: {build: {context: ., dockerfile_inline: FROM busybox}, command: 'true', network_mode: none}
  b: {image: 'own:1', build: {context: ., dockerfile_inline: FROM busybox}, command: 'true', network_mode: none}
""")

    def here() -> set[str]:
        return {name.familiar.removesuffix(":latest") for name, _ in engine.images() if name is not None}

    compose(engine, path, "up", "-d")
    assert here() >= {"p-a", "own:1"}
    assert "p-a" in lines(compose(engine, path, "down", "--rmi", "local"))
    assert ("p-a" in here(), "own:1" in here()) == (False, True)
    compose(engine, path, "up", "-d")
    command, options = parse_words("", ["compose", "-p", "p", "down", "--rmi", "all"])
    command.function(engine, options).task.result()  # type: ignore[attr-defined]
    assert not here() & {"p-a", "own:1"}
    with pytest.raises(UsageError, match="there is no such kind of images"):
        compose(engine, path, "down", "--rmi", "some")


def test_an_image_that_another_container_has_stays_and_that_is_said(engine: Engine, shop: Path) -> None:
    from nbcontain.runtime.generate import RunOptions

    engine.create(RunOptions(image="busybox", name="other", command=("true",)))
    command, options = parse_words("", ["compose", "-f", str(shop), "down", "--rmi", "all", "-t", "0"])
    task = command.function(engine, options).task  # type: ignore[attr-defined]
    task.result()
    said = [getattr(each.event, "message", "") for each in task.journal.follow()]
    assert any("the image busybox stays" in each for each in said)
    assert engine.image("busybox")


def test_config_has_other_forms(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("""\
name: p
services:
  a: {image: 'i${V}', profiles: [z, y]}
  b: {image: j, networks: [n], volumes: ['v:/v']}
networks: {n: }
volumes: {v: }
""")
    told = json.loads(compose(engine, path, "--profile", "*", "config", "--format", "json").bytes)
    assert told["services"]["a"]["image"] == "i"
    assert b"image: i${V}" in compose(engine, path, "config", "--no-interpolate").bytes
    assert lines(compose(engine, path, "config", "--networks")) == ["n"]
    assert lines(compose(engine, path, "config", "--profiles")) == ["y", "z"]
    assert lines(compose(engine, path, "config", "--volumes")) == ["v"]
    with pytest.raises(UsageError, match="there is no such format"):
        compose(engine, path, "config", "--format", "xml")
    assert json.loads(str(compose(engine, path, "version", "--format", "json")))["version"]
