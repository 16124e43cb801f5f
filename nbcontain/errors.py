"""What can go wrong, as types: each error says what happened, why, and what to try.

An error draws itself: IPython asks an exception for ``_render_traceback_``, so a mistake of the
user's is shown as three lines instead of a traceback, without anybody importing IPython here.
Whatever is not an `NbcontainError` is a bug and keeps its traceback.
"""

from __future__ import annotations

from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any


@dataclass(frozen=True, slots=True)
class Span:
    """Lines of a Dockerfile, counted from 1; both ends included."""

    first: int
    last: int


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", shown: Callable[[str], str] = str) -> str:
    """A hint for whoever named what there is not: the known name nearest to it, as `shown` writes it, or `otherwise`.

    Words of a Dockerfile have `dockerfile.nearest`, which chooses as BuildKit does.
    """
    from difflib import get_close_matches

    near = get_close_matches(name, [*known], 1)
    return f"did you mean {shown(near[0])}?" if near else otherwise


class NbcontainError(Exception):
    """Base of all errors meant for the user.

    `message` says what happened and names the thing, `why` the fact behind it, `hint` what to try;
    the last two may be empty. A class may carry a `hint` of its own.
    """

    hint: str = ""
    exit_status: int = 1
    """What `run` ends with on a terminal: docker's 125 for an engine's failure. Of other commands 125 becomes 1."""
    done: tuple[str, ...] = ()
    """Of a command on several things: what was done, or found, all the same."""
    more: tuple[NbcontainError, ...] = ()
    """Of such a command: what else went wrong."""

    def __init__(self, message: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.why = why
        if hint:
            self.hint = hint

    def excerpt(self) -> list[str]:
        """Lines of source that the error points at, ready to print; none unless a subclass has some."""
        return []

    def lines(self) -> list[str]:
        """The drawn error: what, the excerpt, why, try. Control characters are made visible."""
        drawn = [f"{type(self).__name__}: {_visible(self.message)}"]
        drawn += [_visible(line) for line in self.excerpt()]
        for label, text in (("why", self.why), ("try", self.hint)):
            if text:
                first, *rest = text.splitlines()
                drawn.append(f"  {label}: {_visible(first)}")
                drawn += [f"       {_visible(line)}" for line in rest]
        return [*drawn, *(line for each in self.more for line in each.lines())]

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback. What was done must not be lost behind the error."""
        return [*self.done, *self.lines()]


def together(errors: Sequence[NbcontainError], done: Sequence[str]) -> NbcontainError:
    """The first of these, with the others, and with what was done all the same."""
    first, *rest = errors
    first.done, first.more = tuple(done), tuple(rest)
    return first


def _visible(text: str) -> str:
    """Text with every control character but the tab written out, so that no name can steer a terminal."""
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


# --- Dockerfiles and builds -------------------------------------------------------------------


class DockerfileError(NbcontainError):
    """A mistake in a Dockerfile, drawn under its lines."""

    def __init__(
        self, message: str, span: Span | None = None, source: str = "", *, why: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, why=why, hint=hint)
        self.span = span
        self.source = source

    def excerpt(self) -> list[str]:
        return draw_excerpt(self.source, self.span)


class BuildError(NbcontainError):
    """A build step that could not be done. `span` and `source` place it in the Dockerfile."""

    def __init__(
        self,
        message: str,
        *,
        span: Span | None = None,
        source: str = "",
        output: tuple[str, ...] = (),
        why: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, why=why, hint=hint)
        self.span = span
        self.source = source
        self.output = output
        self.left: Any = None
        """The file system as the failed step left it, where it was kept."""

    def excerpt(self) -> list[str]:
        drawn = draw_excerpt(self.source, self.span)
        return drawn + [f"     │ {line}" for line in self.output]


class StepFailed(BuildError):
    """A RUN whose program ended with another exit code than 0."""

    def __init__(self, message: str, exit_code: int, **rest: object) -> None:
        super().__init__(message, **rest)  # type: ignore[arg-type]
        self.exit_code = exit_code
        self.stubs: tuple[str, ...] = ()
        """What had to be made as mount points only."""


def draw_excerpt(source: str, span: Span | None, around: int = 1) -> list[str]:
    """The lines of `span` in `source`, marked, with `around` lines before them for orientation."""
    lines = source.replace("\r\n", "\n").split("\n")
    if span is None or not 1 <= span.first <= len(lines):
        return []
    last = min(span.last, len(lines), span.first + 7)
    drawn = []
    for number in range(max(1, span.first - around), last + 1):
        mark = "▶" if number >= span.first else " "
        drawn.append(f" {mark} {number:>3} │ {lines[number - 1]}")
    return drawn


# --- the store --------------------------------------------------------------------------------


class StoreError(NbcontainError):
    """Something on disk is missing, damaged, taken or in use."""


class DigestMismatch(StoreError):
    """A blob's bytes are not those its descriptor promised."""

    hint = "The download was cut or the file was altered: get it again."

    def __init__(self, expected: object, actual: object, *, why: str = "", hint: str = "") -> None:
        super().__init__(f"expected {expected}, got {actual}", why=why, hint=hint)


class BadReference(StoreError):
    """A text that is no image name (distribution/reference grammar)."""


class BadDigest(StoreError):
    """A text that is no digest (image-spec descriptor.md#digests)."""


class BadDocument(StoreError):
    """A JSON document that is not what its specification says."""


class BadArchive(StoreError):
    """A tar stream that is damaged, or that means harm."""


class ImageNotFound(StoreError):
    """No image of that name in the store."""

    exit_status = 125


class VolumeNotFound(StoreError):
    """There is no such volume."""


class InUse(StoreError):
    """Something cannot go, because something else needs it."""


class WrongFormatVersion(StoreError):
    """The store on disk was written by another version of the format."""


class DiskFull(StoreError):
    """The file system that holds the store has no room left."""

    hint = "Free some space (%nbcontain prune removes what nothing needs), or set NBCONTAIN_ROOT to another disk."


class DiskFailed(StoreError):
    """The file system that holds the store cannot be read or written: broken, read-only, or gone."""

    hint = "Look into the system's log (dmesg), and set NBCONTAIN_ROOT to another disk."


class DiskReadOnly(DiskFailed):
    """Nothing can be written there: it was mounted so, or made so by the kernel since it fails."""

    hint = "Set NBCONTAIN_ROOT to a directory that can be written to; of a disk that fails, the log tells (dmesg)."


# --- registries -------------------------------------------------------------------------------


class RegistryError(NbcontainError):
    """A registry, or the way to it, did not do what was asked."""


class Unreachable(RegistryError):
    """No connection to the registry: no such host, nobody listening, cut off, or silent for too long."""


class BadCertificate(RegistryError):
    """The registry's TLS certificate, or the way it speaks TLS, is not acceptable."""


class Unauthorized(RegistryError):
    """The registry wants to know who asks, or does not let this user do it."""


class Blocked(RegistryError):
    """The machine's configuration forbids to fetch that name, or to send it anywhere."""


class ManifestUnknown(RegistryError):
    """The registry has no such repository, tag or manifest."""

    exit_status = 125


class RateLimited(RegistryError):
    """The registry says that too much was asked of it; `retry_after_s` is how long it wants to be left alone."""

    def __init__(self, message: str, retry_after_s: float | None = None, *, why: str = "", hint: str = "") -> None:
        super().__init__(message, why=why, hint=hint)
        self.retry_after_s = retry_after_s


class BadAnswer(RegistryError):
    """The registry answered something that the distribution specification does not allow, or that means harm."""


class BadAddress(BadAnswer):
    """The registry sends us where nothing can be asked for, or where it has no business: no use in trying again."""


class NoSuchPlatform(RegistryError):
    """The image exists, but not for this kind of machine."""


class Unsupported(RegistryError):
    """What the name points at is no image that can be pulled."""


# --- containers -------------------------------------------------------------------------------


class ContainerError(NbcontainError):
    """A container that is not there, not in the right state, or could not be set up."""

    exit_status = 125


class ContainerNotFound(ContainerError):
    """No container of that name or id."""

    exit_status = 1


class AmbiguousContainer(ContainerNotFound):
    """What was said is how the ids of several containers begin."""


class NameTaken(ContainerError):
    """Another container has that name."""


class NotRunning(ContainerError):
    """The container would have to run for this."""


class SetupFailed(ContainerError):
    """A step between the launcher and exec failed; `errno` and `path` are what the kernel said."""

    def __init__(
        self, message: str, *, errno: int | None = None, path: str = "", why: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, why=why, hint=hint)
        self.errno = errno
        self.path = path


class CommandNotFound(SetupFailed):
    """The program is not in the container (docker's 127)."""

    exit_status = 127


class CommandNotExecutable(SetupFailed):
    """The program is there and cannot be executed (docker's 126)."""

    exit_status = 126


class UserNotFound(SetupFailed):
    """A user or group that the image's files do not list."""


class DirectoryNotFound(SetupFailed):
    """The working directory is not there, or is no directory."""


class ContainerFailed(ContainerError):
    """A foreground container that ended otherwise than with 0; `result` is its RunResult, where there is one."""

    def __init__(
        self, message: str, exit_code: int, *, why: str = "", hint: str = "", result: Any = None
    ) -> None:
        super().__init__(message, why=why, hint=hint)
        self.exit_code = exit_code
        self.result = result
        self.exit_status = exit_code


# --- networks ---------------------------------------------------------------------------------


class NetworkError(NbcontainError):
    """A network, an address or a port that cannot be had."""

    exit_status = 125


class NetworkNotFound(NetworkError):
    """No network of that name or id."""


class NetworkInUse(NetworkError):
    """A network cannot go, because containers are on it."""

    exit_status = 1


class AddressesExhausted(NetworkError):
    """No address, or no subnet, is left."""


class AddressTaken(NetworkError):
    """Somebody else has that address, or a network that overlaps."""


class PortTaken(NetworkError):
    """A port of this machine is somebody else's."""


# --- the rest ---------------------------------------------------------------------------------


class UsageError(NbcontainError):
    """A command line that cannot be understood; `hint` names the help to read."""

    exit_status = 125


class Unavailable(NbcontainError):
    """Something was asked for that this host cannot give; `why` says what was tried and what it answered."""

    exit_status = 125


class Cancelled(NbcontainError):
    """The work is no longer wanted; raised by `emit` inside it."""

    exit_status = 130


class Interrupted(NbcontainError):
    """The user interrupted the cell or pressed Stop; raised so that Run All stops too."""

    exit_status = 130
