"""What docker's users type about images: every verb and every flag of docker's own help works, or says why not."""

from __future__ import annotations

import re
import subprocess

import pytest

import needs
from nbcontain.commands import commands, parse_words
from nbcontain.commands.table import find
from nbcontain.docker_words import KNOWN_FLAGS, KNOWN_VERBS
from nbcontain.errors import UsageError
from nbcontain.options import flags_of

VERBS = [
    *(("image", verb) for verb in
      ("build", "history", "import", "inspect", "load", "ls", "prune", "pull", "push", "rm", "save", "tag")),
    *(("container", verb) for verb in
      ("attach", "commit", "cp", "create", "diff", "exec", "export", "inspect", "kill", "logs", "ls", "pause", "port",
       "prune", "rename", "restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait")),
    *(("network", verb) for verb in ("connect", "create", "disconnect", "inspect", "ls", "prune", "rm")),
    *(("volume", verb) for verb in ("create", "inspect", "ls", "prune", "rm")),
    ("system", "events"), ("", "events"),
    ("system", "df"), ("system", "prune"), ("system", "info"), ("", "images"), ("", "inspect"), ("", "version"),
    ("", "info"), ("", "rmi"), ("", "login"), ("", "logout"),
]  # fmt: skip
ELSEWHERE = {"--kubeconfig", "--security-opt", "--disable-content-trust", "--cpu-period", "--cpuset-cpus",
             "--cpuset-mems", "--memory-swap"}  # fmt: skip
"""Of versions that are no more, or of builds with resource limits."""


@pytest.mark.parametrize(("group", "verb"), VERBS)
def test_every_flag_of_dockers_help_is_here_or_said_not_to_be(group: str, verb: str) -> None:
    docker = needs.program("docker", "docker.io")
    words = [docker, *([group] if group else []), verb, "--help"]
    text = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    flags = set(re.findall(r"^\s+(?:-\w, )?(--[\w-]+)", text, re.M)) | set(re.findall(r"^\s+(-\w), --", text, re.M))
    command = find(group, verb)
    assert command is not None
    known = KNOWN_FLAGS.get(f"{command.group} {command.name}", {})
    assert flags - set(flags_of(command.options)) - set(known) - ELSEWHERE == set()


@pytest.mark.parametrize(
    "line",
    ["compose watch", "search python", "swarm init", "run --link a b", "image pull --creds a:b x", "rmi --no-prune x"],
)
def test_what_is_not_here_is_said_with_the_reason(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_words("", line.split())
    assert caught.value.why
    assert caught.value.message.endswith("is not here")


def test_no_verb_is_both_here_and_said_not_to_be() -> None:
    assert [(group, verb) for group, verbs in KNOWN_VERBS.items() for verb in verbs if find(group, verb)] == []


def test_no_name_means_two_commands() -> None:
    names = [(each.group, name) for each in commands() for name in (each.name, *each.aliases)]
    tops = [word for each in commands() for word in each.top]
    assert sorted(set(names)) == sorted(names)
    assert sorted(set(tops)) == sorted(tops)


def test_buildx_is_what_its_commands_are() -> None:
    for words, name in (("buildx build -t x .", "build"), ("buildx prune -f", "prune"), ("buildx du", "du")):
        assert parse_words("", words.split())[0].name == name
    with pytest.raises(UsageError, match="no command 'bake'"):
        parse_words("", ["buildx", "bake"])
