"""Real IPython kernels of the test matrix, and what a front end does with them."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

import needs

CHECKOUT = Path(__file__).resolve().parent.parent
KERNELS = CHECKOUT / ".cache" / "kernels"
RELEASES = ("6.30", "7.3", "7.4")
PLAIN = "text/plain"
HTML = "text/html"
WIDGET = "application/vnd.jupyter.widget-view+json"
BUSYBOX_CELL = """\
%%dockerfile -t box
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
CMD ["sh", "-c", "echo hello from the box"]
"""
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def python_of(release: str) -> str:
    """The interpreter of a kernel environment made by tools/kernels.py; "here" is this one."""
    if release == "here":
        return sys.executable
    python = KERNELS / release / "bin/python"
    if not python.exists():
        needs.missing(f"no environment with ipykernel {release}: tools/kernels.py makes it (make test does)")
    return str(python)


@dataclass
class Cell:
    """A cell that was started, and what has come of it."""

    msg_id: str
    outputs: list[dict[str, Any]] = field(default_factory=list)
    is_busy: bool = False
    is_idle: bool = False
    reply: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        return self.reply is not None and self.reply["status"] == "ok"

    @property
    def stdout(self) -> str:
        return self._stream("stdout")

    @property
    def stderr(self) -> str:
        return self._stream("stderr")

    @property
    def error(self) -> str:
        """What is shown in place of a result when the cell failed, without colours."""
        return "\n".join(
            _ESCAPES.sub("", "\n".join(output["traceback"])) for output in self.outputs if output["type"] == "error"
        )

    @property
    def ename(self) -> str:
        return next((output["ename"] for output in self.outputs if output["type"] == "error"), "")

    @property
    def text(self) -> str:
        """All that can be read without widgets: streams, the plain text of displays as last updated, errors."""
        plain = [output["data"].get(PLAIN, "") for output in self.displays]
        return "\n".join([self.stdout, self.stderr, *plain, self.error])

    @property
    def displays(self) -> list[dict[str, Any]]:
        """Displays and results, each as its last update left it."""
        shown: list[dict[str, Any]] = []
        for output in self.outputs:
            if output["type"] == "update_display_data":
                for earlier in shown:
                    if earlier["transient"].get("display_id") == output["transient"].get("display_id"):
                        earlier["data"] = output["data"]
            elif output["type"] in ("display_data", "execute_result"):
                shown.append({**output})
        return shown

    def _stream(self, name: str) -> str:
        return "".join(o["text"] for o in self.outputs if o["type"] == "stream" and o["name"] == name)


class Kernel:
    """One running kernel and its client."""

    def __init__(self, manager: KernelManager) -> None:
        self.manager = manager
        self._subshell: str | None = None
        self._connect()

    def _connect(self) -> None:
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self._cells: dict[str, Cell] = {}
        self.comms: dict[str, dict[str, Any]] = {}
        """The state of each widget of this kernel, as messages have told it."""

    @property
    def pid(self) -> int:
        """The kernel's process id."""
        return int(self.manager.provisioner.pid)  # type: ignore[union-attr]

    # --- cells ---

    def start(self, code: str) -> Cell:
        """Begin a cell and return at once."""
        cell = Cell(self.client.execute(code, store_history=True))
        self._cells[cell.msg_id] = cell
        return cell

    def run(self, code: str, timeout_s: float = 60) -> Cell:
        """Run a cell to its end."""
        return self.finish(self.start(code), timeout_s)

    def check(self, code: str, timeout_s: float = 60) -> Cell:
        """Run a cell that must succeed."""
        cell = self.run(code, timeout_s)
        assert cell.ok, f"{code}\n--\n{cell.text}"
        return cell

    def finish(self, cell: Cell, timeout_s: float = 60) -> Cell:
        """Wait for the end of a cell."""
        self.wait_for(lambda: cell.is_idle, timeout_s, what="the cell's end")
        while cell.reply is None:
            message = self.client.get_shell_msg(timeout=timeout_s)
            owner = self._cells.get(message["parent_header"].get("msg_id", ""))
            if owner is not None and message["msg_type"] == "execute_reply":
                owner.reply = message["content"]
        return cell

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 20, what: str = "it") -> None:
        """Take in messages until something holds."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                seen = "\n".join(cell.text for cell in self._cells.values())
                raise AssertionError(f"waited {timeout_s} s in vain for {what}; seen so far:\n{seen[-4000:]}")
            try:
                self._take(self.client.get_iopub_msg(timeout=0.05))
            except Empty:
                continue

    def _take(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        cell = self._cells.get(message["parent_header"].get("msg_id", ""))
        if kind in ("comm_open", "comm_msg"):
            self._take_comm(kind, content)
        if kind == "update_display_data":
            # It may come long after the display, from a thread or from another cell: it belongs where its id is.
            for each in self._cells.values():
                each.outputs.append({"type": kind, **content})
            return
        if cell is None:
            return
        if kind == "status":
            cell.is_busy = content["execution_state"] == "busy"
            cell.is_idle = cell.is_idle or content["execution_state"] == "idle"
        elif kind in ("stream", "display_data", "execute_result", "error"):
            cell.outputs.append({"type": kind, "transient": {}, **content})

    def _take_comm(self, kind: str, content: dict[str, Any]) -> None:
        data = content.get("data", {})
        if kind == "comm_open":
            self.comms[content["comm_id"]] = dict(data.get("state", {}))
        elif data.get("method") == "update":
            self.comms.setdefault(content["comm_id"], {}).update(data.get("state", {}))

    # --- what the user's other hand does ---

    def interrupt(self) -> None:
        """The ■ button."""
        self.manager.interrupt_kernel()

    def restart(self) -> None:
        """Kernel → Restart."""
        self.client.stop_channels()
        self.manager.restart_kernel(now=False)
        self._connect()

    def kill(self) -> None:
        """What the out-of-memory killer does."""
        os.kill(self.pid, signal.SIGKILL)
        while self.manager.is_alive():
            time.sleep(0.02)

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)

    # --- widgets ---

    def subshell(self) -> str:
        """The subshell that JupyterLab would send widget messages to."""
        if self._subshell is None:
            message = self.client.session.msg("create_subshell_request", {})
            self.client.control_channel.send(message)
            while self._subshell is None:
                reply = self.client.get_control_msg(timeout=10)
                if reply["msg_type"] == "create_subshell_reply":
                    self._subshell = reply["content"]["subshell_id"]
        assert self._subshell is not None
        return self._subshell

    def send_to_widget(self, comm_id: str, content: dict[str, Any], *, subshell: str | None = None) -> None:
        """A custom message from the page to a widget, as the browser sends it."""
        message = self.client.session.msg(
            "comm_msg", {"comm_id": comm_id, "data": {"method": "custom", "content": content}}
        )
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)


@contextmanager
def started(release: str, *, root: Path, cwd: Path, environ: dict[str, str] | None = None) -> Iterator[Kernel]:
    """A kernel of this ipykernel release whose engine uses the store at `root`."""
    with tempfile.TemporaryDirectory(prefix="nbcontain-kernel-") as directory:
        spec = Path(directory, "kernels", "test")
        spec.mkdir(parents=True)
        argv = [python_of(release), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": release, "language": "python"}))
        env = {**os.environ, "NBCONTAIN_ROOT": str(root), "NBCONTAIN_DISPLAY": "card", **(environ or {})}
        env.update(IPYTHONDIR=f"{directory}/ipython", JUPYTER_RUNTIME_DIR=f"{directory}/runtime")
        manager = KernelManager(
            kernel_name="test",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(spec.parent)], ensure_native_kernel=False),
            connection_file=f"{directory}/connection.json",
        )
        manager.start_kernel(env=env, cwd=str(cwd))
        kernel = Kernel(manager)
        try:
            yield kernel
        finally:
            kernel.close()
