"""What is checked in a Dockerfile, as data: BuildKit's 22 checks by its names and messages, and our own hints.

A check says what BuildKit would say too (frontend/dockerfile/linter). A hint is ours: for learners, and for size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from nbcontain.dockerfile.ast import Remark
from nbcontain.errors import DockerfileError, Span
from nbcontain.truth import truth
from nbcontain.values import dataclass, replace

Skipped = Iterable[tuple[Span, frozenset[str]]]
_DOCUMENTS = "https://docs.docker.com/go/dockerfile/rule/"


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing to look for. `message` has a {} for each value that a finding brings."""

    name: str
    description: str
    message: str
    is_hint: bool = False
    is_experimental: bool = False
    """Only looked for if asked: # check=experimental=…"""

    @property
    def url(self) -> str:
        """BuildKit's page about it; "" for a hint."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=JSON)(?=[A-Z])", "-", self.name).lower()
        return "" if self.is_hint else f"{_DOCUMENTS}{words}/"

    def found(self, span: Span | None, *values: str, hint: str = "") -> Remark:
        """A finding of this rule."""
        return Remark(self.message.format(*values), span, hint, rule=self.name)


_CHECKS = (
    Rule("StageNameCasing", "Stage names should be lowercase", "Stage name '{}' should be lowercase"),
    Rule(
        "FromAsCasing",
        "The 'as' keyword should match the case of the 'from' keyword",
        "'{}' and '{}' keywords' casing do not match",
    ),
    Rule(
        "NoEmptyContinuation",
        "Empty continuation lines will become errors in a future release",
        "Empty continuation line",
    ),
    Rule(
        "ConsistentInstructionCasing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
        "Command '{}' should match the case of the command majority ({})",
    ),
    Rule(
        "DuplicateStageName", "Stage names should be unique", 'Duplicate stage name "{}", stage names should be unique'
    ),
    Rule(
        "ReservedStageName",
        "Reserved words should not be used as stage names",
        'Stage name should not use the same name as reserved stage "{}"',
    ),
    Rule(
        "JSONArgsRecommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
        "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
    ),
    Rule(
        "MaintainerDeprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
        "Maintainer instruction is deprecated in favor of using label",
    ),
    Rule("UndefinedArgInFrom", "FROM command must use declared ARGs", "FROM argument '{}' is not declared{}"),
    Rule(
        "WorkdirRelativePath",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the "
        "base image changes",
        'Relative workdir "{}" can have unexpected results if the base image changes',
    ),
    Rule("UndefinedVar", "Variables should be defined before their use", "Usage of undefined variable '${}'{}"),
    Rule(
        "MultipleInstructionsDisallowed",
        "Multiple instructions of the same type should not be used in the same stage",
        "Multiple {} instructions should not be used in the same stage because only the last one will be used",
    ),
    Rule(
        "LegacyKeyValueFormat",
        "Legacy key/value format with whitespace separator should not be used",
        '"{0} key=value" should be used instead of legacy "{0} key value" format',
    ),
    Rule(
        "InvalidBaseImagePlatform",
        "Base image platform does not match expected target platform",
        'Base image {} was pulled with platform "{}", expected "{}" for current build',
    ),
    Rule(
        "RedundantTargetPlatform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
    ),
    Rule(
        "SecretsUsedInArgOrEnv",
        "Sensitive data should not be used in the ARG or ENV commands",
        'Do not use ARG or ENV instructions for sensitive data ({} "{}")',
    ),
    Rule(
        "InvalidDefaultArgInFrom",
        "Default value for global ARG results in an empty or invalid base image name",
        "Default value for ARG {} results in empty or invalid base image name",
    ),
    Rule(
        "FromPlatformFlagConstDisallowed",
        "FROM --platform flag should not use a constant value",
        'FROM --platform flag should not use constant value "{}"',
    ),
    Rule(
        "CopyIgnoredFile",
        "Attempting to Copy file that is excluded by .dockerignore",
        'Attempting to {} file "{}" that is excluded by .dockerignore',
    ),
    Rule(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is "
        "not intended to be a description comment, add an empty line or comment between the instruction and the "
        "comment.",
        "Comment for {} should follow the format: `# {} <description>`",
        is_experimental=True,
    ),
    Rule(
        "ExposeProtoCasing",
        "Protocol in EXPOSE instruction should be lowercase",
        "Defined protocol '{}' in EXPOSE instruction should be lowercase",
    ),
    Rule(
        "ExposeInvalidFormat",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a "
        "future release",
        "EXPOSE instruction should not define an IP address or host-port mapping, found '{}'",
    ),
)

_HINTS = (
    Rule("UnpinnedTag", "A base image without a tag is another one tomorrow", "{} has no tag: it means :latest"),
    Rule("AptListsLeft", "Package lists are kept in the layer", "the package lists stay in this layer"),
    Rule("AptUpdateAlone", "A cached apt-get update is old when packages are installed", "apt-get update alone"),
    Rule("AptAsks", "apt-get install asks, and nobody answers", "apt-get install without -y waits for an answer"),
    Rule("AptRecommends", "apt-get installs what is only recommended, too", "recommended packages are installed too"),
    Rule(
        "CopyBeforeInstall",
        "A change of any file installs everything again",
        "every change of a file installs the dependencies again: this COPY comes before them",
    ),
    Rule("SecretInValue", "A secret is in the image for whoever has it", "the value of {} looks like a secret"),
    Rule("RootAtEnd", "The container's program runs as root", "the last stage has no USER: its program runs as root"),
    Rule("AddForCopy", "ADD unpacks and downloads; COPY only copies", "ADD where COPY does the same"),
    Rule("CdForWorkdir", "cd lasts for one RUN", "cd lasts for this RUN only"),
    Rule("DownloadToShell", "A program is run that nobody looked at", "a download is run as it comes"),
    Rule("PipCacheLeft", "pip's downloads are kept in the layer", "pip's downloads stay in this layer"),
    Rule("EmptyCommand", "An instruction without words does nothing", "{} without words does nothing"),
    Rule(
        "SlashMissing",
        "Several files copied to what may be no directory replace each other",
        "{} has no slash at its end: where it is no directory yet, each file replaces the one before",
    ),
    Rule("SudoInRun", "RUN is root already, and sudo is mostly not there", "sudo in a RUN"),
    Rule("BrokenJSONForm", "What looks like JSON is a shell's", "looks like a JSON array but is none: a shell gets it"),
)  # fmt: skip

CHECKS = {rule.name: rule for rule in _CHECKS}
HINTS = {rule.name: replace(rule, is_hint=True) for rule in _HINTS}
RULES = CHECKS | HINTS


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What `# check=` or the build argument BUILDKIT_DOCKERFILE_CHECK says."""

    skipped: frozenset[str] = frozenset()
    skips_all: bool = False
    experimental: frozenset[str] = frozenset()
    all_experimental: bool = False
    is_error: bool = False
    """A finding fails the build."""

    @classmethod
    def parse(cls, text: str) -> CheckOptions:
        """skip=A,B|all;experimental=A,B|all;error=true. Raises DockerfileError, without a span."""
        found = cls()
        for part in text.strip().split(";", 2) if text.strip() else ():
            key, equals, value = part.partition("=")
            key, value = key.strip(), value.strip()
            names = frozenset(name.strip() for name in value.split(","))
            match key if equals else "":
                case "skip":
                    skipped = frozenset() if value == "all" else names
                    found = replace(found, skipped=skipped, skips_all=value == "all")
                case "experimental":
                    wanted = frozenset() if value == "all" else names
                    found = replace(found, experimental=wanted, all_experimental=value == "all")
                case "error" if (said := truth(value)) is not None:
                    found = replace(found, is_error=said)
                case _:
                    raise DockerfileError(
                        f"invalid check option {part!r}", hint="# check=skip=RULE,RULE;error=true, or skip=all"
                    )
        return found

    def kept(self, remarks: Iterable[Remark], skipped: Skipped = ()) -> tuple[Remark, ...]:
        """The findings that are wanted, and all that are no rule's, in the order of their lines.

        `skipped` are those that an instruction takes back for itself.
        """

        def is_wanted(remark: Remark) -> bool:
            if not remark.rule or remark.span is None:
                return not remark.rule or self.wants(RULES[remark.rule])
            line = remark.span.first
            here = {name for span, names in skipped if span.first <= line <= span.last for name in names}
            return self.wants(RULES[remark.rule]) and not here & {remark.rule, "all"}

        wanted = filter(is_wanted, dict.fromkeys(remarks))
        return tuple(sorted(wanted, key=lambda each: each.span.first if each.span else 0))

    def wants(self, rule: Rule) -> bool:
        if rule.is_experimental:
            return self.all_experimental or rule.name in self.experimental
        return not self.skips_all and rule.name not in self.skipped

    def refuse(self, remarks: Iterable[Remark]) -> None:
        """Raise the error of error=true, if there is a finding of a check."""
        found = [each for each in remarks if each.rule in CHECKS]
        if self.is_error and found:
            names = ", ".join(dict.fromkeys(each.rule for each in found))
            raise DockerfileError(f"lint violation found for rules: {names}", found[0].span, why=found[0].message)


def did_you_mean(near: str, sign: str = "") -> str:
    """What is put behind a message; "" where nothing is near."""
    return f" (did you mean {sign}{near}?)" if near else ""
