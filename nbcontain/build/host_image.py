"""An image made of this machine's own programs: shell, coreutils, Python, and what else is asked for.

It needs no network, no root and no other tool. What goes in is found by reading: programs by name, their
libraries by their ELF headers, Python's standard library by its directory. See docs/host-image.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

from nbcontain.build.elf import Loader, expand, parse_cache, read_elf
from nbcontain.build.host_packages import HostPackages, packages_directory
from nbcontain.build.host_python import HostPython, standard_library
from nbcontain.build.host_tree import Directory, HostTree, Link, Text
from nbcontain.errors import BuildError
from nbcontain.values import dataclass

_SEARCHED = ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/current-system/sw/bin")
"""Where the basic programs are looked for: not in PATH, which may hold shims and replacements of the user's."""

_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_PYTHON = re.compile(r"python(3(\.\d+)?)?")
_PYTHON_ENV = ("PYTHONDONTWRITEBYTECODE=1",)
"""Bytecode is not in the image, and written in a container it would only be noise in its changes."""

_COREUTILS = (
    "arch", "b2sum", "base32", "base64", "basename", "basenc", "cat", "chcon", "chgrp", "chmod", "chown", "cksum",
    "comm", "cp", "csplit", "cut", "date", "dd", "df", "dir", "dircolors", "dirname", "du", "echo", "env", "expand",
    "expr", "factor", "false", "fmt", "fold", "groups", "head", "hostid", "id", "install", "join", "link", "ln",
    "logname", "ls", "md5sum", "mkdir", "mkfifo", "mknod", "mktemp", "mv", "nice", "nl", "nohup", "nproc", "numfmt",
    "od", "paste", "pathchk", "pinky", "pr", "printenv", "printf", "ptx", "pwd", "readlink", "realpath", "rm",
    "rmdir", "runcon", "seq", "sha1sum", "sha224sum", "sha256sum", "sha384sum", "sha512sum", "shred", "shuf",
    "sleep", "sort", "split", "stat", "stdbuf", "stty", "sum", "sync", "tac", "tail", "tee", "test", "timeout",
    "touch", "tr", "true", "truncate", "tsort", "tty", "uname", "unexpand", "uniq", "unlink", "users", "vdir", "wc",
    "who", "whoami", "yes", "[",
)  # fmt: skip
_BESIDES = (
    "sh", "bash", "grep", "egrep", "fgrep", "sed", "awk", "find", "xargs", "diff", "cmp", "tar", "gzip", "gunzip",
    "zcat", "ps", "kill", "pgrep", "pkill", "free", "uptime", "which", "hostname", "getent", "clear", "more",
)  # fmt: skip
_NEEDED = ("sh", "ls", "cat")
"""Where one of these is missing, busybox has to stand in."""

_OPENED_BY_LIBC = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2")
"""Libraries that glibc opens by name: to end threads, to look up names. No file lists them as needed."""

