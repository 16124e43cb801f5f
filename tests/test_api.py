"""`import nbcontain as nb`: what Python has in its hands, through the names that a user imports."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import loops
import nbcontain as nb
from images import BUSYBOX
from machine import until
from nbcontain.api import _own_engine as OWN_ENGINE  # noqa: N812 - before the fixtures put another in its place
from nbcontain.errors import (
    ContainerError,
    ContainerFailed,
    ContainerNotFound,
    NetworkError,
    NotRunning,
    StoreError,
    UsageError,
)  # fmt: skip
from package_source import PACKAGE

SERVER = "while :; do echo hello | nc -l -p 8123; done"


@pytest.fixture(scope="module")
def own_engine(busybox_context: Path) -> Iterator[nb.Engine]:
    """One store for all of these tests, with an image `box`, as the engine that the names use."""
    import tempfile

    import needs
    from nbcontain import api

    with tempfile.TemporaryDirectory(prefix="nbcontain-test-", dir=needs.scratch()) as directory, nb.Engine(
        directory
    ) as engine, pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "_own_engine", lambda: engine)
        nb.build(busybox_context, dockerfile=BUSYBOX, tag="box")
        yield engine
        for container in engine.containers():
            engine.remove_container(container, force=True)


@pytest.fixture
def box(own_engine: nb.Engine) -> Iterator[str]:
    """The image's name; containers are gone afterwards."""
    yield "box"
    for container in own_engine.containers():
        own_engine.remove_container(container, force=True)


@pytest.fixture
def web(box: str) -> Iterator[nb.Container]:
    """A container that runs for as long as the test."""
    with nb.container(box, ["sh", "-c", "echo one; echo two >&2; echo three; sleep 60"], name="web") as container:
        until(lambda: len(container.logs()) == 3)
        yield container


# --- run and build ---


def test_a_program_is_run_and_what_it_wrote_comes_back(box: str) -> None:
    result = nb.run(box, ["sh", "-c", "echo $X; echo oops >&2"], environment={"X": "a b"}, remove=True)
    assert (result.stdout, result.stderr, result.exit_code, result.lines) == ("a b\n", "oops\n", 0, ["a b"])
    assert str(result) == "a b\noops\n"
    assert result.to_dict()["stdout"] == "a b\n"


def test_a_text_is_split_by_the_shells_rules_as_docker_py_does(box: str) -> None:
    assert nb.run(box, "echo 'a  b' $HOME", remove=True).stdout == "a  b $HOME\n"


def test_what_a_program_reads_can_be_larger_than_a_pipe_or_a_command_line(box: str) -> None:
    data = b"0123456789abcdef" * 65536 * 4
    assert nb.run(box, "wc -c", input=data, remove=True).stdout.strip() == str(len(data))


def test_a_program_that_reads_nothing_is_no_reason_to_hang(box: str) -> None:
    assert nb.run(box, "true", input=b"x" * (1 << 20), remove=True).exit_code == 0


