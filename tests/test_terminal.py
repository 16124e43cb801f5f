"""`nbcontain` on a terminal: docker's words, docker's exit codes, what is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machine import children_of, supervisor_of, until
from nbcontain import __main__
from nbcontain.errors import StoreError
from nbcontain.store.layout import Layout

DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
CMD ["echo", "hello"]
"""
PATIENT = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"
Done = subprocess.CompletedProcess[str]
Nbcontain = Callable[..., Done]


@pytest.fixture
def nbcontain(root: Path, busybox_context: Path) -> Nbcontain:
    """Run the command with a fresh store; the image `box` is in it."""

    def run(*words: str, stdin: str | None = None) -> Done:
        command, env = [sys.executable, "-m", "nbcontain", *words], {**os.environ, "NBCONTAIN_ROOT": str(root)}
        return subprocess.run(command, env=env, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    built = run("build", "-t", "box", "-f", "-", str(busybox_context), stdin=DOCKERFILE)
    assert built.returncode == 0, built.stderr
    return run


def test_standard_input_stays_open_where_nobody_is_attached(nbcontain: Nbcontain) -> None:
    nbcontain("run", "-d", "-i", "--name", "one", "box", "cat")
    nbcontain("create", "-i", "--name", "two", "box", "sh", "-c", "read word; echo got $word; exit 4")
    nbcontain("start", "two")
    attached = nbcontain("attach", "two", stdin="hello\n")
    assert (attached.returncode, attached.stdout) == (4, "got hello\n")
    assert nbcontain("ps", "--format", "{{.Names}}").stdout == "one\n"
    nbcontain("run", "-d", "--name", "three", "box", "cat")
    assert nbcontain("wait", "three").stdout == "0\n"
    assert nbcontain("rm", "-f", "one", "two", "three").returncode == 0


def test_the_words_of_a_docker_tutorial_work(profile: str, nbcontain: Nbcontain) -> None:
    assert nbcontain("run", "--rm", "box").stdout == "hello\n"
    started = nbcontain("run", "-d", "--name", "web", "box", "sh", "-c", PATIENT)
    assert re.fullmatch(r"[0-9a-f]{64}\n", started.stdout), started
    assert re.search(r"box.*Up .*web", nbcontain("ps").stdout)
    assert "box" in nbcontain("images").stdout
    assert nbcontain("logs", "web").stdout == "ready\n"
    assert nbcontain("exec", "web", "echo", "inside").stdout == "inside\n"
    assert nbcontain("stop", "web").returncode == 0
    assert "web" not in nbcontain("ps").stdout
    assert re.search(r"Exited \(3\).*web", nbcontain("ps", "-a").stdout)
    assert nbcontain("rmi", "box").returncode != 0
    assert nbcontain("rm", "web").returncode == 0
    assert nbcontain("rmi", "box").returncode == 0
    assert "box" not in nbcontain("images").stdout


def test_a_dockerfile_alone_has_a_context_with_nothing_in_it(nbcontain: Nbcontain) -> None:
    """As with BuildKit: that much can be copied, and a file is missing."""
    assert nbcontain("build", "-t", "all", "-", stdin="FROM scratch\nCOPY . /x\nCOPY * /y/\n").returncode == 0
    assert re.findall(r"\S+/", nbcontain("image", "tree", "all").stdout) == ["x/"]
    missing = nbcontain("build", "-", stdin="FROM scratch\nCOPY file /x\n")
    assert missing.returncode == 1
    assert "no file in the build context" in missing.stderr
    assert "why: nothing is in it" in missing.stderr


def test_exit_codes_are_those_of_docker(profile: str, nbcontain: Nbcontain) -> None:
    assert nbcontain("run", "--rm", "box", "sh", "-c", "exit 7").returncode == 7
    assert nbcontain("run", "--rm", "box", "sh", "-c", "sh -c 'kill -9 $$'; exit $?").returncode == 137
    assert nbcontain("run", "--rm", "box", "no-such-program").returncode == 127
    assert nbcontain("run", "--rm", "box", "/bin").returncode == 126
    assert nbcontain("run", "--rm", "--frobnicate", "box").returncode == 125
    assert nbcontain("run", "--rm", "no-such-image").returncode == 125
    assert nbcontain("run", "--rm", "--network", "container:nope", "box").returncode == 125
    assert nbcontain("run", "--rm", "--volumes-from", "nope", "box").returncode == 125
    assert nbcontain("run", "--rm", "--network", "no-such-network", "box").returncode == 125
    assert nbcontain("ps", "-aq").stdout == ""


def test_what_lies_behind_a_closed_directory_is_told_as_what_is_not_there(
    profile: str, nbcontain: Nbcontain, tmp_path: Path, busybox_context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is closed to root")
    closed, context = tmp_path / "closed", str(busybox_context)
    closed.mkdir(mode=0)
    monkeypatch.setenv("NBCONTAIN_CDI_DIRS", f"{closed}:{closed}/in")
    lines = (
        ("build", f"{closed}/in"), ("build", "-f", f"{closed}/in", context), ("build", str(closed)),
        ("build", "--build-context", f"a={closed}/in", context), ("build", "--ssh", f"default={closed}/in", context),
        ("build", "--secret", f"id={closed}/in", context), ("load", "-i", f"{closed}/in"), ("import", f"{closed}/in"),
        ("run", "--rm", "--cidfile", f"{closed}/in", "box"), ("run", "--rm", "--put", f"{closed}/in:/x", "box"),
        ("run", "--rm", "--device", f"{closed}/in", "box"), ("run", "--rm", "--device", str(closed), "box"),
        ("run", "--rm", "--device", "a.b/c=d", "box"), ("compose", "--project-directory", str(closed), "config"),
    )  # fmt: skip
    try:
        done = [nbcontain(*words) for words in lines]
    finally:
        closed.chmod(0o700)
    told = [(words, each.stderr) for words, each in zip(lines, done, strict=True) if "Traceback" in each.stderr]
    assert told == [] and all(each.returncode in (1, 125) for each in done)


def test_all_but_run_end_with_1_and_what_was_done_all_the_same_is_said(nbcontain: Nbcontain) -> None:
    """As docker's: 125 is for who runs a container, and for a line that cannot be read."""
    assert nbcontain("ps", "--frobnicate").returncode == 125
    for words in (("history", "nope"), ("ps", "--filter", "nope=1"), ("kill", "-s", "NOPE", "x"), ("inspect", "nope")):
        assert nbcontain(*words).returncode == 1, words
    both = nbcontain("inspect", "-f", "{{json .Config.Cmd}}", "box", "nope", "neither")
    assert (both.returncode, both.stdout) == (1, '["echo","hello"]\n')
    assert "'nope'" in both.stderr and "'neither'" in both.stderr
    assert nbcontain("inspect", "nope").stdout == "[]\n"
    for name in ("one", "two"):
        nbcontain("create", "--name", name, "-v", "data:/data", "-v", "/:/host", "box")
    listed = nbcontain("ps", "-a", "--format", "{{.Names}} {{.Mounts}} {{.LocalVolumes}}").stdout
    assert listed == "two data,/ 1\none data,/ 1\n"
    nbcontain("cp", __file__, "one:/file")
    assert nbcontain("diff", "one").stdout == "A /file\n" and nbcontain("diff", "two").stdout == ""
    gone = nbcontain("rm", "one", "nope", "two")
    assert (gone.returncode, gone.stdout) == (1, "one\ntwo\n") and "'nope'" in gone.stderr
    passed = nbcontain("rm", "-f", "nope")
    assert (passed.returncode, passed.stdout) == (0, "")
    ids = [nbcontain("create", "box").stdout.strip() for _ in range(17)]
    begin = next(each for each in "0123456789abcdef" if sum(known.startswith(each) for known in ids) > 1)
    several = nbcontain("rm", "-f", begin)
    assert several.returncode == 1 and "the beginning of" in several.stderr
    made = nbcontain("volume", "rm", "nope", "data")
    assert (made.returncode, made.stdout) == (1, "data\n")


def test_advice_names_commands_as_one_types_them_there(nbcontain: Nbcontain) -> None:
    """Also where it is no error: below a table, in what a command gives. What a program says stays as it is."""
    said = [
        nbcontain("registry", "ls").stdout,
        nbcontain("registry", "start", "--port", "0").stdout,
        nbcontain("registry", "stop").stdout,
        nbcontain("compose", "-p", "nobody", "restart").stderr,
    ]
    assert "(nbcontain registry start)" in said[0] and "nbcontain image push localhost:" in said[1]
    assert "nbcontain compose up -d" in said[3]
    assert "%" not in "".join(said)
    assert nbcontain("run", "--rm", "box", "echo", "%container run").stdout == "%container run\n"


def test_a_programs_own_125_is_no_failure_of_ours(nbcontain: Nbcontain) -> None:
    nbcontain("run", "-d", "--name", "one", "box", "sleep", "600")
    assert nbcontain("exec", "one", "sh", "-c", "exit 125").returncode == 125
    nbcontain("create", "--name", "two", "box", "sh", "-c", "exit 125")
    assert nbcontain("start", "-a", "two").returncode == 125
    nbcontain("rm", "-f", "one", "two")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("-w", "/nowhere", "one", "true"), 127),
        (("-w", "/bin/busybox", "one", "true"), 127),
        (("-u", "nobody-here", "one", "true"), 1),
        (("-u", "0:nobody-here", "one", "true"), 1),
        (("one", "nothing"), 127),
        (("one", "/bin"), 126),
        (("-d", "-w", "/nowhere", "one", "true"), 1),
        (("-d", "one", "nothing"), 1),
        (("nobody", "true"), 1),
    ],
)
def test_exec_of_what_cannot_begin_ends_as_dockers(nbcontain: Nbcontain, words: tuple[str, ...], code: int) -> None:
    nbcontain("run", "-d", "--name", "one", "box", "sleep", "600")
    assert nbcontain("exec", *words).returncode == code
    nbcontain("rm", "-f", "one")


