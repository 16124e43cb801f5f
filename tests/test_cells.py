"""Cells in containers, and the notebook's variables in command lines: in a real IPython shell."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy
import pandas
import polars.testing
import pytest

import nbcontain as nb
import notebooks
import places
from machine import until
from nbcontain.cells import cell_of
from nbcontain.commands import parse_words, split
from nbcontain.display.pictures import steps_picture
from nbcontain.display.values import Lines
from nbcontain.display.view import View, fold
from nbcontain.errors import CommandNotFound, ContainerError, ContainerFailed, Unavailable, UsageError
from nbcontain.options import HelpAsked
from nbcontain.store.volumes import checked_name
from nbcontain.variables import Variables
from notebooks import Notebook


@pytest.fixture(scope="module")
def shell(busybox_context: Path) -> Iterator[Notebook]:
    with (
        places.store_directory() as root,
        notebooks.notebook(busybox_context, NBCONTAIN_ROOT=str(root)) as opened,
    ):
        yield opened


@pytest.fixture
def notebook(shell: Notebook) -> Iterator[Notebook]:
    """With no containers left afterwards."""
    yield shell
    shell.clear()


@pytest.fixture
def web(notebook: Notebook) -> nb.Container:
    """A container to execute in."""
    container: nb.Container = notebook.run("%container run -d --init --name web box sleep 60")
    return container


# --- scripts ---


def test_the_body_of_a_cell_is_the_program(notebook: Notebook) -> None:
    result = notebook.run("%%container run --rm box\nfor n in 1 2; do\n  echo line $n\ndone\n")
    assert result.stdout == "line 1\nline 2\n"
    assert notebook["_run"] is result


def test_the_first_line_says_what_runs_it(notebook: Notebook) -> None:
    assert notebook.run("%%container run --rm box\n#!/bin/awk -f\nBEGIN { print 6 * 7 }").stdout == "42\n"


def test_a_flag_says_what_runs_it_and_what_follows_are_its_arguments(notebook: Notebook) -> None:
    result = notebook.run('%%container run --rm --interpreter "sh -x" box -- a "b c"\necho "$2" $0')
    assert result.stdout == "b c /cell.sh\n"
    assert "+ echo" in result.stderr


def test_with_a_command_the_cell_is_what_it_reads(notebook: Notebook) -> None:
    assert notebook.run("%%container run --rm box -- sort\nb\na\n").stdout == "a\nb\n"


def test_the_scripts_file_stays_with_its_container(notebook: Notebook) -> None:
    notebook.run("%%container run --name kept box\necho here")
    kept = notebook.engine.container("kept")
    assert kept["/cell.sh"].text.rstrip("\n") == "echo here"
    kept.start()
    kept.wait()
    assert [*kept.logs()] == ["here", "here"]


def test_an_image_without_a_shell_is_said_to_have_none(notebook: Notebook) -> None:
    notebook.run("%%dockerfile -q -t bare\nFROM scratch\nCOPY busybox /program\n")
    with pytest.raises(CommandNotFound, match="nothing that runs a script"):
        notebook.run("%%container run bare\necho hello")
    assert notebook.engine.containers() == []


def test_an_error_points_at_the_line_of_the_cell(notebook: Notebook) -> None:
    with pytest.raises(ContainerFailed) as caught:
        notebook.run("%%container run --rm box\necho fine\n\nnosuchprogram --flag\n")
    drawn = "\n".join(caught.value.lines())
    assert " ▶   3 │ nosuchprogram --flag" in drawn
    assert caught.value.exit_code == 127


@pytest.mark.parametrize(
    "said",
    ['  File "{}", line 2, in <module>', "{}: line 2: nope: not found", "{}: 2: nope: not found", "{}:2\nthrow 1"],
)
def test_messages_of_many_interpreters_are_understood(said: str, notebook: Notebook) -> None:
    cell = f"%%container run --rm box\necho 1\ncat >&2 <<'END'\n{said.format('/cell.sh')}\nEND\nexit 1\n"
    with pytest.raises(ContainerFailed) as caught:
        notebook.run(cell)
    assert " ▶   2 │ cat >&2" in "\n".join(caught.value.lines())


def test_an_exit_code_can_be_no_error(notebook: Notebook) -> None:
    assert notebook.run("%%container run --rm --no-raise box\nexit 3").exit_code == 3
    assert notebook.run("%container run --rm --no-raise box sh -c 'exit 4'").exit_code == 4


def test_a_script_runs_in_a_running_container_and_leaves_nothing(notebook: Notebook, web: nb.Container) -> None:
    before = web.diff()
    assert notebook.run("%%container exec -e X=1 web\necho $X; hostname > /dev/null").stdout == "1\n"
    assert notebook.run("%%container exec web -- cat\nto read").stdout.rstrip("\n") == "to read"
    assert web.diff() == before
    assert [each.name for each in web["/dev/shm"]] == []
    with pytest.raises(ContainerFailed) as caught:
        notebook.run("%%container exec web\ntrue\nfalse_friend")
    assert " ▶   2 │ false_friend" in "\n".join(caught.value.lines())


def test_a_script_that_ends_its_container_is_said_to_have_failed(notebook: Notebook) -> None:
    script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    container = notebook.run(f'%container run -d --rm --name brief box sh -c "{script}"')
    assert "ready" in next(iter(container.logs(follow=True)))
    with pytest.raises(ContainerFailed):
        notebook.run("%%container exec brief\nkill -TERM 1; sleep 20")


def test_a_script_can_be_larger_than_a_command_line(notebook: Notebook) -> None:
    filling = "# " + "x" * 1000 + "\n"
    assert notebook.run(f"%%container run --rm box\n{filling * 3000}echo end\n").stdout == "end\n"


def test_a_cell_knows_its_verbs(notebook: Notebook) -> None:
    with pytest.raises(UsageError, match="can be run, or executed"):
        notebook.run("%%container ps\nhello")


# --- what goes in and comes out ---


def test_values_go_in_and_come_out_by_the_suffix_of_their_file(notebook: Notebook, tmp_path: Path) -> None:
    notebook.shell.user_ns.update(values={"a": [1, 2]}, text="hello\n", raw=b"\0\1\2", file=tmp_path / "f")
    (tmp_path / "f").write_text("in a file\n")
    notebook.run(
        "%%container run --rm --put values:/in/values.json --put text:/text --put raw:/raw --put file:/file "
        "--get back=/out/values.json --get copy=/copy --get bytes_=/raw --get said=/said box\n"
        "mkdir /out; cp /in/values.json /out; cat /text > /copy; cat /file /text > /said"
    )
    got = [notebook[name] for name in ("back", "copy", "bytes_", "said")]
    assert got == [{"a": [1, 2]}, "hello\n", b"\0\1\2", "in a file\nhello\n"]
    assert notebook.engine.containers() == []


def test_a_line_takes_and_gives_too(notebook: Notebook, web: nb.Container) -> None:
    notebook.shell.user_ns["data"] = {"n": 3}
    notebook.run("%container exec --put data:/d.json --get out=/o.json web cp /d.json /o.json")
    assert notebook["out"] == {"n": 3}
    assert notebook.run("%container exec --stdin data web cat").stdout == '{"n": 3}'


def test_cp_copies_variables_and_a_path_in_one_is_a_path(notebook: Notebook, web: nb.Container, tmp_path: Path) -> None:
    (tmp_path / "there.txt").write_text("a file")
    notebook.shell.user_ns.update(data={"n": [1]}, raw=b"\0\1", where=str(tmp_path / "there.txt"), back="elsewhere")
    notebook.run("%container cp {data} web:/new/d.json")
    notebook.run("%container cp {raw} web:/raw")
    notebook.run("%container cp {where} web:/there")
    assert web.exec("sh -c 'cat /new/d.json /there'").stdout == '{"n": [1]}a file'
    notebook.run("%container cp web:/new/d.json {got}")
    notebook.run("%container cp web:/raw {raw}")
    assert (notebook["got"], notebook["raw"]) == ({"n": [1]}, b"\0\1")
    with pytest.raises(UsageError, match="there is no variable nothere"):
        notebook.run("%container cp {nothere} web:/x")
    with pytest.raises(UsageError, match="how is a dict to be written"):
        notebook.run("%container cp {data} web:/x")
    with pytest.raises(ContainerError, match="cannot read /nothing"):
        notebook.run("%container cp web:/nothing {got}")
    assert notebook["got"] == {"n": [1]}


def test_files_of_this_machine_go_in_and_come_out(notebook: Notebook, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("x")
    result = notebook.run(f"%container run --rm --put {tmp_path}/in:/a --get {tmp_path}/out=/b --stdin {tmp_path}/in "
                          "box sh -c 'cat /a - > /b; cat /b'")  # fmt: skip
    assert result.stdout == (tmp_path / "out").read_text() == "xx"


def test_megabytes_are_no_matter(notebook: Notebook) -> None:
    notebook.shell.user_ns["big"] = bytes(range(256)) * (1 << 16)
    script = "cmp - /big && cp /big /back"
    notebook.run(f"%container run --rm --put big:/big --stdin big --get back=/back box sh -c '{script}'")
    assert notebook["back"] == notebook["big"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--put nothere:/x", "there is no variable nothere"),
        ("--put shell", "a name and a path inside"),
        ("--put ./nothing:/x", "there is no file ./nothing"),
        ("--put thing:/x.txt", "how is a dict to be written?"),
        ("-d --get x=/x", "does not wait"),
        ("-it --put thing:/x.json", "not for a terminal"),
        ("-it --stdin empty", "not for a terminal"),
    ],
)
def test_what_cannot_be_exchanged_is_said_before_anything_is_made(notebook: Notebook, words: str, text: str) -> None:
    notebook.shell.user_ns.update(thing={}, empty="")
    with pytest.raises(UsageError) as caught:
        notebook.run(f"%container run {words} box true")
    assert text in "\n".join(caught.value.lines())
    assert notebook.engine.containers() == []


@pytest.mark.parametrize(("known", "hint"), [({"texts": "x"}, "did you mean texts?"), ({"exit": print}, "define it")])
def test_of_variables_only_data_is_suggested(known: dict[str, object], hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        Variables(known).named("text")
    assert hint in caught.value.hint


def test_what_did_not_come_about_cannot_be_had(notebook: Notebook) -> None:
    with pytest.raises(nb.NbcontainError, match="cannot read /nothing"):
        notebook.run("%container run --rm --get x=/nothing box true")
    assert notebook.engine.containers() == []


def test_tables_and_arrays_come_back_as_what_they_were(notebook: Notebook) -> None:
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "ä"]})
    notebook.shell.user_ns.update(df=frame, array=numpy.arange(6).reshape(2, 3))
    for suffix in ("csv", "tsv", "parquet", "json"):
        way = f"--put df:/in.{suffix} --get back=/out.{suffix}"
        notebook.run(f"%container run --rm {way} box cp /in.{suffix} /out.{suffix}")
        back = notebook["back"] if suffix != "json" else pandas.DataFrame(notebook["back"])
        pandas.testing.assert_frame_equal(back, frame, check_dtype=False)
    notebook.run("%container run --rm --put array:/a.npy --get back=/a.npy box true")
    assert (notebook["back"] == notebook["array"]).all()
    result = notebook.run("%container run --rm --stdin df box cat")
    pandas.testing.assert_frame_equal(result.df(), frame, check_dtype=False)


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets only these of pandas, polars and numpy be installed."""

    def only(names: str) -> None:
        def found(name: str) -> object:
            return find_spec(name) if name in names.split() else None

        monkeypatch.setattr("nbcontain.objects.find_spec", found)

    return only


