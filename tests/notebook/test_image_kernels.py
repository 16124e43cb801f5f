"""Jupyter kernels inside of images, driven by jupyter_client's own managers and clients."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import AsyncKernelManager, KernelManager

import loops
import needs
import places
from kernels import CHECKOUT, Kernel
from machine import until
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import NameTaken, Unavailable, UsageError
from nbcontain.events import Event, Notice
from nbcontain.kernel_places import KernelPlace
from nbcontain.kernels import KernelEntry, KernelOptions, kernel_options, run_options
from nbcontain.kernelspecs import chosen, kernelspec, logo, searched
from nbcontain.options import words_of
from provisioning import declared

pytestmark = pytest.mark.slow
WITH_USER = "FROM hostpy\nUSER user\n"
START_AND_WAIT = """
import sys, time
from jupyter_client.manager import KernelManager
manager = KernelManager(kernel_name=sys.argv[1])
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=60)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def jupyter() -> Iterator[dict[str, str]]:
    """An environment whose Jupyter has no kernels of its own and knows the provisioner that pyproject.toml declares."""
    with tempfile.TemporaryDirectory(prefix="nbcontain-jupyter-") as directory, pytest.MonkeyPatch.context() as patch:
        path = declared(Path(directory))
        patch.syspath_prepend(path)
        environ = {
            "JUPYTER_DATA_DIR": f"{directory}/data", "JUPYTER_RUNTIME_DIR": f"{directory}/runtime",
            "XDG_RUNTIME_DIR": directory, "PYTHONPATH": f"{path}:{CHECKOUT}",
        }  # fmt: skip
        for name, value in environ.items():
            patch.setenv(name, value)
        yield environ


@pytest.fixture(scope="module")
def store(jupyter: dict[str, str]) -> Iterator[Engine]:
    """A store with an image of this machine's Python and ipykernel, and one whose user is not root."""
    with places.store_directory(needs.memory()) as directory, Engine(directory) as engine:
        engine.from_host("hostpy", packages=("ipykernel",)).result()
        engine.build(WITH_USER, BuildOptions(tags=("hostpy-user",))).result()
        yield engine


@pytest.fixture
def add(store: Engine) -> Iterator[Callable[..., KernelEntry]]:
    """Make a kernel of an image known to Jupyter, as `kernel add` does; it is forgotten afterwards."""
    added: list[str] = []

    def add_(name: str, image: str = "hostpy", *words: str) -> KernelEntry:
        entry = store.kernels.add(image, kernel_options(words), lambda event: None, name=name)
        added.append(name)
        return entry

    yield add_
    for name in added:
        with contextlib.suppress(UsageError):
            store.kernels.remove(name)


@pytest.fixture
def running() -> Iterator[Callable[..., tuple[KernelManager, BlockingKernelClient]]]:
    """Start kernels by name; they are shut down afterwards."""
    with contextlib.ExitStack() as stack:

        def start(name: str, **how: Any) -> tuple[KernelManager, BlockingKernelClient]:
            manager = KernelManager(kernel_name=name)
            manager.start_kernel(**how)
            stack.callback(lambda: manager.has_kernel and manager.shutdown_kernel(now=True))
            return manager, connected(manager)

        yield start


def connected(manager: KernelManager) -> BlockingKernelClient:
    client: BlockingKernelClient = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    return client


def said(client: BlockingKernelClient, code: str, **how: Any) -> tuple[str, str]:
    """What a cell printed, or the name of its error; and the reply's status."""
    texts: list[str] = []

    def take(message: dict[str, Any]) -> None:
        content = message["content"]
        texts.append(content.get("text") or content.get("ename") or "")

    reply = client.execute_interactive(code, timeout=30, output_hook=take, **how)
    return "".join(texts).strip(), reply["content"]["status"]


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that whoever runs in a container comes into, which pytest's own are not."""
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-test-", dir=needs.scratch()))
    directory.chmod(0o755)
    yield directory
    places.remove(directory)