def test_a_directory_is_nothing_to_read(box: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        nb.run(box, "cat", input=tmp_path)
    with pytest.raises(UsageError, match="cannot read"):
        nb.build(context={"Dockerfile": tmp_path})
    assert nb.containers.keys() == []


def test_an_exit_code_is_an_error_unless_it_is_said_not_to_be(box: str) -> None:
    with pytest.raises(ContainerFailed) as caught:
        nb.run(box, "sh -c 'echo out; exit 3'", remove=True)
    assert (caught.value.exit_code, caught.value.result.stdout) == (3, "out\n")
    assert nb.run(box, "sh -c 'exit 3'", check=False, remove=True).exit_code == 3
    with nb.container(box, "sleep 60", name="stays") as stays:
        with pytest.raises(ContainerFailed, match="the program in stays ended with exit code 4"):
            stays.exec("sh -c 'exit 4'")
        assert stays.status == "running"


def test_files_are_put_before_the_program_begins(box: str, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("from a file\n")
    values = {"/data/in.json": {"a": [1, 2]}, "/data/note": tmp_path / "note", "/x.bin": b"\0\1"}
    result = nb.run(box, ["sh", "-c", "cat /data/in.json /data/note; wc -c < /x.bin"], put=values, remove=True)
    assert result.stdout.split() == ['{"a":', "[1,", "2]}from", "a", "file", "2"]


def test_an_image_is_built_of_text_and_of_files_in_memory(box: str) -> None:
    text = "FROM box\nCOPY a.txt /\nENV N=1"
    image = nb.build(dockerfile=text, context={"a.txt": "hello"}, tag="made", labels={"k": "v"})
    assert (image.tags, image.labels, image["/a.txt"].text) == (["made:latest"], {"k": "v"}, "hello")
    assert image == nb.images["made"] == nb.Engine.image(nb.api.engine(), "made")
    image.remove()
    assert "made" not in nb.images


# --- keywords ---


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ({"environment": {"A": 1, "B": None}}, "environment", ("A=1", "B")),
        ({"env": ["A=1"]}, "environment", ("A=1",)),
        ({"ports": {"80/tcp": 8080, 53: ("127.0.0.1", 5353), 8000: None, "90": [1, 2]}}, "publish",
         ("8080:80/tcp", "127.0.0.1:5353:53", "8000", "1:90", "2:90")),
        ({"volumes": {"/a": {"bind": "/b", "mode": "ro"}, "data": "/d"}}, "volumes", ("/a:/b:ro", "data:/d")),
        ({"mem_limit": "64m"}, "memory", "64m"),
        ({"mem_limit": 1 << 26}, "memory", "67108864"),
        ({"nano_cpus": 500_000_000}, "cpus", "0.5"),
        ({"extra_hosts": {"db": "10.0.0.1"}}, "add_hosts", ("db:10.0.0.1",)),
        ({"restart_policy": {"Name": "on-failure", "MaximumRetryCount": 3}}, "restart", "on-failure:3"),
        ({"ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}]}, "ulimits", ("nofile=10:20",)),
        ({"tmpfs": {"/run": "size=1m", "/tmp": ""}}, "tmpfs", ("/run:size=1m", "/tmp")),
        ({"network_mode": "none"}, "network", ("none",)),
        ({"name": None, "cap_drop": "ALL"}, "cap_drop", ("ALL",)),
    ],
)  # fmt: skip
def test_docker_pys_keywords_mean_what_they_mean_there(given: dict[str, object], field: str, said: object) -> None:
    from nbcontain import api

    assert getattr(api.run_options("x", None, given), field) == said


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"enviroment": {}}, "did you mean environment=?"),
        ({"link": "a"}, "%network create"),
        ({"detach": "yes"}, "True or False"),
        ({"env": [], "environment": {}}, "said twice"),
    ],
)  # fmt: skip
def test_a_keyword_that_is_none_is_said_to_be(given: dict[str, object], text: str) -> None:
    from nbcontain import api

    with pytest.raises(UsageError) as caught:
        api.run_options("x", None, given)
    assert text in "\n".join(caught.value.lines())


# --- containers ---


def test_a_container_lives_as_long_as_its_with_statement(box: str) -> None:
    with nb.container(box, "sleep 60", name="brief") as container:
        assert nb.containers["brief"] == container
        assert container.exec("cat /proc/1/comm").stdout == "sleep\n"
    assert "brief" not in nb.containers
    with pytest.raises(ContainerNotFound):
        nb.containers["brief"]


def test_a_container_that_is_created_runs_when_it_is_started(box: str) -> None:
    container = nb.create(box, "cat /in", name="later")
    container["/in"] = "ready"
    container.start()
    assert container.wait() == 0
    assert str(container.logs()) == "ready\n"
    assert container["/in"].text == "ready"