def test_where_there_is_polars_alone_tables_are_its_own(
    notebook: Notebook, libraries: Callable[[str], None]
) -> None:
    libraries("polars")
    frame = polars.DataFrame({"a": [1, 2], "b": ["x", "ä"]})
    notebook.shell.user_ns.update(df=frame)
    for suffix in ("csv", "tsv", "parquet", "jsonl"):
        way = f"--put df:/in.{suffix} --get back=/out.{suffix}"
        notebook.run(f"%container run --rm {way} box cp /in.{suffix} /out.{suffix}")
        polars.testing.assert_frame_equal(notebook["back"], frame)


def test_without_a_library_it_is_said_before_anything_runs(
    notebook: Notebook, libraries: Callable[[str], None]
) -> None:
    libraries("")
    for name, library in (("/t.parquet", "pandas pyarrow"), ("/a.npy", "numpy")):
        with pytest.raises(Unavailable, match=f"need {library}") as said:
            notebook.run(f"%container run --rm --get back={name} box true")
        assert said.value.hint == f"%pip install {library}"
        with pytest.raises(Unavailable, match=f"need {library}"):
            nb.run("box", "true", get=name)
        assert notebook.engine.containers() == []
    notebook.run("%container run --rm --get back=/t.csv box sh -c 'echo a,b > /t.csv'")
    assert notebook["back"] == "a,b\n"
    result = notebook.run("%container run --rm box echo a,b")
    with pytest.raises(Unavailable, match="pandas or polars"):
        result.df()


