"""BuildKit's checks, by its pages: of each rule what is bad, where and in which words, and what is good; our hints.

Of BuildKit's own tests they show testRuleCheckOption, testStageName, testNoEmptyContinuation,
testConsistentInstructionCasing, testDuplicateStageName, testReservedStageName, testJSONArgsRecommended,
testMaintainerDeprecated, testUndeclaredArg, testWorkdirRelativePath, testUnmatchedVars,
testMultipleInstructionsDisallowed, testLegacyKeyValueFormat, testRedundantTargetPlatform, testSecretsUsedInArgOrEnv,
testInvalidDefaultArgInFrom, testFromPlatformFlagConstDisallowed, testCopyIgnoredFiles, testCopyIgnoredFileContextRoot,
testCopyIgnoredFileNegation, testDefinitionDescription, testExposeProtoCasing, testExposeInvalidFormat and
testBaseImagePlatformMismatch.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from nbcontain.build.lint import check
from nbcontain.build.patterns import Ignore
from nbcontain.build.plan import BuildOptions, plan
from nbcontain.build.readable import Readable
from nbcontain.dockerfile import parse
from nbcontain.dockerfile.checks import checks
from nbcontain.dockerfile.rules import CHECKS, HINTS
from nbcontain.errors import DockerfileError, ImageNotFound
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import CONFIG, Descriptor, Image, ImageConfig, Manifest, Platform
from nbcontain.oci.reference import Reference

BASE = ImageConfig(Platform("linux", "amd64"), env=("PATH=/bin", "LANG=C"))


def resolve(reference: Reference, platform: Platform) -> Image:
    if reference.repository == "library/absent":
        raise ImageNotFound("no image absent")
    return Image(Manifest(Descriptor(CONFIG, Digest.of(b""), 0), ()), BASE, b"", b"")


def found(source: str, **options: Any) -> list[tuple[str, int, str]]:
    ignore = Ignore.parse(options.pop("ignore", ""))
    report = check(
        parse(source), BuildOptions(platform=BASE.platform, **options), resolve, {},
        ignore.leaves_out,
    )  # fmt: skip
    return [(each.rule, each.span.first if each.span else 0, each.message) for each in report.remarks]


BAD: dict[str, list[tuple[str, list[tuple[int, str]]]]] = {
    "StageNameCasing": [("FROM a:1 AS Build\n", [(1, "Stage name 'Build' should be lowercase")])],
    "FromAsCasing": [
        ("FROM a:1 as b\n", [(1, "'as' and 'FROM' keywords' casing do not match")]),
        ("from a:1 AS b\n", [(1, "'AS' and 'from' keywords' casing do not match")]),
    ],
    "NoEmptyContinuation": [("FROM a:1\nRUN b \\\n\n c\nRUN d \\\n e\n", [(4, "Empty continuation line")])],
    "ConsistentInstructionCasing": [
        (
            "FROM a:1\nrun b\nRUN c\n",
            [(2, "Command 'run' should match the case of the command majority (uppercase)")],
        ),
        (
            "From a:1\nrun b\nrun c\n",
            [(1, "Command 'From' should match the case of the command majority (lowercase)")],
        ),
    ],
    "DuplicateStageName": [
        ("FROM a:1 AS b\nFROM a:1 AS b\n", [(2, 'Duplicate stage name "b", stage names should be unique')])
    ],
    "ReservedStageName": [
        ("FROM a:1 AS scratch\n", [(1, 'Stage name should not use the same name as reserved stage "scratch"')]),
        ("FROM a:1 AS context\n", [(1, 'Stage name should not use the same name as reserved stage "context"')]),
    ],
    "JSONArgsRecommended": [
        (
            "FROM a:1\nCMD b\nENTRYPOINT c\n",
            [
                (2, "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals"),
                (3, "JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals"),
            ],
        )
    ],
    "MaintainerDeprecated": [
        ("FROM a:1\nMAINTAINER me\n", [(2, "Maintainer instruction is deprecated in favor of using label")])
    ],
    "UndefinedArgInFrom": [
        ("ARG VERSION=1\nFROM a:${VERSON}\n", [(2, "FROM argument 'VERSON' is not declared (did you mean VERSION?)")]),
        ("FROM --platform=$PLATE a:1\n", [(1, "FROM argument 'PLATE' is not declared")]),
    ],
    "WorkdirRelativePath": [
        (
            "FROM a:1\nWORKDIR b\nWORKDIR c\n",
            [(2, 'Relative workdir "b" can have unexpected results if the base image changes')],
        )
    ],
    "UndefinedVar": [
        (
            "FROM a:1\nENV NAME=x\nCOPY $NAMR /y\n",
            [(3, "Usage of undefined variable '$NAMR' (did you mean $NAME?)")],
        ),
        ("FROM a:1\nUSER $WHO-x\n", [(2, "Usage of undefined variable '$WHO'")]),
    ],
    "MultipleInstructionsDisallowed": [
        (
            'FROM a:1\nCMD ["b"]\nCMD ["c"]\n',
            [
                (
                    2,
                    "Multiple CMD instructions should not be used in the same stage because only the last one will be"
                    " used",
                )
            ],
        )
    ],
    "LegacyKeyValueFormat": [
        (
            "FROM a:1\nENV B c d\nLABEL e f\n",
            [
                (2, '"ENV key=value" should be used instead of legacy "ENV key value" format'),
                (3, '"LABEL key=value" should be used instead of legacy "LABEL key value" format'),
            ],
        )
    ],
    "InvalidBaseImagePlatform": [
        (
            "ARG P=linux/arm64\nFROM --platform=$P a:1\n",
            [(2, 'Base image a:1 was pulled with platform "linux/amd64", expected "linux/arm64" for current build')],
        )
    ],
    "RedundantTargetPlatform": [
        (
            "FROM --platform=$TARGETPLATFORM a:1\n",
            [
                (
                    1,
                    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default"
                    " behavior",
                )
            ],
        )
    ],
    "SecretsUsedInArgOrEnv": [
        (
            "FROM a:1\nARG API_KEY\nENV DB_PASSWORD=x\n",
            [
                (2, 'Do not use ARG or ENV instructions for sensitive data (ARG "API_KEY")'),
                (3, 'Do not use ARG or ENV instructions for sensitive data (ENV "DB_PASSWORD")'),
            ],
        )
    ],
    "InvalidDefaultArgInFrom": [
        ("ARG TAG\nFROM a:$TAG\n", [(2, "Default value for ARG a:$TAG results in empty or invalid base image name")])
    ],
    "FromPlatformFlagConstDisallowed": [
        (
            "FROM --platform=linux/amd64 a:1\n",
            [(1, 'FROM --platform flag should not use constant value "linux/amd64"')],
        )
    ],
    "CopyIgnoredFile": [
        (
            "FROM a:1\nCOPY ./tmp/x /\nADD tmp/y /\n",
            [
                (2, 'Attempting to Copy file "tmp/x" that is excluded by .dockerignore'),
                (3, 'Attempting to Add file "tmp/y" that is excluded by .dockerignore'),
            ],
        )
    ],
    "InvalidDefinitionDescription": [
        (
            "# nothing about it\nFROM a:1 AS b\n# neither\nARG C=1\n",
            [
                (2, "Comment for FROM should follow the format: `# b <description>`"),
                (4, "Comment for ARG should follow the format: `# C <description>`"),
            ],
        )
    ],
    "ExposeProtoCasing": [
        ("FROM a:1\nEXPOSE 80/TcP\n", [(2, "Defined protocol '80/TcP' in EXPOSE instruction should be lowercase")])
    ],
    "ExposeInvalidFormat": [
        (
            "FROM a:1\nEXPOSE 127.0.0.1:80:80 8080:81\n",
            [
                (
                    2,
                    f"EXPOSE instruction should not define an IP address or host-port mapping, found '{found}'",
                )
                for found in ("127.0.0.1:80:80", "8080:81")
            ],
        )
    ],
}

GOOD: dict[str, list[str]] = {
    "StageNameCasing": ["FROM a:1 AS build\n"],
    "FromAsCasing": ["FROM a:1 AS b\n", "from a:1 as b\n", "From a:1 as b\n"],
    "NoEmptyContinuation": ["FROM a:1\nRUN b \\\n # said\n c\n"],
    "ConsistentInstructionCasing": ["FROM a:1\nRUN b\n", "from a:1\nrun b\n"],
    "DuplicateStageName": ["FROM a:1 AS b\nFROM a:1 AS c\n", "FROM a:1\nFROM a:1\n"],
    "ReservedStageName": ["FROM scratch AS base\n"],
    "JSONArgsRecommended": ['FROM a:1\nCMD ["b"]\n', 'FROM a:1\nSHELL ["/bin/bash", "-c"]\nCMD b\n'],
    "MaintainerDeprecated": ["FROM a:1\nLABEL org.opencontainers.image.authors=me\n"],
    "UndefinedArgInFrom": ["ARG V=1\nFROM a:$V\n", "FROM --platform=$BUILDPLATFORM a:1\n", "FROM a:${V:-1}\n"],
    "WorkdirRelativePath": ["FROM a:1\nWORKDIR /b\nWORKDIR c\n", "FROM a:1 AS x\nWORKDIR /b\nFROM x\nWORKDIR c\n"],
    "UndefinedVar": [
        "FROM a:1\nARG B\nCOPY $B $PATH$LANG /y\n",
        "FROM a:1\nRUN echo $NOT_OURS\nCMD $NOT_OURS\n",
        "FROM a:1\nUSER ${WHO:-me}\n",
        "FROM a:1\nARG TARGETARCH\nCOPY x-$TARGETARCH /\n",
    ],
    "MultipleInstructionsDisallowed": ['FROM a:1\nCMD ["b"]\nFROM a:1\nCMD ["c"]\n'],
    "LegacyKeyValueFormat": ["FROM a:1\nENV B=c\nLABEL d='e f'\n"],
    "InvalidBaseImagePlatform": ["FROM a:1\n", "FROM scratch\n"],
    "RedundantTargetPlatform": ["FROM a:1\n", "FROM --platform=$BUILDPLATFORM a:1\n"],
    "SecretsUsedInArgOrEnv": ["FROM a:1\nENV MONKEY=1 PUBLIC_KEY=x KEYBOARD=us TOKEN_FILE=/x KEY_VERSION=2\n"],
    "InvalidDefaultArgInFrom": ["ARG TAG=1\nFROM a:$TAG\n", "ARG TAG\nFROM a:${TAG:-1}\n"],
    "FromPlatformFlagConstDisallowed": [
        "FROM --platform=linux/amd64 a:1 AS build-amd64\n", "FROM --platform=$BUILDPLATFORM a:1\n"
    ],
    "CopyIgnoredFile": ["FROM a:1\nCOPY kept /\n", "FROM a:1 AS x\nFROM a:1\nCOPY --from=x /tmp/x /\n"],
    "InvalidDefinitionDescription": ["# b builds\nFROM a:1 AS b\n# C is it\nARG C=1\n", "# said\n\nFROM a:1 AS b\n"],
    "ExposeProtoCasing": ["FROM a:1\nEXPOSE 80/tcp\n"],
    "ExposeInvalidFormat": ["FROM a:1\nEXPOSE 80 90-95/udp\n"],
}  # fmt: skip


@pytest.mark.parametrize(("rule", "source", "expected"), [
    (rule, source, expected) for rule, cases in BAD.items() for source, expected in cases
])  # fmt: skip
def test_a_check_finds_what_its_page_calls_bad(rule: str, source: str, expected: list[tuple[int, str]]) -> None:
    source = f"# check=experimental=all\n\n{source}"
    all_of_them = found(source, ignore="tmp\n")
    mine = [(line - 2, message) for name, line, message in all_of_them if name == rule]
    assert mine == expected, all_of_them
    assert not any(name == rule for name, _, _ in found(source.replace("=all", f"=all;skip={rule}"))) or (
        CHECKS[rule].is_experimental
    )


@pytest.mark.parametrize(("rule", "source"), [(rule, source) for rule, texts in GOOD.items() for source in texts])
def test_a_check_is_silent_on_what_its_page_calls_good(rule: str, source: str) -> None:
    findings = found(f"# check=experimental=all\n\n{source}", ignore="tmp\n")
    assert [each for each in findings if each[0] == rule] == []


@pytest.mark.parametrize(
    ("command", "hint"),
    [("cat /x", '["program", "argument"]'), ("['cat', '/x']", '["program", "argument"], with double quotes')],
)
def test_whoever_takes_single_quotes_for_json_is_told_which(command: str, hint: str) -> None:
    (remark,) = checks(parse(f"FROM a:1\nCMD {command}\n"), {})
    assert (remark.rule, remark.hint) == ("JSONArgsRecommended", hint)


def test_every_check_of_buildkit_is_here() -> None:
    assert CHECKS.keys() == BAD.keys() == GOOD.keys()
    assert len(CHECKS) == 22
    assert CHECKS["JSONArgsRecommended"].url.endswith("/json-args-recommended/")
    assert CHECKS["NoEmptyContinuation"].url.endswith("/no-empty-continuation/")


HINTED: dict[str, list[tuple[str, int]]] = {
    "UnpinnedTag": [("FROM python\n", 1), ("FROM python:latest\n", 1), ("FROM r.example:5000/x\n", 1)],
    "AptListsLeft": [("FROM a:1\nRUN apt-get update && apt-get install -y x\n", 2)],
    "AptUpdateAlone": [("FROM a:1\nRUN apt-get update\n", 2)],
    "AptAsks": [("FROM a:1\nRUN apt-get install x\n", 2)],
    "AptRecommends": [("FROM a:1\nRUN apt install -y x\n", 2)],
    "CopyBeforeInstall": [("FROM a:1\nCOPY . .\nRUN pip install -r requirements.txt\n", 2),
                          ("FROM a:1\nCOPY ./ /app\nRUN npm ci\n", 2)],
    "SecretInValue": [("FROM a:1\nENV A=ghp_" + "a" * 36 + "\n", 2),
                      ("FROM a:1\nARG U=https://me:pass@x.example/\n", 2)],
    "RootAtEnd": [('FROM a:1\nCMD ["x"]\n', 2), ("FROM a:1\nUSER me\nUSER root\n", 3)],
    "EmptyCommand": [("FROM a:1\nRUN\n", 2), ("FROM a:1\nCMD\nENTRYPOINT\n", 3)],
    "SlashMissing": [("FROM a:1\nCOPY b c /srv\n", 2), ("FROM a:1\nCOPY <<b <<c /srv\nb\nc\n", 2)],
    "AddForCopy": [("FROM a:1\nADD app.py /srv/\n", 2)],
    "CdForWorkdir": [("FROM a:1\nRUN cd /srv\n", 2)],
    "DownloadToShell": [("FROM a:1\nRUN curl -sSL https://x.example | sh\n", 2),
                        ("FROM a:1\nRUN wget -qO- x | bash\n", 2)],
    "PipCacheLeft": [("FROM a:1\nRUN pip install x\n", 2)],
    "SudoInRun": [("FROM a:1\nRUN x && sudo y\n", 2)],
    "BrokenJSONForm": [("FROM a:1\nCMD ['x']\n", 2)],
}  # fmt: skip

UNHINTED = """\
FROM python:3.12-slim@sha256:{} AS build
ENV PIP_NO_CACHE_DIR=1 A=$B URL=https://x.example/
RUN apt-get update && apt-get install -y --no-install-recommends x && rm -rf /var/lib/apt/lists/*
RUN --mount=type=cache,target=/var/lib/apt --mount=type=cache,target=/root/.cache/pip apt-get update
COPY requirements.txt .
RUN pip install -r requirements.txt
COPY . .
ADD app.tar.gz https://x.example/f /srv/
RUN cd /srv && make
RUN [ -e x ] && curl -o x https://x.example
FROM build
USER me
CMD ["x"]
""".format("0" * 64)


@pytest.mark.parametrize(
    ("rule", "source", "line"), [(rule, source, line) for rule, cases in HINTED.items() for source, line in cases]
)
def test_a_hint_tells_where_it_could_be_better(rule: str, source: str, line: int) -> None:
    assert (rule, line) in [(name, where) for name, where, _ in found(source)]
    assert rule not in [name for name, _, _ in found(f"# check=skip={rule}\n{source}")]


def test_a_good_dockerfile_gets_no_hints() -> None:
    hints = [each for each in found(UNHINTED) if each[0] in HINTS]
    assert hints == [("AptUpdateAlone", 4, "apt-get update alone")]
    assert HINTED.keys() == HINTS.keys()


def test_skip_all_leaves_what_was_asked_for() -> None:
    source = "# check=skip=all;experimental=InvalidDefinitionDescription\nFROM a\n# said\nARG C\nCMD x\n"
    assert found(source) == [
        ("InvalidDefinitionDescription", 4, "Comment for ARG should follow the format: `# C <description>`")
    ]


@pytest.mark.parametrize(
    ("comment", "left"),
    [
        ("# check=skip=JSONArgsRecommended", False),
        ("#check = skip = JSONArgsRecommended // the shell is wanted here", False),
        ("# check=skip=UndefinedVar, JSONArgsRecommended\n# why", False),
        ("# check=skip=all // all of them", False),
        ("# check=skip=UndefinedVar", True),
        ("# check=skip=JSONArgsRecommended\n", True),
        ("# check=JSONArgsRecommended", True),
    ],
)
def test_an_instruction_takes_a_check_back_for_itself(comment: str, left: bool) -> None:
    rules = [(name, line) for name, line, _ in found(f"FROM a:1\nENTRYPOINT x\n{comment}\nCMD x\n")]
    lines = [line for name, line in rules if name == "JSONArgsRecommended"]
    assert lines == ([2, 4 + comment.count("\n")] if left else [2])


def test_a_directive_is_no_comment_of_the_first_instruction() -> None:
    source = "# check=skip=all\nFROM a as b\n"
    assert found(source) == []
    given = ("BUILDKIT_DOCKERFILE_CHECK=skip=UnpinnedTag",)
    assert ("FromAsCasing", 2) in [(name, line) for name, line, _ in found(source, build_args=given)]


def test_what_an_instruction_takes_back_fails_no_build_and_is_no_description() -> None:
    text = "# check=error=true;experimental=all\nFROM a:1\n# check=skip=SecretsUsedInArgOrEnv\nARG password\n"
    options = BuildOptions(platform=BASE.platform)
    assert plan(parse(text), options, resolve, {}).remarks == ()
    with pytest.raises(DockerfileError, match="lint violation found for rules: SecretsUsedInArgOrEnv"):
        plan(parse(text.replace("# check=skip", "\n# other")), options, resolve, {})


@pytest.mark.parametrize(
    ("ignore", "source", "is_told"),
    [
        (".*", ".", False),
        ("*", ".", True),
        ("**", "./", True),
        ("*\n!kept", ".", False),
        ("sub\n!sub/b", "sub/a", True),
        ("sub\n!other", "sub/a", True),
        ("!sub/a\nsub", "sub/a", True),
        ("sub\n!sub/a", "sub", False),
        ("sub\n!sub/a", "sub/a", False),
        ("sub\n!sub/a", "sub/*", False),
        ("sub\n!sub/a.c", "sub/*.h", True),
        ("su.b\n!su\\.b/kept", "su.b", False),
        ("**/x\n!**/x/y", "a/x", False),
        ("sub\n!sub", "sub/a", False),
    ],
)
def test_a_copy_of_what_is_left_out_is_told_of_unless_some_of_it_is_there(
    ignore: str, source: str, is_told: bool
) -> None:
    rules = [name for name, _, _ in found(f"FROM a:1\nCOPY {source} /x/\n", ignore=ignore)]
    assert ("CopyIgnoredFile" in rules) == is_told


