"""Git repositories for tests, made by git and served on loopback: by git's own daemon, or as files over HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import needs
from servers import Server, free_port, wait_for_port


class Repository:
    """A work tree that can be committed to."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", *options)

    def git(self, *arguments: str) -> str:
        """Run git in it; what it says."""
        program = needs.program("git")
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.path.parent), "GIT_CONFIG_NOSYSTEM": "1"}
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main")
        more = ("-c", "protocol.file.allow=always")
        done = subprocess.run(
            [program, *who, *more, *arguments], cwd=self.path, env=environment, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    def commit(self, message: str = "more") -> str:
        """Commit all there is; its name."""
        self.git("add", "--all")
        self.git("commit", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def publish(self, server: Server, name: str) -> str:
        """Put it on an HTTP server as files, for git's dumb protocol; its URL."""
        self.git("repack", "-adq")
        self.git("update-server-info")
        top = self.path / ".git"
        for path in sorted(top.rglob("*")):
            if path.is_file():
                server.put(f"/{name}.git/{path.relative_to(top)}", path.read_bytes())
        return f"{server.url}/{name}.git"


@contextmanager
def daemon(base: Path) -> Iterator[str]:
    """git daemon on all repositories below a directory; the beginning of their URLs."""
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "HOME": str(base), "GIT_CONFIG_NOSYSTEM": "1"}
    process = subprocess.Popen(
        [needs.program("git"), "daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", f"--port={port}",
         f"--base-path={base}", str(base)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for_port(port)
        yield f"git://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
