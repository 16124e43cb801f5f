"""What a build has to do, as values: a graph of file systems, each with the operation that makes it.

Metadata (ENV, CMD, LABEL …) is no part of the graph; `plan` has already folded it into an `ImageConfig`.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Protocol

from nbcontain.dockerfile.ast import Remark
from nbcontain.errors import Span
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Image, ImageConfig
from nbcontain.oci.reference import Reference
from nbcontain.store.cache_mounts import Sharing
from nbcontain.values import dataclass, field, fields


@dataclass(frozen=True, slots=True)
class Base:
    """The file system of an image; without one, `scratch`. No inputs."""

    image: Image | None


@dataclass(frozen=True, slots=True)
class BindMount:
    """Part of the file system of input number `at`, or an empty one. What a program writes to it is thrown away."""

    target: str
    at: int
    source: str = "/"
    is_writable: bool = False


@dataclass(frozen=True, slots=True)
class CacheMount:
    """A directory that outlives the build; a new one begins as part of the file system of input number `at`, if any."""

    target: str
    id: str
    sharing: Sharing = "shared"
    at: int = 0
    source: str = "/"
    is_readonly: bool = False
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class TmpfsMount:
    """An empty directory in memory."""

    target: str
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SecretMount:
    """A secret as a file at `target`, in the variable `env`, or both; nothing where the build was not given it."""

    id: str
    target: str = ""
    env: str = ""
    is_required: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class SshMount:
    """The socket of an ssh agent, which programs find by SSH_AUTH_SOCK."""

    id: str
    target: str
    is_required: bool = False
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class DocumentMount:
    """A program that stands in the Dockerfile (a heredoc that begins with #!)."""

    target: str
    text: str


RunMount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount | DocumentMount


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What --add-host, --shm-size and --ulimit change for every RUN, as far as BuildKit has it in its cache key."""

    hosts: tuple[str, ...] = ()
    """The names only: what address they have is no part of what a step is."""
    shm_bytes: int = 0
    """0 is what every step has."""
    ulimits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecOp:
    """A program run in the file system of the first input; the others are for its mounts.

    `env` is everything the program sees, as NAME=value. `user` is as USER gives it ("", "app", "7:7"): names are
    looked up in the file system itself. The content of secrets and of caches is no part of what it is.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    network: str = "host"
    mounts: tuple[RunMount, ...] = ()
    hostname: str = ""
    """"" is the one that every step has."""
    platform: str = ""
    """What its programs are for; "" is linux/amd64, whatever this machine is."""
    sandbox: Sandbox | None = None
    devices: tuple[tuple[str, bool], ...] = ()
    """By their vendors' names, and whether the step cannot do without."""
    added_hosts: tuple[str, ...] = field(default=(), compare=False)
    """NAME=address of the sandbox's hosts."""
    secret_env: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """More NAME=value for the program that change nothing about what is built: the predefined proxy arguments."""
    architecture: str = field(default="", compare=False, repr=False)
    """Of the base image, in Go's words: programs of this machine's 32-bit ancestor run in images of that alone."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of an http or https server. `checksum` is its digest, "" if anything will do."""

    url: str
    name: str
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Repository:
    """The files of one commit of a git repository: of the default branch without `ref`."""

    url: str
    ref: str = ""
    subdir: str = ""
    keeps_git_dir: bool = False
    checksum: str = ""
    """The commit that it has to be, or how its name begins."""
    without_submodules: bool = False
    """Whether those are left out, if there are any."""


def hash_of(commit: str) -> str:
    """What a commit's name is a hash by: there are repositories of both kinds."""
    return "sha256" if len(commit) == 64 else "sha1"


@dataclass(frozen=True, slots=True)
class Document:
    """A file whose text stands in the Dockerfile."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class CopyFiles:
    """Files laid on the first input: from a build context, or from the file system of the last input; then remote
    files and those that stand in the Dockerfile.

    `sources` are relative to the context's root (or the last input's), may be wildcards and never leave it.
    `destination` is absolute and without a slash at its end; `into_directory` says that it is (or becomes) a
    directory which the sources land in, as a slash at the end asks for; without it each source is copied there in
    turn, a file over the file before. Directories give their contents, not themselves. `chown` is user[:group] in
    names or numbers; with "" files of the context are root's and those of another file system whose they were.
    `chmod` is what `modes` reads.
    """

    sources: tuple[str, ...]
    destination: str
    from_context: bool
    context: str = ""
    """The context's name; "" is the build's own."""
    chown: str = ""
    chmod: str = ""
    into_directory: bool = False
    unpack: bool = False
    """Archives give their contents."""
    unpack_remote: bool = False
    """Also those that were fetched."""
    parents: bool = False
    """Sources keep their directories, those behind /./ if there is one."""
    excludes: tuple[str, ...] = ()
    remotes: tuple[RemoteFile | Repository, ...] = ()
    remote_places: tuple[int, ...] = ()
    """How many of `sources` come before each remote; () is all of them."""
    documents: tuple[Document, ...] = ()


@dataclass(frozen=True, slots=True)
class StackLayers:
    """The layers of the second input, which stand on nothing, on top of those of the first: COPY --link."""


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """A directory (mode 0755) and its missing parents, owned by `user`; nothing if it is there. One input."""

    path: str
    user: str = ""


Operation = Base | ExecOp | CopyFiles | StackLayers | MakeDirectory


@dataclass(frozen=True, slots=True, eq=False)
class Vertex:
    """A file system and how to get it: an operation on other file systems. Its first input is what it changes.

    Two vertices are equal if they have the same digest: equal operations on equal inputs.
    """

    operation: Operation
    inputs: tuple[Vertex, ...] = field(default=(), repr=False)
    label: str = ""
    """For people; no part of its identity."""
    span: Span | None = None
    digest: Digest = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Computed here and not on demand: the inputs have theirs already, so that a stage of ten thousand
        # instructions needs no recursion.
        text = _JSON.encode([_identity(self.operation), [str(vertex.digest) for vertex in self.inputs]])
        object.__setattr__(self, "digest", Digest.of(text.encode()))

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Vertex) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)


def _identity(operation: Operation) -> object:
    """What makes two operations the same one, as JSON: every field that takes part in comparison."""
    if isinstance(operation, Base):
        return str(operation.image.digest) if operation.image else "scratch"
    return _named(operation)


def _named(value: Any) -> list[object]:
    """A mount or a remote file is a value too, and is told apart from others by its type."""
    kind: Any = type(value)
    return [kind.__name__, *(getattr(value, name) for name in _compared(kind))]


@cache
def _compared(kind: Any) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind) if each.compare)


_JSON = json.JSONEncoder(separators=(",", ":"), default=_named)


class Made(Protocol):
    """A stage after a step: its file system, and how programs run there."""

    @property
    def vertex(self) -> Vertex: ...

    @property
    def image_config(self) -> ImageConfig: ...


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a build, for display and history."""

    name: str
    """The instruction as written, on one line: "RUN pip install flask"."""
    span: Span | None
    vertex: Vertex | None = None
    """What it makes; None for an instruction that only changes metadata."""
    created_by: str = ""
    """What docker writes into the image's history for it; "" for FROM and ARG before it, which leave no entry."""
    stage: str = ""
    """The name or number of its stage."""
    arguments: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """The variables that come from ARG, not ENV."""
    made: Made | None = field(default=None, compare=False, repr=False)
    """What the stage is after it."""


