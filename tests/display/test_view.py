"""A journal folded: one record after the other, or many at once, which only makes it quicker."""

from __future__ import annotations

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from nbcontain.display import view as views
from nbcontain.display.view import View, fold, update
from nbcontain.events import Finished, Notice, Output, Record, Started

TASKS = ("one", "other")
words = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\n\n", b"x\ny", b"\r", b"\xff", b"\xe2\x82\xac"]), max_size=12)
outputs = st.builds(
    lambda task, stream, data: Output(task, stream, data),
    st.sampled_from(TASKS), st.sampled_from(["stdout", "stderr"]), words.map(b"".join),
)  # fmt: skip


@given(st.lists(outputs, max_size=30), st.integers(1, 6))
def test_many_records_at_once_are_read_as_one_after_the_other_but_for_lines_that_are_passed_over(
    events: list[Output], kept: int
) -> None:
    records = [Record(1.0, Started(task, task)) for task in TASKS] + [Record(2.0, event) for event in events]
    one_by_one = View()
    fresh = []
    for record in records:
        one_by_one = update(one_by_one, record)
        fresh += [line for line in one_by_one.fresh if record.event.task == "one"]
    with mock.patch.object(views, "KEPT_LINES", kept):
        at_once, found = fold(View(), records, "one")
    for task in TASKS:
        exact, quick = one_by_one.tasks[task], at_once.tasks[task]
        assert quick.line_count == exact.line_count
        assert quick.begun_lines() == exact.begun_lines()
        last = min(kept, exact.line_count)
        # The first line that is read may have begun in what was passed over.
        assert quick.tail[len(quick.tail) - last + 1 :] == exact.tail[len(exact.tail) - last + 1 :]
    assert found[max(0, len(found) - kept + 1) :] == fresh[len(fresh) - min(len(found), kept - 1) :]


def test_a_flood_is_passed_over_to_its_last_lines() -> None:
    flood = [Record(0.0, Started("it", "it"))]
    flood += [Record(0.0, Output("it", "stdout", b"".join(b"%d\n" % n for n in range(at, at + 10_000))))
              for at in range(0, 1_000_000, 10_000)]  # fmt: skip
    with mock.patch.object(views, "write", wraps=views.write) as write:
        view, fresh = fold(View(), [*flood, Record(1.0, Finished("it", "done"))])
    assert view.tasks["it"].line_count == 1_000_000
    assert [line.runs[0].text for line in fresh] == [str(n) for n in range(998_000, 1_000_000)]
    assert sum(len(call.args[1]) for call in write.call_args_list) < 20_000


def test_why_it_ended_the_last_time_is_no_news_of_the_next() -> None:
    view, _ = fold(View(), [Record(1.0, Started("c", "web")), Record(2.0, Notice("c", "no memory", kind="ending")),
                            Record(2.0, Finished("c", "failed", exit_code=137))])  # fmt: skip
    assert [notice.message for notice in view.tasks["c"].notices] == ["no memory"]
    view, _ = fold(view, [Record(3.0, Started("c", "web"))])
    assert view.tasks["c"].notices == ()
