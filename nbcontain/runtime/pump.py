"""What a supervisor is while nobody asks anything of it: the program's output goes to the journal, and that is all.

A supervisor that has been quiet for a while executes itself as this; process, children, locks and descriptors stay.
Whatever else happens makes it execute itself as the whole supervisor again. This is no module of
the package: it is imported by its own name in an interpreter with nothing else, and imports only what such an
interpreter has, since what it imports is what an idle container costs in memory.
"""

# posix is what os is made of, and saves some hundred KB.
import posix
import select
import sys
import time

if __package__:
    from nbcontain.runtime import output_lines
else:
    import output_lines  # type: ignore[import-not-found, no-redef]

WHOLE = (
    "import sys; sys.path.append(sys.argv[1]); import nbcontain.runtime.later; "
    "from nbcontain.runtime.idle import resume; resume()"
)
_READ_BYTES = 1 << 16
_MADV_DONTNEED = 4
_NEVER = float("inf")
_DAY_MS = 86400000.0


def main() -> None:
    """Supervisor, idle: `sys.argv` is what `idle.Idle.words` gave."""
    package, task, journal, outputs, watched, lost, wake, limit, rest = sys.argv[1:]
    poll = select.poll()
    streams = {}
    for word in outputs.split():
        fd, _, stream = word.partition(":")
        streams[int(fd)] = stream
        poll.register(int(fd), select.POLLIN)
    for word in watched.split():
        poll.register(int(word), select.POLLIN)
    end = int(watched.split()[0])
    sys.path.append(package)
    give_back()
    while True:
        is_over, more = pump(poll, end, streams, task, int(journal), float(wake or "inf"), int(limit))
        lost = str(int(lost) + more)
        outputs = " ".join(f"{fd}:{stream}" for fd, stream in streams.items())
        try:
            awaken([package, task, journal, outputs, watched, lost, wake, limit, rest])
        except (OSError, ImportError, MemoryError):
            # No memory, or no interpreter any more. The container is worth another try, unless it has ended.
            if is_over:
                return
            time.sleep(1)


def give_back() -> None:
    """Let go of the interpreter's own pages, which starting it took: what is needed of them comes back by itself.

    They are the system's copy of files, unchanged, so that only who looks at this process alone sees them as its
    memory; but that is who wonders what an idle container costs.
    """
    try:
        # ctypes itself would cost more than this gives.
        import _ctypes

        class Pointer(_ctypes._SimpleCData):  # type: ignore[type-arg]
            _type_ = "P"

        # What modules were found by, and streams that are nobody's; both come back where they are needed.
        sys.path_importer_cache.clear()
        for name in ("stdin", "stdout", "stderr"):
            setattr(sys, name, None)
            setattr(sys, f"__{name}__", None)
        # Everything beforehand: each line of Python brings pages back.
        madvise = _ctypes.dlsym(_ctypes.dlopen(None, 0), "madvise")  # type: ignore[arg-type]
        spans = [(Pointer(start), Pointer(end - start), _MADV_DONTNEED) for start, end in unchanged(_smaps())]
        for span in spans:
            _ctypes.call_function(madvise, span)
        # And what the allocator keeps for later, of the start and of the lines above; musl's keeps nothing.
        _ctypes.call_function(_ctypes.dlsym(_ctypes.dlopen(None, 0), "malloc_trim"), (0,))  # type: ignore[arg-type]
    except (ImportError, AttributeError, OSError, ValueError):
        return


def unchanged(smaps: str) -> list[tuple[int, int]]:
    """The read-only mappings of files that have no page of this process' own (proc_pid_smaps(5)), by address."""
    found = []
    span = None
    for each in smaps.splitlines():
        words = each.split()
        if not words[0].endswith(":"):
            start, _, end = words[0].partition("-")
            is_file = words[1] in ("r-xp", "r--p") and words[4] != "0"
            span = (int(start, 16), int(end, 16)) if is_file else None
        elif words[0] == "Anonymous:" and words[1] == "0" and span is not None:
            found.append(span)
    return found


def _smaps() -> str:
    fd = posix.open("/proc/self/smaps", posix.O_RDONLY | posix.O_CLOEXEC)
    data = b""
    while chunk := posix.read(fd, _READ_BYTES):
        data += chunk
    posix.close(fd)
    return data.decode("utf-8", "replace")


def awaken(words: list[str]) -> None:
    """Whoever it is that wants something, the whole supervisor sees to it: become that. Raises what hinders it."""
    from nbcontain.runtime import sealed

    copy = sealed.sealed_copy(sys.executable)
    try:
        posix.set_inheritable(copy, True)
        command = sealed.command(sys.executable, WHOLE, *words)
        posix.execve(f"/proc/self/fd/{copy}", command, sealed.environment(sys.executable))
    finally:
        posix.close(copy)


def pump(
    poll: select.poll, end: int, streams: dict[int, str], task: str, journal: int, wake: float, limit: int
) -> tuple[bool, int]:
    """Until something is to be done that is not output, also at the moment `wake` of the monotonic clock, and when the
    journal has `limit` bytes (0 is no limit): whether it is the container's `end`, and how many bytes of output were
    lost."""
    lost = 0
    gap = b""
    while True:
        others: list[int] = []
        left_ms = None if wake == _NEVER else max(0.0, wake - time.monotonic()) * 1000
        if left_ms == 0:
            return False, lost
        for fd, _ in poll.poll(left_ms if left_ms is None else min(left_ms, _DAY_MS)):
            if fd not in streams:
                # Seen to last: what was written before the end is read first.
                others.append(fd)
                continue
            try:
                data = posix.read(fd, _READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                # EIO is how a terminal ends.
                data = b""
            if not data:
                poll.unregister(fd)
                posix.close(fd)
                del streams[fd]
                continue
            lines = output_lines.parts(time.time(), task, streams[fd], data)
            try:
                written = posix.writev(journal, [gap, *lines]) - len(gap)
            except OSError:
                written = -1
            if missing := output_lines.missing(lines, len(data), written):
                # A full disk must not stop the container: it is drained on, and what was lost is counted.
                lost += missing
            if written >= 0:
                # Half a line: the next one begins on a line of its own.
                gap = b"\n" if missing else b""
        if others or (limit and posix.lseek(journal, 0, 1) >= limit):
            return end in others, lost