@dataclass(frozen=True, slots=True)
class BaseImage:
    """An image that a build begins with or copies from; without a reference, one that was handed over."""

    name: str
    """As the Dockerfile calls it."""
    reference: Reference | None
    image: Image


@dataclass(frozen=True, slots=True)
class BuildGraph:
    """A whole build. `config` is the image's, without diff IDs of what is still to be made, and with a history
    whose new entries have no time yet; `steps` are the instructions that count, in the order of the file."""

    target: Vertex
    config: ImageConfig
    steps: tuple[Step, ...]
    history_steps: tuple[Step, ...] = ()
    """The steps whose entries are the last ones of `config.history`, one each."""
    remarks: tuple[Remark, ...] = ()
    """What is odd about the Dockerfile, for the user to read."""
    bases: tuple[BaseImage, ...] = ()
    epoch: int | None = None
    """SOURCE_DATE_EPOCH, in seconds since 1970."""

    def vertices(self) -> tuple[Vertex, ...]:
        """Inputs before users, each once; what the target does not need is absent."""
        ordered: dict[Vertex, None] = {}
        pending = [(self.target, False)]
        while pending:
            vertex, inputs_done = pending.pop()
            if inputs_done:
                ordered[vertex] = None
            elif vertex not in ordered:
                pending.append((vertex, True))
                pending += [(each, False) for each in reversed(vertex.inputs)]
        return tuple(ordered)
