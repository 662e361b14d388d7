"""Hold what `rerank` sends and reads against what the services' official SDKs send and read.

    PYTHONPATH=. python scripts/bench_sdks.py                        the SDKs as they were recorded
    PYTHONPATH=. python scripts/bench_sdks.py --venv build/sdks      the SDKs themselves
    PYTHONPATH=. python scripts/bench_sdks.py --venv build/sdks --record

An SDK and the command make the same calls, those of tests/support/data/sdk_calls.toml, to a server
on loopback that checks them and answers as the service does. Method, URL, headers, body and the
scores that were read are compared, and every difference is printed, with its explanation: a
comment beside the provider's entry in providers.toml, or in [default] for all of them.

`--venv` installs the SDKs, in their versions of that file, into a virtual environment, and calls
them; those that cannot be installed are skipped. `--record` keeps what they sent for the tests.
Exits with 1 for a difference that is not explained, an explanation of none, a parameter of an SDK
that no call gives, and SDKs that send something else than was recorded.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rerank_cli.providers.catalogue import find_provider
from tests.support.sdks import (
    RECORD,
    Explanation,
    ask_rerank,
    calls_of,
    compare,
    explanations,
    packages,
)

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 300  # seconds for all SDKs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--venv", type=Path, help="the environment of the SDKs, made if needed")
    parser.add_argument("--record", action="store_true", help="keep what the SDKs sent")
    arguments = parser.parse_args()
    recorded_calls = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    sdks = call_sdks(arguments.venv) if arguments.venv else recorded_calls
    if arguments.record:
        recorded_calls |= {provider: sdk for provider, sdk in sdks.items() if "calls" in sdk}
        RECORD.write_text(json.dumps(recorded_calls, indent=1) + "\n", encoding="utf-8")
    problems = compare_all(sdks)
    for provider, sdk in sdks.items():
        if "calls" in sdk and sdk != recorded_calls.get(provider):
            problems.append(f"{provider}: the SDK sends something else than was recorded")
        problems += [f"{provider}: no call gives {name}" for name in sdk.get("not given", ())]
    print(*(f"WRONG: {problem}" for problem in problems), sep="\n")
    sys.exit(1 if problems else 0)


def call_sdks(folder: Path) -> dict[str, Any]:
    """Install the SDKs into a virtual environment, and let them make their calls."""
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    for package in sorted(set(packages().values())):
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", package], check=False)
    variables = json.dumps({provider: find_provider(provider).key[0] for provider in packages()})
    process = subprocess.run(
        [str(python), str(ROOT / "scripts" / "sdk_calls.py"), variables],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=PATIENCE,
    )
    return dict(json.loads(process.stdout))


def compare_all(sdks: Mapping[str, Any]) -> list[str]:
    """Print the differences from each SDK; returns what is wrong about them."""
    reasons, problems = explanations(), list[str]()
    everywhere, methods, calls, count = set[str](), 0, 0, 0
    missing_explanations = set[Explanation]()
    if all("calls" in sdk for sdk in sdks.values()):
        missing_explanations = {reason for reason in reasons if reason.entry == "default"}
    for provider, sdk in sdks.items():
        if "skipped" in sdk:
            print(f"{provider}: skipped: {sdk['skipped']}\n")
            continue
        print(f"{provider}: {sdk['sdk']}, {', '.join(sdk['calls'])}")
        methods += 1
        missing_explanations |= {reason for reason in reasons if reason.entry == provider}
        names_by_difference: dict[str, list[str]] = {}
        for call in calls_of(provider):
            calls += 1
            base = find_provider(provider).url or ""
            ours = ask_rerank(call, find_provider(provider).key[0], base, run_rerank)
            for difference in compare(sdk["calls"][call.name], ours):
                reason = next((r for r in reasons if r.covers(provider, difference)), None)
                if reason is None:
                    problems.append(f"{provider}, {call.name}: {difference}")
                    continue
                missing_explanations.discard(reason)
                if reason.entry == "default":
                    everywhere.add(f"{reason.pattern} # {reason.reason}")
                else:
                    names_by_difference.setdefault(f"{difference} # {reason.reason}", []).append(
                        call.name
                    )
        for line, names in names_by_difference.items():
            print(f"  in {', '.join(names)}: {line}")
        count += len(names_by_difference)
        print()
    problems += [f"{r.entry}: does not occur: {r.pattern}" for r in missing_explanations]
    print("\n".join(["of several SDKs:", *sorted(f"  {line}" for line in everywhere)]))
    print(
        f"{methods} methods, {calls} calls: {count} differences of one, {len(everywhere)} of "
        f"several, {len(problems)} not explained"
    )
    return problems


def run_rerank(
    arguments: Sequence[str], content: bytes, variables: Mapping[str, str]
) -> tuple[int, str]:
    with tempfile.TemporaryDirectory() as home:
        process = subprocess.run(
            [sys.executable, "-m", "rerank_cli", *arguments],
            input=content,
            env={**os.environ, **variables, "RERANK_HOME": home},
            stdout=subprocess.PIPE,
            check=False,
        )
    return process.returncode, process.stdout.decode()


if __name__ == "__main__":
    main()
