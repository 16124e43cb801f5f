r"""Conformance cases: a Dockerfile each, with the files beside it, as text that anybody can add to.

A file in cases/ holds many. One begins with a line `== name`; lines `#: word …` say what else there is:

    #: build-arg NAME=value      #: target stage      #: crlf      #: bom
    #: shows testName            what test of a peer's own suite this case shows
    #: differs KEY: reason       a difference from docker that is meant; KEY is a pattern of fnmatch
    #: documented                docker 20.10 does not know this; what the documentation says is in the next two
    #: expect KEY = words        a fact must be there, with these words in it; `absent` for a path
    #: fails                     there is no image
    #: with @name                the files of the block `== @name` above, too

then the Dockerfile, then files: `-- path mode`, `-- path -> target`, `-- path/ mode`, `-- path =KIND`
(pipe, socket, an archive with a global header: tar-g, one with attributes: tar-xattrs, a file with some: xattrs).
What is called Dockerfile.dockerignore lies beside the Dockerfile, outside of the context.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import socket
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
THEN_S = 981_173_106
"""The time stamp of every file of a context, so that what keeps time stamps is seen to."""
OWNER = 1234
APPLETS = """sh ash ls cat cp mv rm mkdir rmdir ln chmod chown echo true false id stat touch env pwd test find grep sed
head tail printf sort tar wc sleep mkfifo mknod readlink date hostname tr cut uname mount awk expr seq"""


@dataclass(slots=True)
class Case:
    """One Dockerfile and all it is built with."""

    name: str
    topic: str
    dockerfile: bytes = b""
    files: list[tuple[str, str]] = field(default_factory=list)
    build_args: list[str] = field(default_factory=list)
    target: str = ""
    shows: list[str] = field(default_factory=list)
    differs: dict[str, str] = field(default_factory=dict)
    expects: dict[str, str] = field(default_factory=dict)
    is_documented: bool = False
    fails: bool = False


def all_cases() -> list[Case]:
    """Every case, in the order of the files."""
    found = [case for path in sorted((HERE / "cases").glob("*.txt")) for case in _parsed(path)]
    names = [case.name for case in found]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"two cases are called {twice}"
    return found


def _parsed(path: Path) -> list[Case]:
    cases: list[Case] = []
    shared: dict[str, str] = {}
    for block in ("\n" + path.read_text()).split("\n== ")[1:]:
        name, _, rest = block.partition("\n")
        if name.startswith("@"):
            shared[name.strip()] = rest.rstrip("\n")
            continue
        for other, files in shared.items():
            if f"#: with {other}\n" in rest:
                rest = f"{rest.rstrip()}\n{files}"
        cases.append(_case(Case(name.strip(), path.stem), rest.rstrip("\n") + "\n"))
    return cases


def _case(case: Case, text: str) -> Case:
    head, *files = ("\n" + text).split("\n-- ")
    lines, newline, start = [], "\n", ""
    for line in head[1:].split("\n"):
        if not line.startswith("#: "):
            lines.append(line)
            continue
        word, _, rest = line[3:].partition(" ")
        match word:
            case "build-arg":
                case.build_args.append(rest)
            case "target":
                case.target = rest
            case "shows":
                case.shows += rest.split()
            case "differs":
                key, _, reason = rest.partition(": ")
                case.differs[key] = reason
            case "expect":
                key, _, words = rest.partition(" = ")
                case.expects[key] = words
            case "with":
                pass
            case "documented":
                case.is_documented = True
            case "fails":
                case.fails = True
            case "crlf":
                newline = "\r\n"
            case "bom":
                start = "\ufeff"
            case _:
                raise ValueError(f"{case.name}: #: {word}")
    case.dockerfile = (start + newline.join(lines).rstrip("\r\n") + newline).encode()
    for each in files:
        line, _, content = each.partition("\n")
        case.files.append((line, content if content.endswith("\n") else content + "\n"))
    return case


# --- the build context ------------------------------------------------------------------------


def write_context(case: Case, directory: Path) -> None:
    """The standard files and the case's own, all with one owner and one time stamp."""
    directory.mkdir(parents=True)
    _standard(directory)
    for line, content in case.files:
        name, arrow, target = line.partition(" -> ")
        name, _, special = name.partition(" =")
        path, _, mode = name.rpartition(" ") if not arrow and name.rpartition(" ")[2].isdigit() else (name, "", "")
        where = directory / path
        where.parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            where.symlink_to(target)
        elif special == "pipe":
            os.mkfifo(where, 0o640)
        elif special == "socket":
            # A short name: a socket's address has room for 107 bytes.
            parent = os.open(where.parent, os.O_PATH)
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(f"/proc/self/fd/{parent}/{where.name}")
            os.close(parent)
        elif special.startswith("tar"):
            where.write_bytes(_archive_of(special))
        elif special == "xattrs":
            where.write_text(content)
            os.setxattr(where, "user.case", b"of a file")
        elif path.endswith("/"):
            where.mkdir(exist_ok=True)
            where.chmod(int(mode or "755", 8))
        else:
            where.write_text(content)
            where.chmod(int(mode or "644", 8))
    for top, names, others in os.walk(directory):
        for name in (*names, *others):
            _settle(os.path.join(top, name))
    _settle(str(directory))


