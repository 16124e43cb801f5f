"""images, ps, history, inspect: docker's --filter and --format, typed as one types them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import needs
import places
from archives import archive, member
from nbcontain.commands import parse_words, split
from nbcontain.commands.rows import unique_bytes
from nbcontain.display.formats import Columns, lasting, size_shown
from nbcontain.display.table import Table, Watched
from nbcontain.display.values import Lines
from nbcontain.engine import Engine
from nbcontain.errors import UsageError
from nbcontain.filters import Filters, instant
from nbcontain.networks import NetworkRequest
from nbcontain.oci.image import History, Image, ImageConfig
from nbcontain.oci.reference import Reference
from nbcontain.options import parse
from nbcontain.runtime.generate import RunOptions
from stores import add_layer

Typed = Callable[[str], object]


@pytest.fixture(scope="module")
def machine() -> Iterator[Engine]:
    """A store with four images: three on one another, one without a name. Nobody changes it."""
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-test-", dir=needs.scratch()))
    with Engine(directory) as engine:
        store = engine.store
        layers = [add_layer(store, archive(member("one", data=b"one")))]
        for number, name in enumerate(["base:1", "team/app:1", "team/app:2"]):
            created = f"2024-0{number + 1}-01T00:00:00Z"
            if number:
                data = archive(member(f"more{number}", data=b"x" * 1000 * number))
                layers.append(add_layer(store, data, Image.of(ImageConfig(), layers).chain_id))
            config = ImageConfig(
                created=created, labels={"n": str(number), "team": "data"} if number else {},
                history=tuple(History(created, f"step {each}") for each in range(number + 1)),
            )  # fmt: skip
            store.images.put(Image.of(config, layers), Reference.parse(name))
        store.images.put(Image.of(replace(config, created="2024-04-01T00:00:00Z", author="nobody"), layers))
        yield engine
    places.remove(directory)


@pytest.fixture(scope="module")
def typed(machine: Engine) -> Typed:
    """What a command line gives."""

    def run(line: str) -> object:
        words = split(line)
        group = words.pop(0) if words[0] in ("volume", "network") else ""
        command, options = parse_words(group, words)
        return command.function(machine, options)

    return run


def lines(value: object) -> list[str]:
    assert isinstance(value, Lines)
    return list(value.lines)


NAMES = "--format '{{.Repository}}:{{.Tag}}'"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("", ["<none>:<none>", "team/app:2", "team/app:1", "base:1"]),
        ("--filter dangling=true", ["<none>:<none>"]),
        ("-f dangling=0 -f label=team", ["team/app:2", "team/app:1"]),
        ("--filter label=n=1", ["team/app:1"]),
        ("--filter label=n=1 --filter label=n=2", []),
        ("--filter label!=team", ["base:1"]),
        ("--filter before=team/app:2", ["team/app:1", "base:1"]),
        ("--filter since=team/app:1", ["<none>:<none>", "team/app:2"]),
        ("--filter until=2024-02-15", ["team/app:1", "base:1"]),
        ("--filter until=1h", ["<none>:<none>", "team/app:2", "team/app:1", "base:1"]),
        ("--filter reference=base", ["base:1"]),
        ("--filter 'reference=team/*'", ["team/app:2", "team/app:1"]),
        ("--filter 'reference=*:1'", ["base:1"]),
        ("--filter 'reference=*/*:1' --filter reference=base", ["team/app:1", "base:1"]),
        ("team/app", ["team/app:2", "team/app:1"]),
        ("team/app:1", ["team/app:1"]),
        ("'b*'", ["base:1"]),
    ],
)
def test_a_filter_of_images_lets_pass_what_dockers_does(typed: Typed, words: str, names: list[str]) -> None:
    assert lines(typed(f"images {words} {NAMES}")) == names


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("--filter dangling=maybe", "neither true nor false"),
        ("--filter colour=red", "there is no filter 'colour'"),
        ("--filter label", "what should it be?"),
        ("--filter 'reference=[a'", "reference="),
        ("--filter until=tomorrow", "that is no time"),
        ("--format raw", "raw is not here"),
        ("--format '{{.Nome}}'", "there is no .Nome"),
        ("--format '{{.ID'", "{{ without a }}"),
    ],
)
def test_what_is_wrong_with_a_filter_or_a_format_is_said(typed: Typed, words: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        typed(f"images {words}")
    assert what in caught.value.message


def test_a_table_format_has_dockers_titles_and_columns(typed: Typed) -> None:
    value = typed(r"images --format 'table {{.Repository}}\t{{.Tag}}\t{{upper .Size}}' team/app")
    assert isinstance(value, Columns)
    assert value.text().split("\n") == [
        "REPOSITORY   TAG       SIZE",
        "team/app     2         8.19KB",
        "team/app     1         4.61KB",
    ]
    assert value.records()[0] == {"repository": "team/app", "tag": "2", "size": "8.19KB"}
    assert "<th" in value.html()


def test_the_json_format_is_an_object_a_line(typed: Typed) -> None:
    first = json.loads(lines(typed("images --format json base"))[0])
    assert first["Repository"] == "base"
    assert first["Containers"] == "0"
    assert first["UniqueSize"] == "0B"


def test_a_tree_shows_whose_layers_an_image_stands_on(typed: Typed) -> None:
    table = typed("images --tree")
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["base", "└─ team/app", "   ├─ <none>", "   └─ team/app"] or [
        row[0] for row in table.rows
    ] == ["base", "└─ team/app", "   └─ <none>", "      └─ team/app"]
    sizes = table.records()
    assert sizes[1]["added"] < sizes[1]["size"]


@pytest.mark.parametrize(
    ("line", "docker"),
    [
        ("ps -a --filter label='a b'", "docker ps --all '--filter=label=a b'"),
        ("images team/app", "docker images team/app"),
        ("volume ls", "docker volume ls"),
        ("volume ls -s", ""),
    ],
)
def test_a_table_says_what_one_types_to_docker_where_docker_has_it(typed: Typed, line: str, docker: str) -> None:
    table = typed(line)
    assert isinstance(table, Watched) and table.command == docker


def test_names_and_labels_of_others_cannot_steer_a_terminal(engine: Engine) -> None:
    config = ImageConfig(labels={"evil": "\x1b]0;pwned\x07\x1b[2J<script>"}, author="\x1b[2J<b>")
    engine.store.images.put(Image.of(config, []), Reference.parse("evil"))
    for line, shown in (('{{index .Config.Labels "evil"}}', "<script>"), ("{{.Author}}", "<b>")):
        command, options = parse_words("", ["inspect", "--type", "image", "-f", line, "evil"])
        assert repr(command.function(engine, options)) == shown


def test_history_with_dates_ids_and_templates(typed: Typed) -> None:
    assert lines(typed("history -q team/app:1"))[1:] == ["<missing>"]
    rows = lines(typed("history --format '{{.CreatedBy}} {{.CreatedAt}}' -H=false team/app:1"))
    assert rows == ["step 1 2024-02-01T00:00:00Z", "step 0 2024-02-01T00:00:00Z"]


def test_inspect_takes_templates_and_types(typed: Typed) -> None:
    assert lines(typed("inspect -f '{{join .RepoTags \",\"}} {{len .RootFS.Layers}}' base:1")) == ["base:1 1"]
    assert json.loads(lines(typed("image inspect --format json base:1"))[0])[0]["RepoTags"] == ["base:1"]
    assert lines(typed("version -f '{{.Client.Os}}'")) == ["linux"]
    assert lines(typed("info --format '{{.Images}}'")) == ["4"]
    with pytest.raises(UsageError):
        typed("inspect --type volume base:1")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("inspect -f '{{.Config.ExposedPorts}}{{range $p, $_ := .Config.ExposedPorts}}{{$p}}{{end}}' base:1", "map[]"),
        ("inspect -f '{{if .Config.Healthcheck}}y{{else}}n{{end}}' base:1", "n"),
        ("inspect -f '{{.Config.StopSignal}}|{{.Config.Hostname}}|{{.Config.OnBuild}}' base:1", "||[]"),
        ("inspect -f '{{.Config.Labels.nope}}|{{index .Config.Labels \"nope\"}}' team/app:1", "<no value>|"),
        ("image inspect -f '{{eq .ID .Id}} {{eq .Size .VirtualSize}}|{{.DockerVersion}}' base:1", "true true|"),
        ("image inspect -f '{{if .GraphDriver.Name}}named{{end}} {{.Metadata.LastTagTime}}' team/app:1",
         "named 0001-01-01 00:00:00 +0000 UTC"),
        ("network inspect -f '{{.Peers}} {{.Services}} {{eq .ID .Id}} {{.Labels.nope}}' host",
         "[] map[] true <no value>"),
        ("volume inspect -f '{{.UsageData}} {{.Status}} {{.Labels.nope}} {{json .Labels}}' kept",
         "<nil> map[] <no value> null"),
    ],
)  # fmt: skip
def test_a_field_that_is_not_set_answers_as_dockers_does(typed: Typed, machine: Engine, line: str, shown: str) -> None:
    machine.volumes.create("kept")
    assert lines(typed(line)) == [shown]


def test_a_field_that_docker_does_not_know_is_an_error_with_one_that_it_does(typed: Typed) -> None:
    with pytest.raises(UsageError, match="there is no .ExposedPort") as caught:
        typed("inspect -f '{{.Config.ExposedPort}}' base:1")
    assert caught.value.hint == "did you mean .ExposedPorts?"


def test_switches_can_be_told_true_or_false(typed: Typed) -> None:
    from nbcontain.commands.images import HistoryWords
    from nbcontain.runtime.generate import RunOptions

    assert parse(HistoryWords, "history", "", ["-H=false", "x"], {}).human is False
    assert parse(HistoryWords, "history", "", ["--human=true", "x"], {}).human is True
    assert parse(RunOptions, "run", "", ["--rm=false", "x", "a", "--rm=no"], {}).command == ("a", "--rm=no")
    with pytest.raises(UsageError):
        parse(HistoryWords, "history", "", ["--human=perhaps", "x"], {})


@pytest.mark.parametrize(("size_bytes", "text"), [(0, "0B"), (999, "999B"), (1000, "1kB"), (4261998, "4.26MB")])
def test_sizes_are_written_as_docker_writes_them(size_bytes: int, text: str) -> None:
    assert size_shown(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (61, "About a minute"), (5399, "About an hour"),
     (5400, "2 hours"), (86400 * 3, "3 days"), (86400 * 20, "2 weeks"), (86400 * 90, "3 months"),
     (86400 * 800, "2 years")],
)  # fmt: skip
def test_times_are_told_as_docker_tells_them(seconds: float, text: str) -> None:
    assert lasting(seconds) == text


def test_until_is_a_duration_a_date_or_seconds() -> None:
    assert instant("1h30m", now=10_000) == 4_600
    assert instant("10.5s", now=100) == 89.5
    assert instant("1700000000") == 1_700_000_000
    assert instant("2024-01-01T00:00:00Z") == 1_704_067_200
    assert Filters.parse(["Label!=x"], ("label!",)).pairs == (("label!", "x"),)


def test_what_an_image_alone_has_is_no_more_than_it_has(engine: Engine) -> None:
    """One config, stored with layers that are compressed in two ways: two manifests, one id."""
    layer, other = (add_layer(engine.store, archive(member(name, data=name.encode()))) for name in ("a", "longer"))
    config = ImageConfig(cmd=("sh",))
    one = Image.of(config, [layer])
    two = Image.of(config, [replace(layer, descriptor=other.descriptor)])
    assert one.id == two.id
    sizes = unique_bytes([one, two])
    assert [sizes[each.raw_manifest] for each in (one, two)] == [layer.descriptor.size, other.descriptor.size]


def test_a_containers_anonymous_volumes_and_its_having_no_check_are_told_as_dockers(
    engine: Engine, busybox_image: str, tmp_path: Path
) -> None:
    engine.create(RunOptions(
        image="busybox", name="c", volumes=("/x", "named:/y", f"{tmp_path}:/z"), no_healthcheck=True, network=("none",)
    ))  # fmt: skip
    inspect, words = parse_words("", ["inspect", "--format", "{{json .}}", "c"])
    document = json.loads(lines(inspect.function(engine, words))[0])
    assert document["Config"]["Volumes"] == {"/x": {}}
    assert document["Config"]["Healthcheck"] == {"Test": ["NONE"]}
    assert document["HostConfig"]["Binds"] == ["named:/y", f"{tmp_path}:/z"]
    assert {each["Destination"] for each in document["Mounts"]} == {"/x", "/y", "/z"}


def test_a_label_without_a_name_is_refused(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("=x\n")
    volume, words = parse_words("", split("volume create --label =x vv"))
    for make in (
        lambda: engine.create(RunOptions(image="busybox", labels=("=x",))),
        lambda: engine.create(RunOptions(image="busybox", label_file=(str(tmp_path / "labels"),))),
        lambda: engine.networks.create(NetworkRequest(name="n", labels=("=x",))),
        lambda: volume.function(engine, words),
    ):
        with pytest.raises(UsageError, match="invalid label '=x': empty name"):
            make()
    assert (engine.containers(), list(engine.volumes)) == ([], [])


def test_a_volume_may_be_named_as_it_was_once(typed: Typed) -> None:
    assert lines(typed("volume create --name vv")) == ["vv"]
    with pytest.raises(UsageError, match="the name is told twice"):
        typed("volume create --name v w")
