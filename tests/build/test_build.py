"""Building, through the engine: what is made, what is cached, what an error says, what is left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from building import written
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import BuildError, Cancelled, DockerfileError, StepFailed, UsageError
from nbcontain.events import Finished, Started
from nbcontain.oci.image import Image
from nbcontain.runtime.generate import RunOptions
from nbcontain.task import Task


@pytest.fixture
def context(busybox_image: str, tmp_path: Path) -> Path:
    """A directory of a user's, while `busybox` is an image in the store."""
    (tmp_path / "app.sh").write_text("echo app\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "numbers").write_text("1 2 3\n")
    return tmp_path


def build(engine: Engine, dockerfile: str, context: Path | None = None, **options: object) -> Task[Image]:
    task = engine.build(dockerfile, BuildOptions(context=context, tags=("made",), **options))  # type: ignore[arg-type]
    task.wait(60)
    return task


def outcomes(task: Task[Image]) -> dict[str, str]:
    """How each step went, by its instruction."""
    names: dict[str, str] = {}
    found: dict[str, str] = {}
    for record in task.journal.read():
        if isinstance(record.event, Started):
            names[record.event.task] = record.event.name
        if isinstance(record.event, Finished):
            found[names[record.event.task]] = record.event.outcome
    return found


def said(engine: Engine, script: str, image: str = "made") -> str:
    result = engine.run(RunOptions(image=image, command=("sh", "-c", script), remove=True)).result()
    return str(result)


def left(engine: Engine) -> list[str]:
    """What is in the store besides images and caches, once the supervisors of what just ended have cleaned up."""
    layout = engine.layout
    deadline = time.monotonic() + 5
    while True:
        found = [name for place in (layout.actives, layout.tmp, layout.containers) for name in os.listdir(place)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def test_each_instruction_that_changes_files_adds_one_layer(engine: Engine, context: Path) -> None:
    image = build(
        engine, "FROM busybox\nRUN echo a > /a\nENV X=1\nCOPY app.sh /\nWORKDIR /w\nCMD true", context
    ).result()
    below = engine.image("busybox")
    assert image.layers[: len(below.layers)] == below.layers
    assert len(image.layers) == len(below.layers) + 3
    assert sum(not entry.empty_layer for entry in image.config.history) == len(image.layers)


def test_a_run_that_changes_nothing_adds_no_layer(engine: Engine, context: Path) -> None:
    assert build(engine, "FROM busybox\nRUN true").result().layers == engine.image("busybox").layers


def test_a_second_build_is_all_cached_and_gives_the_same_image(engine: Engine, context: Path) -> None:
    """testReproducibleIDs"""
    text = "FROM busybox\nRUN echo a > /a\nCOPY app.sh /\nLABEL x=y\nRUN echo b > /b"
    first = build(engine, text, context).result()
    again = build(engine, text, context)
    assert again.result().id == first.id
    assert outcomes(again)["RUN echo b > /b"] == "cached"


def test_a_changed_file_runs_only_what_comes_after_its_copy_again(engine: Engine, context: Path) -> None:
    text = "FROM busybox\nRUN echo a > /a\nCOPY app.sh /\nRUN cat /app.sh > /seen"
    build(engine, text, context).result()
    (context / "app.sh").write_text("echo other\n")
    again = build(engine, text, context)
    assert outcomes(again) | {"build made:latest": "done"} == {
        "build made:latest": "done",
        "FROM busybox": "cached",
        "RUN echo a > /a": "cached",
        "COPY app.sh /": "done",
        "RUN cat /app.sh > /seen": "done",
    }
    assert said(engine, "cat /seen") == "echo other\n"


def test_a_file_that_no_copy_takes_invalidates_nothing(engine: Engine, context: Path) -> None:
    text = "FROM busybox\nCOPY app.sh /\n"
    build(engine, text, context).result()
    (context / "unrelated").write_text("x")
    assert outcomes(build(engine, text, context))["COPY app.sh /"] == "cached"


def test_no_cache_runs_every_step_again(engine: Engine, context: Path) -> None:
    """testNoCache"""
    text = "FROM busybox\nRUN date +%N > /when"
    build(engine, text).result()
    assert outcomes(build(engine, text, no_cache=True))["RUN date +%N > /when"] == "done"


def test_a_stage_that_the_target_does_not_need_is_not_built(engine: Engine, context: Path) -> None:
    task = build(engine, "FROM busybox AS unused\nRUN false\nFROM busybox\nRUN true")
    assert task.result()
    assert "RUN false" not in outcomes(task)


def test_target_ends_the_build_at_a_stage(engine: Engine, context: Path) -> None:
    image = build(engine, "FROM busybox AS first\nENV STAGE=1\nFROM first\nENV STAGE=2", target="first").result()
    assert "STAGE=1" in image.config.env


def test_independent_stages_run_at_the_same_time(engine: Engine, context: Path) -> None:
    # Each waits for a file that the other one writes into the shared volume of time: both must be running at once.
    text = "FROM busybox AS a\nRUN sleep 1; echo a > /a\nFROM busybox AS b\nRUN sleep 1; echo b > /b\n"
    text += "FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    spans: dict[str, list[float]] = {}
    task = build(engine, text)
    task.result()
    for record in task.journal.read():
        if isinstance(record.event, Started | Finished) and not getattr(record.event, "waiting", False):
            spans.setdefault(record.event.task, []).append(record.time)
    names = {r.event.task: r.event.name for r in task.journal.read() if isinstance(r.event, Started)}
    (first, second) = [span for each, span in spans.items() if names[each].startswith("RUN sleep")]
    assert max(first[0], second[0]) < min(first[-1], second[-1])


def test_files_come_from_an_earlier_stage_with_their_new_owner_and_mode(engine: Engine, context: Path) -> None:
    text = "FROM busybox AS maker\nRUN mkdir /out && echo x > /out/f\n"
    text += "FROM busybox\nCOPY --from=maker --chown=12:34 --chmod=640 /out/f /got\n"
    build(engine, text).result()
    assert said(engine, "stat -c '%u %g %a' /got").split()[-1] == "640"


def test_a_directory_gives_its_contents_and_a_slash_makes_a_directory(engine: Engine, context: Path) -> None:
    build(engine, "FROM busybox\nCOPY data /target\nCOPY app.sh /made/by/slash/\n", context).result()
    assert said(engine, "cat /target/numbers /made/by/slash/app.sh") == "1 2 3\necho app\n"


def test_copy_follows_a_symlink_of_the_image_inside_the_image_only(
    engine: Engine, context: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    build(
        engine, f"FROM busybox\nRUN mkdir -p {outside} && ln -s {outside} /link\nCOPY app.sh /link/\n", context
    ).result()
    assert list(outside.iterdir()) == []
    assert said(engine, f"cat {outside}/app.sh") == "echo app\n"


def test_files_removed_by_a_step_are_gone_above_and_there_below(engine: Engine, context: Path) -> None:
    build(
        engine, "FROM busybox\nRUN mkdir /d && echo 1 > /d/a && echo 2 > /d/b\nRUN rm /d/a\nRUN rm -r /d && mkdir /d"
    ).result()
    assert said(engine, "ls /d") == ""


def test_arguments_and_environment_reach_the_step(engine: Engine, context: Path) -> None:
    task = build(engine, "FROM busybox\nARG WHO=world\nENV HELLO=hi\nRUN echo $HELLO $WHO", build_args=("WHO=you",))
    task.result()
    assert written(task) == "hi you\n"


def test_mount_points_are_no_part_of_a_layer(engine: Engine, busybox_context: Path) -> None:
    text = 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "mkdir", "/made"]\n'
    build(engine, text, busybox_context).result()
    (layer,) = engine.image("made").layers[1:]
    import tarfile

    with tarfile.open(engine.store.blobs.path(layer.descriptor.digest)) as tar:
        assert {name.strip("./") for name in tar.getnames()} - {""} == {"made"}


# --- what goes wrong ---------------------------------------------------------------------------------


def test_a_failing_step_is_drawn_with_its_line_and_last_words_and_leaves_nothing(engine: Engine, context: Path) -> None:
    """testErrorsSourceMap, testNoSnapshotLeak"""
    task = build(engine, "FROM busybox\nRUN echo working; echo broken >&2; exit 9\n")
    with pytest.raises(StepFailed) as caught:
        task.result()
    drawn = "\n".join(caught.value.lines())
    assert "exit code 9" in drawn and "▶   2 │ RUN echo working" in drawn and "│ broken" in drawn
    assert caught.value.exit_code == 9
    assert left(engine) == []
    assert [name for name, _ in engine.images() if name and name.familiar == "made:latest"] == []


@pytest.mark.parametrize(
    ("dockerfile", "words"),
    [
        ("FROM busybox\nRUNN true\n", ["RUNN", "RUN", "▶   2 │ RUNN true"]),
        ("FROM busybox\nRUN --mount=type=cach,target=/c true\n", ["cach", "did you mean cache", "▶   2"]),
        ("FROM busybox\nRUN --mount=type=secret,id=s,required=true true\n", ["secret s is required", "▶   2"]),
        ("FROM busybox\nRUN --mount=type=bind,source=app.shh,target=/x true\n", ["app.shh", "app.sh", "▶   2"]),
        ("FROM busybox\nRUN --security=insecure true\n", ["insecure", "▶   2"]),
        ("FROM busybox\nCOPY app.shh /\n", ["app.shh", "app.sh", "▶   2"]),
        ("FROM busyboxx\n", ["busyboxx", "busybox", "▶   1"]),
        ('FROM busybox\nRUN ["/no/such/program"]\n', ["/no/such/program", "▶   2"]),
        ('FROM busybox\nRUN ["/etc"]\n', ["/etc", "▶   2"]),
        ("FROM busybox\nUSER nobody-here\nRUN true\n", ["nobody-here", "▶   3"]),
        ("FROM busybox\nCOPY data /bin/sh\n", ["/bin/sh", "▶   2"]),
        ("FROM busybox\nCOPY ../secret /\n", ["../secret", "▶   2"]),
    ],
)
def test_a_mistake_is_one_error_at_its_line_and_leaves_nothing(
    engine: Engine, context: Path, dockerfile: str, words: list[str]
) -> None:
    with pytest.raises((BuildError, DockerfileError)) as caught:
        build(engine, dockerfile, context).result()
    drawn = "\n".join(caught.value.lines())
    assert [word for word in words if word not in drawn] == [], drawn
    assert left(engine) == []


def test_a_build_argument_that_is_no_pair_is_a_usage_error(engine: Engine, context: Path) -> None:
    with pytest.raises(UsageError):
        build(engine, "FROM busybox", build_args=("=x",)).result()


def test_a_silent_step_ends_within_a_second_of_its_cancellation(engine: Engine, context: Path) -> None:
    task = engine.build("FROM busybox\nRUN trap '' TERM; sleep 60\n", BuildOptions())
    while not any(
        isinstance(r.event, Started) and r.event.name.startswith("RUN") and not r.event.waiting
        for r in task.journal.read()
    ):
        time.sleep(0.01)
    time.sleep(0.3)
    began = time.monotonic()
    task.cancel()
    assert task.wait(5)
    assert time.monotonic() - began < 1.2
    with pytest.raises((Cancelled, BuildError)):
        task.result()
    assert left(engine) == []


def test_the_same_build_three_times_at_once_gives_three_whole_images(engine: Engine, context: Path) -> None:
    text = "FROM busybox\nRUN echo same > /same; sleep 0.2\nCOPY app.sh /\n"
    tasks = [engine.build(text, BuildOptions(context=context, tags=(f"made:{n}",))) for n in range(3)]
    assert {len(task.result().layers) for task in tasks} == {len(engine.image("busybox").layers) + 2}
    assert [said(engine, "cat /same /app.sh", f"made:{n}") for n in range(3)] == ["same\necho app\n"] * 3
    assert left(engine) == []


def test_an_image_of_this_machine_is_made_when_it_is_first_asked_for(engine: Engine) -> None:
    task = engine.build('FROM host\nRUN python3 -c "import ssl, json" && ls / > /list\n', BuildOptions(tags=("mine",)))
    task.result()
    assert engine.image("host").size_bytes < 60_000_000
    assert said(engine, "cat /list", "mine").split()[:1] == ["bin"]
