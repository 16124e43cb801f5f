"""The user's ssh agent, for one step: a socket of its own that passes on what only uses keys.

A step may list the keys and have something signed. It may not add, remove or lock keys (draft-miller-ssh-agent § 3):
that would outlive it. A key that is a file is put into an agent of its own for as long as the step runs.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nbcontain.errors import BuildError

_ALLOWED = frozenset({11, 13})
"""SSH_AGENTC_REQUEST_IDENTITIES and SSH_AGENTC_SIGN_REQUEST."""
_FAILURE = b"\0\0\0\x01\x05"
_MAX_MESSAGE_BYTES = 256 << 10
_ANSWER_S = 60.0


@contextmanager
def forwarded(
    paths: Sequence[str], directory: Path, mode: int, owner: tuple[int, int] | None = None
) -> Iterator[Path]:
    """A socket in `directory` that passes on to the agent at `paths`, or to a new one with the keys that those are.

    `owner` is a user and a group that this process may give it to. Raises BuildError.
    """
    with ExitStack() as stack:
        sockets = [path for path in paths if stat.S_ISSOCK(os.stat(path).st_mode)]
        keys = [path for path in paths if path not in sockets]
        agent = sockets[0] if sockets and not keys else stack.enter_context(_agent_with(keys, directory))
        path = directory / f"ssh-{os.urandom(4).hex()}.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            _bind(listener, path)
            if owner is not None:
                os.chown(path, *owner)
            os.chmod(path, mode)
            listener.listen(16)
            relay = _Relay(listener, agent)
            stack.callback(relay.end)
            yield path


def _bind(listener: socket.socket, path: Path) -> None:
    """By a descriptor of the directory, since a socket's path ends at 108 bytes."""
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{fd}/{path.name}")
    finally:
        os.close(fd)


class _Relay:
    """Serves one listening socket on a thread of its own, each connection on another."""

    def __init__(self, listener: socket.socket, agent: str) -> None:
        self._listener = listener
        self._agent = agent
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="nbcontain ssh", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Take no more connections; those that there are end with their step."""
        os.close(self._writing)
        self._thread.join()
        os.close(self._reading)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._reading, select.POLLIN)
        while not any(fd == self._reading for fd, _ in poll.poll()):
            client, _ = self._listener.accept()
            threading.Thread(target=self._pass_on, args=(client,), name="nbcontain ssh", daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            agent.settimeout(_ANSWER_S)
            try:
                agent.connect(self._agent)
                while (message := _message(client)) is not None:
                    if message[4] not in _ALLOWED:
                        client.sendall(_FAILURE)
                        continue
                    agent.sendall(message)
                    answer = _message(agent)
                    if answer is None:
                        return
                    client.sendall(answer)
            except OSError:
                # Whoever hung up wants no more.
                return


def _message(end: socket.socket) -> bytes | None:
    """One message with its length; None at the end, or for one that no agent would take."""
    head = _exactly(end, 4)
    size = int.from_bytes(head, "big")
    if len(head) < 4 or not 0 < size <= _MAX_MESSAGE_BYTES:
        return None
    body = _exactly(end, size)
    return head + body if len(body) == size else None


def _exactly(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return data


@contextmanager
def _agent_with(keys: Sequence[str], directory: Path) -> Iterator[str]:
    """An agent that knows these key files, for as long as this lasts."""
    programs = {name: shutil.which(name) for name in ("ssh-agent", "ssh-add")}
    if missing := [name for name, path in programs.items() if path is None]:
        raise BuildError(f"--ssh with a key needs {missing[0]}", hint="Debian: apt-get install openssh-client")
    path = str(directory / f"agent-{os.urandom(4).hex()}.sock")
    environment = {"PATH": os.environ.get("PATH", os.defpath), "SSH_AUTH_SOCK": path, "SSH_ASKPASS_REQUIRE": "never"}
    agent = subprocess.Popen(
        [str(programs["ssh-agent"]), "-D", "-a", path],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, env=environment,
    )  # fmt: skip
    try:
        for key in keys:
            for _ in range(50):
                added = subprocess.run(
                    [str(programs["ssh-add"]), "-q", "--", key],
                    stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False,
                    start_new_session=True, timeout=_ANSWER_S,
                )  # fmt: skip
                if added.returncode != 2:
                    break
                # It is not listening yet.
                select.select([], [], [], 0.02)
            if added.returncode:
                raise BuildError(
                    f"the ssh key {key} cannot be used", why=added.stderr.strip()[:200],
                    hint="A key with a passphrase goes into an agent first: ssh-add, then --ssh default",
                )  # fmt: skip
        yield path
    finally:
        agent.terminate()
        agent.wait()
