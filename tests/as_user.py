"""python as_user.py PROFILE HOME [--wired] COMMAND…: as root, run a command as an ordinary user made for it.

The user exists only in the mount namespace of the command: /etc/passwd, /etc/subuid and their like
are covered by copies with one more line. Nothing on the machine changes. Directories on the way to
the interpreter and the checkout that the user could not pass (often /root) are replaced there by
empty ones that hold nothing but what is needed. With --wired the command is in a network namespace of
its own, with another machine on a wire (wire.py) and a /dev/net/tun that anybody may open; with --walled there is no
/dev/net/tun for them.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

USERS = {"rootless-range": ("nbrange", 61200), "rootless-single": ("nbsingle", 61201)}
RANGE = (7_000_000, 65536)
CHECKOUT = Path(__file__).resolve().parent.parent
WIRED, WALLED = "--wired", "--walled"


def main(profile: str, home: str, command: list[str]) -> None:
    """Enter a mount namespace (by executing ourselves once more under unshare), then become the user."""
    wired = command[0] in (WIRED, WALLED)
    if "NBCONTAIN_TEST_INSIDE" not in os.environ:
        os.environ["NBCONTAIN_TEST_INSIDE"] = "1"
        unshare = ["unshare", "--mount", "--propagation", "private", *(["--net"] if wired else [])]
        os.execvp(unshare[0], [*unshare, sys.executable, "-I", __file__, profile, home, *command])
    del os.environ["NBCONTAIN_TEST_INSIDE"]
    name, uid = USERS[profile]
    cover_accounts(name, uid, home, with_range=profile == "rootless-range")
    if wired:
        walled = command.pop(0) == WALLED
        subprocess.run([sys.executable, "-I", str(CHECKOUT / "tests" / "wire.py"), "lay", str(os.getpid())], check=True)
        hidden = "" if profile == "rootless-range" else "pasta"
        let_tunnel(Path(home, ".accounts"), hidden, mode=0o600 if walled else 0o666)
    open_the_way([Path(sys.prefix), Path(sys.base_prefix).resolve(), CHECKOUT])
    os.environ.update(HOME=home, USER=name, LOGNAME=name, PYTHONDONTWRITEBYTECODE="1")
    for variable in ("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "NBCONTAIN_ROOT"):
        os.environ.pop(variable, None)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.execvp(command[0], command)


def cover_accounts(name: str, uid: int, home: str, *, with_range: bool) -> None:
    """Lay copies of the account files, with this user in them, over the real ones."""
    lines = {
        "/etc/passwd": f"{name}:x:{uid}:{uid}::{home}:/bin/sh",
        "/etc/group": f"{name}:x:{uid}:",
        "/etc/subuid": f"{name}:{RANGE[0]}:{RANGE[1]}" if with_range else "",
        "/etc/subgid": f"{name}:{RANGE[0]}:{RANGE[1]}" if with_range else "",
    }
    directory = Path(home, ".accounts")
    directory.mkdir()
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(directory))
    for path, line in lines.items():
        real = Path(path)
        before = real.read_text() if real.exists() else ""
        copy = directory / real.name
        copy.write_text(f"{before.rstrip()}\n{line}\n".lstrip("\n"))
        copy.chmod(0o644)
        real.touch(exist_ok=True)
        mount("--bind", str(copy), path)


def let_tunnel(directory: Path, hidden: str, mode: int) -> None:
    """A /dev/net/tun with this mode, a resolv.conf that names the other machine, and no program called `hidden`."""
    node = directory / "tun"
    os.mknod(node, mode | stat.S_IFCHR, os.makedev(10, 200))
    node.chmod(mode)
    if Path("/dev/net/tun").exists():
        mount("--bind", str(node), "/dev/net/tun")
    resolver = directory / "resolv.conf"
    resolver.write_text("nameserver 192.0.2.2\n")
    resolver.chmod(0o644)
    mount("--bind", str(resolver), str(Path("/etc/resolv.conf").resolve()))
    if hidden and (program := shutil.which(hidden)):
        mount("--bind", "/dev/null", program)


def open_the_way(needed: list[Path]) -> None:
    """Make each of these paths reachable for others than root."""
    closed = {parent for path in needed for parent in path.parents if not parent.stat().st_mode & 0o001}
    for directory in sorted(closed, key=lambda path: len(path.parts)):
        inside = sorted({path for path in needed if path.is_relative_to(directory)})
        held = [(path, os.open(path, os.O_PATH | os.O_DIRECTORY)) for path in inside]
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(directory))
        for path, fd in held:
            path.mkdir(parents=True, exist_ok=True)
            # mount(8) would resolve the descriptor to its path, which is covered by now.
            mount("--no-canonicalize", "--bind", f"/proc/{os.getpid()}/fd/{fd}", str(path))
            os.close(fd)


def mount(*arguments: str) -> None:
    """mount(8), since Python has no mount(2)."""
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
