"""Trying engines before a run: the table, fair timing, what a trial may cost, and a memory of what was found.

Timing is interleaved, round by round, so that a machine that slows down slows all candidates alike. The lower quartile
counts: other processes only ever add time, on a busy machine to more than half of all readings.
A trial is worth it only where it may win twice what it costs: a run of seconds is never made longer by tuning it.
What was found is remembered for this machine and model in one JSON file of the user's cache, which may be lost, damaged
or read-only at any time: a cache is never an error.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from pydantic import ValidationError
from torch import nn

from stillhouse.foundation.errors import StorageError
from stillhouse.foundation.files import cache_folder, digest_json, write_atomic
from stillhouse.recipe.engines import AUTO, StepEngineSection

_ENTRIES_MAX = 200
_FIRST_COMPILE_S, _LAYER_COMPILE_S = 5.0, 0.3  # measured: 16 s for 31 layers at first, 2 to 8 s afterwards
Engine = TypeVar("Engine", bound=StepEngineSection)


@dataclass(frozen=True)
class Tried:
    """One engine in a trial; None where it was not measured.

    Attributes:
        label: short, e.g. ``bf16 channels-last compiled, 128 at once``.
        settings: the engine section's values.
        samples_per_s: of the lower quartile of interleaved rounds; remembered where the engine was not timed anew.
        first_call_s: the first answer or step, with all compiling.
        kl: mean over samples of KL(fp32 || this) in nats, at temperature 1.
        agreement: share of samples with the top class of fp32.
        feature_error: mean over asked activations of ||f - f32||^2 / ||f32||^2.
        loss_error: of a training's step: largest |loss - loss32| / |loss32| of the steps tried.
        steady: whether a row's bits are the same wherever it lies among others.
        refused: why it can't be taken, or was not tried; "" where it could be.
        chosen: whether it was taken.
    """

    label: str
    settings: Mapping[str, Any]
    samples_per_s: float | None = None
    first_call_s: float | None = None
    kl: float | None = None
    agreement: float | None = None
    feature_error: float | None = None
    loss_error: float | None = None
    steady: bool | None = None
    refused: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class Chosen(Generic[Engine]):
    """What a trial ended with: settings with nothing left ``auto``.

    Attributes:
        table: in the order tried; empty where nothing was ``auto``.
        remembered: the engine was found by an earlier trial, and only its faithfulness was measured now.
    """

    engine: Engine
    table: tuple[Tried, ...] = ()
    remembered: bool = False


class Ledger(Generic[Engine]):
    """What a trial writes down: what is wanted, the table, and what was found before.

    Args:
        wanted: ``auto`` where the trial is free.
        reference: what every other engine is compared with; what stays where nothing better is found.
        key: of the memory, see :func:`trial_key`.
        tell: takes each engine when it was tried, and at last the chosen one again.
        check: called between two engines, also after one that failed; ends the trial by what it raises.
    """

    def __init__(
        self, wanted: Engine, reference: Engine, key: str, tell: Callable[[Tried], None], check: Callable[[], None]
    ) -> None:
        self.reference, self.check = reference, check
        self._wanted, self._key, self._tell = wanted.model_dump(), key, tell
        self._rows: list[Tried] = []

    def fits(self, engine: Engine) -> bool:
        """Whether an engine keeps to what is fixed."""
        return all(self._wanted[name] in (AUTO, value) for name, value in engine.model_dump().items())

    def note(self, row: Tried) -> None:
        """One more row of the table."""
        self.check()  # a compiler that Ctrl-C killed says nothing about its engine
        self._rows.append(row)
        self._tell(row)

    def skip(self, engine: Engine, reason: str) -> None:
        """A row for what was not tried."""
        self.note(row_of(engine, refused=f"not tried: {reason}"))

    def worth(self, engine: Engine, best: Tried, rest_s: float, cost_s: float, gain: float) -> bool:
        """Whether to try an engine that may be ``gain`` times as fast as the best; a row says why not.

        Args:
            rest_s: of the work that is left, by the best.
            cost_s: of the trial, and of what is to be done again in earnest.
        """
        if gain <= 1:
            self.skip(engine, f"hardly faster than {best.label}")
        elif not pays(cost_s, rest_s, gain):
            self.skip(engine, f"{cost_s:.2g} s to get it ready, here and in earnest, for {rest_s:.2g} s of work")
        else:
            return True
        return False

    def recalled(self) -> tuple[Engine, float | None] | None:
        """An earlier trial's engine and its samples a second."""
        entry = recall(self._key)
        if entry is None:
            return None
        try:
            engine = type(self.reference).model_validate(entry["engine"])
        except ValidationError:
            return None
        rate = entry.get("samples_per_s")
        return (engine, rate if isinstance(rate, float) else None) if engine.settled and self.fits(engine) else None

    def nothing_better(self) -> Chosen[Engine]:
        """The end where no engine could be taken: what is fixed, and for the rest the reference."""
        fixed = {name: value for name, value in self._wanted.items() if value != AUTO}
        return Chosen(self.reference.model_copy(update=fixed), tuple(self._rows))

    def close(self, engine: Engine, row: Tried, *, remembered: bool = False) -> Chosen[Engine]:
        """The end: the chosen row marked, told and remembered."""
        marked = replace(row, chosen=True)
        self._tell(marked)
        if not remembered:
            remember(self._key, marked)
        return Chosen(engine, tuple(marked if each is row else each for each in self._rows), remembered)


