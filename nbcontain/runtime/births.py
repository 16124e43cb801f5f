"""How a container's first process comes to be: forked in namespaces of its own, or in those that are there.

Run by the supervisor, which must never be in another namespace itself (see `runtime.stage`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from nbcontain.errors import NbcontainError, SetupFailed
from nbcontain.linux import forks, syscalls
from nbcontain.linux.idmap import IdMap
from nbcontain.oci.spec import IdMapping
from nbcontain.runtime import namespaces
from nbcontain.runtime.messages import Channel
from nbcontain.runtime.namespaces import Birth
from nbcontain.runtime.stage import Inside, expect, forked_by, keep_only, run

Prepare = Callable[[int], None]


def form(
    birth: Birth,
    init: Callable[[Channel], None],
    is_awaited: Callable[[], bool] = lambda: True,
    prepared: Prepare | None = None,
    kept: Sequence[int] = (),
    *,
    succeeds: bool = False,
) -> Inside:
    """Supervisor: have a process forked in new namespaces, or in those that are there, to run `init`.

    `succeeds` where there is time now, and will be none when it executes its program: it may have a predecessor then.

    The pid namespace's first process waits for messages: it does not know yet what it will be. Unless somebody awaits
    it already, it has time to rehearse. `prepared` is called with a pid before that process does anything, so that
    it and all that it forks are in a control group. `kept` are descriptors that are not closed in there.
    """
    pid: int | None
    is_alone = not birth.joined and not birth.time_offsets and birth.within < 0
    ours, theirs = Channel.pair()
    predecessor = 0
    try:
        if succeeds and birth.is_plain and birth.made & syscalls.CLONE_NEWPID and prepared is None and not kept:
            with suppress(OSError, NbcontainError):
                pid, predecessor = _succeeded(birth, init, theirs)
        if predecessor:
            theirs.close()
        elif is_alone and not forks.has_heirs():
            pid = _born_at_once(birth, init, ours, theirs, prepared, kept)
        else:
            pid = _born(birth, init, ours, theirs, prepared, kept) if birth.is_plain else None
        if pid is None:
            pid = _formed(birth, init, ours, theirs, prepared, kept)
    except BaseException:
        ours.close()
        raise
    # It is our child, whose stage is gone if it had one: we are the subreaper. So init may tie its life to ours.
    ours.send({"adopted": True, "rehearse": not is_awaited()})
    assert pid is not None
    return Inside(pid, ours, predecessor)


# --- by another one, which it succeeds ------------------------------------------------------------


def _succeeded(birth: Birth, init: Callable[[Channel], None], channel: Channel) -> tuple[int, int]:
    """Have it forked by another process, whose memory it has until it executes its program; gives both pids. Only for
    who has no other children. Raises what hinders it, and then nothing has been done.

    It gets the channel when it is there. Its predecessor never has that: the channel's end tells of what init does.
    """
    ours, theirs = Channel.pair()
    predecessor = os.fork()
    if predecessor == 0:
        run(lambda: _be_successor(birth.made & ~syscalls.CLONE_NEWPID, init, theirs), theirs)
    theirs.close()
    try:
        with _ended_on_error(predecessor):
            pid = expect(ours, "born")
            assert isinstance(pid, int)
            ours.send({"channel": True}, [channel.fileno()])
    except BaseException:
        ours.close()
        with suppress(ChildProcessError):
            # Init, if it had come to be: it is told by the channel's end.
            os.waitpid(-1, 0)
        raise
    ours.close()
    # Nobody waits for its end: let it not be preferred to who executes its program just then. Only now, since what it
    # forks has what it has.
    with suppress(OSError):
        os.sched_setscheduler(predecessor, os.SCHED_BATCH, os.sched_param(0))
    return pid, predecessor


def _be_successor(made: int, init: Callable[[Channel], None], channel: Channel) -> None:
    """Its predecessor, and from the second call on init."""
    _hear_nothing()
    keep_only(channel)
    syscalls.unshare(syscalls.CLONE_NEWPID)
    pid = forks.succeeded()
    if made:
        syscalls.unshare(made)
    channel.send({"born": pid})
    message, fds = channel.receive()
    if message is None:
        return
    own = Channel.of(fds[0])
    channel.close()
    init(own)


# --- by the supervisor itself ---------------------------------------------------------------------


def _born(
    birth: Birth, init: Callable[[Channel], None], ours: Channel, theirs: Channel, prepared: Prepare | None,
    kept: Sequence[int],
) -> int | None:  # fmt: skip
    """Fork it without a stage, and give its pid; None where that cannot be, and then nothing has been done.

    Whoever asks for a new pid namespace is not in it, but its next child is. So that no later one is, it asks for its
    own again. What there is besides of namespaces the first process makes itself.
    """
    is_apart = bool(birth.made & syscalls.CLONE_NEWPID)
    own = _own_pids() if is_apart else -1
    if is_apart and own < 0:
        return None
    try:
        if is_apart:
            syscalls.unshare(syscalls.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                made = birth.made & ~syscalls.CLONE_NEWPID
                run(lambda: _be_born(made, init, theirs, kept, waits=prepared is not None), theirs)
        finally:
            if is_apart:
                _ask_for(own)
    finally:
        if is_apart:
            os.close(own)
    theirs.close()
    with _ended_on_error(pid):
        if prepared is not None:
            prepared(pid)
            ours.tell({"go": True})
        expect(ours, "born")
    return pid


@contextmanager
def _ended_on_error(pid: int) -> Iterator[None]:
    """End a first process that does not come to be, or its stage, and wait for it."""
    try:
        yield
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _own_pids() -> int:
    """The own pid namespace, if one may ask for it: not as root of a user namespace, whose it is not. Else -1."""
    try:
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        syscalls.setns(own, syscalls.CLONE_NEWPID)
    except OSError:
        os.close(own)
        return -1
    return own


def _ask_for(pids: int) -> None:
    """Have later children be in this pid namespace, which is the own one."""
    try:
        syscalls.setns(pids, syscalls.CLONE_NEWPID)
    except OSError:
        # A moment ago it was allowed. No helper of ours may find itself among a container's processes.
        os._exit(1)


def _be_born(made: int, init: Callable[[Channel], None], channel: Channel, kept: Sequence[int], *, waits: bool) -> None:
    """Init: leave this machine's namespaces of CLONE_NEW… `made`, and go on."""
    _hear_nothing()
    keep_only(channel, *kept)
    if waits:
        expect(channel, "go")
    if made:
        syscalls.unshare(made)
    channel.send({"born": True})
    init(channel)


