"""A Dockerfile as values: stages, and one dataclass per instruction whose docstring is its grammar.

Nothing here is expanded: `$variables` and quotes belong to the plan, which knows their values.
"""

from __future__ import annotations

from dataclasses import dataclass

from nbcontain.errors import Span


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """ARG name[=default] …"""

    arguments: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    """ENV name=value … | ENV name value"""

    pairs: Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    """LABEL name=value … | LABEL name value"""

    pairs: Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    """RUN [--network=default|none|host] (shell | exec | heredoc)"""

    command: CommandForm
    network: str = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Instruction):
    """COPY [--from=…] [--chown=…] [--chmod=…] source … destination | COPY ["source", …, "destination"]"""

    sources: tuple[str, ...]
    destination: str
    from_: str = ""
    """A stage's name or number, or an image."""
    chown: str = ""
    chmod: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Instruction):
    """ADD [--chown=…] [--chmod=…] source … destination | ADD ["source", …, "destination"]"""

    sources: tuple[str, ...]
    destination: str
    chown: str = ""
    chmod: str = ""


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
