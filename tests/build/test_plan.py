"""Plans as files: corpus/plan/NAME/{Dockerfile, options.json} with its graph.json, or the error.txt that the user sees.

All share the base images of corpus/plan/images.json. After a wanted change, `python tests/build/test_plan.py`
writes the results anew; read the difference.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.build.graph import Base, BuildGraph, ExecOp, Vertex
from nbcontain.build.plan import BuildOptions, plan
from nbcontain.dockerfile import parse
from nbcontain.errors import DockerfileError, ImageNotFound, NbcontainError
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import CONFIG, Descriptor, Image, ImageConfig, Manifest, Platform
from nbcontain.oci.reference import Reference

CORPUS = Path(__file__).parent.parent / "corpus" / "plan"
CASES = sorted(path.name for path in CORPUS.iterdir() if path.is_dir())
AMD64 = Platform("linux", "amd64")


def image(name: str, config: ImageConfig) -> Image:
    """An image without layers, named by its digest; enough for a plan."""
    raw = name.encode()
    return Image(Manifest(Descriptor(CONFIG, Digest.of(raw), len(raw)), ()), config, raw, raw)


def base_images() -> dict[str, Image]:
    values = json.loads((CORPUS / "images.json").read_text())
    frozen = {
        name: {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        for name, fields in values.items()
    }
    return {name: image(name, ImageConfig(AMD64, **fields)) for name, fields in frozen.items()}


IMAGES = base_images()


def resolve(reference: Reference, platform: Platform) -> Image:
    try:
        return IMAGES[reference.familiar_repository]
    except KeyError:
        raise ImageNotFound(f"no image {reference.familiar}", hint="pull it") from None


def planned(source: str, **options: Any) -> BuildGraph:
    return plan(parse(source), BuildOptions(platform=AMD64, **options), resolve, environ={"FROM_ENV": "seen"})


def shown(graph: BuildGraph) -> dict[str, Any]:
    """A graph as JSON: vertices by number, and of every value what is not its default."""
    numbers = {vertex: number for number, vertex in enumerate(graph.vertices())}
    return {
        "vertices": [
            {**operation(vertex), **({"inputs": [numbers[each] for each in vertex.inputs]} if vertex.inputs else {})}
            for vertex in numbers
        ],
        "steps": [
            [step.stage, step.name, None if step.vertex is None else numbers.get(step.vertex)] for step in graph.steps
        ],
        "config": differing(graph.config, {"history", "platform"}),
        "history": [("" if entry.empty_layer else "* ") + entry.created_by for entry in graph.config.history],
        "remarks": [remark.message for remark in graph.remarks],
    }


def operation(vertex: Vertex) -> dict[str, Any]:
    if isinstance(vertex.operation, Base):
        return {"Base": vertex.label.removeprefix("FROM ")}
    return {type(vertex.operation).__name__: differing(vertex.operation, set())}


def differing(value: Any, dropped: set[str]) -> dict[str, Any]:
    fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value) if each.name not in dropped}
    kept = {name: field for name, field in fields.items() if field not in (None, "", (), {}, False)}
    return {name: plain(field) if name != "healthcheck" else dataclasses.asdict(field) for name, field in kept.items()}


def plain(value: Any) -> Any:
    """Values in values, such as the mounts of a RUN, as JSON."""
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    return {type(value).__name__: differing(value, set())} if dataclasses.is_dataclass(value) else value


def result(name: str) -> tuple[str, str]:
    """The name and content of the file that says what planning gives."""
    folder = CORPUS / name
    options = json.loads((folder / "options.json").read_text()) if (folder / "options.json").exists() else {}
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        graph = planned((folder / "Dockerfile").read_text(), **options)
    except NbcontainError as error:
        return "error.txt", "\n".join(error.lines()) + "\n"
    return "graph.json", json.dumps(shown(graph), indent=1) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_a_plan_is_what_its_folder_says(name: str) -> None:
    file, text = result(name)
    expected = CORPUS / name / file
    assert expected.exists(), text
    assert (
        json.loads(text) == json.loads(expected.read_text()) if file == "graph.json" else text == expected.read_text()
    )


def target(source: str, **options: Any) -> Digest:
    return planned(source, **options).target.digest


def test_metadata_is_no_part_of_the_file_system() -> None:
    assert target("FROM plain\nRUN x\nLABEL a=b\nCMD y\n") == target("FROM plain\nRUN x\n")


def test_the_environment_is_part_of_a_run() -> None:
    assert target("FROM plain\nENV A=1\nRUN x\n") != target("FROM plain\nRUN x\n")


def test_an_undeclared_proxy_reaches_the_program_and_changes_nothing() -> None:
    plain, proxied = (
        planned("FROM plain\nRUN x\n"),
        planned("FROM plain\nRUN x\n", build_args=("https_proxy=http://p",)),
    )
    assert plain.target == proxied.target and plain.config == proxied.config
    assert isinstance(proxied.target.operation, ExecOp)
    assert proxied.target.operation.secret_env == ("HTTPS_PROXY=http://p", "https_proxy=http://p")


def test_equal_stages_are_one_vertex() -> None:
    graph = planned(
        "FROM plain AS a\nRUN x\nFROM plain AS b\nRUN x\nFROM plain\nCOPY --from=a f /\nCOPY --from=b f /\n"
    )
    assert len(graph.vertices()) == 4


def test_a_build_arg_without_a_value_comes_from_the_environment() -> None:
    graph = planned("FROM plain\nARG FROM_ENV ABSENT=d\nENV A=$FROM_ENV$ABSENT\n", build_args=("FROM_ENV", "ABSENT"))
    assert graph.config.env[1:] == ("A=seend",)


def test_a_user_that_a_variable_leaves_empty_is_the_images_first_one_as_in_buildkit() -> None:
    graph = planned("FROM plain\nUSER app\nUSER $NOBODY\n")
    assert graph.config.user == ""
    assert [each.rule for each in graph.remarks if each.rule == "UndefinedVar"] == ["UndefinedVar"]


def test_a_document_for_the_shell_is_shown_by_its_first_line_once() -> None:
    steps = planned("FROM plain\nRUN <<E\na\nb\nE\nRUN cat <<E\nc\nE\n").steps
    assert [step.name for step in steps[1:]] == ["RUN <<E (a…)", "RUN cat <<E (c)"]


def test_stages_that_are_not_needed_are_not_resolved() -> None:
    assert planned("FROM absent AS unused\nFROM plain\nRUN x\n").vertices()


def test_a_platform_is_asked_for_as_the_stage_says() -> None:
    asked: list[Platform] = []

    def note(reference: Reference, platform: Platform) -> Image:
        asked.append(platform)
        return IMAGES["plain"]

    source = "FROM --platform=aarch64 a AS x\nFROM --platform=$TARGETPLATFORM b\nCOPY --from=x f /\n"
    plan(parse(source), BuildOptions(platform=AMD64), note, {})
    assert asked == [Platform("linux", "arm64"), AMD64]


def test_history_steps_belong_to_the_new_entries_one_by_one() -> None:
    graph = planned("FROM base AS a\nRUN 1\nENV A=b\nFROM a\nCOPY x /\nCMD y\n")
    assert [step.created_by for step in graph.history_steps] == [entry.created_by for entry in graph.config.history]
    assert [step.vertex is None for step in graph.history_steps] == [
        entry.empty_layer for entry in graph.config.history
    ]


def test_every_vertex_belongs_to_a_step() -> None:
    graph = planned("FROM plain AS a\nRUN x\nFROM with-triggers\nCOPY --from=base f /\nCOPY --from=a f /\n")
    assert set(graph.vertices()) <= {step.vertex for step in graph.steps}


def test_a_value_that_doubles_at_each_line_is_refused_soon() -> None:
    started = time.process_time()
    with pytest.raises(DockerfileError, match="longer"):
        planned("FROM plain\nENV A=xxxxxxxx\n" + "ENV A=$A$A\n" * 40)
    assert time.process_time() - started < 5


def test_thousands_of_stages_are_planned_in_seconds() -> None:
    stages = "FROM plain AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\nRUN x\n" for n in range(1500))
    started = time.process_time()
    assert len(planned(stages).vertices()) == 1501
    assert time.process_time() - started < 5


def test_thousands_of_instructions_are_planned_in_seconds() -> None:
    started = time.process_time()
    assert len(planned("FROM plain\n" + "".join(f"ENV A{n}=b\n" for n in range(5000))).config.env) == 5001
    # 1.3 s; where each call of the kernel's is traced, as by an old gVisor, six times that.
    assert time.process_time() - started < 20


INSTRUCTIONS = [
    "FROM plain AS a\n",
    "FROM a\n",
    "FROM scratch\n",
    "ARG A=$B\n",
    "ENV B=${A:-x}\n",
    "RUN x\n",
    "COPY --from=a x y\n",
    "COPY --from=0 x y\n",
    "WORKDIR $B\n",
    "CMD x\n",
    'ENTRYPOINT ["e"]\n',
    "EXPOSE $B\n",
    "USER $A\n",
    "ONBUILD RUN x\n",
]


@given(st.lists(st.sampled_from(INSTRUCTIONS), max_size=12).map("".join))
def test_any_dockerfile_is_planned_or_refused_in_place(source: str) -> None:
    try:
        graph = planned(source)
    except DockerfileError as error:
        assert error.source == source
        return
    vertices = graph.vertices()
    assert vertices[-1] == graph.target
    assert all(vertices.index(below) < number for number, vertex in enumerate(vertices) for below in vertex.inputs)


if __name__ == "__main__":
    for case in CASES:
        file, text = result(case)
        (CORPUS / case / file).write_text(text)
