"""Archives and registries that a build hands its image to, annotations by level, and provenance."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import needs
from nbcontain.__main__ import main
from nbcontain.build.annotations import annotations_of
from nbcontain.build.outputs import Output
from nbcontain.build.plan import BuildOptions
from nbcontain.build.provenance import ProvenanceOptions, provenance_of
from nbcontain.build.secrets import Secret
from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError, UsageError
from nbcontain.oci import codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Platform
from registry.server import Registry
from servers import serving

TEXT = "FROM busybox\nRUN echo x > /x\n"
V1 = "https://slsa.dev/provenance/v1"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One for all tests here."""
    root = Path(tempfile.mkdtemp(prefix="nbcontain-test-", dir=needs.scratch()))
    with Engine(root) as engine:
        yield engine
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def cli(engine: Engine, busybox_image: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A context with a Dockerfile, for commands on that store."""
    monkeypatch.setenv("NBCONTAIN_ROOT", str(engine.layout.root))
    (tmp_path / "c").mkdir()
    (tmp_path / "c/Dockerfile").write_text(TEXT)
    return tmp_path / "c"


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    yield registry
    registry.close()


def layout(path: Path, into: Path) -> dict[str, Any]:
    """index.json of a layout in a tar, which is unpacked."""
    with tarfile.open(path) as archive:
        archive.extractall(into, filter="data")
    return json.loads((into / "index.json").read_text())  # type: ignore[no-any-return]


def blob(root: Path, digest: str) -> Any:
    return json.loads((root / "blobs" / digest.replace(":", "/")).read_text())


# --- archives ---------------------------------------------------------------------------------


def test_a_build_is_written_as_archives_that_others_read(engine: Engine, cli: Path, tmp_path: Path) -> None:
    skopeo = needs.program("skopeo")
    words = ["-o", f"type=oci,dest={tmp_path / 'oci.tar'}", "-o", f"type=docker,dest={tmp_path / 'docker.tar'}",
             "-o", f"type=oci,dest={tmp_path / 'layout'},tar=false", "-o", str(tmp_path / "files")]  # fmt: skip
    assert main(["build", "-q", "-t", "made:1", *words, str(cli)]) == 0
    wanted = str(engine.image("made:1").id)
    for source in (f"oci-archive:{tmp_path / 'oci.tar'}:1", f"docker-archive:{tmp_path / 'docker.tar'}:made:1",
                   f"oci:{tmp_path / 'layout'}:1"):  # fmt: skip
        said = subprocess.run([skopeo, "inspect", "--raw", source], capture_output=True, check=True).stdout
        config = subprocess.run([skopeo, "inspect", "--config", "--raw", source], capture_output=True, check=True)
        assert json.loads(said)["schemaVersion"] == 2
        assert str(Digest.of(config.stdout)) == wanted
    assert (tmp_path / "files/x").read_text() == "x\n"
    with tarfile.open(tmp_path / "oci.tar") as archive:
        assert "manifest.json" not in archive.getnames()


def test_what_is_written_can_be_loaded_again(engine: Engine, cli: Path, tmp_path: Path) -> None:
    assert main(["build", "-q", "-t", "again:1", "-o", f"type=oci,dest={tmp_path / 'a.tar'}", "--provenance",
                 str(cli)]) == 0  # fmt: skip
    image = engine.image("again:1")
    engine.remove_image("again:1")
    [loaded] = engine.archives.load(str(tmp_path / "a.tar")).result()
    assert loaded.image.id == image.id
    assert [each.familiar for each in loaded.names] == ["again:1"]


@pytest.mark.parametrize(
    "text",
    [
        "type=local", "type=what,dest=x", "type=tar,dest=x,more=1", "type=oci,dest=x,compression=estargz",
        "type=oci,dest=x,compression=zstd,compression-level=23", "type=local,dest=x,compression=zstd",
        "type=oci,dest=x,compression-level=3", "type=oci,dest=x,compression=zstd,compression-level=fast",
        "type=image,force-compression=perhaps",
        "type=image,dest=x", "type=oci,tar=false", "type=oci,dest=-,tar=false", "type=docker,push=true,dest=x",
        "type=oci,dest=x,tar=maybe", "type=image,name=A B", 'type=oci,"dest=x', "type=image,annotation.a=b",
    ],
)  # fmt: skip
def test_an_output_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Output.parse(text)


def test_outputs_are_read_as_buildx_reads_them() -> None:
    assert Output.parse("out") == Output("local", "out")
    assert Output.parse("-") == Output("tar", "-")
    assert Output.parse("type=oci") == Output("oci", "-")
    assert Output.parse("type=docker") == Output("docker")
    assert Output.parse("type=registry").push
    named = Output.parse('type=image,"name=a,b:2",push=true,push-by-digest=true')
    assert [each.familiar for each in named.names] == ["a:latest", "b:2"]
    assert [each.familiar for each in named.targets(())] == ["a", "b"]


def test_standard_output_is_one_only(engine: Engine, busybox_image: str) -> None:
    with pytest.raises(UsageError, match="one -o"):
        engine.build(TEXT, BuildOptions(outputs=(Output.parse("-"), Output.parse("type=oci"))))


def test_standard_output_has_the_archive_and_nothing_else(cli: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["build", "-o", "type=tar", str(cli)]) == 0
    data = capfdbinary.readouterr().out
    assert b"sha256:" not in data and not data.strip(b"\0")[-1:].isspace() and len(data) % 512 == 0


def test_an_output_can_name_the_image(engine: Engine, cli: Path) -> None:
    assert main(["build", "-q", "-o", "type=image,name=named.example/by/output:7", str(cli)]) == 0
    assert engine.image("named.example/by/output:7")


# --- registries -------------------------------------------------------------------------------


def test_a_build_is_pushed(engine: Engine, cli: Path, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/team/app"
    assert main(["build", "-q", "-t", f"{name}:1", "-t", f"{name}:2", "--push", str(cli)]) == 0
    image = engine.image(f"{name}:1")
    assert registry.manifests["team/app", "1"][1] == image.raw_manifest == registry.manifests["team/app", "2"][1]
    assert main(["build", "-q", "-o", f"type=image,name={registry.host}/by/digest,push-by-digest=true,push=true",
                 str(cli)]) == 0  # fmt: skip
    assert [tag for repository, tag in registry.manifests if repository == "by/digest"] == [str(image.digest)]


def test_a_push_without_a_name_is_refused_before_anything_is_done(
    cli: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "--push", str(cli)]) != 0
    said = capsys.readouterr().err
    assert "needs a name" in said and "RUN" not in said


def test_provenance_is_pushed_beside_the_image_as_buildkit_does(
    engine: Engine, cli: Path, registry: Registry, tmp_path: Path
) -> None:
    name = f"{registry.host}/team/app:1"
    words = ["--provenance=mode=max", "--annotation", "index:who=me", "--metadata-file", str(tmp_path / "m.json")]
    assert main(["build", "-q", "-t", name, "--push", *words, str(cli)]) == 0
    kind, raw = registry.manifests["team/app", "1"]
    index = json.loads(raw)
    assert kind == index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert index["annotations"] == {"who": "me"}
    image, attestation = index["manifests"]
    assert image["digest"] == str(engine.image(name).digest)
    assert image["platform"] == {"architecture": Platform.here().architecture, "os": "linux"}
    assert attestation["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert attestation["annotations"] == {
        "vnd.docker.reference.digest": image["digest"], "vnd.docker.reference.type": "attestation-manifest",
    }  # fmt: skip
    manifest = codec.parse_manifest(registry.manifests["team/app", attestation["digest"]][1])
    [layer] = manifest.layers
    assert layer.media_type == "application/vnd.in-toto+json"
    assert layer.annotations == {"in-toto.io/predicate-type": V1}
    config = json.loads(registry.blobs[str(manifest.config.digest)])
    assert config["rootfs"]["diff_ids"] == [str(layer.digest)]
    said = json.loads(registry.blobs[str(layer.digest)])
    assert said["predicateType"] == V1
    [subject] = said["subject"]
    assert f"sha256:{subject['digest']['sha256']}" == image["digest"]
    metadata = json.loads((tmp_path / "m.json").read_text())
    assert metadata["containerimage.digest"] == str(Digest.of(raw))
    assert metadata["containerimage.descriptor"]["mediaType"] == kind
    assert metadata["buildx.build.provenance"] == said["predicate"]
    # Whoever pulls it gets the image.
    engine.remove_image(name)
    assert engine.registry.pull(name).result() is not None
    assert str(engine.image(name).digest) == image["digest"]


# --- annotations ------------------------------------------------------------------------------


def test_annotations_go_to_the_level_that_they_name(engine: Engine, cli: Path, tmp_path: Path) -> None:
    here = str(Platform.here())
    words = [
        "a=1", "manifest:b=2", "index:c=3", "manifest-descriptor:d=4", "index-descriptor:e=5",
        "index,manifest:f=6", f"manifest[{here}]:g=7", "manifest[linux/none]:h=8", "org.x/y:z=9",
    ]  # fmt: skip
    flags = [each for word in words for each in ("--annotation", word)]
    assert main(["build", "-q", "-t", "made:1", "--provenance", "-o", f"type=oci,dest={tmp_path / 'o.tar'}", *flags,
                 str(cli)]) == 0  # fmt: skip
    [entry] = layout(tmp_path / "o.tar", tmp_path / "o")["manifests"]
    assert entry["annotations"]["e"] == "5"
    index = blob(tmp_path / "o", entry["digest"])
    assert index["annotations"] == {"c": "3", "f": "6"}
    assert index["manifests"][0]["annotations"] == {"d": "4"}
    manifest = blob(tmp_path / "o", index["manifests"][0]["digest"])
    assert manifest["annotations"] == {"a": "1", "b": "2", "f": "6", "g": "7", "org.x/y:z": "9"}


def test_a_manifests_descriptor_is_annotated_without_an_index_too(cli: Path, tmp_path: Path) -> None:
    assert main(["build", "-q", "-o", f"type=oci,dest={tmp_path / 'o.tar'}", "--annotation", "manifest-descriptor:d=4",
                 str(cli)]) == 0  # fmt: skip
    [entry] = layout(tmp_path / "o.tar", tmp_path / "o")["manifests"]
    assert entry["annotations"] == {"d": "4"}


def test_an_index_that_there_is_not_cannot_be_annotated(cli: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--annotation", "index:a=b", str(cli)]) != 0
    assert "no index" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["=x", "", "layer:a=b", "manifest:=x"])
def test_an_annotation_that_makes_no_sense_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        annotations_of([word], Platform.here())


# --- provenance -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "attests", "asked"),
    [
        ("", (), None), ("true", (), ProvenanceOptions()), ("false", (), None),
        ("mode=max,version=v0.2", (), ProvenanceOptions("max", "v0.2")),
        ("", ("type=provenance,mode=max,builder-id=https://x.example,reproducible=true",),
         ProvenanceOptions("max", "v1", "https://x.example", True)),
        ("false", ("type=provenance",), None), ("", ("type=provenance,disabled=true",), None),
        ("", ("type=sbom,disabled=true", "type=provenance"), ProvenanceOptions()),
    ],
)  # fmt: skip
def test_provenance_is_asked_for_as_with_buildx(
    words: str, attests: tuple[str, ...], asked: ProvenanceOptions | None
) -> None:
    assert provenance_of(words, attests) == asked


@pytest.mark.parametrize("words", [["--sbom"], ["--sbom=true"], ["--attest", "type=sbom"], ["--attest", "type=x"],
                                   ["--provenance=mode=all"], ["--provenance=what=1"]])  # fmt: skip
def test_what_cannot_be_attested_is_refused_by_name(
    cli: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", *words, str(cli)]) != 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_flag_that_stands_alone_takes_no_word_that_is_not_its_own(cli: Path, tmp_path: Path) -> None:
    place = f"type=local,dest={tmp_path / 'out'}"
    assert main(["build", "-q", "-o", place, "--sbom", "false", "--provenance", str(cli)]) == 0
    said = json.loads((tmp_path / "out/provenance.json").read_text())
    assert said["predicateType"] == V1
    assert main(["build", "-q", "-o", f"type=tar,dest={tmp_path / 'out.tar'}", "--provenance", "mode=max,version=v0.2",
                 str(cli)]) == 0  # fmt: skip
    with tarfile.open(tmp_path / "out.tar") as archive:
        file = archive.extractfile("provenance.json")
        assert file is not None
        old = json.loads(file.read())
        assert "x" in archive.getnames()
    assert old["predicateType"] == "https://slsa.dev/provenance/v0.2"
    assert old["predicate"]["invocation"]["configSource"] == {"entryPoint": "Dockerfile"}


def test_the_least_that_is_told_has_what_went_in_and_no_arguments(
    engine: Engine, busybox_image: str, tmp_path: Path
) -> None:
    with serving() as server:
        server.put("/f", b"x")
        url = server.url.replace("//", "//me:pw@")
        text = f"FROM busybox AS one\nARG A\nFROM one\nADD {url}/f /f\nRUN --network=none true\n"
        options = BuildOptions(
            build_args=("A=1",), labels=("l=2",), metadata_file=str(tmp_path / "m"), target="1", context={"x": "y"},
        )  # fmt: skip
        engine.build(text, options).result()
        told = json.loads((tmp_path / "m").read_text())["buildx.build.provenance"]
        definition, details = told["buildDefinition"], told["runDetails"]
        request = definition["externalParameters"]["request"]
        places = [{"name": "context"}, {"name": "dockerfile"}]
        assert request == {"frontend": "dockerfile.v0", "args": {"target": "1"}, "locals": places}
        base, remote = definition["resolvedDependencies"]
        assert base["uri"].startswith("pkg:docker/busybox@latest?platform=linux%2F")
        assert f"sha256:{base['digest']['sha256']}" == str(engine.image("busybox").digest)
        assert remote["uri"] == f"{server.url}/f"
    assert details["metadata"]["buildkit_hermetic"] is True
    assert details["metadata"]["buildkit_completeness"] == {"request": False, "resolvedDependencies": False}
    assert details["metadata"]["startedOn"] <= details["metadata"]["finishedOn"]
    assert "buildConfig" not in definition["internalParameters"]


def test_the_most_that_is_told_has_steps_and_source_and_no_secret(
    engine: Engine, busybox_image: str, tmp_path: Path
) -> None:
    text = "FROM busybox\nARG API_TOKEN\nARG PLAIN\n"
    text += "RUN --mount=type=secret,id=s,required=true cat /run/secrets/s > /dev/null\n"
    options = BuildOptions(
        tags=("told:1",), build_args=("API_TOKEN=canary-argument", "PLAIN=p"), provenance=ProvenanceOptions("max"),
        secrets={"s": Secret("s", content=b"canary-secret")}, outputs=(Output("oci", str(tmp_path / "o.tar")),),
        labels=("who=me",),
    )  # fmt: skip
    engine.build(text, options).result()
    data = (tmp_path / "o.tar").read_bytes()
    assert b"canary" not in data.replace(b"API_TOKEN=canary-argument", b"")  # history has it, as docker's has
    [entry] = layout(tmp_path / "o.tar", tmp_path / "o")["manifests"]
    index = blob(tmp_path / "o", entry["digest"])
    said = blob(tmp_path / "o", blob(tmp_path / "o", index["manifests"][1]["digest"])["layers"][0]["digest"])
    told = said["predicate"]
    definition = told["buildDefinition"]
    request = definition["externalParameters"]["request"]
    assert request["args"] == {"build-arg:API_TOKEN": "", "build-arg:PLAIN": "p", "label:who": "me"}
    assert request["secrets"] == [{"id": "s"}]
    steps = definition["internalParameters"]["buildConfig"]["steps"]
    assert [(each["id"], each["kind"], each.get("inputs")) for each in steps] == [
        ("step0", "Base", None), ("step1", "ExecOp", ["step0"]),
    ]  # fmt: skip
    [info] = told["runDetails"]["metadata"]["buildkit_metadata"]["source"]["infos"]
    assert base64.b64decode(info["data"]).decode() == text
    assert "step0:0" in told["runDetails"]["metadata"]["buildkit_metadata"]["layers"]
    assert said["subject"][0]["name"].startswith("pkg:docker/told@1?platform=linux%2F")


def test_a_file_that_cannot_be_written_is_one_error(engine: Engine, busybox_image: str) -> None:
    for output in ("type=oci,dest=/proc/x", "type=local,dest=/proc/x", "type=oci,tar=false,dest=/proc/x"):
        with pytest.raises(NbcontainError):
            engine.build(TEXT, BuildOptions(outputs=(Output.parse(output),))).result()