def test_the_build_argument_counts_more_than_the_comment() -> None:
    source = "# check=skip=all\nFROM a:1\nCMD x\n"
    assert [each[0] for each in found(source, build_args=("BUILDKIT_DOCKERFILE_CHECK=skip=RootAtEnd",))] == [
        "JSONArgsRecommended"
    ]


def test_a_finding_fails_the_build_where_it_is_to() -> None:
    dockerfile = parse("# check=error=true\nFROM a:1\nMAINTAINER me\nCMD x\n")
    with pytest.raises(
        DockerfileError, match="lint violation found for rules: MaintainerDeprecated, JSONArgs"
    ) as caught:
        plan(dockerfile, BuildOptions(platform=BASE.platform), resolve, {})
    assert caught.value.span is not None
    assert caught.value.span.first == 3
    hinted = parse("# check=error=true\nFROM a\nRUN pip install x\n")
    assert plan(hinted, BuildOptions(platform=BASE.platform), resolve, {}).remarks == ()


@pytest.mark.parametrize("option", ["skip", "skip=a;what=b", "error=maybe", "error"])
def test_an_unknown_check_option_is_refused(option: str) -> None:
    with pytest.raises(DockerfileError, match="invalid check option"):
        found(f"# check={option}\nFROM a:1\n")