# --- variables in lines, silence ---


def test_a_variable_in_a_line_is_one_word_and_formats_stay_what_they_are(notebook: Notebook, web: nb.Container) -> None:
    notebook.shell.user_ns.update(word="a  b; $HOME", c=web)
    assert notebook.run("%container exec web echo {word} $X").stdout == "a  b; $HOME $X\n"
    assert notebook.run("%container exec {c.name} echo {{word}}").stdout == "{{word}}\n"
    assert str(notebook.run("%container ps --format '{{.Names}}'")) == "web"
    notebook.run("def f(inner):\n    return get_ipython().run_line_magic('container', 'exec web echo {inner}')\n")
    with pytest.raises(UsageError, match="missing"):
        notebook.run("%container exec web echo {missing}")


def test_a_word_that_begins_with_a_hash_begins_a_comment_as_in_a_shell(notebook: Notebook) -> None:
    result = notebook.run("result = %container run --rm box echo a#b '# c' \\#d   # it's said, \"and no more")
    assert result is None and notebook["result"].stdout == "a#b # c #d\n"
    assert notebook.run("%%container run --rm box  # a script\necho here # too").stdout == "here\n"


def test_a_semicolon_silences_what_a_line_gives(notebook: Notebook) -> None:
    assert notebook.run("%container ps;") is None
    notebook.run("c = %container ps")
    assert "NAME" in str(notebook["c"])
    assert notebook.run("%container run --rm box echo ';'").stdout == ";\n"


