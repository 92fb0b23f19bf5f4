"""Energy: counters (folders and objects stand in for hardware), the power model, and what is said of each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.counters import Gpus, Rapl, Reading
from stillhouse.foundation.cpu_time import CpuTime, cpu_time
from stillhouse.foundation.energy import EnergyMeter, Estimate, PowerModel, energy_saving

GPU, SECOND = "GPU-1", "GPU-2"


def zone(folder: Path, name: str, microjoules: int, what: str = "package-0") -> Path:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "name").write_text(f"{what}\n")
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    (folder / name / "max_energy_range_uj").write_text("1000000\n")
    return folder / name / "energy_uj"


class FakeNvml:
    """NVML's answers: millijoules by GPU; an exception's code instead is raised."""

    NVML_ERROR_NOT_SUPPORTED = 3

    class NVMLError(Exception):  # noqa: D106
        def __init__(self, value: int) -> None:
            super().__init__(f"error {value}")
            self.value = value

    def __init__(self, counts: dict[str, int], refuses: int = 0) -> None:
        self.counts, self.refuses, self.errors = counts, refuses, dict[str, int]()

    def nvmlInit(self) -> None:  # noqa: N802
        if self.refuses:
            raise self.NVMLError(self.refuses)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid not in self.counts:
            raise self.NVMLError(6)
        return uuid

    def nvmlDeviceGetName(self, handle: str) -> Any:  # noqa: N802
        return f"Card {handle[-1]}".encode() if handle == SECOND else f"Card {handle[-1]}"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if handle in self.errors:
            raise self.NVMLError(self.errors[handle])
        return self.counts[handle]


class Fixed:
    """A part that says what it is told."""

    def __init__(self, joules: float | None, words: str) -> None:
        self.reading = Reading(joules, words)

    def read(self) -> Reading:
        return self.reading


def test_packages_are_added_and_survive_wrapping(tmp_path: Path) -> None:
    """Joules are summed over packages, not their parts nor the platform around them, across a wrap-around."""
    first, second = zone(tmp_path, "intel-rapl:0", 900_000), zone(tmp_path, "intel-rapl:1", 0)
    part, platform = zone(tmp_path, "intel-rapl:0:0", 0), zone(tmp_path, "intel-rapl:2", 0, "psys")
    rapl = Rapl(tmp_path)
    first.write_text("100000")
    second.write_text("500000")
    part.write_text("1")
    platform.write_text("999999")
    assert rapl.read() == (pytest.approx(0.7), "processor packages (RAPL)")
    second.write_text("600000")
    assert rapl.read().joules == pytest.approx(0.8)


def test_a_counter_once_lost_stays_lost(tmp_path: Path) -> None:
    """What passed while a counter could not be read is not known: no figure afterwards, whatever it says then."""
    file = zone(tmp_path, "intel-rapl:0", 10)
    rapl = Rapl(tmp_path)
    file.unlink()
    assert rapl.read() == (None, "the processor: the RAPL counter became unreadable")
    file.write_text("20")
    assert rapl.read().joules is None


def test_a_wrap_of_unknown_length_is_no_figure(tmp_path: Path) -> None:
    """A counter that wrapped, after nobody knows how much, is told so."""
    file = zone(tmp_path, "intel-rapl:0", 10)
    rapl = Rapl(tmp_path)
    (file.parent / "max_energy_range_uj").unlink()
    file.write_text("5")
    found = rapl.read()
    assert found.joules is None and "wrapped" in found.words


def test_why_a_processor_can_not_be_read(tmp_path: Path) -> None:
    """No counter, one that a container hides, one without its file, one kept from this user: each has its own words."""
    assert "no RAPL counter here" in Rapl(tmp_path / "none").read().words
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "intel-rapl:0").symlink_to(tmp_path / "nowhere")
    assert "intel-rapl:0 leads nowhere (containers hide RAPL)" in Rapl(hidden).read().words
    zone(tmp_path / "bare", "intel-rapl:0", 1).unlink()
    assert "intel-rapl:0 has no energy_uj" in Rapl(tmp_path / "bare").read().words
    zone(tmp_path / "kept", "intel-rapl:0", 1)
    kept = zone(tmp_path / "kept", "intel-rapl:1", 1)
    kept.unlink()
    kept.mkdir()  # can't be read by root either
    found = Rapl(tmp_path / "kept").read()
    assert found.joules is None and f"{kept} may not be read by this user" in found.words


def test_gpus_are_added() -> None:
    """Joules of all GPUs in use since the meter was made, each once, with their names."""
    nvml = FakeNvml({GPU: 5_000, SECOND: 100, "GPU-3": 0})
    gpus = Gpus([GPU, SECOND, GPU], nvml)
    nvml.counts.update({GPU: 7_500, SECOND: 600, "GPU-3": 99_999})
    assert gpus.read() == (3.0, "Card 1 + Card 2 (NVML)")
    nvml.counts[GPU] = 8_500
    assert gpus.read().joules == 4.0


@pytest.mark.parametrize(
    ("refuses", "error", "words"),
    [
        (12, 0, "NVML can't be used here: error 12"),
        (0, 3, "Card 1 has no counter of energy (none before Volta has, nor a slice of one)"),
        (0, 15, "NVML's counter of Card 1 became unreadable: error 15"),
    ],
)
def test_why_a_gpu_can_not_be_read(refuses: int, error: int, words: str) -> None:
    """No NVML, no counter, a GPU that fell off: each has its own words, and one such GPU is enough."""
    nvml = FakeNvml({GPU: 1, SECOND: 1}, refuses)
    nvml.errors = {GPU: error} if error else {}
    assert Gpus([GPU, SECOND], nvml).read() == (None, f"the GPU: {words}")


def test_a_gpu_that_fails_on_the_way_is_no_figure() -> None:
    """A counter that began anew, one that became unreadable, a GPU that NVML does not know: no figure, for good."""
    assert Gpus(["GPU-9"], FakeNvml({})).read().words == "the GPU: NVML does not know GPU-9: error 6"
    nvml = FakeNvml({GPU: 1_000})
    anew, lost = Gpus([GPU], nvml), Gpus([GPU], nvml)
    nvml.counts[GPU] = 0
    assert "began anew" in anew.read().words
    nvml.errors[GPU] = 15
    assert "became unreadable" in lost.read().words
    nvml.errors, nvml.counts[GPU] = {}, 9_000
    assert anew.read().joules is None and lost.read().joules is None


def test_the_model_between_rest_and_all_cores_busy() -> None:
    """Power goes from rest to busy with the busy share of the cores, and no further; time that vanishes counts 0."""
    model, clock, busy = PowerModel(10.0, 50.0, 4), [100.0], [7.0]
    estimate = Estimate(model, lambda: CpuTime(busy[0], "us"), lambda: clock[0])
    assert estimate.read().joules == 0.0
    clock[0] = 110.0
    assert estimate.read().joules == 100.0  # ten seconds at rest
    busy[0] = 27.0
    assert estimate.read() == (300.0, "10 W at rest and 50 W with 4 busy cores, CPU time of us")
    busy[0] = 20.0  # a process ended that nobody waited for
    assert estimate.read().joules == 300.0
    busy[0] = 1e6
    assert estimate.read().joules == 500.0


def test_time_of_those_that_were_started_counts_once() -> None:
    """CPU time holds that of children, while they live, when they ended and when they were waited for."""
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    before = cpu_time()
    assert before.whose == "this process and its children"
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        alive = cpu_time().seconds - before.seconds
        own = cpu_time(root=child.pid).seconds
        child.communicate(b"\n")
        waited = cpu_time().seconds - before.seconds
    assert own >= 0.28 and alive >= own - 0.005  # ticks of 0.01 s
    assert alive - 0.02 <= waited < 2 * alive


def test_a_tree_of_processes_with_odd_names(tmp_path: Path) -> None:
    """A process's name may hold brackets and spaces; strangers and what they started don't count."""
    tick = os.sysconf("SC_CLK_TCK")
    for number, parent, name in ((5, 1, "a) R 9 (b"), (6, 5, "child"), (7, 6, "x"), (8, 1, "stranger"), (9, 8, "y")):
        (tmp_path / str(number)).mkdir()
        zeros = " 0" * 9
        (tmp_path / str(number) / "stat").write_text(f"{number} ({name}) S {parent}{zeros} {tick} 0 {tick} {tick} 20\n")
    (tmp_path / "10").mkdir()  # has just ended
    assert cpu_time(tmp_path, 5).seconds == 9.0
    assert cpu_time(tmp_path / "none", 5).whose.endswith("that ended")


NO_RAPL, NO_GPU = Fixed(None, "the processor: no counter"), Fixed(None, "the GPU: no counter")
RAPL, CARD, MODEL = Fixed(3.0, "packages"), Fixed(4.0, "card"), Fixed(5.0, "10 W at rest")


@pytest.mark.parametrize(
    ("processor", "estimate", "gpus", "joules", "source"),
    [
        (RAPL, None, None, 3.0, "measured: packages"),
        (RAPL, MODEL, CARD, 7.0, "measured: packages + card"),
        (NO_RAPL, None, CARD, 4.0, "measured: card; without the processor: no counter"),
        (RAPL, MODEL, NO_GPU, 3.0, "measured: packages; without the GPU: no counter"),
        (NO_RAPL, MODEL, None, 5.0, "estimated: 10 W at rest"),
        (NO_RAPL, MODEL, CARD, 9.0, "estimated: 10 W at rest + card"),
        (NO_RAPL, None, None, None, "unavailable: the processor: no counter"),
        (NO_RAPL, None, NO_GPU, None, "unavailable: the processor: no counter; the GPU: no counter"),
    ],
)
def test_measured_before_estimated_before_none(
    processor: Fixed, estimate: Fixed | None, gpus: Fixed | None, joules: float | None, source: str
) -> None:
    """What is measured is never replaced by an estimate; a sum with an estimate is one; what is not in it is said."""
    found = EnergyMeter(estimate, [gpus] if gpus else [], processor=processor).read()
    assert (found.joules, found.source) == (joules, source)


def test_saving_is_the_share_that_is_not_needed_any_more() -> None:
    """A saving is 1 - after / before, not before / after - 1; of nothing, nothing can be saved."""
    assert energy_saving(129.0, 100.0) == pytest.approx(29 / 129)
    assert energy_saving(10.0, 10.0) == 0.0 and energy_saving(10.0, 15.0) == -0.5
    with pytest.raises(ValueError, match="of 0"):
        energy_saving(0.0, 1.0)