def test_an_absent_base_image_leaves_the_other_checks() -> None:
    names = [name for name, _, _ in found("FROM absent:1 AS B\nWORKDIR x\nFROM a:1\nVOLUME /$NOTHING\n")]
    assert names == ["StageNameCasing", "", "UndefinedVar"]


@pytest.mark.parametrize(
    "text",
    [
        "RUN " + "curl " * 9_000,
        "RUN " + "pip install " * 4_000,
        "RUN " + "apt-get -y " * 5_000,
        "RUN " + "apt-get install " * 4_000,
        "RUN " + "cd " * 20_000,
        "RUN " + "sudo" + " " * 60_000,
        "ENV A=" + "a" * 60_000,
        "ENV A=" + "a://" * 15_000,
        "ENV A=" + "a://b:" * 10_000,
        "ENV A=" + "-----BEGIN " * 6_000,
        "ENV " + "A" * 60_000 + "=1",
        "CMD [" + "'" * 60_000,
        "RUN <<" + "E" * 30_000 + "\n" + "E" * 30_000,
        "COPY " + "<<" * 30_000 + " /",
        "COPY " + "${a" * 20_000 + " /",
        "EXPOSE " + "1:" * 30_000,
        "FROM " + "a/" * 30_000,
        "#" + " " * 60_000,
        "RUN " + "--a=" * 15_000,
        "RUN " + "\\" * 60_000,
        "RUN " + '"' * 60_001,
        "LABEL " + "a " * 30_000,
    ],
    ids=lambda text: text[:24],
)
def test_no_text_is_read_in_more_than_linear_time(text: str) -> None:
    began = time.monotonic()
    try:
        found(f"FROM a:1\n{text}\n")
    except DockerfileError as error:
        assert error.lines()
    assert time.monotonic() - began < 1