def test_a_kernel_without_a_network_runs_is_interrupted_restarted_and_leaves_nothing(
    profile: str, store: Engine, add: Callable[..., KernelEntry], running: Callable[..., Any], open_directory: Path
) -> None:
    (open_directory / "data.txt").write_text("of the notebook's directory")
    add("shut-in", "hostpy-user", "--network=none", "--volume=.:/lab", "--env=COLOUR=red")
    manager, client = running("shut-in", cwd=str(open_directory))
    place = Path(manager.ip).parent.parent
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "s" / "connection.json").stat().st_mode) == 0o600
    code = "import os; print(os.getuid(), os.listdir('/sys/class/net'), os.getcwd(), open('data.txt').read(), "
    assert said(client, code + "os.environ['COLOUR'], 'JPY_PARENT_PID' in os.environ)") == (
        "1000 ['lo'] /lab of the notebook's directory red False", "ok",
    )  # fmt: skip
    threading.Timer(0.3, manager.interrupt_kernel).start()
    assert said(client, "import time; time.sleep(30)") == ("KeyboardInterrupt", "error")
    before = [each.id for each in store.containers()]
    manager.restart_kernel()
    client.wait_for_ready(timeout=60)
    assert said(client, "print('os' in globals())") == ("False", "ok")
    assert [each.id for each in store.containers()] != before
    manager.shutdown_kernel()
    assert store.containers() == []
    assert not place.exists()


def test_several_at_once_ask_for_input_and_open_comms(
    store: Engine, add: Callable[..., KernelEntry], running: Callable[..., Any]
) -> None:
    add("one")
    (_, first), (_, second) = running("one"), running("one")
    said(first, "mine = 1")
    assert said(second, "print('mine' in globals())") == ("False", "ok")
    assert store.kernels.running() == {"one": 2}
    asked = said(first, "print(input('name? '))", allow_stdin=True, stdin_hook=lambda message: first.input("Ada"))
    assert asked == ("Ada", "ok")
    seen: list[str] = []
    first.execute_interactive(
        "from comm import create_comm; _ = create_comm(target_name='t', data={'n': 1})", timeout=30,
        output_hook=lambda message: seen.append(message["msg_type"]),
    )  # fmt: skip
    assert "comm_open" in seen


def test_a_kernel_that_dies_is_seen_to_and_can_be_started_again(
    add: Callable[..., KernelEntry], running: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    add("dying")
    manager, client = running("dying")
    logger = logging.getLogger("dying")
    manager.provisioner.log = logger
    client.execute("import os; os._exit(3)")
    until(lambda: not manager.is_alive())
    assert "exit code 3" in caplog.text
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=60)
    assert said(client, "print(6 * 7)") == ("42", "ok")


def test_many_kernels_share_one_loop(add: Callable[..., KernelEntry]) -> None:
    add("quick")

    async def talk() -> list[str]:
        manager = AsyncKernelManager(kernel_name="quick")
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        reply = await client.execute("x = 1", reply=True, timeout=20)
        await manager.shutdown_kernel()
        return [reply["content"]["status"], str(await manager.is_alive())]

    assert loops.run(talk()) == ["ok", "False"]


def test_a_kernel_ends_with_a_jupyter_that_is_killed(
    store: Engine, add: Callable[..., KernelEntry], jupyter: dict[str, str]
) -> None:
    add("orphan")
    server = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT, "orphan"], stdout=subprocess.PIPE, env={**os.environ, **jupyter}
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    (container,) = store.containers()
    assert container.status == "running"
    server.send_signal(signal.SIGKILL)
    server.communicate()
    until(lambda: not store.containers(), 10)
    left = list(Path(jupyter["XDG_RUNTIME_DIR"], "nbcontain").iterdir())
    assert len(left) == 1
    store.kernels.place().remove()
    assert list(left[0].parent.iterdir()) == []