def row_of(engine: StepEngineSection, refused: str = "") -> Tried:
    """A row without measurements."""
    return Tried(label_of(engine), engine.model_dump(mode="json"), refused=refused)


def label_of(engine: StepEngineSection) -> str:
    """An engine in a few words."""
    values = engine.model_dump()
    words = [values["precision"]]
    words += ["channels-last"] if values["channels_last"] is True else []
    words += ["compiled"] if values["compile"] is True else []
    words += ["ONNX Runtime"] if values.get("runtime") == "onnx" else []
    return " ".join(words) + (f", {values['batch_size']} at once" if "batch_size" in values else "")


def interleaved_s(
    calls: Mapping[str, Callable[[], object]], device: torch.device, rounds: int, check: Callable[[], None]
) -> dict[str, float]:
    """Typical seconds of each call, in interleaved rounds with ``check`` before each; warm them up first."""
    readings: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        check()
        for name, call in calls.items():
            readings[name].append(seconds_of(call, device))
    return {name: typical_s(values) for name, values in readings.items()}


def typical_s(readings: Sequence[float]) -> float:
    """The lower quartile of some readings, the lesser of the two nearest."""
    return sorted(readings)[(len(readings) - 1) // 4]


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, the accelerator's work with it."""
    _wait_for(device)
    begun = time.perf_counter()
    call()
    _wait_for(device)
    return time.perf_counter() - begun


def gain_wanted(engine: StepEngineSection, best: StepEngineSection) -> float:
    """How many times faster than the best so far an engine must be: fp32 is not left for noise, nor eager mode."""
    shorter = engine.precision != "fp32" and best.precision == "fp32"
    return 1.05 if shorter else 1.03 if engine.compile else 1.0


def pays(cost_s: float, rest_s: float, hoped: float) -> bool:
    """Whether to spend ``cost_s`` on a try that may make the remaining ``rest_s`` seconds ``hoped`` times faster.

    It must promise twice what it costs: half of all hopes are disappointed.
    """
    return cost_s <= 0.5 * rest_s * (1 - 1 / hoped)


def compile_guess_s(network: nn.Module) -> float:
    """Seconds that compiling may take where none was measured yet, from the number of layers with weights."""
    layers = sum(any(True for _ in module.parameters(recurse=False)) for module in network.modules())
    return _FIRST_COMPILE_S + _LAYER_COMPILE_S * layers


def reason(error: Exception) -> str:
    """An error in one short line, for the table."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


@contextlib.contextmanager
def without_trace(device: torch.device) -> Iterator[None]:
    """Random generators are afterwards as they were, and an accelerator's freed memory is free for others."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()


def trial_key(kind: str, network: nn.Module, device: torch.device, wanted: StepEngineSection, *asked: object) -> str:
    """Hex digest of all that the speed of engines depends on: machine, versions, threads and the network's form.

    Args:
        asked: JSON values: the inputs' shape, the question, the amount of work.
    """
    form = [[name, list(value.shape), str(value.dtype)] for name, value in network.state_dict().items()]
    machine = [_processor(), torch.get_num_threads(), torch.__version__, str(device)]
    if device.type == "cuda":
        machine += [torch.cuda.get_device_name(device), torch.version.cuda]
    return digest_json([kind, repr(network), form, machine, wanted.model_dump(mode="json"), list(asked)])


def recall(key: str) -> dict[str, Any] | None:
    """What was remembered under a key: ``engine``, ``samples_per_s``, ``first_call_s``."""
    entry = _entries().get(key)
    return entry if isinstance(entry, dict) and isinstance(entry.get("engine"), dict) else None


def remember(key: str, row: Tried) -> None:
    """Keep an engine for the next run; the newest 200 are kept. Of two who write at once, one may be forgotten."""
    entries = _entries()
    entries.pop(key, None)
    entries[key] = {"engine": dict(row.settings), "samples_per_s": row.samples_per_s, "first_call_s": row.first_call_s}
    newest = dict(list(entries.items())[-_ENTRIES_MAX:])
    with contextlib.suppress(StorageError, OSError, RuntimeError):
        write_atomic(_file(), json.dumps(newest, indent=1) + "\n")


def _entries() -> dict[str, Any]:
    try:
        found = json.loads(_file().read_text())
    except (OSError, ValueError, RuntimeError):
        return {}
    return found if isinstance(found, dict) else {}


def _file() -> Path:
    return cache_folder() / "engines.json"


def _processor() -> str:
    """The processor with its instruction sets: virtual machines call many different ones by one name."""
    try:
        text = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told_apart = ("vendor_id", "cpu family", "model", "model name", "flags", "Features")
    return "\n".join(line for line in text.splitlines() if line.partition(":")[0].strip() in told_apart)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