_TERMINALS = ("dumb", "linux", "screen", "screen-256color", "tmux-256color", "vt100", "xterm", "xterm-256color")
_TERMINFO = ("/usr/share/terminfo", "/lib/terminfo", "/usr/lib/terminfo", "/etc/terminfo")
_LOCALES = ("/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8")
_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_CA_BUNDLES = (_CA_BUNDLE, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem")
_CA_LINKS = ("/usr/lib/ssl/cert.pem", "/etc/pki/tls/cert.pem", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")

_MADE_HERE = {
    "/etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        "user:x:1000:1000:user:/home/user:/bin/sh\n"
    ),
    "/etc/group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\nusers:x:100:\nuser:x:1000:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n",
    "/etc/shells": "/bin/sh\n",
    # Empty files for a runtime to bind its own onto.
    "/etc/hosts": "",
    "/etc/hostname": "",
    "/etc/resolv.conf": "",
}
_DIRECTORIES = {
    "/dev": Directory(),
    "/home/user": Directory(owner=1000),
    "/proc": Directory(),
    "/root": Directory(0o700),
    "/run": Directory(),
    "/sys": Directory(),
    "/tmp": Directory(0o1777),
    "/usr/local/bin": Directory(),
    "/var/tmp": Directory(0o1777),
}


@dataclass(frozen=True, slots=True)
class HostImage:
    """What was written, and how to run it: `env` as NAME=value and `cmd` belong into the image's config.

    `size_bytes` is the tar's. `notices` say what a user may miss, a sentence each.
    """

    env: tuple[str, ...]
    cmd: tuple[str, ...]
    entries: int
    size_bytes: int
    notices: tuple[str, ...]


def make_host_tar(
    programs: Sequence[str], write: Callable[[bytes], object], *, python: Path | None = None,
    packages: Sequence[str] = (),
) -> HostImage:  # fmt: skip
    """Write the layer tar of a small image out of this machine's shell, coreutils, Python and `programs`.

    The Python is the running one's base, or `python`, which is executed once to ask it. The same files give
    the same bytes. `packages` are Python's, of the running environment. Raises BuildError for a program or package
    that is not there or cannot be read, before anything is written, and blocks while it reads some 50 MB.
    """
    made = _Survey()
    made.add_python(HostPython.running() if python is None else HostPython.of(str(python)))
    made.add_basics()
    for program in programs:
        made.add_named(program)
    if packages:
        made.add_packages(HostPackages.of(packages))
    made.add_files()
    made.add_what_libc_opens()
    made.mend_searches()
    tree = made.tree
    env = [f"PATH={':'.join(_PATH)}", "LANG=C.UTF-8", *_PYTHON_ENV]
    if _CA_BUNDLE in tree.entries:
        env.append(f"SSL_CERT_FILE={_CA_BUNDLE}")
    size_bytes = tree.write(write)
    notices = tuple(dict.fromkeys(tree.notices))
    return HostImage(tuple(env), ("sh",), len(tree.entries), size_bytes, notices)


class _Survey:
    """Fills a HostTree. One loader for each ELF interpreter met: usually there is one."""

    def __init__(self) -> None:
        self.tree = HostTree()
        self._loaders: dict[str, Loader] = {}
        self._cache = _library_cache()
        self._python: HostPython | None = None

    def add_python(self, python: HostPython) -> None:
        """Put Python in, its standard library and the libraries of its extension modules."""
        self._python = self._python or python
        tree = self.tree
        tree.move(python.prefix)
        if python.exec_prefix != python.prefix:
            tree.move(python.exec_prefix)
        loader = self._add_file(python.executable)
        place = tree.sources[os.path.realpath(python.executable)]
        for name in ("python3", "python"):
            tree.put(f"{os.path.dirname(place)}/{name}", Link(os.path.basename(place)))
        passed_on = loader.passed_on(python.executable) if loader else ()
        for path in standard_library(python):
            if not path.endswith(".so") or loader is None:
                data = python.without_prefix(path, tree.place(os.path.realpath(python.prefix)))
                if data is None:
                    tree.add(path)
                else:
                    tree.put(tree.place(os.path.realpath(path)), Text(data))
                continue
            if lacking := loader.lacking(path, passed_on):
                module = os.path.basename(path).partition(".")[0]
                tree.notices.append(f"Python's {module} stays out: this machine has no {', '.join(lacking)}")
                continue
            tree.add(path)
            self._add_libraries(loader.follow(path, passed_on))
        if loader and python.is_apart:
            for path in [each for each in tree.sources if python.owns(each)]:
                if elf := loader.read(path):
                    tree.strip(path, elf)

    def add_packages(self, packages: HostPackages) -> None:
        """Put in packages of the running Python, which is the first one, and the libraries of their extension modules.

        They lie where the Python in the image looks for them, whatever environment they are in here.
        """
        python, tree = HostPython.running(), self.tree
        loader = self._add_file(python.executable)
        passed_on = loader.passed_on(python.executable) if loader else ()
        home = tree.place(packages_directory(os.path.realpath(python.stdlib)))
        prefix = os.path.dirname(os.path.dirname(tree.sources[os.path.realpath(python.executable)]))
        tree.notices += packages.notices
        own = {source for source, _ in packages.files}
        for root in packages.roots:
            tree.move(root, home)
        for source, place in packages.files:
            tree.add(source, place and f"{prefix}/{place}")
        for source in sorted(own):
            if loader is None or ".so" not in os.path.basename(source):
                continue
            if lacking := loader.lacking(source, passed_on):
                tree.notices.append(f"{os.path.basename(source)}: this machine has no {', '.join(lacking)}")
            self._add_libraries([each for each in loader.follow(source, passed_on) if each not in own])

    def add_basics(self) -> None:
        """Put in the shell, coreutils and their companions, or as much of them as busybox has."""
        lacking = []
        for name in (*_COREUTILS, *_BESIDES):
            path = shutil.which(name, path=":".join(_SEARCHED))
            if path is None or not os.access(path, os.R_OK):
                lacking.append(name)
            else:
                self.add_program(path)
        if not any(name in lacking for name in _NEEDED):
            return
        busybox = shutil.which("busybox", path=":".join(_SEARCHED)) or shutil.which("busybox")
        if busybox is None:
            missing = ", ".join(name for name in _NEEDED if name in lacking)
            raise BuildError(f"this machine has no {missing}", hint="Install coreutils or busybox.")
        place = self.add_program(busybox)
        offered = subprocess.run([busybox, "--list"], capture_output=True, text=True, timeout=10, check=False)
        for name in sorted(set(lacking) & set(offered.stdout.split())):
            self.tree.put(f"/usr/bin/{name}", Link(place))

    def add_named(self, program: str) -> None:
        """Put in a program the user asked for by name or path. Raises BuildError if there is none."""
        name = os.path.basename(program)
        if "/" not in program and self._is_python(name):
            return
        path = program if "/" in program else _which(program)
        if path is None or not os.path.isfile(path) or not os.access(path, os.X_OK):
            known = {each for directory in _SEARCHED for each in _names(directory)}
            close = get_close_matches(name, sorted(known), 3)
            raise BuildError(
                f"there is no program {program} on this machine",
                why="it is not in PATH" if "/" not in program else "it is not there, or may not be executed",
                hint=f"did you mean {' or '.join(close)}?" if close else "",
            )
        path = os.path.abspath(path)
        if _PYTHON.fullmatch(name):
            self._add_another_python(HostPython.of(path))
            return
        if self.tree.is_foreign(path):
            above = os.path.dirname(path)
            if os.path.basename(above) == "bin":
                self.tree.move(os.path.dirname(above))
            else:
                self.tree.move(above, "/usr/local/bin")
        place = self.add_program(path)
        if not any(self.tree.resolve(f"{directory}/{name}") for directory in _PATH):
            self.tree.put(f"/usr/local/bin/{name}", Link(place))

    def _add_another_python(self, python: HostPython) -> None:
        """Put a second Python in, by its own name; `python3` stays the first one."""
        first = self._python
        if first and os.path.realpath(first.executable) == os.path.realpath(python.executable):
            return
        if first and first.version == python.version and first.is_apart and python.is_apart:
            raise BuildError(
                f"{python.executable} cannot go in", why=f"another Python {first.version} is in its place already"
            )
        self.add_python(python)

    def add_program(self, path: str) -> str:
        """Put in the program at `path` and all it takes to start it; gives its place in the image."""
        self._add_file(path)
        resolved = os.path.realpath(path)
        self._add_script(resolved)
        return self.tree.sources[resolved]

    def add_files(self) -> None:
        """Put in the data programs expect of a system: accounts, certificates, a locale, terminals."""
        tree = self.tree
        for merged in ("/bin", "/sbin", "/lib", "/lib64"):
            tree.add_directory(merged)
        for place, directory in _DIRECTORIES.items():
            tree.put(place, directory)
        for place, text in _MADE_HERE.items():
            tree.put(place, Text(text.encode()))
        if tree.resolve("/bin/sh") == "":
            tree.put("/bin/sh", Link("/usr/bin/sh"))
        tree.put("/etc/mtab", Link("../proc/self/mounts"))
        tree.put("/etc/os-release", Text(_os_release().encode()))
        bundle = next(filter(os.path.isfile, (*_CA_BUNDLES, _ca_bundle_of_python())), None)
        if bundle:
            tree.put(_CA_BUNDLE, Text(Path(bundle).read_bytes()))
            for link in filter(os.path.exists, _CA_LINKS):
                tree.put(tree.place(link), Link(_CA_BUNDLE))
        for locale in filter(os.path.isdir, _LOCALES):
            for above, _, names in os.walk(locale):
                for name in names:
                    tree.add(os.path.join(above, name))
        for terminal in _TERMINALS:
            paths = (f"{root}/{letter}/{terminal}" for root in _TERMINFO for letter in _letters(terminal))
            path = next(filter(os.path.isfile, paths), None)
            if path:
                tree.add(path)

    def add_what_libc_opens(self) -> None:
        """Put in the libraries that no file lists as needed."""
        for loader in list(self._loaders.values()):
            interpreter = loader.read(loader.interpreter)
            for name in _OPENED_BY_LIBC:
                path = loader.find(name, interpreter.kind) if interpreter else ""
                if path:
                    self._add_libraries([path, *loader.follow(path)])

    def mend_searches(self) -> None:
        """Link libraries that the loader in the image would not find into its own directory.

        There is no ld.so.cache in the image, and directories named in a file may have moved.
        """
        for loader in self._loaders.values():
            for need in loader.needs:
                if need.found:
                    self._mend(loader, need.path, need.name, need.directories, need.found)
                else:
                    self.tree.notices.append(f"{need.path} needs {need.name}, which this machine does not have")

    def _mend(self, loader: Loader, path: str, name: str, directories: tuple[tuple[str, str], ...], found: str) -> None:
        tree = self.tree
        wanted = tree.sources[os.path.realpath(found)]
        if "/" in name:
            if tree.resolve(name) != wanted:
                tree.notices.append(f"{path} needs {name} at just that path, which the image does not have")
            return
        origins = [expand(directory, tree.place(origin)) for directory, origin in directories]
        gets = next(filter(None, (tree.resolve(f"{each}/{name}") for each in (*origins, *loader.defaults))), "")
        if not gets:
            tree.put(f"{tree.place(loader.home)}/{name}", Link(wanted))
        elif gets != wanted:
            tree.notices.append(f"{path} gets {gets} in the image in place of {wanted}")

    def _add_file(self, path: str) -> Loader | None:
        """Put a program in with its interpreter and libraries; gives its loader, None for one that needs none."""
        self.tree.add(path)
        path = os.path.realpath(path)
        elf = read_elf(path)
        if elf is None or not elf.interpreter:
            return None
        if not os.path.exists(elf.interpreter):
            raise BuildError(f"{path} cannot run on this machine", why=f"there is no {elf.interpreter} to load it")
        if elf.interpreter not in self._loaders:
            session = os.environ.get("LD_LIBRARY_PATH", "").split(":")
            self._loaders[elf.interpreter] = Loader(elf.interpreter, self._cache, session)
            self.tree.add(elf.interpreter)
        loader = self._loaders[elf.interpreter]
        self._add_libraries(loader.follow(path))
        return loader

    def _add_libraries(self, libraries: Sequence[str]) -> None:
        for library in libraries:
            self.tree.add(library)

    def _add_script(self, path: str) -> None:
        """Put in what a script's first line names (execve(2)), and what `env` is told to look for there."""
        with open(path, "rb") as file:
            first = file.readline(256)
        if not first.startswith(b"#!"):
            return
        interpreter, *arguments = os.fsdecode(first[2:]).split() or [""]
        named = [interpreter]
        if os.path.basename(interpreter) == "env":
            named += [word for word in arguments if not word.startswith("-") and "=" not in word][:1]
        for each in named:
            name = os.path.basename(each)
            if self._is_python(name):
                if "/" in each and self._python:
                    self.tree.put(each, Link(self.tree.sources[os.path.realpath(self._python.executable)]))
            elif found := each if os.path.isfile(each) else _which(each):
                self.add_program(found)
            else:
                self.tree.notices.append(f"{path} is a script for {each}, which this machine does not have")
        if os.path.basename(named[-1]) not in ("sh", "bash", "dash", "busybox", "env"):
            self.tree.notices.append(f"{os.path.basename(path)} is a script: its modules or plug-ins stay out")

    def _is_python(self, name: str) -> bool:
        return self._python is not None and name in ("python", "python3", f"python{self._python.version}")


def _which(program: str) -> str | None:
    """The program in PATH; pyenv's, asdf's and others' shims are passed over, as they are no use elsewhere."""
    directories = os.environ.get("PATH", os.defpath).split(":")
    real = [each for each in directories if os.path.isabs(each) and os.path.basename(each.rstrip("/")) != "shims"]
    return shutil.which(program, path=":".join((*real, *_SEARCHED)))


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _letters(terminal: str) -> tuple[str, str]:
    """Both names terminfo has for the directory of a terminal: its first letter, or that in hex."""
    return terminal[0], f"{ord(terminal[0]):x}"


def _ca_bundle_of_python() -> str:
    """The bundle that the running Python's own OpenSSL looks at: conda, for one, has its own."""
    try:
        import ssl  # It takes longer to import than all the rest of this module.
    except ImportError:
        return ""
    return ssl.get_default_verify_paths().cafile or ""


def _library_cache() -> dict[str, list[str]]:
    try:
        return parse_cache(Path("/etc/ld.so.cache").read_bytes())
    except OSError:
        return {}


def _os_release() -> str:
    """What the image says it is (os-release(5)): no distribution, as there is no package manager in it."""
    host: dict[str, str] = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if os.path.isfile(path):
            lines = Path(path).read_text(errors="replace").splitlines()
            host = {key: value.strip("\"'") for key, equals, value in (line.partition("=") for line in lines) if equals}
            break
    whose = "".join(c for c in host.get("PRETTY_NAME", "this machine") if c.isalnum() or c in " ._()/+-")
    like = " ".join(filter(None, (host.get("ID", ""), host.get("ID_LIKE", ""))))
    like = "".join(c for c in like if c.isalnum() or c in " ._-")
    return f'NAME="Programs of the host"\nID=host\nID_LIKE="{like}"\nPRETTY_NAME="Programs of the host ({whose})"\n'