def test_logs_are_lines_that_can_be_searched_and_followed(web: nb.Container) -> None:
    assert sorted(web.logs(grep="^t")) == ["three", "two"]
    assert [*web.logs(stderr=False)] == ["one", "three"]
    assert "two" in web.logs()
    assert [each.text for each in web.logs().lines if each.stream == "stderr"] == ["two"]
    lines = iter(web.logs(follow=True))
    assert sorted(next(lines) for _ in range(3)) == ["one", "three", "two"]
    with pytest.raises(UsageError):
        web.logs(grep="(")


def test_what_a_container_uses_is_numbers_and_a_frame(web: nb.Container) -> None:
    used = web.stats
    assert used.to_dict()["name"] == "web" and used.to_dict()["memory"] == used.after.memory > 0
    pytest.importorskip("pandas")
    assert used.df["pids"].to_list() == [used.after.pids]


def test_a_line_is_whole_in_however_many_pieces_it_came() -> None:
    from nbcontain.events import Output, Record
    from nbcontain.logbook import lines_of

    pieces = [("stdout", b"a"), ("stderr", b"x\ny"), ("stdout", b"b\r\n\nc"), ("stdout", b""), ("stdout", b"d")]
    records = [Record(float(at), Output("t", stream, data)) for at, (stream, data) in enumerate(pieces)]  # type: ignore[arg-type]
    said = [(each.time, each.stream, each.text) for each in lines_of(records)]
    assert said == [(1, "stderr", "x"), (2, "stdout", "ab"), (2, "stdout", ""), (1, "stderr", "y"), (4, "stdout", "cd")]


def test_files_of_a_running_container_are_read_and_written(web: nb.Container, tmp_path: Path) -> None:
    web["/srv/new/values.json"] = {"a": 1}
    assert web.exec("cat /srv/new/values.json").stdout == '{"a": 1}'
    assert web["/srv/new/values.json"].value == {"a": 1}
    assert [each.path for each in web["/srv/new"]] == ["/srv/new/values.json"]
    assert web["/srv"]["new"].kind == "directory"
    assert not web["/nothing"].exists()
    web.exec("ln -s /srv/new/values.json /link")
    assert web["/link"].save(tmp_path).read_text() == '{"a": 1}'
    with pytest.raises(ContainerError, match="cannot read /nothing"):
        _ = web["/nothing"].text
    with pytest.raises(ContainerError):
        _ = web["/srv"].bytes
    with pytest.raises(UsageError, match="no file"):
        web["/x"] = object()


