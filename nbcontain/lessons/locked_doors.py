"""Lesson 10, Locked doors."""

from __future__ import annotations

from collections.abc import Iterator

from nbcontain.lessons.exercise import Choice, Claim, Classroom, Exercise, Lesson, Question


def _safe(room: Classroom) -> Iterator[Claim]:
    container = room.container("safe")
    yield Claim("there is a container safe", container is not None, "%container run -d --name safe … host sleep 300")
    if container is None:
        return
    spec = container.bundle.spec
    yield Claim("it runs", container.status == "running", "%container logs safe says what went wrong")
    yield Claim("its root file system is read-only", spec.root_readonly, "--read-only")
    yield Claim("it has no capability", not spec.process.capabilities, "--cap-drop ALL")
    yield Claim(
        "its programs can gain no privileges",
        spec.process.no_new_privileges,
        "--security-opt no-new-privileges",
    )
    in_memory = [mount for mount in spec.mounts if mount.destination == "/tmp" and mount.type == "tmpfs"]
    yield Claim("/tmp is in memory", bool(in_memory), "--tmpfs /tmp:size=16m")
    limited = bool(in_memory) and any(each.startswith("size=") for each in in_memory[0].options)
    yield Claim("and small", limited, "--tmpfs /tmp:size=16m")


LESSON = Lesson(
    "10",
    "Locked doors",
    exercises=(
        Exercise(
            "10-1",
            "A container with few open doors",
            (
                "%container run --help lists all flags; four of them are wanted.",
                "--read-only, --cap-drop, --security-opt and --tmpfs",
                "--cap-drop ALL, --security-opt no-new-privileges, --tmpfs /tmp:size=16m",
            ),
            (
                "%container run -d --name safe --read-only --cap-drop ALL --security-opt no-new-privileges"
                " --tmpfs /tmp:size=16m host sleep 300\n",
            ),
            _safe,
        ),
    ),
    questions=(
        Question(
            "10-a",
            "A program in a container is root there. Why can it not load a driver into the kernel?",
            (
                Choice("because the kernel in the container is another one", "There is one kernel, and all share it."),
                Choice(
                    "because the capability for it was dropped, and the filter does not let the call through",
                    "Two doors for one room. Either would be enough.",
                    is_right=True,
                ),
                Choice("because the file of the driver is missing", "It could bring one along. It must not load it."),
            ),
        ),
        Question(
            "10-b",
            "Which flag should make you stop and think most?",
            (
                Choice("--read-only", "That one locks a door."),
                Choice("-m 64m", "That is a limit, and does no harm."),
                Choice(
                    "--privileged", "It opens all doors at once: devices, mounts, all of the kernel.", is_right=True
                ),
            ),
        ),
    ),
)
