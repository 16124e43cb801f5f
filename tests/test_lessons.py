"""Exercises and questions: each has hints, a solution and one right answer, and %check says what is missing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from archives import archive, member
from nbcontain.engine import Engine
from nbcontain.errors import UsageError
from nbcontain.lessons import course
from nbcontain.lessons.containers_life import took
from nbcontain.lessons.drawings import street
from nbcontain.lessons.exercise import Lesson
from nbcontain.lessons.teacher import Teacher
from nbcontain.oci.image import Image, ImageConfig, Layer
from nbcontain.oci.reference import Reference
from stores import add_layer

LESSONS = [course.lesson(number) for number in course.numbers()]
NOTEBOOKS = {path.name[:2]: path for path in (Path(__file__).parent.parent / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.number)
def test_a_lesson_is_whole_and_its_notebook_uses_all_of_it(lesson: Lesson) -> None:
    notebook = nbformat.read(NOTEBOOKS[lesson.number], as_version=4)
    sources = [cell.source for cell in notebook.cells]
    assert lesson.title in sources[0]
    for exercise in lesson.exercises:
        assert exercise.id.startswith(f"{lesson.number}-") and len(exercise.hints) >= 2 and exercise.solution
        assert f"%check {exercise.id}" in sources
        assert [cell for cell in notebook.cells if cell.metadata.get("exercise") == exercise.id]
        assert any(f"**Exercise {exercise.id}.**" in source for source in sources)
    for question in lesson.questions:
        assert question.id.startswith(f"{lesson.number}-")
        assert [choice.is_right for choice in question.choices].count(True) == 1
        assert all(choice.because for choice in question.choices)
        assert f"%quiz {question.id}" in sources


def test_each_says_how_long_it_takes_and_none_takes_more_than_twenty_minutes() -> None:
    program = "import json, sys; sys.path.insert(0, '..'); import reading as r; print(json.dumps([r.MOST, r.told()]))"
    tools = Path(__file__).parent.parent / "tools"
    done = subprocess.run([sys.executable, "-c", program], cwd=tools, capture_output=True, text=True, check=True)
    most, told = json.loads(done.stdout)
    assert most == 20 and told.keys() == NOTEBOOKS.keys()
    wrong = {number: each for number, each in told.items() if len({*each}) > 1 or each[0] > most}
    assert wrong == {}, "python tools/reading.py write"


@pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=lambda path: path.name[:2])
def test_its_links_lead_to_its_headings_wherever_it_is_shown(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    text = "\n\n".join(cell.source for cell in cells)
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    # JupyterLab and nbconvert keep capitals and commas in an anchor, GitHub and MyST do not: these headings have none.
    lab = {each.replace(" ", "-") for each in found}
    github = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in found}
    assert {*re.findall(r"\]\(#([^)]+)\)", text)} - lab & github == set()


NO_WORDS_OF_ITS_OWN = {
    "code", "dependency", "reusable", "customised", "isolated", "mutable", "immutable", "layered", "started",
    "ephemeral", "versioned", "publishes", "limits", "small", "is", "state", "purpose", "lifecycle", "persistence",
    "example", "unshare", "setns", "pivot_root", "exec", "term", "restart",
}  # fmt: skip
"""Adjectives, calls of the kernel, and the rows of a table: said in bold, and explained right there."""
CALLED = {"own layer": "layer", "context": "build context", "capabilities": "capability"}


def test_each_word_that_a_lesson_explains_is_in_the_glossary() -> None:
    page = (Path(__file__).parent.parent / "docs" / "glossary.md").read_text()
    listed = [word.lower() for word in re.findall(r"^\| \*\*([^*]+)\*\*", page, re.MULTILINE)]
    assert listed == sorted(listed)
    cells = [cell for path in NOTEBOOKS.values() for cell in nbformat.read(path, as_version=4).cells]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    second = "calls?|code|filter|groups?|layer|mount|policy"
    words = {word.lower() for word in re.findall(rf"\*\*([A-Za-z_]+(?: (?:{second}))?)\*\*", text)}
    told = {CALLED.get(word, word) for word in words - NO_WORDS_OF_ITS_OWN}
    assert len(told) > 25
    assert {word for word in told if not {word, word.removesuffix("s")} & {*listed}} == set()


def test_what_is_missing_is_said_with_what_to_try(engine: Engine) -> None:
    judged = Teacher(engine).check("03-3", {})
    assert not judged.ok
    assert "✘ there is an image humble" in str(judged) and "try: %%dockerfile -t humble" in repr(judged)
    assert "1 claim" in repr(judged) and "humble" in judged._repr_html_()


def test_who_was_stopped_and_how_long_that_took_is_read_in_the_diary() -> None:
    def told(*happened: tuple[str, int]) -> list[dict[str, object]]:
        return [{"Actor": {"ID": "a"}, "Action": what, "timeNano": s * 10**9} for what, s in happened]

    assert took(told(("start", 1), ("kill", 3), ("die", 7), ("stop", 7)), "a") == 4
    assert took(told(("start", 1), ("die", 7)), "a") is None
    again = ("start", 5), ("kill", 7), ("kill", 8), ("die", 8)
    assert took(told(("start", 1), ("kill", 2), ("die", 3), *again), "a") == 1
    assert took(told(("start", 1), ("kill", 2), ("die", 3)), "b") is None


def test_flour_in_a_lower_layer_is_found_also_where_a_later_one_hides_it(engine: Engine) -> None:
    base = add_layer(engine.store, archive(member("bread", data=b"hello from the oven\n")))
    flour = add_layer(engine.store, archive(member("flour", data=b"x")), Image.of(ImageConfig(), [base]).chain_id)
    gone = add_layer(
        engine.store, archive(member(".wh.flour")), Image.of(ImageConfig(), [base, flour]).chain_id
    )
    engine.store.images.put(Image.of(ImageConfig(), [base]), Reference.parse("fat"))
    for layers, holds in (([base], True), ([base, flour, gone], False)):
        engine.store.images.put(Image.of(ImageConfig(), layers), Reference.parse("thin"))
        claims = {claim.text: claim.holds for claim in Teacher(engine).check("03-1", {}).claims}
        assert claims["the flour is in none of its layers"] is holds


def test_an_image_is_judged_by_what_is_in_it(engine: Engine) -> None:
    image = Image.of(ImageConfig(user="0"), ())
    engine.store.images.put(image, Reference.parse("humble"))
    claims = {claim.text: claim.holds for claim in Teacher(engine).check("03-3", {}).claims}
    assert claims["it says which user runs it"] and not claims["that user is not root"]


def test_a_layer_that_no_history_tells_of_is_drawn_as_well(engine: Engine) -> None:
    descriptor = engine.store.blobs.put([b"layer"], "application/vnd.oci.image.layer.v1.tar")
    image = Image.of(ImageConfig(), (Layer(descriptor, descriptor.digest),))
    engine.store.images.put(image, Reference.parse("imported"))
    drawn = street(engine, "imported")
    assert [each.size_bytes for each in drawn.sheets] == [5]
    assert drawn.text().splitlines()[1:] == ["  layer 1:   5 B", "no containers"]


def test_hints_come_one_by_one_and_a_solution_when_it_is_wanted(engine: Engine) -> None:
    teacher = Teacher(engine)
    exercise = course.exercise("02-2")
    assert list(teacher.hint("02-2").lines)[:-1] == [exercise.hints[0]]
    assert list(teacher.hint("02-2").lines)[:-1] == list(exercise.hints[:2])
    for _ in range(3):
        last = teacher.hint("02-2")
    assert list(last.lines)[:-1] == list(exercise.hints) and "%solution 02-2 --yes" in last.lines[-1]
    assert exercise.solution[0] not in repr(teacher.solution("02-2", shown=False))
    assert "grep -q tomato" in repr(teacher.solution("02-2", shown=True))


def test_a_question_opens_what_there_is_to_say_without_a_kernel(engine: Engine) -> None:
    asked = Teacher(engine).quiz("02-a")
    html = asked._repr_html_()
    assert html.count("<details") == 3 and " open>" not in html and "<script" not in html
    assert "✔" not in repr(asked) and not asked.ok
    assert "✔ right" in repr(Teacher(engine).quiz("02-a", "b")) and "✘ no" in repr(Teacher(engine).quiz("02-a", "A)"))
    with pytest.raises(UsageError, match="none of the choices"):
        Teacher(engine).quiz("02-a", "z")


def test_what_is_code_in_a_question_looks_like_code(engine: Engine) -> None:
    html = Teacher(engine).quiz("03-a")._repr_html_()
    assert "<code>apt-get update &amp;&amp; apt-get install curl" in html
    assert "`" not in html


@pytest.mark.parametrize(("words", "said"), [("99-1", "no lesson 99"), ("02-9", "02-1, 02-2, 02-3"), ("", "ID")])
def test_what_is_no_exercise_is_said(engine: Engine, words: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        Teacher(engine).magic("check", words.split(), {})
    assert said in "\n".join(raised.value.lines())


def test_the_magics_are_there_and_leave_those_of_others_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBCONTAIN_ROOT", str(root))
    shell = InteractiveShell()
    shell.register_magic_function(lambda line: "somebody else's", "line", "hint")
    shell.extension_manager.load_extension("nbcontain")
    try:
        assert shell.run_line_magic("hint", "02-1") == "somebody else's"
        shell.user_ns["answer"] = "tomato-42"
        judged = shell.run_line_magic("check", "02-1")
        assert judged is not None and judged.ok
        assert re.search(r"02-a .*disk", repr(shell.run_line_magic("quiz", "02-a")))
    finally:
        shell.extension_manager.unload_extension("nbcontain")
    assert "check" not in shell.magics_manager.magics["line"]
    assert shell.run_line_magic("hint", "") == "somebody else's"