def test_what_a_magic_gives_is_what_python_has_in_its_hands(notebook: Notebook, web: nb.Container) -> None:
    assert web == nb.containers["web"] == notebook["_container"]
    notebook.run("%%dockerfile -q -t made --into made\nFROM box\nENV A=1")
    assert notebook["made"]["/bin/busybox"].exists()
    assert notebook["made"] == notebook["_image"] == nb.images["made"]
    assert nb.engine() is notebook.engine


def test_what_python_asks_for_has_the_card_that_a_magic_has(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = nb.images["box"].save(tmp_path / "box.tar")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(notebook.shell.nbcontain.session, "mode", "html")  # type: ignore[attr-defined]
    nb.images.import_image(path, "cards")
    assert "imported cards" in capsys.readouterr().out
    nb.images.remove("cards")


def test_a_tree_of_files_is_drawn_as_the_magic_draws_it(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run("import nbcontain as nb\nnb.images['box'].tree()")
    assert "busybox" in capsys.readouterr().out
    assert repr(nb.images["box"].tree("/bin")).endswith(" /bin>")


@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("%container cp web:/srv/d", ["web:/srv/data/", "web:/srv/deep.txt"]),
        ("x = %container cp web:/srv/de", ["web:/srv/deep.txt"]),
        ('web["/srv/da', ["/srv/data/"]),
        ('made["/srv/da', None),
        ("%image cat box /bin/busy", ["/bin/busybox"]),
        ("%container run --put a_fr", ["a_frame"]),
        ("%container exec web echo {a_f", ["{a_frame}"]),
        ("%compose up {a_f", ["{a_frame}"]),
        ("%kernel add {a_f", ["{a_frame}"]),
        ("%container run --pull ne", ["never", "newer"]),
        ("x = {a_f", None),
    ],
)
def test_the_tab_key_knows_what_is_inside(
    notebook: Notebook, web: nb.Container, line: str, choices: list[str] | None
) -> None:
    from IPython.core.completer import provisionalcompleter

    web["/srv/data/x"], web["/srv/deep.txt"] = "", ""
    notebook.shell.user_ns.update(web=web, a_frame={}, made=object())
    with provisionalcompleter():
        found = [each.text for each in notebook.shell.Completer.completions(line, len(line))]
    if choices is None:
        assert not [each for each in found if each.startswith(("/", "{"))]
    else:
        assert found == choices