def _settle(path: str) -> None:
    mode = os.lstat(path).st_mode & 0o7777
    if os.geteuid() == 0:
        os.chown(path, OWNER, OWNER, follow_symlinks=False)
    if not os.path.islink(path):
        os.chmod(path, mode)  # chown takes setuid away
    os.utime(path, (THEN_S, THEN_S), follow_symlinks=False)


def _standard(root: Path) -> None:
    for name, mode in (
        ("a.txt", 0o644), ("b.txt", 0o644), ("run.sh", 0o755), ("secret.txt", 0o600), ("setuid", 0o4755),
        ("with space.txt", 0o644), ("[odd].txt", 0o644), ("üñí.txt", 0o644), ("read-only", 0o444),
        ("dir/x.txt", 0o644), ("dir/y.md", 0o640), ("dir/.hidden", 0o644), ("dir/sub/deep.txt", 0o644),
        ("dir/sub/deep.md", 0o644), ("other/x.txt", 0o600), ("other/z.txt", 0o644), ("notarchive.tar", 0o644),
        ("hard/one", 0o644),
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
        path.chmod(mode)
    os.link(root / "hard/one", root / "hard/two")
    (root / "empty").mkdir(mode=0o750)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    (root / "other").chmod(0o700)
    for name, target in (
        ("link", "a.txt"), ("dirlink", "dir"), ("dangling", "nowhere"), ("absolute", "/dir/x.txt"),
        ("dir/up", "../a.txt"), ("outside", "../../../../etc/hostname"), ("chain", "link"),
    ):  # fmt: skip
        (root / name).symlink_to(target)
    plain = _archive()
    (root / "archive.tar").write_bytes(plain)
    (root / "archive.tar.gz").write_bytes(gzip.compress(plain, mtime=0))
    (root / "archive.tar.bz2").write_bytes(bz2.compress(plain))
    (root / "archive.tar.xz").write_bytes(lzma.compress(plain))
    (root / "archive-by-content").write_bytes(gzip.compress(plain, mtime=0))
    (root / "single.gz").write_bytes(gzip.compress(b"no tar in here\n" * 100, mtime=0))


def _archive() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, mode, owner, extra in (
            ("top", tarfile.DIRTYPE, 0o750, 7, ""), ("top/file", tarfile.REGTYPE, 0o640, 7, "in the archive\n"),
            ("top/tool", tarfile.REGTYPE, 0o4755, 0, "#!/bin/sh\n"), ("top/link", tarfile.SYMTYPE, 0o777, 7, "file"),
            ("top/hard", tarfile.LNKTYPE, 0o640, 7, "top/file"), ("no/parent", tarfile.REGTYPE, 0o600, 8, "x\n"),
            ("top/pipe", tarfile.FIFOTYPE, 0o644, 7, ""),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid, info.mtime = kind, mode, owner, owner, THEN_S - 1000
            data = extra.encode() if kind == tarfile.REGTYPE else b""
            info.size = len(data)
            info.linkname = extra if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def _archive_of(kind: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        if kind == "tar-g":
            tar.fileobj.write(tarfile.TarInfo.create_pax_global_header({"comment": "0123456789abcdef"}))  # type: ignore[union-attr]
        for name in ("one", "two"):
            info = tarfile.TarInfo(f"d/{name}")
            info.size, info.mtime = 4, THEN_S - 1000
            if kind == "tar-xattrs":
                info.pax_headers = {"SCHILY.xattr.user.case": "of an archive"}
            tar.addfile(info, io.BytesIO(f"{name}\n".encode()))
    return made.getvalue()


def base_tar(busybox: Path) -> bytes:
    """A root file system of busybox with users and groups, as every case's base image `base` has it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, mode: int, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime, info.linkname = kind, mode, THEN_S - 5000, link
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for name in ("bin", "etc", "home", "lib", "root", "srv", "usr", "usr/bin", "var", "home/app", "opt", "opt/d"):
            add(name, 0o755, kind=tarfile.DIRTYPE)
        for name in ("dev", "proc", "run", "sys"):
            add(name, 0o755, kind=tarfile.DIRTYPE)
        for name in ("etc/hosts", "etc/resolv.conf", "etc/hostname"):
            add(name, 0o644)
        add("tmp", 0o1777, kind=tarfile.DIRTYPE)
        add("bin/busybox", 0o755, busybox.read_bytes())
        for applet in APPLETS.split():
            add(f"bin/{applet}", 0o777, kind=tarfile.SYMTYPE, link="busybox")
        add("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/home/app:/bin/sh\n"
            b"other:x:1001:50::/home/other:/bin/sh\n")  # fmt: skip
        add("etc/group", 0o644, b"root:x:0:\nstaff:x:50:app\napp:x:1000:\nextra:x:2000:app\n")
        add("opt/file", 0o644, b"old\n")
        add("opt/d/kept", 0o644, b"kept\n")
        add("opt/to-d", 0o777, kind=tarfile.SYMTYPE, link="d")
        add("opt/to-root", 0o777, kind=tarfile.SYMTYPE, link="/srv")
        add("opt/to-file", 0o777, kind=tarfile.SYMTYPE, link="file")
        add("opt/nowhere", 0o777, kind=tarfile.SYMTYPE, link="missing/place")
    return made.getvalue()