def test_streams_stay_apart_and_are_passed_on_byte_for_byte(nbcontain: Nbcontain) -> None:
    done = nbcontain("run", "--rm", "box", "sh", "-c", r"printf 'a\tb\r\n'; printf err >&2")
    assert (done.stdout, done.stderr) == ("a\tb\n", "err")  # text mode reads \r\n as \n


HEEDS = "trap 'echo USR1' USR1; trap 'echo INT; exit 4' INT; " + PATIENT.replace("exit", "echo TERM; exit 5;")
Begins = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def begins(root: Path, nbcontain: Nbcontain) -> Iterator[Begins]:
    """Begin a command that shows a program, once that is ready for signals."""
    env = {**os.environ, "NBCONTAIN_ROOT": str(root)}
    with contextlib.ExitStack() as stack:

        def begin(*words: str, is_ready: bool = True) -> subprocess.Popen[str]:
            running = subprocess.Popen(
                [sys.executable, "-m", "nbcontain", *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip
            stack.enter_context(running)
            stack.callback(running.kill)
            assert running.stdout is not None
            assert not is_ready or running.stdout.readline() == "ready\n"
            return running

        yield begin


@pytest.mark.parametrize("where", ["_begun", "_run"])
def test_ctrl_c_is_one_word_whatever_goes_on(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before all that a command needs is imported, too."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, where, interrupted)
    assert __main__.main(["images"]) == 130
    assert capsys.readouterr() == ("", "Interrupted\n")


def test_who_begins_it_without_standard_streams_has_none_and_no_error(root: Path, nbcontain: Nbcontain) -> None:
    env = {**os.environ, "NBCONTAIN_ROOT": str(root)}

    def run(words: str) -> subprocess.CompletedProcess[str]:
        line = f"{sys.executable} -m nbcontain {words}"
        return subprocess.run(line, shell=True, env=env, capture_output=True, text=True, timeout=60, check=False)

    for words in ("run --rm box echo hello >&-", "images >&-", "run --rm box echo hello <&- >&- 2>&-"):
        done = run(words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), words


def test_ctrl_c_ends_an_attached_container_that_does_not_heed_it(nbcontain: Nbcontain, begins: Begins) -> None:
    running = begins("run", "--rm", "box", "sh", "-c", f"trap '' INT TERM; {PATIENT}")
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=10)
    assert running.returncode == 130
    assert time.monotonic() - began < 2
    assert nbcontain("ps", "-aq").stdout == ""


def test_who_answers_the_calls_of_further_programs_is_reaped_with_them(nbcontain: Nbcontain) -> None:
    """Each has an answerer of its own: of a check every second there would be thousands in an hour."""
    rung = "chroot" if os.geteuid() == 0 else "userns-chroot"
    assert nbcontain("run", "-d", "--isolation", rung, "--name", "one", "box", "sleep", "60").returncode == 0
    supervisor = supervisor_of(int(nbcontain("inspect", "-f", "{{.State.Pid}}", "one").stdout))
    for _ in range(3):
        assert nbcontain("exec", "one", "true").returncode == 0
    until(lambda: "Z" not in children_of(supervisor).values(), 5)
    nbcontain("rm", "-f", "one")


def test_with_init_orphans_are_reaped_where_there_is_no_namespace_of_processes_either(nbcontain: Nbcontain) -> None:
    rung = "chroot" if os.geteuid() == 0 else "userns-chroot"
    made = "for i in 1 2 3; do sh -c 'sleep 0.1 &'; done; exec sleep 60"
    nbcontain("run", "-d", "--init", "--isolation", rung, "--name", "one", "box", "sh", "-c", made)
    init = int(nbcontain("inspect", "-f", "{{.State.Pid}}", "one").stdout)
    time.sleep(0.5)
    for parent in (init, supervisor_of(init)):
        until(lambda parent=parent: "Z" not in children_of(parent).values(), 5)  # type: ignore[misc]
    nbcontain("rm", "-f", "one")


def test_signals_go_to_the_program(nbcontain: Nbcontain, begins: Begins) -> None:
    for number, said, code in ((signal.SIGINT, "INT", 4), (signal.SIGTERM, "TERM", 5)):
        running = begins("run", "--rm", "box", "sh", "-c", HEEDS)
        running.send_signal(signal.SIGUSR1)
        assert running.stdout is not None and running.stdout.readline() == "USR1\n"
        running.send_signal(number)
        assert running.communicate(timeout=10)[0] == f"{said}\n" and running.returncode == code
    # Who asks a third time means it.
    running = begins("run", "--rm", "box", "sh", "-c", f"trap 'echo no' INT; {PATIENT}")
    for _ in range(2):
        running.send_signal(signal.SIGINT)
        assert running.stdout is not None and running.stdout.readline() == "no\n"
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=10)
    assert running.returncode == 130 and nbcontain("ps", "-aq").stdout == ""


def test_without_the_proxy_it_is_left_alone(nbcontain: Nbcontain, begins: Begins) -> None:
    running = begins("run", "--sig-proxy=false", "--name", "alone", "box", "sh", "-c", HEEDS)
    running.send_signal(signal.SIGTERM)
    assert "nbcontain attach alone" in running.communicate(timeout=10)[1] and running.returncode == 143
    assert nbcontain("ps", "--format", "{{.Names}}").stdout == "alone\n"
    attached = begins("attach", "--sig-proxy=false", "alone", is_ready=False)
    watched = begins("attach", "alone", is_ready=False)
    # Until both hear it: an attached command shows only what is written from its beginning on.
    begins("exec", "alone", "sh", "-c", "while echo ready > /proc/1/fd/1; do sleep 0.1; done", is_ready=False)
    for each in (attached, watched):
        assert each.stdout is not None and each.stdout.readline() == "ready\n"
    attached.send_signal(signal.SIGINT)
    assert attached.wait(10) == 130 and nbcontain("ps", "-q").stdout
    watched.send_signal(signal.SIGINT)
    assert "INT\n" in watched.communicate(timeout=10)[0] and watched.returncode == 4


def test_an_error_is_three_lines_without_a_traceback(nbcontain: Nbcontain) -> None:
    done = nbcontain("run", "--rm", "boxx")
    assert "Traceback" not in done.stderr
    assert "boxx" in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) <= 4