def test_what_cannot_be_built_is_said_beside_the_findings() -> None:
    report = check(parse("FROM a:1 AS B\nVOLUME $NOWHERE\n"), BuildOptions(platform=BASE.platform), resolve, {})
    assert [each.message for each in report.errors] == ["VOLUME needs a path"]
    assert [each.rule for each in report.remarks] == ["StageNameCasing"]


def test_what_stands_above_a_line_that_cannot_be_read_is_checked() -> None:
    """testWarningsBeforeError"""
    read = Readable.of("FROM scratch AS Bad\nMAINTAINER me\nBADCMD\nCMD x\n")
    report = read.told(check(read.dockerfile, BuildOptions(platform=BASE.platform), resolve, {}))
    assert [each.rule for each in report.remarks] == ["StageNameCasing", "MaintainerDeprecated"]
    assert [(each.message, each.span and each.span.first) for each in report.errors] == [
        ("unknown instruction BADCMD", 3)
    ]
    assert report.source.endswith("CMD x\n")
    with pytest.raises(DockerfileError, match="unknown instruction FORM"):
        Readable.of("FORM scratch\n")


def test_a_build_is_told_of_its_own_stages_and_a_check_of_all() -> None:
    """testAllTargetUnmarshal"""
    source = "FROM scratch AS first\nCOPY $foo .\nFROM scratch AS second\nCOPY $bar .\n"
    remarks = plan(parse(source), BuildOptions(platform=BASE.platform), resolve, {}).remarks
    assert [each.span and each.span.first for each in remarks if each.rule == "UndefinedVar"] == [4]
    assert [line for name, line, _ in found(source) if name == "UndefinedVar"] == [2, 4]
