"""How a run of a container ends, and how the next one begins where a policy wants one. Run by the supervisor."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from nbcontain.errors import NbcontainError
from nbcontain.events import Finished, Notice
from nbcontain.linux.idmap import IdMap
from nbcontain.runtime import births, contained, namespaces, rungs
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.calls import be_program, begin_limits, ids_of, remove_as_root
from nbcontain.runtime.restarts import Policy, delay_s
from nbcontain.store import removal
from nbcontain.values import replace

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from nbcontain.runtime.supervisor import Supervisor


_LET_GO_S = 3.0
_AGAIN_S = 0.05

# --- again ----------------------------------------------------------------------------------------


def runs_again(run: Supervisor) -> bool:
    """Whether the policy has it started again, which has happened then. Waits as long as docker would.

    Whoever asks something meanwhile is served; a stop ends the waiting.
    """
    if not run.info.restart:
        return False
    # It may have been changed by `update --restart`.
    with suppress(OSError, ValueError, NbcontainError):
        run.reread()
    state = run.state
    code = state.exit_code or 0
    policy = Policy.parse(run.info.restart)
    if run.is_ending or not policy.restarts(code, state.restart_count):
        return False
    run.delay_s = delay_s(run.delay_s, state.finished_at - state.started_at if state.started_at else 0.0)
    run.state = replace(state, status="restarting", pid=0)
    run.write_state()
    with suppress(OSError):
        run.journal.append(Finished(run.info.id, "done" if code == 0 else "failed", exit_code=code))
    run.tell("die", exitCode=str(code))
    # Who wanted to see it to its end has seen that, as with docker; it goes on without them.
    run.cut_leash()
    run.clients.tell_end(code, again=True)
    until = time.monotonic() + run.delay_s
    while (left_s := until - time.monotonic()) > 0:
        run.serve_for(left_s)
        if run.is_ending:
            return False
    try:
        _begin_anew(run)
    except (OSError, NbcontainError) as error:
        # As docker does, it is given up: what hinders it once will hinder it for ever.
        with suppress(OSError):
            run.journal.append(Notice(run.info.id, f"it could not be started again: {error}", kind="ending"))
        run.abort(error)
        return False
    return True


def _begin_anew(run: Supervisor) -> None:
    """Another first process in namespaces of its own, but for the network, which stays. Raises what hinders it."""
    spec = run.bundle.spec
    kept = {name: fd for name, fd in (("network", run.network_fd), ("user", run.user_fd)) if fd >= 0}
    paths = {**spec.linux.paths, **{name: f"/proc/self/fd/{fd}" for name, fd in kept.items()}}
    birth = namespaces.birth(replace(spec.linux, paths=paths), ids_of(spec, run.ids))
    try:
        inside = births.form(birth, partial(contained.main, rung=rungs.named(run.info.rung)))
    finally:
        birth.close()
    run.adopt(inside)
    doors = begin_limits(run.bundle, inside.pid, run.ids)
    message = {"terminal": run.info.terminal, "volatile": False, "plain": False, "start": True}
    ends = be_program(inside.channel, inside.pid, run.bundle, message, -1, (), [*kept], doors)
    run.outputs.are(ends)
    run.bundle.mark_paused(paused=False)
    run.state = replace(run.state, restart_count=run.state.restart_count + 1, oom_killed=False, error="")
    run.create()
    run.start()


# --- for good -------------------------------------------------------------------------------------


def put_aside(bundle: Bundle) -> list[removal.Aside]:
    """Free the names of what --rm removes, before anybody hears of the end.

    Followers, who hold the files open, still read what comes.
    """
    tmp = bundle.path.parent.parent / "tmp"
    aside: list[removal.Aside] = []
    with suppress(FileNotFoundError):
        # Somebody may be removing it at the same time: rm -f.
        # The container before its layer: nobody may see one without, also if we die in between.
        for path in filter(None, (bundle.path, bundle.active_directory)):
            aside.append(removal.set_aside(path, tmp))
    return aside


def remove(run: Supervisor, aside: Sequence[removal.Aside]) -> None:
    """Remove what was put aside. On NFS nothing goes that is open: neither here, nor at followers'."""
    run.clients.listener.close()
    run.bundle.unlock()
    for each in aside:
        each.remove(partial(_remove, run.ids, run.info.rung))


def _remove(ids: IdMap, rung: str, path: Path) -> None:
    """Followers are given a moment to let go of it."""
    until = time.monotonic() + _LET_GO_S
    while True:
        try:
            removal.remove_tree(path)
        except PermissionError:
            remove_as_root(ids, path, rung)
        if not path.exists() or time.monotonic() > until:
            return
        time.sleep(_AGAIN_S)


def hold_namespace(pid: int, name: str) -> int:
    """A namespace of a process, kept open beyond its end; -1 where that is refused, or it is gone."""
    try:
        return os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return -1


def hold_network(run: Supervisor, held: dict[str, int]) -> None:
    """For a container that may be started again: its network of its own outlives its first process.

    `held` are the namespaces that its init handed out, if it did.
    """
    if run.info.restart and run.network_fd < 0 and {"net", "user"} <= held.keys():
        # Who owns it is needed to enter it.
        run.network_fd, run.user_fd = held.pop("net"), held.pop("user")
    for fd in held.values():
        os.close(fd)
    if run.info.restart and run.network_fd < 0 and run.pidfd >= 0:
        spaces = run.bundle.spec.linux.namespaces
        if "network" in spaces:
            run.network_fd = hold_namespace(run.pid, "net")
            # Who owns it is needed to enter it.
            run.user_fd = hold_namespace(run.pid, "user") if "user" in spaces else -1
