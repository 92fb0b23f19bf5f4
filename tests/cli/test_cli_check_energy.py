"""``check`` says how a run's energy will be known."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from commandline import Call

from stillhouse.foundation.cpu_time import cores
from stillhouse.foundation.energy import EnergyMeter


def test_how_energy_will_be_known(tiny: Path, call: Call) -> None:
    """What counters or the power model will tell of energy is said beforehand; where neither does, what to state."""

    def told(*settings: str) -> str:
        said = call("check", tiny, *(word for each in settings for word in ("--set", each))).out
        return next(line for line in said.splitlines() if line.startswith("energy "))

    power, readable = "compute.power={idle_w: 40, busy_w: 95}", EnergyMeter().read().joules is not None
    words = {True: "measured: processor packages", False: "unavailable: the processor: "}[readable]
    assert words in told("compute.device=cpu") and ("state compute.power" in told("compute.device=cpu")) is not readable
    modelled = f"estimated: 40 W at rest and 95 W with {cores()} busy core"
    assert (words if readable else modelled) in told(power, "compute.device=cpu")
    gpu = "a GPU's by its counter" if find_spec("pynvml") else "pip install 'stillhouse[gpu-energy]'"
    assert gpu in told("compute.device=cuda") and gpu not in told("compute.device=cpu")
