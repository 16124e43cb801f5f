"""Whom USER's words mean, read from files that may be anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.errors import SetupFailed
from nbcontain.oci.spec import Process, User
from nbcontain.runtime.annotations import GROUPS, USER
from nbcontain.runtime.identity import of_process, resolve
from nbcontain.runtime.signals import signal_number

PASSWD = (
    "root:x:0:0::/root:/bin/sh\nada:x:1000:100:Ada:/home/ada:/bin/sh\n"
    "broken\n#x:x:1:1:::\nshort:x:7\nhex:x:0x10:1::/:\n"
)
GROUP = "root:x:0:\nstaff:x:50:ada,grace\nwheel:x:10:ada\n"


@pytest.mark.parametrize(
    "words, uid, gid, more, home",
    [
        ("", 0, 0, (), "/root"),
        ("ada", 1000, 100, (50, 10), "/home/ada"),
        ("1000", 1000, 100, (50, 10), "/home/ada"),
        ("ada:staff", 1000, 50, (), "/home/ada"),
        ("77:88", 77, 88, (), "/"),
        ("77", 77, 0, (), "/"),
    ],
)
def test_words_mean_ids(words: str, uid: int, gid: int, more: tuple[int, ...], home: str) -> None:
    found = resolve(words, PASSWD, GROUP)
    assert (found.user.uid, found.user.gid, found.user.additional_gids, found.home) == (uid, gid, more, home)


@pytest.mark.parametrize("words", ["nemo", "ada:nemo", "short", "hex", "broken", "-1", "4294967295", "9" * 30, "１"])
def test_what_nobody_knows_is_an_error(words: str) -> None:
    with pytest.raises(SetupFailed):
        resolve(words, PASSWD, GROUP)


@given(st.text(max_size=20), st.text(alphabet="root:x0123456789,\n/", max_size=120), st.text(max_size=60))
def test_any_files_give_an_identity_or_the_error(words: str, passwd: str, group: str) -> None:
    try:
        found = resolve(words, passwd, group)
    except SetupFailed:
        return
    assert all(0 <= each < 2**32 - 1 for each in (found.user.uid, found.user.gid, *found.user.additional_gids))


@pytest.mark.parametrize("text, number", [("SIGTERM", 15), ("term", 15), ("9", 9), (" kill ", 9), ("RTMIN+3", 37)])
def test_signals_have_names_and_numbers(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "KILL;rm", "-9", "SIG", "SIG_DFL", "²"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no signal"):
        signal_number(text)


@pytest.mark.parametrize(
    "annotations, user",
    [
        ({}, User(3, 4, (5,), umask=0o77)),
        ({USER: "ada"}, User(1000, 100, (50, 10), umask=0o77)),
        ({USER: "77", GROUPS: "wheel"}, User(77, 0, (10,), umask=0o77)),
    ],
)
def test_a_program_has_its_own_mask_whoever_it_runs_as(annotations: dict[str, str], user: User) -> None:
    process = Process(("true",), user=User(3, 4, (5,), umask=0o77))
    assert of_process(process, annotations, PASSWD, GROUP).user == user
