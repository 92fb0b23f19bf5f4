"""What the benchmarks share: interleaved rounds, medians, one JSON line a claim.

A machine drifts by 15 to 25 % within minutes, so ours and the rival take turns, and the ratio is taken round by round;
its median and range are told. Without ``--quick`` the lines go to ``benchmarks/results/NAME.jsonl`` as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Claim:
    """One measured claim; ``ours`` and ``rival`` in ``unit``, ``spread`` the lowest and highest ratio of a round."""

    claim: str
    ratio: float
    ours: float
    rival: float
    unit: str
    spread: tuple[float, float]
    rounds: int
    definition: str
    machine: str
    commit: str


def quick() -> bool:
    """Whether the command line says ``--quick``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer rounds, nothing written; ends within 2 minutes")
    return bool(parser.parse_args().quick)


def compare(
    claim: str, definition: str, unit: str, ours: Callable[[], float], rival: Callable[[], float], rounds: int
) -> Claim:
    """Take turns; every callable returns a rate in ``unit``, higher is better. The order changes every round."""
    readings: list[tuple[float, float]] = []
    for number in range(rounds):
        if number % 2:
            theirs = rival()
            readings.append((ours(), theirs))
        else:
            readings.append((ours(), rival()))
    return claim_of(claim, definition, unit, *zip(*readings, strict=True))


def claim_of(claim: str, definition: str, unit: str, ours: Sequence[float], rival: Sequence[float]) -> Claim:
    """The claim that readings of the same rounds make; rates in ``unit``, higher is better."""
    ratios = [mine / theirs for mine, theirs in zip(ours, rival, strict=True)]
    our_median, rival_median = (round(statistics.median(each), 1) for each in (ours, rival))
    spread = (round(min(ratios), 3), round(max(ratios), 3))
    ratio = round(statistics.median(ratios), 3)
    return Claim(claim, ratio, our_median, rival_median, unit, spread, len(ratios), definition, machine(), commit())


def tell(name: str, claims: Sequence[Claim], write: bool) -> None:
    """Print one JSON line a claim, and keep them where ``write``."""
    lines = [json.dumps(asdict(claim)) for claim in claims]
    print("\n".join(lines))
    if write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def machine() -> str:
    """Processor, cores and torch, in a line."""
    named = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{named[0] if named else platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"


def commit() -> str:
    """The checkout's commit when this process began, with a + where its code was changed."""
    return _COMMIT


def _described() -> str:
    def said(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()

    changed = said("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)benchmarks/results")
    return said("describe", "--always") + "+" * bool(changed) or "unknown"


_COMMIT = _described()


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
