"""Telling a first process, which waits for it, what to be: a program or a function of ours. Run by the supervisor."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from nbcontain.events import OUT_OF_MEMORY, Notice
from nbcontain.journal import FileJournal
from nbcontain.linux.idmap import IdMap
from nbcontain.linux.starts import children_of, start_time
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Mount, Spec
from nbcontain.runtime import answerers, births, contained, namespaces, rungs, sources, stage
from nbcontain.runtime.annotations import JOINS, USERNS, WITHIN
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.execs import Execs
from nbcontain.runtime.messages import ROOTFS, Channel, Message
from nbcontain.runtime.namespaces import Birth
from nbcontain.values import replace

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from nbcontain.runtime.supervisor import Supervisor



def be_program(
    channel: Channel, pid: int, bundle: Bundle, message: Message, stdin: int, secrets: Sequence[int],
    joined: Sequence[str] = (), doors: Sequence[int] = (),
) -> dict[int, str]:  # fmt: skip
    """Tell init, which `pid` is, which container to become, with its standard streams.

    Gives our ends of its outputs, by descriptor.

    `secrets` is the memory that `runtime.secrets` reads, if there is any; `joined` are namespaces that it was born into
    although its spec has them made; `doors` are to control groups that it enters first of all.
    """
    if message["terminal"]:
        # Init makes it, and hands it out when it is ready.
        pipes: dict[str, tuple[int, int]] = {}
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        ends = [null, os.dup(null), os.dup(null), *secrets]
    else:
        if stdin < 0:
            stdin = _unfed(bundle)
        pipes = {stream: os.pipe2(os.O_CLOEXEC) for stream in ("stdout", "stderr")}
        ends = [stdin, pipes["stdout"][1], pipes["stderr"][1], *secrets]
    opened: dict[int, int] = {}
    texts: dict[str, int] = {}
    if bundle.info.unusual and USERNS in (spec := bundle.spec).annotations:
        from nbcontain.runtime import shifted

        opened, texts = shifted.opened(bundle, spec, pid, volatile=message["volatile"]), shifted.texts(bundle)
        shifted.give(spec, ends[:3])
    elif bundle.info.unusual and sources.need_host(bundle.spec):
        opened = sources.opened(bundle.spec, births.user_namespace, own_map=f"/proc/{pid}/ns/user")
    ends[3:3] = (*opened.values(), *texts.values())
    answered = answerers.fork_for(bundle, bundle.spec) if (words := bundle.info.answers) else None
    if answered is not None:
        ends.append(answered.fileno())
    order = {
        "do": "program",
        "answers": words,
        "is_answered": answered is not None,
        "holds": _held(bundle, message),
        "bundle": str(bundle.path),
        "opened": [*opened],
        "texts": [*texts],
        "volatile": message["volatile"],
        "plain": message["plain"],
        # Said beforehand, so that init need not wait for our answer to its "ready".
        "start": message["start"],
        "joined": [*joined],
        "doors": len(doors),
    }
    channel.send(order, [*ends, *doors])
    if answered is not None:
        answered.close()
        ends.pop()
    for fd in (*ends, *doors):
        os.close(fd)
    for reading, _ in pipes.values():
        # The container can open its pipe by /proc/self/fd/1 and take away what poll saw.
        os.set_blocking(reading, False)
    return {reading: stream for stream, (reading, _) in pipes.items()}


def _unfed(bundle: Bundle) -> int:
    """What a program reads whom nobody hands anything: nothing, or with -i a pipe without an end, so that it waits.

    As its own descriptor of that can be written to there is always somebody who might; `attach` does.
    """
    if (bundle.info.options.get("said") or {}).get("open_stdin"):
        # Where a file system has no pipes, there is nothing to read.
        with suppress(OSError):
            with suppress(FileExistsError):
                os.mkfifo(bundle.stdin, 0o600)
            return os.open(bundle.stdin, os.O_RDWR | os.O_CLOEXEC)
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def _held(bundle: Bundle, message: Message) -> list[str]:
    """Namespaces that init hands out, by their names in /proc/PID/ns."""
    # Unmounting takes a while, and nobody needs to wait for it. Only where the layer is thrown away, so that nothing
    # else ever uses it while it is still mounted.
    names = ["mnt"] if bundle.info.remove and rungs.named(bundle.info.rung).mounts else []
    # Once it has become another user, nobody outside of its user namespace may open them, until it has executed.
    if (not message["start"] or bundle.info.restart) and {"user", "network"} <= {*bundle.spec.linux.namespaces}:
        names += ["net", "user"]
    return names


def born_anew(inside: stage.Inside, bundle: Bundle, ids: IdMap) -> stage.Inside:
    """A first process as this bundle wants it, in place of one that was made beforehand. Raises SetupFailed."""
    end(inside)
    spec, linux = bundle.spec, bundle.spec.linux
    if JOINS in spec.annotations:
        from nbcontain.runtime import joins

        linux = joins.resolved(bundle, spec)
    birth = namespaces.birth(linux, ids_of(spec, ids), spec.annotations.get(WITHIN, ""))
    try:
        if JOINS in spec.annotations:
            joins.check(bundle, spec)
        return births.form(birth, partial(contained.main, rung=rungs.named(bundle.info.rung)))
    finally:
        birth.close()


def ids_of(spec: Spec, ids: IdMap) -> IdMap:
    """The ids of a first process that is about to be made: its own, where those of others here are this machine's."""
    if "user" not in spec.linux.namespaces or not ids.is_identity:
        return ids
    # Before there is anybody who could not: of this machine's files init may be able to read nothing.
    from nbcontain.runtime import shifted  # noqa: F401

    return IdMap(spec.linux.uid_mappings, spec.linux.gid_mappings)