def _born_at_once(
    birth: Birth, init: Callable[[Channel], None], ours: Channel, theirs: Channel, prepared: Prepare | None,
    kept: Sequence[int],
) -> int:  # fmt: skip
    """The same where nobody inherits what a stage leaves behind, as in gVisor of 2022, also with ids that are mapped.

    Only who needs nothing of what lies outside of the new namespaces can be born like that.
    """
    is_mapped = not birth.ids.is_identity
    pid = forks.fork(birth.made | (syscalls.CLONE_NEWUSER if is_mapped else 0))
    if pid == 0:
        run(lambda: _begin_at_once(birth, init, theirs, kept), theirs)
    theirs.close()
    with _ended_on_error(pid):
        if prepared is not None:
            prepared(pid)
        if is_mapped:
            birth.ids.write(pid)
        ours.tell({"go": True})
    return pid


def _begin_at_once(birth: Birth, init: Callable[[Channel], None], channel: Channel, kept: Sequence[int]) -> None:
    """Init: be root of the new namespaces, and go on."""
    _hear_nothing()
    keep_only(channel, *kept)
    expect(channel, "go")
    if not birth.ids.is_identity:
        _be_root(birth.ids)
    init(channel)


def _hear_nothing() -> None:
    """Should who forked us hear of its children by a descriptor: ours may soon be something else."""
    signal.set_wakeup_fd(-1)


def _be_root(ids: IdMap) -> None:
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    if not ids.is_single:
        os.setgroups(())


# --- by a stage -----------------------------------------------------------------------------------