def test_an_image_without_a_kernel_says_what_to_add(
    engine: Engine, busybox_image: str, jupyter: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match="busybox has no Jupyter kernel") as caught:
        engine.kernels.add(busybox_image, KernelOptions(), lambda event: None)
    assert "ipykernel for Python" in caught.value.hint


def test_a_jupyter_that_could_not_start_it_is_said(
    store: Engine, jupyter: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    store.kernels.add("hostpy", KernelOptions(), told.append, name="known")
    assert not [each for each in told if isinstance(each, Notice)]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **how: ())
    store.kernels.add("hostpy", KernelOptions(), told.append, name="known")
    store.kernels.remove("known")
    assert ["does not know how to start known" in each.message for each in told if isinstance(each, Notice)] == [True]


def test_a_name_that_is_another_kernels_is_refused(store: Engine, jupyter: dict[str, str]) -> None:
    theirs = Path(jupyter["JUPYTER_DATA_DIR"], "kernels", "theirs")
    theirs.mkdir(parents=True)
    (theirs / "kernel.json").write_text('{"argv": ["x"], "display_name": "x"}')
    with pytest.raises(NameTaken, match="none of nbcontain's"):
        store.kernels.add("hostpy", KernelOptions(), lambda event: None, name="theirs")
    with pytest.raises(UsageError, match="no kernel theirs of nbcontain's"):
        store.kernels.remove("theirs")
    with pytest.raises(UsageError, match="letters, digits"):
        store.kernels.add("hostpy", KernelOptions(), lambda event: None, name="../up")
    shutil.rmtree(theirs)


