"""A Dockerfile as values: stages, and one dataclass per instruction whose docstring is its grammar.

Nothing here is expanded: `$variables` and quotes belong to the plan, which knows their values.
"""

from __future__ import annotations

import re

from nbcontain.errors import Span
from nbcontain.values import dataclass

_TABS = re.compile(r"^\t+", re.MULTILINE)


def is_broken_json(text: str) -> bool:
    """Whether a shell's text looks like the JSON form: `['program']`."""
    return text.startswith("[") and text.endswith("]") and re.match(r"\[\s*[\"']", text) is not None


@dataclass(frozen=True, slots=True)
class ShellForm:
    """RUN pip install x"""

    text: str


@dataclass(frozen=True, slots=True)
class ExecForm:
    """RUN ["pip", "install", "x"]"""

    argv: tuple[str, ...]


CommandForm = ShellForm | ExecForm
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A document inside the Dockerfile: <<name, <<-name, 3<<name or <<"name"."""

    name: str
    content: str
    """Its lines as written, leading tabs and carriage returns too."""
    expand: bool = True
    """Its variables count where it becomes a file (COPY and ADD): no part of the name was quoted."""
    chomp: bool = False
    """Tabs at the beginning of its lines do not count (<<-)."""
    fd: int = 0
    """The number in front of <<; a shell's matter."""

    @property
    def text(self) -> str:
        """What is meant: the content, without leading tabs where they do not count."""
        return _TABS.sub("", self.content) if self.chomp else self.content


@dataclass(frozen=True, slots=True)
class MountFlag:
    """RUN --mount=type=cache,target=…: what was written, not expanded.

    `dockerfile.mounts.run_mount` makes a `RunMount` of it, once the plan knows the variables; all mistakes but those
    of the notation show there, as in BuildKit, so that a stage that is not built cannot fail.
    """

    fields: tuple[tuple[str, str | None], ...]
    """Keys in lowercase; None stands for a key without "="."""

    @property
    def from_(self) -> str:
        """The stage, named context or image that it takes from; never holds a variable."""
        return next((value or "" for key, value in reversed(self.fields) if key == "from"), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMount:
    """A mount of one RUN, its variables filled in and its defaults set (BuildKit: instructions.Mount)."""

    type: str = "bind"
    """bind, cache, tmpfs, secret or ssh."""
    from_: str = ""
    source: str = ""
    target: str = ""
    """As given; relative to the working directory. May be "" for secret and ssh."""
    read_only: bool = True
    id: str = ""
    """Of a cache, a secret or a forwarded agent; "" has a default by type (`dockerfile.mounts`)."""
    sharing: str = ""
    """Of a cache: shared, private, locked; "" is shared."""
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size_bytes: int = 0
    """Of a tmpfs; 0 is no limit."""
    required: bool = False
    """Of a secret or an agent: without it the RUN fails."""
    env: str = ""
    """Of a secret: the variable that gets it, instead of a file unless a target is given too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What all instructions have: the lines they stand on, and how they were written."""

    span: Span
    text: str
    """The instruction on one line, continuations joined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    """FROM [--platform=…] image|stage|scratch [AS name]"""

    image: str
    name: str = ""
    """In lowercase; "" for a stage that has only its number."""
    platform: str = ""
    comment: str = ""
    """The comment on the line above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """ARG name[=default] …"""

    arguments: tuple[tuple[str, str | None], ...]
    comment: str = ""
    """The comment on the line above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    """ENV name=value … | ENV name value"""

    pairs: Pairs
    is_legacy: bool = False
    """Written in the old form, without =."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    """LABEL name=value … | LABEL name value"""

    pairs: Pairs
    is_legacy: bool = False
    """Written in the old form, without =."""


@dataclass(frozen=True, slots=True)
class DeviceFlag:
    """RUN --device=NAME[,required]: a device by its vendor's name (CDI), or all (KIND=*) or any (KIND) of a kind."""

    name: str
    is_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    """RUN [--mount=…]… [--device=…]… [--network=default|none|host] [--security=…] (shell | exec | heredoc)

    The plan expands variables in mounts, and nowhere else.
    """

    command: CommandForm
    """Without the documents; `script` has them."""
    network: str = "default"
    security: str = "sandbox"
    mounts: tuple[MountFlag, ...] = ()
    devices: tuple[DeviceFlag, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    is_document: bool = False
    """The first heredoc is all there is (RUN <<EOF): it is the shell's script, or a program if it begins with #!."""

    @property
    def script(self) -> str:
        """What the shell gets of a RUN in shell form; BuildKit expands nothing in it, quoted or not."""
        if not isinstance(self.command, ShellForm):
            raise TypeError("a RUN in exec form has no script")
        if self.is_document:
            return self.heredocs[0].text
        return self.command.text + "".join(f"\n{each.content}{each.name}" for each in self.heredocs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Instruction):
    """COPY [flag]… source … destination | COPY [flag]… ["source", …, "destination"]

    flag = --from= | --chown= | --chmod= | --link | --parents | --exclude=
    A source may be a heredoc. The plan expands variables in sources, destination, chown, chmod, excludes and in
    the documents that say so; not in `from_`.
    """

    sources: tuple[str, ...]
    """Paths; may be empty where there are heredocs."""
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    """Files to make, named by their heredocs; they come after the paths."""
    from_: str = ""
    """A stage's name or number, a named context, or an image."""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Instruction):
    """ADD [flag]… source … destination | ADD [flag]… ["source", …, "destination"]

    flag = --chown= | --chmod= | --link | --exclude= | --checksum= | --keep-git-dir | --unpack
    A source may be a heredoc. The plan expands variables in sources, destination, chown, chmod, checksum, excludes
    and in the documents that say so.
    """

    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    excludes: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None
    """None where it is not said: local archives are unpacked, downloaded ones are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    """WORKDIR path"""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    """USER user[:group]"""

    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(Instruction):
    """CMD (shell | exec)"""

    command: CommandForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Instruction):
    """ENTRYPOINT (shell | exec)"""

    command: CommandForm


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultShell(Instruction):
    """SHELL ["program", "argument", …]"""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    """EXPOSE port[-port][/tcp|udp|sctp] …"""

    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    """VOLUME path … | VOLUME ["path", …]"""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal(Instruction):
    """STOPSIGNAL signal"""

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck(Instruction):
    """HEALTHCHECK [--interval= --timeout= --start-period= --start-interval= --retries=] CMD … | HEALTHCHECK NONE

    Durations are in nanoseconds, 0 where they were not given. `command` is None for NONE.
    """

    command: CommandForm | None
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(Instruction):
    """MAINTAINER name"""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBuild(Instruction):
    """ONBUILD instruction: any but ONBUILD, FROM and MAINTAINER"""

    trigger: str
    """As written: it is stored in the image and parsed again when another one is built from it."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something odd that is no mistake; shown as a notice of the build."""

    message: str
    span: Span | None = None
    hint: str = ""
    rule: str = ""
    """The check or hint that found it, a name of `dockerfile.rules`; "" for what is no rule's."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A FROM and what follows it."""

    base: From
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A whole file. `arguments` are the ARGs before the first FROM."""

    source: str
    """Kept, so that errors can be drawn under the line."""
    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    escape: str = "\\"
    remarks: tuple[Remark, ...] = ()
    check: str = ""
    """What `# check=` says, for `dockerfile.rules.CheckOptions`."""
    skipped: tuple[tuple[Span, frozenset[str]], ...] = ()
    """Checks that are taken back for one instruction, by a comment right above."""