def test_a_link_that_leads_out_leads_nowhere(web: nb.Container, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    web.exec(["ln", "-s", f"/../../../../{secret}", "/out"])
    with pytest.raises(ContainerError):
        _ = web["/out"].text


def test_a_fifo_is_no_file_to_wait_for(web: nb.Container) -> None:
    web.exec("mkfifo /pipe")
    with pytest.raises(ContainerError):
        _ = web["/pipe"].text


def test_a_container_is_ready_when_somebody_listens(box: str) -> None:
    with nb.container(box, ["sh", "-c", f"sleep 0.3; {SERVER}"], network="host") as container:
        assert container.wait_ready(port=8123, timeout=10) is container
        assert container.url_of(8123) == "http://127.0.0.1:8123"


def test_a_container_that_ends_is_never_ready(box: str) -> None:
    container = nb.run(box, "sh -c 'echo no luck; exit 4'", detach=True)
    with pytest.raises(ContainerFailed, match="ended before") as caught:
        container.wait_ready(port=1)
    assert "no luck" in caught.value.why


def test_a_container_that_publishes_nothing_has_no_url(box: str) -> None:
    with nb.container(box, "sleep 60", network="none") as container, pytest.raises(NetworkError, match="publishes no"):
        _ = container.url


def test_what_a_container_uses_is_told(web: nb.Container) -> None:
    assert web.stats.after.pids == len(web.top()) == 1
    assert web.short_id == web.id[:12]
    assert web.attrs["Name"] == "web"


def test_a_container_is_explained_by_handle_and_by_name(web: nb.Container) -> None:
    for found in (nb.explain(web), nb.explain("web")):
        assert found.xray.pid == web.pid
        assert f"both sides of {web.name}" in found._repr_html_()
    web.stop(timeout=0)
    with pytest.raises(NotRunning, match="web is not running"):
        nb.explain(web)


def test_a_container_that_does_not_run_is_named_by_its_name(web: nb.Container) -> None:
    web.stop(timeout=0)
    with pytest.raises(NotRunning) as caught:
        web.engine.running(web.id)
    assert "web is not running" in str(caught.value) and web.id not in caught.value.hint


def test_the_doctor_gives_rows(own_engine: nb.Engine) -> None:
    findings = list(nb.doctor())
    assert findings[0]["what"] == "containers" and set(findings[0]) == {"here", "what", "why", "try"}


def test_an_exercise_is_judged(own_engine: nb.Engine) -> None:
    judged = nb.check("01-1")
    assert not judged.ok and judged.claims
    with pytest.raises(UsageError, match="no lesson 99"):
        nb.check("99-9")


# --- images, lists ---


def test_an_image_is_read_without_being_run(box: str) -> None:
    image = nb.images[box]
    assert image["/bin/busybox"].bytes[:4] == b"\x7fELF"
    assert "/bin" in image._ipython_key_completions_()
    assert image["/bin/sh"].kind == "file"
    assert not image["/none"].exists()
    assert [each.number for each in image.layers] == [1, 2]
    assert ("A", "/bin/busybox") in [each[:2] for each in image.layers[0].files]
    with pytest.raises(ContainerError, match="cannot be changed"):
        image["/x"].write("y")
    with pytest.raises(StoreError):
        _ = image["/none"].text


def test_lists_are_looked_up_anew_and_know_their_names(web: nb.Container) -> None:
    assert nb.containers.keys() == ["web"]
    assert "web" in nb.containers
    assert repr(nb.containers) == "<Containers 1: web>"
    assert "box" in nb.images
    assert nb.containers.list(filters={"status": "exited"}) == []
    bundle = nb.containers._repr_mimebundle_()
    assert "web" in bundle["text/plain"]
    assert "<table" in bundle["text/html"]
    volume = nb.volumes.create("data", labels={"k": "v"})
    assert nb.volumes["data"] == volume
    assert nb.volumes.to_dict()[0]["name"] == "data"
    nb.volumes.remove("data")
    assert nb.networks["host"].name == "host"


def test_files_are_taken_out_of_a_container_that_is_forgotten(box: str) -> None:
    script = "echo '[1, 2]' > /made.json; echo hi > /made.txt"
    result = nb.run(box, ["sh", "-c", script], get=["/made.json", "/made.txt"], remove=True)
    assert result.files == {"/made.json": [1, 2], "/made.txt": "hi\n"}
    assert nb.containers.keys() == []
    with pytest.raises(ContainerError, match="/none"):
        nb.run(box, "true", get="/none", remove=True)
    for wrong in ({"get": "df=/x"}, {"get": "/x", "detach": True}):
        with pytest.raises(UsageError):
            nb.run(box, "true", **wrong)


# --- many, and at the same time ---


def test_one_program_runs_over_many_items_in_their_order(box: str) -> None:
    results = nb.map("echo {}", range(5), image=box, parallel=3)
    assert [each.stdout.strip() for each in results] == ["0", "1", "2", "3", "4"]
    assert results.to_dict()[4]["item"] == 4
    assert nb.containers.keys() == []


def test_an_item_is_a_word_of_its_own_whatever_is_in_it(box: str) -> None:
    results = nb.map("echo {n}", [{"n": "a; rm -rf $HOME"}], image=box)
    assert results[0].stdout == "a; rm -rf $HOME\n"


def test_a_function_says_what_each_item_needs(box: str) -> None:
    results = nb.map(lambda text: {"command": "wc -c", "input": text}, ["a", "bcd"], image=box)
    assert [int(each.stdout) for each in results] == [1, 3]


def test_the_first_that_fails_ends_the_others(box: str) -> None:
    began = time.monotonic()
    with pytest.raises(ContainerFailed, match=r"for 3\)"):
        nb.map(["sh", "-c", "[ $0 = 3 ] && exit 3; sleep 20"], [3, 30, 300, 3000], image=box, parallel=2)
    assert time.monotonic() - began < 10
    assert nb.containers.keys() == []
    assert [each.exit_code for each in nb.map("sh -c 'exit $0'", [0, 3], image=box, check=False)] == [0, 3]


def test_what_is_wrong_with_a_run_is_said_before_any_is_begun(box: str) -> None:
    with pytest.raises(UsageError, match="detach"):
        nb.map("true", range(2), image=box, detach=True)
    with pytest.raises(UsageError, match="check is the same"):
        nb.map(lambda n: {"command": "true", "check": n}, range(2), image=box)
    assert nb.containers.keys() == []


def test_a_run_that_cannot_begin_is_what_is_raised(box: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbcontain import api

    def later(*given: object, **options: object) -> object:
        def begin() -> object:
            raise RuntimeError("can't start new thread")

        return begin

    monkeypatch.setattr(api, "run_later", later)
    with pytest.raises(RuntimeError, match="new thread"):
        nb.map("true", range(3), image=box, parallel=10**6)


def test_two_threads_that_ask_first_have_one_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbcontain import api

    made: list[object] = []

    class Slow:
        def __init__(self) -> None:
            made.append(self)
            time.sleep(0.1)

    monkeypatch.setattr(api, "Engine", Slow)
    monkeypatch.setattr(api, "_made_engine", cache(api._made_engine.__wrapped__))
    threads = [threading.Thread(target=OWN_ENGINE) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(made) == 1


def test_all_items_have_the_same_engine(box: str, own_engine: nb.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbcontain import api

    asked: list[str] = []

    def counted() -> nb.Engine:
        asked.append(threading.current_thread().name)
        return own_engine

    monkeypatch.setattr(api, "_own_engine", counted)
    nb.map("true", range(4), image=box, parallel=4)
    # A thread of its own could be the first that asks, and another the first too.
    assert {*asked} == {threading.current_thread().name}


def test_everything_that_takes_a_while_can_be_awaited(box: str) -> None:
    async def both() -> list[str]:
        found = await asyncio.gather(*(nb.aio.run(box, ["echo", str(n)], remove=True) for n in range(2)))
        with nb.container(box, "sleep 60") as container:
            found.append(await nb.aio.exec(container, "echo 2"))
        return [each.stdout.strip() for each in found]

    assert loops.run(both()) == ["0", "1", "2"]


def test_whoever_stops_waiting_ends_the_container(box: str) -> None:
    async def brief() -> None:
        await asyncio.wait_for(nb.aio.run(box, "sleep 60", name="awaited"), 0.5)

    with pytest.raises(TimeoutError):
        loops.run(brief())
    assert not nb.containers["awaited"].is_active


# --- the package ---


def test_names_that_are_modules_too_stay_what_they_are() -> None:
    program = (
        "import nbcontain as nb, nbcontain.build.plan, nbcontain.networks, importlib;"
        "assert callable(nb.build) and nb.build.__module__ == 'nbcontain.api', nb.build;"
        "assert type(nb.networks).__name__ == 'Networks';"
        "assert importlib.import_module('nbcontain.build').__path__;"
        "import sys; assert 'IPython' not in sys.modules and 'ipywidgets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent)


def test_every_public_name_is_there() -> None:
    assert [name for name in nb.__all__ if not hasattr(nb, name)] == []