def test_what_is_the_shells_inside_is_left_alone() -> None:
    line = "run box sh -c 'echo ${HOME} $x {x} {{.Names}} {a,b} {}'"
    assert Variables({"x": 7}).words(line)[-1] == "echo ${HOME} $x 7 {{.Names}} {a,b} {}"
    with pytest.raises(UsageError) as caught:
        Variables({}).words("run box echo {x}")
    assert "${x} and {{x}} are left as they stand" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('sh -c "echo \\$i \\`x\\` \\" \\n"', ["sh", "-c", 'echo $i `x` " \\n']),
        ("sh -c 'echo \\$i'", ["sh", "-c", "echo \\$i"]),
        ("echo \\$i 'it''s' \\'", ["echo", "$i", "its", "'"]),
        ('"a\\\\$b" "c', None),
    ],
)
def test_quotes_are_a_shells(line: str, words: list[str] | None) -> None:
    if words is None:
        with pytest.raises(UsageError, match="cannot read"):
            split(line)
    else:
        said = subprocess.run(["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True).stdout
        assert split(line) == words == said.split("\0")[:-1]


def test_a_list_that_stands_alone_is_a_word_each() -> None:
    known = {"ids": Lines(("a", "b")), "none": Lines(()), "names": ["c d", 7], "text": "x y"}
    line = "rm -f {ids} {none} {names} {text} n{ids}"
    assert Variables(known).words(line) == ["rm", "-f", "a", "b", "c d", "7", "x y", "na\nb"]


def test_a_shells_words_that_nobody_reads_here_are_explained() -> None:
    with pytest.raises(UsageError) as caught:
        parse_words("container", ["rm", "-f", "$(%container", "ps", "-aq)"])
    assert "{ids}" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        checked_name("$PWD")
    assert "-v .:/work" in caught.value.hint


def test_help_is_a_word_too() -> None:
    for words, text in ((["help"], "usage: container COMMAND"), (["help", "run"], "usage: container run")):
        with pytest.raises(HelpAsked) as asked:
            parse_words("container", words)
        assert text in str(asked.value)


def test_another_groups_command_is_told_by_its_name_and_only_where_it_is_that() -> None:
    with pytest.raises(UsageError) as caught:
        parse_words("container", ["images"])
    assert caught.value.hint == "did you mean image ls?"
    with pytest.raises(UsageError) as caught:
        parse_words("image", ["bogus"])
    assert "compose" not in caught.value.hint


def test_the_card_of_a_cells_program_is_called_by_what_runs_it_and_where(web: nb.Container) -> None:
    progress = cell_of(web.engine, "exec web", "echo hi", Variables({})).progress
    assert progress.title == "sh in web"
    progress.task.result()


def test_where_nothing_was_done_there_is_no_value(notebook: Notebook, web: nb.Container) -> None:
    assert notebook.run("%container rm -f nobody") is None
    assert str(notebook.run("%container rm -f nobody web")) == "web"


def test_a_container_tells_its_exit_code_once_it_has_one(notebook: Notebook) -> None:
    container = notebook.run("%container run -d --name brief box sh -c 'sleep 0.3; exit 7'")
    assert container.exit_code is None
    container.wait()
    assert container.exit_code == 7
    container.start()
    assert container.exit_code is None


def test_what_no_memory_was_left_for_is_told_in_the_lists(notebook: Notebook) -> None:
    notebook.run("%container run -d --name hog -m 16m box dd if=/dev/zero of=/dev/null bs=100M count=1")
    notebook["_container"].wait()
    listed = notebook.run("%container ps -a")
    assert "Exited (137)" in listed.text() and "out of memory" in listed.text()
    assert "out of memory" not in str(notebook.run("%container ps -a --format '{{.Status}}'"))
    assert "exited 137, out of memory" in notebook.run("%container board").text()


def test_who_waits_reads_for_what(notebook: Notebook, web: nb.Container) -> None:
    task = web.engine.life.wait(["web"], "not-running", tuple)
    until(lambda: len(task.journal.read()) > 1)
    view, _ = fold(View(), task.journal.read())
    assert steps_picture(view, 0.0, "wait").text.startswith("waiting for web")
    task.cancel()
