"""What a container uses, drawn: figures, lines and their text."""

from __future__ import annotations

from nbcontain.display.meters import Meters, meters_html, meters_text
from nbcontain.display.pictures import ContainerFacts, Port, container_picture
from nbcontain.display.sparkline import blocks, sparkline
from nbcontain.display.view import View
from nbcontain.resources import Usage


def usage(at_s: float, cpu_s: float, memory: int, limit: int | None = None) -> Usage:
    return Usage(at_s, cpu_s, memory, limit, 2, received=1200, sent=300)


def metered(*usages: Usage) -> Meters:
    meters = Meters()
    for each in usages:
        meters = meters.after(each)
    return meters


def test_the_processor_is_what_was_used_between_two_looks() -> None:
    meters = metered(usage(1, 10.0, 5), usage(2, 10.5, 5), usage(4, 10.5, 5))
    assert meters.cpu == (50.0, 0.0)


def test_a_container_that_began_anew_does_not_give_its_time_back() -> None:
    assert metered(usage(1, 10.0, 5), usage(2, 0.1, 5)).cpu == ()


def test_text_and_html_say_the_same() -> None:
    meters = metered(usage(1, 0.0, 32 << 20, 64 << 20), usage(2, 0.5, 64 << 20, 64 << 20))
    assert meters_text(meters) == (
        "CPU ▅ 50 % · memory ▅█ 64 MiB of 64 MiB · network 1.2 kB in, 300 B out · processes 2"
    )
    for words in ("50 %", "64 MiB of 64 MiB", "1.2 kB in, 300 B out"):
        assert words in meters_html(meters)


def test_what_has_ended_says_what_it_used_in_all() -> None:
    meters = metered(usage(1, 0.0, 9 << 20), usage(2, 1.5, 3 << 20))
    assert meters_text(meters, is_over=True).startswith("CPU █ 1.5 s in all · memory █▃ at most 9 MiB")


def test_what_the_kernel_saw_between_two_looks_counts_too() -> None:
    seen = metered(usage(1, 0.0, 3 << 20, 50 << 20))
    assert "at most 48 MiB of 50 MiB" in meters_text(seen.ended(48 << 20, 50 << 20, is_full=False), is_over=True)
    assert "at most 50 MiB of 50 MiB" in meters_text(seen.ended(0, None, is_full=True), is_over=True)
    assert meters_text(Meters().ended(48 << 20, None, is_full=False), is_over=True) == "memory at most 48 MiB"


def test_what_ended_at_once_has_no_empty_lines_and_no_memory_of_nothing() -> None:
    drawn = meters_html(metered(usage(1, 0.0, 0)), is_over=True)
    assert "0.00 s in all" in drawn and "memory" not in drawn and "svg" not in drawn
    many = [usage(at, 0.1 * at, 9_000_000) for at in range(6)]
    assert meters_html(metered(*many), is_over=True).count("<svg") == 2
    assert meters_html(metered(usage(1, 0.0, 0))).count("<svg") == 2


def test_what_nobody_has_looked_at_is_not_drawn() -> None:
    assert meters_html(Meters()) == meters_text(Meters()) == ""


def test_a_change_too_small_to_see_draws_the_same_line() -> None:
    assert sparkline([50.0, 50.1], 100, "x") == sparkline([50.0, 50.2], 100, "x")


def test_something_is_never_drawn_as_nothing() -> None:
    assert blocks([0, 0.01, 100], 100) == "▁▂█"


def test_a_published_port_is_a_link_and_what_no_browser_opens_is_none() -> None:
    web, name = Port("0.0.0.0", 8000, "80/tcp"), Port("127.0.0.1", 5353, "53/udp")
    picture = container_picture(ContainerFacts("c", "web", "box", "running", ports=(web, name)), View(), 0.0)
    assert 'href="http://127.0.0.1:8000/"' in picture.body and picture.body.count("<a ") == 1
    assert "8000 → 80/tcp, 5353 → 53/udp" in picture.text


def test_the_ports_of_what_has_ended_lead_nowhere() -> None:
    facts = ContainerFacts("c", "web", "box", "exited", ports=(Port("", 8000, "80/tcp"),))
    assert "<a " not in container_picture(facts, View(), 0.0).body
