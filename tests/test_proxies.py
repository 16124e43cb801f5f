"""What programs in containers and build steps are told of proxies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbcontain.build.plan import BuildOptions
from nbcontain.build.provenance import ProvenanceOptions
from nbcontain.engine import Engine
from nbcontain.outcomes import RunResult
from nbcontain.proxies import proxies, told_of, with_proxies
from nbcontain.runtime.generate import RunOptions

FAR, NEAR = "http://ada:secret@proxy.example:3128", "http://127.0.0.1:3128/"


def test_both_ways_of_writing_are_told_and_dockers_configuration_comes_first(tmp_path: Path) -> None:
    environ = {"https_proxy": FAR, "HTTP_PROXY": "http://other:1", "HOME": str(tmp_path)}
    expected = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
    assert [each.partition("=")[0] for each in proxies(environ, shares_network=True)] == list(expected)
    (tmp_path / ".docker").mkdir()
    config = tmp_path / ".docker" / "config.json"
    config.write_text(json.dumps({"proxies": {"default": {"httpProxy": "http://configured:2", "noProxy": "*.local"}}}))
    told = dict(each.split("=", 1) for each in proxies(environ, shares_network=True))
    assert (told["http_proxy"], told["HTTPS_PROXY"], told["NO_PROXY"]) == ("http://configured:2", FAR, "*.local")
    for damaged in ("{", "[]", '{"proxies": 3}', '{"proxies": {"default": [1]}}', "\udcff"):
        config.write_bytes(damaged.encode(errors="surrogateescape"))
        assert (
            dict(each.split("=", 1) for each in proxies(environ, shares_network=True))["HTTP_PROXY"] == "http://other:1"
        )


@pytest.mark.parametrize("near", [NEAR, "localhost:8080", "http://[::1]:80", "socks5h://u:p@127.1.2.3:9"])
def test_a_proxy_of_this_machine_is_told_only_where_the_network_is_shared(near: str) -> None:
    environ = {"HTTP_PROXY": near, "NO_PROXY": "x"}
    assert len(proxies(environ, shares_network=True)) == 4
    assert proxies(environ, shares_network=False) == ()
    assert len(proxies({**environ, "HTTP_PROXY": FAR}, shares_network=False)) == 4


def test_which_ones_are_not_told_is_said() -> None:
    environ = {"HTTP_PROXY": NEAR, "https_proxy": "localhost:1", "NO_PROXY": "x", "ALL_PROXY": FAR}
    said = "HTTPS_PROXY, HTTP_PROXY are not told: a network of its own does not reach this machine's loopback"
    assert told_of(environ, shares_network=False)[1] == said
    assert told_of(environ, shares_network=True)[1] == ""
    for fine in ({"HTTP_PROXY": FAR, "NO_PROXY": "127.0.0.1"}, {}):
        assert told_of(fine, shares_network=False)[1] == ""


def test_a_build_argument_comes_before_what_is_configured() -> None:
    args = with_proxies(("http_proxy=mine",), {"HTTP_PROXY": "theirs", "ALL_PROXY": "all"}, "host")
    assert args == ("ALL_PROXY=all", "all_proxy=all", "http_proxy=mine")


def test_run_and_steps_have_them_and_images_have_not(root: Path, busybox_image: str, engine: Engine) -> None:
    with Engine(root, {**engine.environ, "HTTPS_PROXY": FAR, "HTTP_PROXY": NEAR}) as behind:
        script = "echo $https_proxy $HTTPS_PROXY $http_proxy"
        for extra, expected in (((), f"{FAR} {FAR} {NEAR}"), (("https_proxy=",), f"{FAR} {NEAR}")):
            options = RunOptions(image="busybox", command=("sh", "-c", script), environment=extra, remove=True)
            result = behind.run(options).result()
            assert isinstance(result, RunResult)
            assert result.stdout.split() == expected.split()
        text = f"FROM {busybox_image}\nRUN echo $HTTPS_PROXY > /told && env | grep -c -i _proxy > /count\n"
        image = behind.build(text, BuildOptions(tags=("told",))).result()
        assert b"".join(behind.anatomy.read("told", "/told")).decode().strip() == FAR
        assert "secret" not in image.raw_config.decode() + image.raw_manifest.decode()
    assert engine.build(text, BuildOptions(tags=("told",))).result().id == image.id
    with Engine(root, {**engine.environ, "HTTPS_PROXY": FAR}) as behind:
        mine = ("http_proxy=mine",)
        behind.run(RunOptions(image="busybox", command=("true",), environment=mine, name="committed")).result()
        [container] = behind.containers()
        assert [each for each in container.commit().config.env if "proxy" in each.lower()] == list(mine)
        options = BuildOptions(tags=("account",), provenance=ProvenanceOptions(mode="max"), no_cache=True)
        behind.build(text, options).result()
    stored = (each.read_bytes() for each in engine.layout.blobs.rglob("*") if each.is_file())
    assert not any(b"ada:secret" in each for each in stored)