def test_without_a_home_the_error_says_what_to_set() -> None:
    with pytest.raises(StoreError) as caught:
        Layout.default({}, is_root=False)
    assert "NBCONTAIN_ROOT" in caught.value.hint


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("image", "--help"), ("container", "ps", "--help")])
def test_help_is_help_and_no_error(words: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", "nbcontain", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 1


def test_check_says_what_could_be_better_and_builds_nothing(nbcontain: Nbcontain) -> None:
    checked = nbcontain("build", "--check", "-t", "never", "-f", "-", ".", stdin="FROM box\nCMD echo hi\n")
    assert checked.returncode == 1
    assert "check  JSONArgsRecommended: JSON arguments recommended for CMD" in checked.stdout
    assert " ▶   2 │ CMD echo hi" in checked.stdout
    assert "hint  UnpinnedTag: box has no tag" in checked.stdout
    assert checked.stdout.endswith("1 check, 2 hints\n")
    assert "never" not in nbcontain("images").stdout
    good = "FROM box\nUSER me\nCMD echo $NOT_OURS\n"
    assert nbcontain("build", "--call=check", "-f", "-", ".", stdin=f"# check=skip=all\n{good}").returncode == 0
    assert nbcontain("build", "--call=summary", "-f", "-", ".", stdin=good).returncode == 1


def words_of(pid: int | str) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_a_command_has_nothing_made_for_a_container_that_nobody_asked_for(
    profile: str, nbcontain: Nbcontain, root: Path
) -> None:
    command = [sys.executable, "-m", "nbcontain", "run", "--rm", "box", "sh", "-c", "echo up; exec sleep 60"]
    with subprocess.Popen(command, env={**os.environ, "NBCONTAIN_ROOT": str(root)}, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"up\n"
            alike = [words_of(each) for each in children_of(running.pid)]
            (words,) = [each for each in alike if b"nbcontain.runtime.zygote" in each]
            # Long enough for a kernel's zygote to begin with it.
            time.sleep(1)
            # Itself, the supervisor, and who answers some calls for the kernel where there is one id.
            expected = 2 + (profile == "rootless-single")
            until(lambda: [words_of(each) for each in os.listdir("/proc")].count(words) == expected)
        finally:
            running.terminate()


# --- the end --------------------------------------------------------------------------------------

_LAST = "__del__ = lambda _, write=__import__('os').write: write(2, b'farewell')"


def ended(before: str, *words: str, **how: object) -> subprocess.CompletedProcess[bytes]:
    """The command, in an interpreter that has done something before, and says so when it is taken apart."""
    program = (
        f"import sys; sys.last = type('Last', (), dict({_LAST}))()\n{before}\n"
        "from nbcontain.__main__ import main; sys.exit(main())"
    )
    how = {"stdout": subprocess.PIPE, **how}
    return subprocess.run([sys.executable, "-c", program, *words], stderr=subprocess.PIPE, check=False, **how)  # type: ignore[call-overload,no-any-return]


def test_a_command_ends_without_taking_its_interpreter_apart() -> None:
    done = ended("", "run", "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"make a container of an image and run it" in done.stdout
    done = ended("", "run", "--nothing")
    assert done.returncode == 125
    assert b"UsageError" in done.stderr
    assert b"farewell" not in done.stderr


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("import atexit; atexit.register(print, 'at exit')", b"at exit"),
        ("import threading; threading.Timer(0.3, print, ('by a thread',)).start()", b"by a thread"),
    ],
)
def test_who_wants_to_be_called_at_the_end_is_called(before: str, said: bytes) -> None:
    done = ended(before, "--help")
    assert (done.returncode, done.stderr) == (0, b"farewell")
    assert said in done.stdout


def test_who_has_read_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = ended("", "--help", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr.removesuffix(b"farewell")) == (141, b"")


def test_what_cannot_be_said_at_the_end_is_told() -> None:
    with Path("/dev/full").open("wb") as full:
        done = ended("", "--help", stdout=full)
    assert done.returncode != 0
    assert b"No space left on device" in done.stderr


def test_a_tree_of_many_directories_is_made_where_few_files_may_be_open(root: Path, tmp_path: Path) -> None:
    for number in range(150):
        (tmp_path / f"d{number}").mkdir()
        (tmp_path / f"d{number}" / "file").write_text("x")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    few = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", sys.executable, "-m", "nbcontain"]
    env = {**os.environ, "NBCONTAIN_ROOT": str(root)}
    for words in (["build", "-t", "many", str(tmp_path)], ["cp", "many:/", str(tmp_path / "out")]):
        if words[0] == "cp":
            made = subprocess.run([*few, "create", "many", "x"], env=env, capture_output=True, text=True, check=True)
            words[1] = made.stdout.strip() + ":/"
        done = subprocess.run([*few, *words], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    assert len([*(tmp_path / "out").glob("d*/file")]) == 150


def test_a_full_standard_output_is_one_line(nbcontain: Nbcontain, root: Path) -> None:
    env = {**os.environ, "NBCONTAIN_ROOT": str(root)}
    for words in (["images"], ["version"], ["save", "box"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([sys.executable, "-m", "nbcontain", *words], env=env, stdout=full,
                                  stderr=subprocess.PIPE, text=True, timeout=60, check=False)  # fmt: skip
        assert done.returncode == 1 and "Traceback" not in done.stderr and "No space left" in done.stderr


def test_docker_s_word_for_the_version_is_one(nbcontain: Nbcontain) -> None:
    assert nbcontain("-v").stdout == nbcontain("version").stdout


def test_a_line_for_a_shell_is_told_apart_from_a_program(nbcontain: Nbcontain) -> None:
    done = nbcontain("run", "--rm", "box", "echo hi && ls")
    assert done.returncode == 127 and "sh -c 'LINE'" in done.stderr


def test_what_is_no_text_is_shown_all_the_same(nbcontain: Nbcontain, root: Path) -> None:
    made = nbcontain("create", "--name", "bytes", "--label", "a=\udcfe", "box", "echo", "\udcff")
    assert made.returncode == 0
    env = {**os.environ, "NBCONTAIN_ROOT": str(root), "PYTHONIOENCODING": "utf-8:strict"}
    shown = ("ps", "-a", "--format", "{{.Command}} {{.Labels}}")
    for words in (("inspect", "bytes"), shown, ("events", "--since", "1h", "--until", "0s")):
        done = subprocess.run([sys.executable, "-m", "nbcontain", *words], env=env, capture_output=True, text=True,
                              timeout=60, check=False)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert r"\udcfe" in done.stdout
