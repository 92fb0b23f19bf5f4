"""docs/reference.md says what the code says: keys and their defaults, limits, exit codes."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from stillhouse.foundation import errors
from stillhouse.foundation.errors import Interrupted
from stillhouse.recipe.fleet import FleetSection
from stillhouse.recipe.members import MemberSection
from stillhouse.recipe.power import PowerSection
from stillhouse.recipe.recipe import ComputeSection
from stillhouse.recipe.section import Section
from stillhouse.recipe.train import TrainSection
from stillhouse.runner import group
from stillhouse.runner.energy import TELL_EVERY_S
from stillhouse.runtime import arrivals
from stillhouse.runtime.dispatch import leases
from stillhouse.runtime.dispatch.settings import IDLE_SHARE, Settings
from stillhouse.runtime.local import backend, crew
from stillhouse.teachers import fleet

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/reference.md").read_text()
KEYS: list[tuple[str, type[Section], tuple[str, ...]]] = [
    ("fleet", FleetSection, tuple(FleetSection.model_fields)),
    ("student.train", TrainSection, ("accumulate",)),
    ("teacher.members", MemberSection, tuple(MemberSection.model_fields)),
    ("compute", ComputeSection, ("power",)),
    ("compute.power", PowerSection, tuple(PowerSection.model_fields)),
]


def rows() -> list[str]:
    """The table of keys, as the recipe's sections have them."""
    found = []
    for place, section, names in KEYS:
        for name in names:
            field = section.model_fields[name]
            default = "must be given" if field.is_required() else json.dumps(field.default).strip('"')
            assert field.description, f"{place}.{name} has no description"
            found.append(f"| `{place}.{name}` | {default} | {field.description} |")
    return found


def part(title: str) -> str:
    """The text below a heading, up to the next one."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def test_keys_and_defaults() -> None:
    """Every key stands in the table with its default and the schema's words, and none that there is not."""
    there = [line for line in part("Keys").splitlines() if line.startswith("| `")]
    assert there == rows(), "docs/reference.md, section Keys: write\n" + "\n".join(rows())


def test_limits() -> None:
    """Times and bounds in the text are those of the code."""
    settings, limits, words = Settings(), part("How long is waited for what"), part("Words")
    (found,) = re.findall(r"^_GRACE_S = (.*)$", (ROOT / "stillhouse/runtime/ray_backend.py").read_text(), re.MULTILINE)
    on_ray_s = float(found)  # read, since Ray is an extra
    for said in (
        f"{settings.lease_factor:g} times what the worker's own pace says",
        f"at least {settings.lease_min_s:g} s; {settings.first_lease_s:g} s while its pace is unknown",
        f"| a suspect worker | {settings.suspect_patience_s:g} s longer",
        f"then it has {backend.GRACE_S:g} s (on Ray {on_ray_s:g} s)",
        f"| a worker's first word | {backend.CONNECT_S:g} s",
        f"| a worker to be ready | {arrivals._LOAD_MAX_S:g} s",
        f"| a student of several to come in | {crew._CONNECT_S:g} s",
        f"silent in a step | {group.SILENT_S:g} s",
    ):
        assert said in limits, said
    assert arrivals.FAILED_STARTS_MAX == 3 and "Three failed starts" in limits
    assert settings.tries_max == 5 and "blamed five times" in words
    assert f"up to {settings.credits_max} where" in words and IDLE_SHARE == 0.01 and leases.SURPRISE_MAX == 8
    assert f"at most {fleet._LINE_MAX} batches" in part("What a window costs in memory")
    assert f"the window is {fleet._LINE_MAX * 64:,} views" in TEXT and fleet._LINE_LEAST == 2


def test_readings_of_energy() -> None:
    """How much energy a kill hides is what the code says, and what is told of it stands in the text."""
    told = part("Energy")
    assert f"they are {TELL_EVERY_S:g} s apart" in told
    for word in ("measured", "estimated", "unavailable", "without ...", "at least"):
        assert f"| {word} |" in told


def test_exit_codes() -> None:
    """Every exit code of an error, and of each signal that ends a run, has its row."""
    codes = {each.exit_code for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "exit_code")}
    codes |= {0} | {Interrupted("", number).exit_code for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    there = re.findall(r"^\| ([\d, ]+) \|", part("Exit codes"), re.MULTILINE)
    assert {int(code) for row in there for code in row.split(",")} == codes