def _formed(
    birth: Birth, init: Callable[[Channel], None], ours: Channel, theirs: Channel, prepared: Prepare | None,
    kept: Sequence[int],
) -> int:  # fmt: skip
    """Have it forked by a process that enters namespaces for that, and give its pid."""
    stage = os.fork()
    if stage == 0:
        run(lambda: _separate(birth, init, theirs, kept), theirs)
    theirs.close()
    # It waits for an answer, whoever fails here.
    with _ended_on_error(stage):
        if prepared is not None:
            prepared(stage)
        ours.tell({"go": True})
        if not birth.ids.is_identity and birth.within < 0:
            expect(ours, "separated")
            birth.ids.write(stage)
            ours.send({"mapped": True})
        if birth.time_offsets:
            expect(ours, "timed")
            _set_clocks(stage, birth.time_offsets)
            ours.send({"set": True})
        pid = forked_by(stage, ours)
    os.waitpid(stage, 0)
    return pid


def _separate(birth: Birth, init: Callable[[Channel], None], channel: Channel, kept: Sequence[int]) -> None:
    """Stage: leave the host's namespaces, fork init there, report its pid."""
    keep_only(channel, *birth.joined.values(), *kept, *([birth.within] if birth.within >= 0 else []))
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    expect(channel, "go")
    if birth.joined:
        # Whoever is in there already must not reach into us through /proc.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        namespaces.enter(birth.joined)
    if not birth.ids.is_identity:
        # Nobody but root may give us our map unless we can be looked at.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
        if birth.within >= 0:
            _nest(birth.within, birth.ids)
        else:
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            channel.send({"separated": True})
            expect(channel, "mapped")
        _be_root(birth.ids)
    if birth.made:
        syscalls.unshare(birth.made)
    if birth.time_offsets:
        channel.send({"timed": True})
        expect(channel, "set")
    for fd in birth.joined.values():
        os.close(fd)
    pid = os.fork()
    if pid == 0:
        run(lambda: init(channel), channel)
    channel.send({"pid": pid})


def _nest(within: int, ids: IdMap) -> None:
    """Stage: a user namespace made in another one, which is entered for that, with the ids of that one."""
    namespaces.enter({syscalls.CLONE_NEWUSER: within})
    os.close(within)
    outer = _outer()
    if ids.within(outer).size < ids.size:
        raise SetupFailed(
            "the container's networks were begun by somebody with fewer ids",
            why="its user namespace is made in theirs, and has no others",
            hint="end the containers that are on networks, or use --network none or host",
        )
    stage, (ready, is_ready) = os.getpid(), os.pipe2(os.O_CLOEXEC)
    mapper = os.fork()
    if mapper == 0:
        # Who may map more than one id stands outside of the new namespace, with the rights of the one that it is in.
        os.close(is_ready)
        run(lambda: ids.within(outer).write(stage) if os.read(ready, 1) else None)
    os.close(ready)
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    os.write(is_ready, b".")
    os.close(is_ready)
    if os.waitpid(mapper, 0)[1]:
        raise SetupFailed("the container's user namespace cannot be given its ids")


def _outer() -> IdMap:
    """The map of the user namespace that this process is in."""
    maps = []
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}", encoding="ascii") as lines:
            maps.append(tuple(IdMapping(*map(int, line.split())) for line in lines))
    return IdMap(*maps)


def _set_clocks(pid: int, offsets: str) -> None:
    try:
        fd = os.open(f"/proc/{pid}/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, offsets.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise SetupFailed(
            "cannot set the clocks of its time namespace", errno=error.errno, why=error.strerror or ""
        ) from error


# --- nobody's ---------------------------------------------------------------------------------------


def user_namespace(ids: IdMap) -> int:
    """Supervisor: a user namespace with this map and nobody in it, as a descriptor; for mounts with a map of ids."""
    ours, theirs = Channel.pair()
    stage = os.fork()
    if stage == 0:
        run(lambda: _hold_user_namespace(theirs), theirs)
    theirs.close()
    try:
        expect(ours, "separated")
        ids.write(stage)
        return os.open(f"/proc/{stage}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        ours.close()
        os.waitpid(stage, 0)


def _hold_user_namespace(channel: Channel) -> None:
    keep_only(channel)
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    channel.send({"separated": True})
    channel.receive()