def replaced(inside: stage.Inside, bundle: Bundle, ids: IdMap) -> stage.Inside:
    """A first process as this bundle wants it, where that made beforehand is not as good. Raises SetupFailed."""
    if not bundle.info.runtime:
        return born_anew(inside, bundle, ids) if bundle.info.unusual else inside
    from nbcontain.runtime import other_runtime

    end(inside)
    return other_runtime.stand_in(bundle)


def follow(run: Supervisor, answer: Message) -> None:
    """Where another runtime has made the first process, that is this one's child now: who stood in for it ends soon."""
    if "pid" not in answer:
        return
    run.stand_in, run.pid = run.pid, int(answer["pid"])
    os.close(run.pidfd)
    run.pidfd = os.pidfd_open(run.pid)
    run.execs = Execs(run.bundle, run.pidfd, run.poll, is_root=run.ids.is_identity)
    run.state = replace(run.state, pid=run.pid, pid_start=start_time(run.pid))
    if not run.starts_at_once:
        run.bundle.write_state(run.state)


def end(inside: stage.Inside) -> None:
    """A first process that is not wanted."""
    inside.channel.close()
    os.kill(inside.pid, signal.SIGKILL)
    os.waitpid(inside.pid, 0)
    if inside.predecessor:
        os.waitpid(inside.predecessor, 0)


def begin_limits(bundle: Bundle, pid: int, ids: IdMap) -> list[int]:
    """Limit the first process, which waits, if its container has limits. Raises SetupFailed.

    Gives what it is to enter its control group by, where it is to do that.
    """
    if bundle.info.runtime:
        from nbcontain.runtime import other_runtime

        if other_runtime.keeps_groups(bundle.info.runtime):
            return []
    if bundle.info.limited:
        # Only now: what most containers have no use for, no supervisor carries with it.
        from nbcontain.runtime import groups

        return groups.begin(bundle, pid, is_root=ids.is_identity, by_itself=not bundle.info.runtime)
    return []


def end_limits(bundle: Bundle, ids: IdMap, journal: FileJournal) -> tuple[bool, int]:
    """All its processes have ended. Gives, and tells, whether one was killed because there was no memory for it; and
    gives how many bytes they had at most, 0 where nobody has counted them."""
    if not bundle.info.limited:
        return False, 0
    from nbcontain.runtime import groups

    was_killed, peak = groups.end(bundle, is_root=ids.is_identity)
    if was_killed:
        with suppress(OSError):
            hint = "a higher --memory, or a program that needs less"
            journal.append(Notice(bundle.path.name, OUT_OF_MEMORY, hint, "ending"))
    return was_killed, peak


def begin_mounts(bundle: Bundle, ids: IdMap) -> None:
    """Empty the scratches of a container (:O): what was written to them is gone when it runs again."""
    if any(each.get("Scratch") for each in bundle.info.mounts):
        from nbcontain.runtime import volume_ends

        volume_ends.renew_scratches(bundle, ids)


def end_mounts(bundle: Bundle, ids: IdMap) -> None:
    """The anonymous volumes of a container that is gone go with it (--rm)."""
    if bundle.info.anonymous_volumes:
        from nbcontain.runtime import volume_ends

        volume_ends.release(bundle, ids)


def answer_call(inside: stage.Inside, report: Channel, message: Message, fds: list[int]) -> None:
    """Have init run one of our functions, and pass its answer on; its life ends with the caller's."""
    inside.channel.send({**message, "do": "function"}, fds)
    for fd in fds:
        os.close(fd)
    poll = select.poll()
    poll.register(inside.channel, select.POLLIN)
    poll.register(report, select.POLLIN)
    if any(fd == inside.channel.fileno() for fd, _ in poll.poll()):
        answer, _ = inside.channel.receive()
        report.tell(answer or {"error": "SetupFailed", "message": f"{message['function']} ended without an answer"})
    else:
        os.kill(inside.pid, signal.SIGKILL)
    os.waitpid(inside.pid, 0)


def end_rest(bundle: Bundle) -> None:
    """End what a container's first process has left behind: all that it started, where it has no pid namespace of its
    own that ended with it; and who answered its calls.

    Whoever loses its parent becomes ours, who are their subreaper; so in the end all are.
    """
    names = bundle.spec.linux.namespaces if bundle.info.unusual else rungs.named(bundle.info.rung).namespaces
    if "pid" in names and not bundle.info.answers:
        return
    while True:
        for pid in children_of(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def remove_as_root(ids: IdMap, path: Path, rung_name: str) -> None:
    """Remove a tree with files of subordinate ids: by a process that is root over them."""
    rootfs = (Mount("/", "bind", str(path.parent), ("bind",)),)
    call_as_root(ids, rung_name, ROOTFS, "remove_tree", rootfs, {"name": path.name})


def call_as_root(
    ids: IdMap, rung_name: str, module: str, function: str, rootfs: Sequence[Mount], arguments: dict[str, object]
) -> None:
    """Have one of our functions run, of that module, with `rootfs` as its world and root's rights over its ids."""
    rung = rungs.named(rung_name)
    birth = Birth(ids, namespaces.flags_of(rung.namespaces, namespaces.USUAL))
    inside = births.form(birth, partial(contained.main, rung=rung))
    inside.channel.send(
        {
            "do": "function",
            "modules": list(dict.fromkeys((ROOTFS, module))),
            "function": function,
            "rootfs": spec_codec.mounts_to_json(rootfs),
            "source": None,
            "arguments": arguments,
        }
    )
    answer, _ = inside.channel.receive()
    os.waitpid(inside.pid, 0)
    stage.raise_for(answer)
