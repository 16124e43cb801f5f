"""Reading and planning a Dockerfile of 200 lines, beside BuildKit's own parser (the wheel `dockerfile`, in Go).

Go's only splits the lines; ours also makes values of them, plans the build, and runs all checks.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from measuring import heading, interleaved, ratio, row

import dockerfile
from nbcontain.build.arguments import platform_arguments
from nbcontain.build.plan import BuildOptions, plan
from nbcontain.dockerfile import parse
from nbcontain.dockerfile.checks import checks
from nbcontain.oci.image import Image, Platform
from nbcontain.oci.reference import Reference

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 15
LIMIT_MS = 10
PIECE = """
# stage {0}
FROM scratch AS stage{0}
ARG VERSION=1.{0} OTHER
ENV NAME=value{0} PATH="/opt/bin:$PATH" QUOTED='a b' \\
    LONGER=${{VERSION:-none}}/${{OTHER+given}}
WORKDIR /srv/app{0}
COPY --chown=1000:1000 requirements.txt setup.py ./
RUN --mount=type=cache,target=/root/.cache/pip \\
    pip install -r requirements.txt && \\
    rm -rf /tmp/*
RUN <<EOF
set -e
echo "$NAME"
EOF
COPY <<CONF /etc/app.conf
name = $NAME
CONF
LABEL org.example.version="$VERSION" org.example.name=${{NAME#val}}
EXPOSE 80{0} 9000-9003/udp
HEALTHCHECK --interval=30s CMD ["app", "check"]
CMD ["app", "serve", "--port", "80{0}"]
"""


def absent(reference: Reference, platform: Platform) -> Image:
    raise AssertionError(f"{reference} on {platform}")


def timed(work: Callable[[], object]) -> Callable[[], float]:
    def once() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return once


def main() -> None:
    """Print the table."""
    source = "".join(PIECE.format(number) for number in range(9))
    source += "FROM scratch\n" + "".join(f"COPY --from=stage{number} /srv /out{number}\n" for number in range(9))
    parsed = parse(source)
    platforms = platform_arguments(Platform.here(), Platform.here())
    times = interleaved(
        ROUNDS,
        {
            "go": timed(lambda: dockerfile.parse_string(source)),
            "parse": timed(lambda: parse(source)),
            "plan": timed(lambda: plan(parsed, BuildOptions(), absent, {})),
            "check": timed(lambda: checks(parsed, platforms)),
        },
    )
    rounds = list(zip(times["parse"], times["plan"], times["check"], strict=True))
    # A plan comes with what its checks found.
    times["plan"] = [plan_ms - check_ms for _, plan_ms, check_ms in rounds]
    times["both"] = [parse_ms + plan_ms - check_ms for parse_ms, plan_ms, check_ms in rounds]
    times["all"] = [parse_ms + plan_ms for parse_ms, plan_ms, _ in rounds]
    heading(f"a Dockerfile of {source.count(chr(10))} lines")
    row("BuildKit's parser", times["go"])
    names = {
        "parse": "parse", "plan": "plan", "check": "check", "both": "parse and plan", "all": "parse, plan and check",
    }  # fmt: skip
    for name, said in names.items():
        row(said, times[name], f"{ratio(times, name, 'go'):.1f} times Go's parser")
    is_met = statistics.median(times["both"]) <= LIMIT_MS
    print(f"parse and plan: at most {LIMIT_MS} ms: {'met' if is_met else 'MISSED'}")


if __name__ == "__main__":
    main()
