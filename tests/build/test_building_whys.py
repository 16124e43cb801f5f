"""Why a step was not cached, what a failed build leaves to look at, and work that two builds share."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from nbcontain.build.plan import BuildOptions
from nbcontain.builder import BuildTask
from nbcontain.display.text import lines
from nbcontain.display.view import View, update
from nbcontain.engine import Engine
from nbcontain.errors import BuildError, ImageNotFound, StepFailed
from nbcontain.events import Finished, Notice
from nbcontain.runtime.generate import RunOptions
from nbcontain.store import gc
from servers import serving

TEXT = "FROM busybox\nARG VERSION=1\nRUN echo $VERSION > /v\nCOPY data /data\nRUN cat /data/numbers > /seen\n"


@pytest.fixture
def context(busybox_image: str, tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "numbers").write_text("1 2 3\n")
    (tmp_path / "data" / "words").write_text("a b c\n")
    return tmp_path


def build(engine: Engine, text: str, context: Path, **options: object) -> BuildTask:
    task = engine.build(text, BuildOptions(context=context, tags=("made",), **options))  # type: ignore[arg-type]
    task.wait(60)
    return task


def whys(task: BuildTask) -> dict[str, str]:
    return {each.name: each.why for each in task.report.steps if each.why}


def said(engine: Engine, image: str, script: str) -> str:
    return str(engine.run(RunOptions(image=image, command=("sh", "-c", script), remove=True)).result())


def test_another_answer_of_a_url_is_what_is_named(engine: Engine, context: Path) -> None:
    with serving() as server:
        server.put("/file", b"one")
        text = f"FROM busybox\nADD {server.url}/file /file\n"
        build(engine, text, context)
        server.put("/file", b"two")
        [why] = whys(build(engine, text, context)).values()
    assert why == "what its URL or repository gives is another"


def test_a_first_build_needs_no_reasons(engine: Engine, context: Path) -> None:
    assert whys(build(engine, TEXT, context)) == {}


def test_a_changed_file_is_named_and_what_comes_after_says_which_step(engine: Engine, context: Path) -> None:
    build(engine, TEXT, context)
    (context / "data" / "numbers").write_text("4 5 6\n")
    assert whys(build(engine, TEXT, context)) == {
        "COPY data /data": "data/numbers changed",
        "RUN cat /data/numbers > /seen": "step 4 before it (COPY data /data): data/numbers changed",
    }


def test_new_files_and_other_modes_are_told_apart(engine: Engine, context: Path) -> None:
    build(engine, TEXT, context)
    (context / "data" / "words").chmod(0o600)
    assert whys(build(engine, TEXT, context))["COPY data /data"] == "data/words has the mode 600, had 644"
    (context / "data" / "x").write_text("")
    (context / "data" / "numbers").unlink()
    assert whys(build(engine, TEXT, context))["COPY data /data"] == "data/numbers is gone, and 1 more"


def test_a_source_that_became_a_symlink_is_said_to_be_one(engine: Engine, context: Path) -> None:
    (context / "one").write_text("1")
    text = "FROM busybox\nCOPY one data /to/\n"
    build(engine, text, context)
    (context / "one").unlink()
    (context / "one").symlink_to("data/words")
    assert list(whys(build(engine, text, context)).values()) == ["one is a symlink to data/words now"]
    (context / "one").unlink()
    (context / "one").symlink_to("data/numbers")
    assert list(whys(build(engine, text, context)).values()) == ["one is a symlink to data/numbers now"]


def test_another_argument_is_named_with_both_values(engine: Engine, context: Path) -> None:
    build(engine, TEXT, context)
    found = whys(build(engine, TEXT, context, build_args=("VERSION=2",)))
    assert found["RUN echo $VERSION > /v"] == "ARG VERSION is '2', was '1'"


def test_a_secret_value_is_neither_shown_nor_kept(engine: Engine, context: Path) -> None:
    text = "FROM busybox\nARG API_TOKEN\nRUN echo x > /x"
    build(engine, text, context, build_args=("API_TOKEN=canary-one",))
    found = whys(build(engine, text, context, build_args=("API_TOKEN=canary-two",)))
    assert found["RUN echo x > /x"] == "ARG API_TOKEN has another value"
    kept = b"".join(path.read_bytes() for path in engine.layout.builds.iterdir())
    assert b"canary" not in kept


def test_an_edited_instruction_shows_what_it_was(engine: Engine, context: Path) -> None:
    build(engine, TEXT, context)
    found = whys(build(engine, TEXT.replace("> /seen", "> /saw"), context))
    assert found == {
        "RUN cat /data/numbers > /saw": "the instruction is another, it was: RUN cat /data/numbers > /seen"
    }


def test_a_step_that_was_put_in_is_new_and_those_after_it_say_so(engine: Engine, context: Path) -> None:
    build(engine, "FROM busybox\nRUN echo a > /a\nRUN echo c > /c", context)
    found = whys(build(engine, "FROM busybox\nRUN echo a > /a\nRUN echo b > /b\nRUN echo c > /c", context))
    assert found == {
        "RUN echo b > /b": "the step is new",
        "RUN echo c > /c": "step 3 before it (RUN echo b > /b): the step is new",
    }


def test_a_step_that_was_taken_out_is_named(engine: Engine, context: Path) -> None:
    build(engine, "FROM busybox\nRUN echo a > /a\nRUN echo b > /b\nRUN echo c > /c", context)
    found = whys(build(engine, "FROM busybox\nRUN echo a > /a\nRUN echo c > /c", context))
    assert found == {"RUN echo c > /c": "a step before it is gone: RUN echo b > /b"}


def test_another_base_image_is_named_by_its_digest(engine: Engine, context: Path) -> None:
    old = engine.image("busybox").digest.short
    text = "FROM busybox\nRUN echo a > /a"
    build(engine, text, context)
    engine.build("FROM busybox\nRUN echo new > /new", BuildOptions(tags=("busybox",))).result()
    new = engine.image("busybox").digest.short
    found = whys(build(engine, text, context))
    assert found["RUN echo a > /a"] == f"step 1 before it (FROM busybox): the image is another: {new}, was {old}"


def test_a_result_that_was_pruned_is_said_to_be_gone(engine: Engine, context: Path) -> None:
    build(engine, TEXT, context)
    for key, _ in list(engine.store.cache.walk()):
        engine.store.cache.remove(key)
    assert whys(build(engine, TEXT, context))["RUN echo $VERSION > /v"] == "its result was removed"


def test_a_step_that_failed_has_left_no_result_to_be_removed(engine: Engine, context: Path) -> None:
    text = "FROM busybox\nRUN exit 3\nRUN echo b > /b\n"
    build(engine, text, context)
    assert whys(build(engine, text, context)) == {"RUN exit 3": "it did not succeed the last time"}
    assert whys(build(engine, text.replace("exit 3", "exit 0"), context))["RUN echo b > /b"] != "its result was removed"


def test_a_step_that_changed_nothing_keeps_nothing(engine: Engine, context: Path) -> None:
    build(engine, "FROM busybox\nRUN true\nRUN echo b > /b\nRUN --mount=type=cache,target=/c true\n", context)
    sizes = {each.created_by: each.size_bytes > 0 for each in engine.builder.usage()}
    assert sizes["RUN echo b > /b"]
    assert not sizes["RUN true"] and not sizes["RUN --mount=type=cache,target=/c true"]


def test_what_is_in_memory_is_called_by_what_is_in_it(engine: Engine, busybox_image: str) -> None:
    task = engine.build("FROM busybox\nCOPY data /\n", BuildOptions(), context={"extra.txt": "x"})
    with pytest.raises(BuildError) as caught:
        task.result()
    assert caught.value.why == "the context is what is in memory: extra.txt" and "--context ." in caught.value.hint


def test_a_stage_can_be_kept_from_the_cache(engine: Engine, context: Path) -> None:
    text = "FROM busybox AS one\nRUN echo 1 > /1\nFROM busybox AS two\nRUN echo 2 > /2\nCOPY --from=one /1 /1"
    build(engine, text, context)
    again = build(engine, text, context, no_cache_stages=("ONE",))
    # Made in another second it is another layer, and so COPY may have to run too.
    assert whys(again)["RUN echo 1 > /1"] == "--no-cache-filter one"
    assert "RUN echo 2 > /2" not in whys(again)


def test_the_reason_is_one_line_under_the_step(engine: Engine, context: Path) -> None:
    build(engine, TEXT, context)
    (context / "data" / "numbers").write_text("4\n")
    view, shown = View(), []
    for record in build(engine, TEXT, context).journal.read():
        view = update(view, record)
        shown += lines(view, record)
    assert "#4 runs again: data/numbers changed" in shown
    assert not any("started again" in line for line in shown)


def test_metadata_is_told_of_where_it_stands(engine: Engine, context: Path) -> None:
    text = "FROM busybox\nENV A=1\nRUN echo $A > /a\nUSER 7\nRUN false\nLABEL never=reached\n"
    records = [r.event for r in build(engine, text, context).journal.read() if isinstance(r.event, Finished)]
    found = [(each.task, each.outcome) for each in records if each.task.startswith("step-")]
    assert found == [("step-1", "cached"), ("step-2", "done"), ("step-3", "done"), ("step-4", "done"),
                     ("step-5", "failed")]  # fmt: skip


FAILING = "FROM busybox\nRUN echo kept > /before\nWORKDIR /w\nENV X=seen\nRUN echo half > /half; exit 3\n"


def test_a_failed_run_keeps_its_state_and_says_how_to_look_at_it(engine: Engine, context: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        build(engine, FAILING, context).result()
    assert caught.value.exit_code == 3
    assert "made@failed" in caught.value.hint and "made@before" in caught.value.hint
    assert said(engine, "made@failed", "cat /half; pwd; echo $X") == "half\n/w\nseen\n"
    assert said(engine, "made@before", "cat /before; ls /half 2>/dev/null || echo none") == "kept\nnone\n"
    assert said(engine, "@failed", "cat /half") == "half\n"


def test_every_finished_step_is_a_place_to_run_from(engine: Engine, context: Path) -> None:
    build(engine, TEXT, context).result()
    assert said(engine, "made@step3", "ls / | grep -c -e data -e seen || true") == "0\n"
    assert said(engine, "made@step-4", "cat /data/numbers; ls /seen 2>/dev/null || echo none") == "1 2 3\nnone\n"
    with pytest.raises(ImageNotFound):
        engine.image("made@step9")


def test_kept_states_survive_prune_until_they_are_old(engine: Engine, context: Path) -> None:
    with pytest.raises(StepFailed):
        build(engine, FAILING, context).result()
    engine.prune()
    assert said(engine, "made@failed", "cat /half") == "half\n"
    gc.collect(engine.store, list, cache_max_age_s=0)
    with pytest.raises(ImageNotFound):
        engine.image("made@failed")


def test_two_engines_building_the_same_do_its_steps_once(engine: Engine, context: Path) -> None:
    text = "FROM busybox\nRUN sleep 0.7; cat /proc/sys/kernel/random/uuid > /id"
    with Engine(engine.layout.root) as other:
        tasks: list[BuildTask] = []
        threads = [threading.Thread(target=lambda e=e: tasks.append(build(e, text, context))) for e in (engine, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert tasks[0].result().id == tasks[1].result().id
    notices = [r.event.message for task in tasks for r in task.journal.read() if isinstance(r.event, Notice)]
    assert notices == ["another build is at this very step"]


def test_who_waits_for_a_build_that_is_cancelled_does_the_step_itself(engine: Engine, context: Path) -> None:
    text = "FROM busybox\nRUN test -e /x || sleep 1.5; echo done > /d"
    with Engine(engine.layout.root) as other:
        first = engine.build(text, BuildOptions(tags=("one",)))
        while not list(engine.layout.tmp.glob(".tmp-" + "?" * 64)):
            pass
        second = other.build(text, BuildOptions(tags=("two",)))
        first.cancel()
        assert second.result().layers


def test_what_a_step_may_use_is_part_of_it_and_where_a_host_is_is_not(engine: Engine, context: Path) -> None:
    """As in BuildKit: names, limits and sizes are in the key of RUN, the addresses of names are not."""
    text = "FROM busybox\nRUN tail -n +4 /etc/hosts | head -1 > /h; ulimit -n >> /h; df -k /dev/shm | tail -1 >> /h\n"
    given = {"add_hosts": ("db:10.0.0.9",), "ulimits": ("nofile=100",), "shm_size": "1m"}
    build(engine, text, context, **given).result()
    first, number, shm = said(engine, "made", "cat /h").splitlines()
    assert (first, number, shm.split()[1]) == ("10.0.0.9\tdb", "100", "1024")
    assert whys(build(engine, text, context, **{**given, "add_hosts": ("db:10.0.0.7",)})) == {}
    assert said(engine, "made", "head -1 /h") == "10.0.0.9\tdb\n"
    for another, said_why in (
        ({"add_hosts": ("db2:10.0.0.9",)}, "--add-host is db2, was db"),
        ({"ulimits": ("nofile=101",)}, "--ulimit is nofile=101:101, was nofile=100:100"),
        ({"shm_size": "2m"}, "--shm-size is 2m, was 1m"),
        ({"shm_size": ""}, "--shm-size is 64m, was 1m"),
        ({"add_hosts": (), "ulimits": (), "shm_size": ""}, "--add-host is nothing, was db"),
    ):
        assert list(whys(build(engine, text, context, **{**given, **another})).values()) == [said_why]
        build(engine, text, context, **given)


def test_a_build_without_a_name_that_fails_says_what_opens_a_shell_there(
    engine: Engine, busybox_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    for directory, context in ((tmp_path, Path("here")), (tmp_path / "here", Path("."))):
        monkeypatch.chdir(directory)
        with pytest.raises(BuildError) as caught:
            engine.build(f"FROM busybox\nRUN echo {context} > /half; false\n", BuildOptions(context=context)).result()
        assert "--rm -it @failed sh" in caught.value.hint
        assert said(engine, "@failed", "cat /half") == f"{context}\n"
    # Two directories are two builds, whatever each is called from where it was built.
    assert len(list(engine.store.builds.walk())) == 2
