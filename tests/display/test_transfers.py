"""Layers on their way as bars: how much, how fast, how long yet; what is here already; one line for all."""

from __future__ import annotations

from nbcontain.display.pictures import steps_picture
from nbcontain.display.transfers import bars
from nbcontain.display.view import View, update
from nbcontain.events import Event, Finished, Progress, Record, Started


def seen(*events: tuple[float, Event]) -> View:
    view = View()
    for time, event in events:
        view = update(view, Record(time, event))
    return view


ROOT = (0.0, Started("pull", "pull debian:12"))


def layer(name: str, size: int, *later: tuple[float, Event]) -> tuple[tuple[float, Event], ...]:
    task = f"layer {name}"
    return (0.0, Started(task, task, "pull", waiting=True)), (0.0, Progress(task, 0, size)), *later


def begun(name: str, at: float, done: int, size: int) -> tuple[tuple[float, Event], ...]:
    task = f"layer {name}"
    return (at, Started(task, task, "pull")), (at, Progress(task, done, size))


def test_a_layer_on_its_way_has_a_bar_a_rate_and_the_time_left() -> None:
    view = seen(ROOT, *layer("aaa", 20_000_000, *begun("aaa", 0.0, 0, 20_000_000),
                             (2.0, Progress("layer aaa", 5_000_000, 20_000_000))))  # fmt: skip
    line, total = bars(view, 2.0, 100, 20)
    assert "5 MB of 20 MB · 2.5 MB/s · 6.0 s left" in line
    assert "████" in line
    assert total == "pull debian:12 · 5 MB of 20 MB · 2.5 MB/s · 6.0 s left"


def test_what_an_earlier_pull_left_is_no_speed_of_this_one() -> None:
    view = seen(ROOT, *layer("aaa", 20_000_000, *begun("aaa", 0.0, 10_000_000, 20_000_000),
                             (1.0, Progress("layer aaa", 12_000_000, 20_000_000))))  # fmt: skip
    assert "12 MB of 20 MB · 2 MB/s · 4.0 s left" in bars(view, 1.0, 100, 20)[0]


def test_what_is_here_is_marked_and_counts_for_nothing() -> None:
    view = seen(ROOT, *layer("aaa", 20_000_000, (0.1, Finished("layer aaa", "cached", "already here"))),
                *layer("bbb", 1_000_000))  # fmt: skip
    first, second, total = bars(view, 0.2, 100, 20)
    assert first.split() == ["aaa", "already", "here"]
    assert second.split() == ["bbb", "waiting,", "1", "MB"]
    assert "0 B of 1 MB" in total
    drawn = steps_picture(view, 0.2, "pull")
    assert "already here" in drawn.body
    assert "0 B of 1 MB" in drawn.head


def test_at_the_end_it_says_what_came_and_how_long_it_took() -> None:
    view = seen(ROOT, *layer("aaa", 20_000_000, *begun("aaa", 0.0, 0, 20_000_000),
                             (4.0, Finished("layer aaa", "done", size_bytes=20_000_000))),
                (4.5, Finished("pull", "done")))  # fmt: skip
    assert bars(view, 9.0, 100, 20) == [
        "aaa           done, 20 MB in 4.0 s",
        "pull debian:12: done · 4.5 s · 20 MB new",
    ]


def test_a_terminal_is_never_overrun() -> None:
    many = [each for number in range(60) for each in layer(f"l{number:02}", 1000)]
    view = seen(ROOT, *many, *begun("l59", 0.0, 0, 1000))
    drawn = bars(view, 0.0, 30, 12)
    assert len(drawn) <= 12
    assert all(len(line) < 30 for line in drawn)
    assert any(line.startswith("l59") for line in drawn)
    assert any(line.startswith("… and 51 more") for line in drawn)


def test_names_of_layers_and_errors_cannot_steer_the_terminal() -> None:
    view = seen((0.0, Started("pull", "pull \x1b[2Jevil\r\n")), (0.0, Started("x", "layer \x1b]52;c;x\a", "pull")),
                (0.1, Finished("x", "failed", "no \x1b[31mway\n")))  # fmt: skip
    assert not {"\x1b", "\r", "\n", "\a"} & set("".join(bars(view, 0.2, 200, 20)))
