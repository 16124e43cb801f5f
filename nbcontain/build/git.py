"""Git repositories: one commit's files, got by the host's git with nothing of what a repository could ask for.

No hooks, no filters, no helper programs, no configuration of anybody's, and no protocol but https, http, ssh and git
(CVE-2022-39253, CVE-2026-33748). Credentials are never asked for; those that a build was given reach git in its
environment, where a list of processes does not show them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from nbcontain import authorities
from nbcontain.build.access import Access
from nbcontain.build.graph import Repository, hash_of
from nbcontain.build.http import is_public, redacted
from nbcontain.errors import BuildError
from nbcontain.events import Emit, Progress
from nbcontain.linux import trees
from nbcontain.store import files, removal
from nbcontain.truth import truth
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.build.submodules import Submodule

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]{7,64}")
_SCP = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:[^:].*")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]*")
_PLACES = {"tag": "refs/tags/", "branch": "refs/heads/"}
_ALL = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
_PROTOCOLS = "https:http:ssh:git"
_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.askPass": "true",
    "credential.helper": "",
    "protocol.allow": "never",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "transfer.fsckObjects": "true",
    "http.followRedirects": "initial",
    "filter.lfs.smudge": "",
    "filter.lfs.required": "false",
    "gc.auto": "0",
    "advice.detachedHead": "false",
    "init.defaultBranch": "main",
}
_POLL_S = 0.1


def is_repository(source: str) -> bool:
    """Whether ADD takes this for a git repository (BuildKit's util/gitutil)."""
    if source.startswith(("git://", "ssh://")) or _SCP.fullmatch(source.partition("#")[0]):
        return True
    parts = urlsplit(source)
    return parts.scheme in ("http", "https") and parts.path.endswith(".git")


def parse(source: str, *, keeps_git_dir: bool = False, checksum: str = "") -> Repository:
    """Read URL[#ref[:subdir]], or URL?ref=…|branch=…|tag=…&commit=…&subdir=….

    Raises BuildError for what contradicts itself, and for what git could take for an option.
    """
    address, _, fragment = source.partition("#")
    ref, _, subdir = fragment.partition(":")
    without_submodules = False
    if "://" in address and "?" in address:
        address, _, query = address.partition("?")
        given = _query(query, source)
        keeps_git_dir = _truth(given, "keep-git-dir", keeps_git_dir)
        without_submodules = not _truth(given, "submodules", True)
        named = [_in_its_place(kind, given.pop(kind, "")) for kind in _PLACES]
        ref = _agreed("ref", source, ref, given.pop("ref", ""), *named)
        subdir = _agreed("subdir", source, subdir, given.pop("subdir", ""))
        commit = _agreed("commit", source, given.pop("commit", ""), given.pop("checksum", ""))
        if not checksum.startswith(commit):
            checksum = _agreed("checksum", source, "" if commit.startswith(checksum) else checksum, commit)
        ref = ref or commit
        if given:
            raise BuildError(f"a git URL has no {next(iter(given))}", why=redacted(source))
    if address.startswith("-") or "\0" in source or re.search(r"[\s]", address):
        raise BuildError(f"{redacted(source)!r} is no git URL")
    host = urlsplit(address).netloc.rpartition("@")[2] if "://" in address else address.partition("@")[2]
    if not host or host.startswith("-"):
        raise BuildError(f"{redacted(source)!r} names no host")
    if ref and (not _REF.fullmatch(ref) or ".." in ref):
        raise BuildError(f"{ref!r} is no name of a branch, tag or commit", why=redacted(source))
    if ".." in subdir.split("/"):
        raise BuildError(f"{subdir} leads out of the repository", why=redacted(source))
    if checksum and not _HEX.fullmatch(checksum):
        raise BuildError(f"--checksum={checksum} is no commit", hint="Give the commit's name, in hexadecimal.")
    return Repository(address, ref, subdir.strip("/"), keeps_git_dir, checksum, without_submodules)


def _query(text: str, source: str) -> dict[str, str]:
    """The words of a URL's query, each said once, and with a value but for those that are true or false."""
    given: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name in given:
            raise BuildError(f"{name} of a git URL is said twice", why=redacted(source))
        if not value and name not in ("keep-git-dir", "submodules"):
            raise BuildError(f"{name} of a git URL has no value", why=redacted(source))
        given[name] = value
    return given


def _in_its_place(kind: str, name: str) -> str:
    """A tag's or a branch's name with where git has it, so that nothing else of that name is meant."""
    return name if not name or name.startswith(_PLACES[kind]) else _PLACES[kind] + name


def _agreed(what: str, source: str, *said: str) -> str:
    """What a URL says in several places; "" if in none."""
    found = list(dict.fromkeys(filter(None, said)))
    if len(found) > 1:
        raise BuildError(f"{what} of a git URL is both {found[0]} and {found[1]}", why=redacted(source))
    return found[0] if found else ""


def _truth(given: dict[str, str], name: str, usual: bool) -> bool:
    """A word of a URL's query, taken out of it; without a value it is true."""
    found = truth(given.pop(name, str(usual)) or "true")
    if found is None:
        raise BuildError(f"{name} of a git URL is true or false")
    return found


def commit_of(repository: Repository, access: Access, emit: Emit, tmp: Path) -> str:
    """The commit that the ref stands for now; `tmp` is for directories that are gone afterwards. Raises BuildError."""
    if _COMMIT.fullmatch(repository.ref):
        return _checked(repository, repository.ref)
    wanted = repository.ref or "HEAD"
    asked = [wanted, f"{wanted}^{{}}"]
    listed = _git(["ls-remote", "--", repository.url, *asked], None, repository, access, emit)
    found: dict[str, str] = {}
    for line in listed.splitlines():
        commit, _, name = line.partition("\t")
        found[name] = commit
    for name in (f"refs/tags/{wanted}^{{}}", f"{wanted}^{{}}", f"refs/heads/{wanted}", f"refs/tags/{wanted}", wanted):
        if _COMMIT.fullmatch(found.get(name, "")):
            return _checked(repository, found[name])
    if _is_begun(repository):
        # A tag that has come meanwhile may be called like that.
        return _checked(repository, _completed(repository, access, emit, tmp))
    kind = next((kind for kind, place in _PLACES.items() if wanted.startswith(place)), "")
    shown = f"{kind} {wanted.removeprefix(_PLACES[kind])}" if kind else wanted
    raise BuildError(f"{redacted(repository.url)} has no {shown}", hint="Give a branch, a tag or a whole commit.")


def _is_begun(repository: Repository) -> bool:
    """Whether it is wanted by how a commit's name begins (?commit=…)."""
    return bool(repository.ref) and repository.checksum.startswith(repository.ref)


def _completed(repository: Repository, access: Access, emit: Emit, tmp: Path) -> str:
    """The one commit of all branches and tags whose name begins so. A server is asked for whole names only."""
    with ExitStack() as stack:
        place = stack.enter_context(files.temporary_directory(tmp))
        stack.callback(removal.remove_tree, place)
        listed = _git(["ls-remote", "--", repository.url], None, repository, access, emit).split()
        _git(_init(listed[0] if listed else ""), place, repository, access, emit)
        _git(["fetch", "--quiet", "--", repository.url, *_ALL], place, repository, access, emit)
        wanted = f"{repository.ref}^{{commit}}"
        return _git(["rev-parse", "--verify", "--end-of-options", wanted], place, repository, access, emit).strip()


def _init(commit: str) -> list[str]:
    """How an empty repository is made for commits with names like this one: SHA-256 has longer ones than SHA-1."""
    return ["init", "--quiet", "--template=", f"--object-format={hash_of(commit)}", "."]


def _checked(repository: Repository, commit: str) -> str:
    if not commit.startswith(repository.checksum):
        raise BuildError(
            f"{redacted(repository.url)} is not what --checksum says",
            why=f"{repository.ref or 'HEAD'} is the commit {commit}, and {repository.checksum} is wanted",
        )
    return commit


def checked_out(
    repository: Repository, commit: str, place: Path, access: Access, emit: Emit, depth: int = 0
) -> Path:
    """A commit's files in the empty directory `place`, and those of its submodules; gives the directory that is wanted.

    `depth` is of submodules in submodules. Raises BuildError.
    """

    def git(*arguments: str) -> str:
        return _git(arguments, place, repository, access, emit)

    git(*_init(commit))
    ref = _ALL[0] if repository.ref == commit or _is_begun(repository) else repository.ref
    ways = (
        ("--depth=1", "--no-tags", "--", repository.url, commit),
        # A server that gives nothing by a commit's name,
        ("--depth=1", "--", repository.url, ref or "HEAD"),
        # and one that gives nothing but whole histories, as from files.
        ("--", repository.url, ref or "HEAD"),
    )
    for last, arguments in enumerate(ways, start=1 - len(ways)):
        try:
            git("fetch", "--quiet", *arguments)
            git("cat-file", "-e", f"{commit}^{{commit}}")
            break
        except BuildError:
            if not last:
                raise
    git("checkout", "--quiet", "--force", "--detach", commit)
    if not repository.without_submodules and git("ls-tree", "--name-only", "HEAD", ".gitmodules"):
        _fill_submodules(repository, place, access, emit, depth, git)
    if not repository.keeps_git_dir:
        removal.remove_tree(place / ".git")
    return _subdirectory(place, repository)


def time_of(repository: Repository, commit: str, place: Path, access: Access, emit: Emit) -> int:
    """When a commit was made, in seconds since 1970; `place` is an empty directory. Raises BuildError."""
    wanted = replace(repository, subdir="", keeps_git_dir=True, without_submodules=True)
    checked_out(wanted, commit, place, access, emit)
    return int(_git(["show", "--no-patch", "--format=%ct", commit], place, repository, access, emit))


def _fill_submodules(
    repository: Repository, place: Path, access: Access, emit: Emit, depth: int, git: Callable[..., str]
) -> None:
    """Check out what the tree has links to."""
    from nbcontain.build.submodules import MAX_COUNT, MAX_DEPTH, submodules_of

    fields = ("--get-regexp", r"^submodule\..*\.(path|url)$")
    configured = git("config", "-z", "--blob", "HEAD:.gitmodules", *fields)
    found = submodules_of(configured, git("ls-tree", "-r", "-z", "HEAD"), repository.url)
    if depth >= MAX_DEPTH or len(found) > MAX_COUNT:
        raise BuildError(f"{redacted(repository.url)} has submodules without end")
    for each in found:
        inner = _submodule(each, repository)
        whole = _subdirectory(place, replace(repository, subdir=each.path))
        # What is a directory by now was made by git for the link, and is empty.
        mine = access if _server(inner.url) == _server(repository.url) else access.for_named_hosts()
        checked_out(inner, each.commit, whole, mine, emit, depth + 1)


def _submodule(each: Submodule, parent: Repository) -> Repository:
    """As a repository of its own. Raises BuildError for what its parent may not lead to."""
    what = f"the submodule {each.path} of {redacted(parent.url)}"
    if not (is_repository(each.url) or each.url.startswith(("http://", "https://"))):
        raise BuildError(f"{what} is at {redacted(each.url)[:200]}", why="only https, http, ssh and git are followed")
    if not _COMMIT.fullmatch(each.commit):
        raise BuildError(f"{what} is at no commit")
    inner = parse(each.url.partition("#")[0].partition("?")[0])
    if is_public(_plain(parent.url)) and not is_public(_plain(inner.url)):
        raise BuildError(
            f"{what} is at {redacted(inner.url)[:200]}",
            why="a server outside may not choose an address of this machine or its network",
        )
    return replace(inner, ref=each.commit, keeps_git_dir=parent.keeps_git_dir)


def _plain(url: str) -> str:
    """A URL with the host where URLs have it."""
    return url if "://" in url else f"ssh://{url.partition(':')[0]}/"


def _server(url: str) -> str:
    parts = urlsplit(_plain(url))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _subdirectory(place: Path, repository: Repository) -> Path:
    """The directory that is wanted, reached without following a symlink of the repository's."""
    root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = trees.open_beneath(root, repository.subdir or ".", os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise BuildError(
            f"{redacted(repository.url)} has no directory {repository.subdir}", why=error.strerror or ""
        ) from error
    finally:
        os.close(root)
    os.close(fd)
    return place / repository.subdir


def _git(arguments: Sequence[str], place: Path | None, repository: Repository, access: Access, emit: Emit) -> str:
    """Run git, and give what it writes. Raises BuildError with its last words; ends with a cancelled build."""
    program = shutil.which("git")
    if program is None:
        raise BuildError("a git repository needs git", hint="Debian: apt-get install git")
    environment = _environment(repository, access)
    config = _CONFIG
    if "GIT_CONFIG_COUNT" in environment:
        # After a redirect git would tell the next server who we are, too.
        config = config | {"http.followRedirects": "false"}
    settings = [word for name, value in config.items() for word in ("-c", f"{name}={value}")]
    settings += [word for name in _PROTOCOLS.split(":") for word in ("-c", f"protocol.{name}.allow=always")]
    process = subprocess.Popen(
        [program, *settings, *arguments], cwd=place or "/", env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, umask=0o022,
    )  # fmt: skip
    said: list[tuple[bytes, bytes]] = []
    reader = threading.Thread(target=lambda: said.append(process.communicate()), name="nbcontain git", daemon=True)
    reader.start()
    try:
        while reader.is_alive():
            emit(Progress("", 0))  # strikes if the build is cancelled
            reader.join(_POLL_S)
    except BaseException:
        process.kill()
        reader.join()
        raise
    [(out, err)] = said
    if process.returncode:
        lines = redacted(err.decode(errors="replace")).strip().splitlines()
        raise BuildError(f"git cannot get {redacted(repository.url)}", why=lines[-1] if lines else "")
    return out.decode(errors="replace")


_KEPT = (
    "PATH", "HOME", "http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy",
    "SSL_CERT_FILE", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH",
)  # fmt: skip


def _environment(repository: Repository, access: Access) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    if trusted := authorities.named(os.environ)[1]:
        # The library by which git speaks TLS looks at none of these itself.
        environment.setdefault("GIT_SSL_CAPATH" if os.path.isdir(trusted) else "GIT_SSL_CAINFO", trusted)
    for directory in filter(os.path.isdir, authorities.directories(os.environ)):
        environment.setdefault("GIT_SSL_CAPATH", directory)  # It knows of one only: the first stays.
    if sockets := [path for path in access.ssh.get("default", ()) if Path(path).is_socket()]:
        environment["SSH_AUTH_SOCK"] = sockets[0]
    if header := access.to_repository(repository.url):
        # For this server alone, and not where it sends us to.
        parts = urlsplit(repository.url)
        server = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
        environment |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{server}.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: {header}",
        }
    return environment | {
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oPermitLocalCommand=no -oForwardAgent=no",
    }