def test_the_magic_and_the_terminal_have_the_same_words(
    store: Engine, start_kernel: Callable[..., Kernel], jupyter: dict[str, str]
) -> None:
    notebook = start_kernel(NBCONTAIN_ROOT=str(store.layout.root))
    notebook.check("k = %kernel add hostpy --name mine --network none --display-name 'In a box'")
    assert "--network=none" in notebook.check("print(k)").stdout
    assert "In a box" in notebook.check("%kernel ls").text
    environ = {**os.environ, **jupyter, "NBCONTAIN_ROOT": str(store.layout.root)}

    def terminal(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nbcontain", "kernel", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environ, check=False)

    assert terminal("ls", "-q").stdout == "mine\n"
    again = terminal("add", "hostpy", "--name", "mine", "-d")
    assert "kernel add" in again.stderr
    assert "-d" in again.stderr
    assert notebook.check("%kernel rm mine").text.strip().endswith("mine")
    gone = terminal("rm", "mine")
    assert gone.returncode == 1
    assert "nbcontain kernel ls" in gone.stderr
    assert store.kernels.all() == []


def test_nothing_can_be_mounted_so_there_is_no_kernel(store: Engine) -> None:
    with pytest.raises(Unavailable, match="cannot be had with isolation chroot"):
        store.kernels.add("hostpy", kernel_options(["--isolation=chroot"]), lambda event: None)


# --- decisions -------------------------------------------------------------------------------------


def spec_of(name: str = "ir", python: str = "", **spec: Any) -> dict[str, str]:
    return {"name": name, "directory": f"/k/{name}", "text": json.dumps(spec), "python": python}


def test_the_kernel_of_an_image_is_found_by_its_kernelspec() -> None:
    argv = ["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}", "{resource_dir}/x"]
    specs = [spec_of(argv=argv, language="R", display_name="R", env={"A": "${HOME}"}), spec_of("none", argv=["x"])]
    found = chosen({"specs": specs, "pythons": []}, "", "r-base")
    assert found.argv[-2:] == ("{connection_file}", "/k/ir/x")
    assert (found.language, found.display_name, found.environment) == ("R", "R", ("A=${HOME}",))
    with pytest.raises(UsageError, match="no kernel julia"):
        chosen({"specs": specs, "pythons": []}, "julia", "r-base")


def test_python_means_the_one_beside_its_kernelspec() -> None:
    argv = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    found = chosen({"specs": [spec_of("python3", "/opt/venv/bin/python", argv=argv)], "pythons": []}, "", "x")
    assert found.argv[0] == "/opt/venv/bin/python"


def test_a_python_without_ipykernel_is_told_apart() -> None:
    pythons = [{"path": "/usr/bin/python3", "kernel": False}, {"path": "/opt/bin/python3", "kernel": True}]
    assert chosen({"specs": [], "pythons": pythons}, "", "x").argv[0] == "/opt/bin/python3"
    with pytest.raises(UsageError) as caught:
        chosen({"specs": [], "pythons": pythons[:1]}, "", "x")
    assert "pip install ipykernel" in caught.value.hint


@pytest.mark.parametrize("text", ["", "[" * 9999, "[]", '{"argv": "x"}', '{"argv": ["{connection_file}"], "env": 3}'])
def test_what_an_image_says_of_its_kernels_is_not_trusted(text: str) -> None:
    with pytest.raises(UsageError, match="no Jupyter kernel"):
        chosen({"specs": [{"name": "x", "directory": "/x", "text": text, "python": ""}], "pythons": []}, "", "x")


def test_an_image_has_no_say_in_what_is_executed_outside_of_it() -> None:
    spec = spec_of(argv=["/bin/evil", "{connection_file}"], display_name="a\x1b]0;b", env={"X": "${SECRET}"})
    found = chosen({"specs": [spec], "pythons": []}, "", "x")
    document = kernelspec(found, found.display_name, "x", (), "/root")
    assert document["argv"][0] == sys.executable
    assert "/bin/evil" not in document["argv"]
    assert "env" not in document
    assert document["display_name"] == "a]0;b"
    assert "<script" not in logo("<script>")


def test_kernels_are_looked_for_where_path_points() -> None:
    places = searched(["PATH=/opt/x/bin:/bin:relative", "JUPYTER_PATH=/j", "HOME=/h"])
    assert places["directories"][:3] == ["/j/kernels", "/h/.local/share/jupyter/kernels",
                                         "/root/.local/share/jupyter/kernels"]  # fmt: skip
    assert "/opt/x/share/jupyter/kernels" in places["directories"]
    assert places["programs"][0] == "/opt/x/bin/python3"


def test_a_dot_is_the_notebooks_directory(tmp_path: Path) -> None:
    options = kernel_options(["-v=.:/lab:ro", "-v=./d:/d", "-v=vol:/v", "--mount=type=bind,src=../x,dst=/x"])
    place = KernelPlace(tmp_path, contextlib.ExitStack(), lambda path: None)
    run = run_options("i", ["k"], options, place, name="n", cwd=Path("/home/me/nb"))
    assert run.volumes[:3] == ("/home/me/nb:/lab:ro", "/home/me/nb/d:/d", "vol:/v")
    assert run.mount == ("type=bind,src=/home/me/x,dst=/x",)
    assert (run.workdir, run.entrypoint, run.init, run.remove) == ("/lab", "", True, True)


def test_sockets_that_nobody_can_open_are_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = KernelPlace(tmp_path, contextlib.ExitStack(), lambda path: None)
    place.sockets.mkdir()
    for number in range(1, 6):
        Path(f"{place.ip}-{number}").touch()
    monkeypatch.setattr("nbcontain.kernel_places.is_root", lambda: False)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    launcher: Any = SimpleNamespace(call=lambda *given, **named: open("/nothing/here", "rb"))
    looks = iter((True, True, False))
    with pytest.raises(FileNotFoundError):
        place.open(launcher, lambda: next(looks))


def test_options_are_words_again() -> None:
    options = kernel_options(["-e", "A=-x", "--network", "none", "--read-only", "-m", "1g"])
    assert kernel_options(words_of(options)) == options
