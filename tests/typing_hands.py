"""Somebody at a terminal: starts a command there, types, and looks at what appears."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence


class Hands:
    """A command at a terminal of its own, which it controls, and who sits before it."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], size: tuple[int, int] = (24, 80)) -> None:
        self.master, peer = os.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(self.master)
        self.process = subprocess.Popen(["setsid", "-c", *command], stdin=peer, stdout=peer, stderr=peer, env=env)
        # Kept: without it the terminal could not be looked at when the command is over.
        self._peer = peer
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def types(self, text: str) -> None:
        os.write(self.master, text.encode())

    def sees(self, pattern: str, timeout_s: float = 20.0) -> re.Match[str]:
        """Look until this appears; what is behind it is looked at the next time."""
        deadline = time.monotonic() + timeout_s
        while (match := re.search(pattern, self.seen)) is None:
            if not select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"{pattern!r} does not appear in {self.seen!r}")
            self.seen += os.read(self.master, 1 << 16).decode(errors="surrogateescape")
        self.seen = self.seen[match.end() :]
        return match

    def says(self, command: str, pattern: str) -> re.Match[str]:
        """Type a line and look for what it gives."""
        self.types(command + "\r")
        return self.sees(pattern)

    def ends(self, timeout_s: float = 20.0) -> int:
        """Its exit status, once it is over."""
        status = self.process.wait(timeout_s)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 1 << 16).decode(errors="surrogateescape")
        return status

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal reads and echoes lines as it did."""
        return termios.tcgetattr(self.master) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self._peer)
