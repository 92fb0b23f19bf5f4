"""The teacher's trial: what it may take, what it refuses and why, what it remembers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from teachers.tiny_teacher import make_batch, make_network, make_views

from stillhouse.foundation.errors import Interrupted, ModelError
from stillhouse.knowledge.ask import Ask
from stillhouse.models.network import Network
from stillhouse.models.trials import Chosen, Tried
from stillhouse.recipe.engines import AUTO, TeacherEngineSection
from stillhouse.teachers import engine as engine_module
from stillhouse.teachers.fidelity import measure_fidelity
from stillhouse.teachers.trial import choose_teacher_engine

CPU = torch.device("cpu")
LONG, SHORT = 10**9, 50


def wanted(**fixed: Any) -> TeacherEngineSection:
    """Eager and 16 at once, unless told otherwise; the rest automatic."""
    free = {"precision": AUTO, "channels_last": AUTO, "compile": False, "runtime": "torch", "batch_size": 16}
    return TeacherEngineSection.model_validate(free | fixed)


def choose(network: Network, **values: Any) -> Chosen[TeacherEngineSection]:
    defaults: dict[str, Any] = {
        "ask": Ask(), "device": CPU, "wanted": wanted(), "samples": make_views(40), "divergence_max": 1e-3,
        "work_views": LONG, "multiple_of": 16,
    }  # fmt: skip
    return choose_teacher_engine(network, **(defaults | values))


def tamper(when: torch.dtype, what: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Another answer where the network computes in a type."""
    return lambda found, logits: what(logits) if logits.dtype == when else logits


def slowly(logits: torch.Tensor) -> torch.Tensor:
    time.sleep(0.004)
    return logits


def fail(logits: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no kernel for this type\nand a long story")


def rows_of(chosen: Chosen[TeacherEngineSection], word: str) -> list[Tried]:
    return [row for row in chosen.table if word in row.label]


def test_settled_engine_is_not_tried() -> None:
    """Where nothing is automatic the engine is taken as it is, and the network never called."""
    network = make_network(tamper(torch.float32, fail))
    settled = wanted(precision="fp32", channels_last=False)
    assert choose(network, wanted=settled) == Chosen(settled)


def test_fastest_faithful_engine_is_taken() -> None:
    """Where fp32 is slow and bf16 faithful, bf16 is taken; the table and the listener say what was measured."""
    heard: list[Tried] = []
    chosen = choose(make_network(tamper(torch.float32, slowly)), tell=heard.append)
    assert chosen.engine.precision == "bf16" and chosen.engine.settled and not chosen.remembered
    (best,) = [row for row in chosen.table if row.chosen]
    assert best.label.startswith("bf16") and best.steady and best.kl is not None and best.kl < 1e-3
    assert best.samples_per_s is not None and best.agreement is not None and best.first_call_s is not None
    assert {row.label.partition(",")[0] for row in chosen.table} == {
        "fp32", "fp32 channels-last", "bf16", "bf16 channels-last",
    }  # fmt: skip
    assert [row for row in heard if row.chosen] == [best] and len(heard) == len(chosen.table) + 1


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (lambda logits: logits * 3, "diverges from fp32"),
        (lambda logits: logits * float("inf"), "not finite"),
        (lambda logits: logits * float("nan"), "not finite"),
        (lambda logits: logits + torch.arange(len(logits))[:, None] * torch.eye(5)[0] * 1e-3, "not steady"),
        (fail, "RuntimeError: no kernel for this type"),
    ],
    ids=["divergent", "infinite", "nan", "unsteady", "raising"],
)
def test_wrong_engine_is_refused(what: Callable[[torch.Tensor], torch.Tensor], why: str) -> None:
    """A faster engine that strays, overflows, depends on places or raises is refused by name, and fp32 stays."""

    def odd(found: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return what(logits.float()) if logits.dtype == torch.bfloat16 else slowly(logits)

    chosen = choose(make_network(odd), divergence_max=0.05)
    assert chosen.engine.precision == "fp32"
    assert {row.refused.startswith(why) or why in row.refused for row in rows_of(chosen, "bf16")} == {True}


def test_strayed_features_are_refused() -> None:
    """An engine whose logits are right and whose activations are not is refused where activations are asked."""
    network = make_network()
    network.body.features.register_forward_hook(  # before the tap's own hook
        lambda module, inputs, output: output * 1.5 if output.dtype == torch.bfloat16 else output
    )
    ask = Ask(logits=False, features=("features",))
    chosen = choose(network, ask=ask)
    assert chosen.engine.precision == "fp32"
    assert all("activations differ" in row.refused and row.kl is None for row in rows_of(chosen, "bf16"))


def test_what_is_fixed_stays() -> None:
    """A fixed precision is kept even where it is slower, and a fixed engine that strays is kept, too."""
    slow = make_network(tamper(torch.bfloat16, slowly))
    assert choose(slow, wanted=wanted(precision="bf16")).engine.precision == "bf16"
    wrong = make_network(tamper(torch.bfloat16, lambda logits: logits * 9))
    chosen = choose(wrong, wanted=wanted(precision="bf16"))
    assert chosen.engine == wanted(precision="bf16", channels_last=False)
    assert not any(row.chosen for row in chosen.table)


def test_little_work_is_not_tuned() -> None:
    """Where the views still to be asked take no time nothing but fp32 is run, and the table says why."""
    chosen = choose(make_network(), wanted=wanted(compile=AUTO, runtime=AUTO, batch_size=AUTO), work_views=SHORT)
    assert chosen.engine == TeacherEngineSection(batch_size=128)
    tried = [row for row in chosen.table if row.samples_per_s is not None]
    assert [row.label for row in tried] == ["fp32, 128 at once"]
    assert all(row.refused.startswith("not tried") for row in chosen.table if row not in tried)


def test_batch_sizes_are_climbed() -> None:
    """Where each call costs the same, the largest batch is taken of those that go well with the student's."""
    network = make_network(lambda found, logits: slowly(logits))
    chosen = choose(network, wanted=wanted(precision="fp32", channels_last=False, batch_size=AUTO), multiple_of=256)
    assert chosen.engine.batch_size == 512
    odd = choose(network, wanted=wanted(precision="fp32", channels_last=False, batch_size=AUTO), multiple_of=384)
    assert odd.engine.batch_size == 128


def test_machine_without_a_compiler_runs_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that is missing is a refused row, not the run's end, also where the recipe wants compiled engines."""

    def missing(function: object, *, frozen: bool) -> Callable[..., object]:
        def call(*inputs: object) -> object:
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found")

        return call

    monkeypatch.setattr(engine_module, "compiled", missing)
    chosen = choose(make_network(), wanted=wanted(compile=AUTO))
    assert chosen.engine.compile is False
    refused = rows_of(chosen, "compiled")
    assert refused and all("no working C++ compiler" in row.refused for row in refused)
    fixed = choose(make_network(), wanted=wanted(compile=True))
    assert fixed.engine.compile is True and fixed.engine.precision == "fp32"


def test_a_trial_can_be_stopped_between_two_engines(cache: Path) -> None:
    """What the check raises ends the trial, so that the engine at work is the last; nothing is remembered of it."""
    stopped, seen = False, set[torch.dtype]()

    def answer(found: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        nonlocal stopped
        seen.add(logits.dtype)
        stopped = True
        return logits

    def check() -> None:
        if stopped:
            raise Interrupted("stopped", 2)

    with pytest.raises(Interrupted):
        choose(make_network(answer), check=check)
    assert seen == {torch.float32} and not cache.exists()


def test_a_compiler_that_ctrl_c_killed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the signal took the compiler along, the trial ends there instead of remembering an engine without it."""
    stopped = False

    def killed(function: object, *, frozen: bool) -> Callable[..., object]:
        def call(*inputs: object) -> object:
            nonlocal stopped
            stopped = True
            raise RuntimeError("CppCompileError: terminated by signal 2")

        return call

    def check() -> None:
        if stopped:
            raise Interrupted("stopped", 2)

    monkeypatch.setattr(engine_module, "compiled", killed)
    heard: list[Tried] = []
    with pytest.raises(Interrupted):
        choose(make_network(), wanted=wanted(compile=AUTO), tell=heard.append, check=check)
    assert not cache.exists() and not any("compiled" in row.label for row in heard)


def test_question_that_cannot_be_answered_is_told() -> None:
    """A module that the teacher does not have is an error, not a refused engine."""
    with pytest.raises(ModelError, match="did you mean 'features'"):
        choose(make_network(), ask=Ask(features=("feature",)))


def test_trial_leaves_no_trace() -> None:
    """The network and the process's random state are afterwards as they were."""
    network, state = make_network(), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    choose(network)
    assert torch.equal(torch.get_rng_state(), state) and network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_found_engine_is_remembered(cache: Path) -> None:
    """A second run with the same form of teacher takes what was found, measures its answers and nothing else."""
    first = choose(make_network(tamper(torch.float32, slowly)))
    assert (cache / "engines.json").exists()
    second = choose(make_network(tamper(torch.float32, slowly)))
    assert second.remembered and second.engine == first.engine
    (row,) = second.table
    assert row.chosen and row.kl is not None and row.samples_per_s is not None
    (rate,) = [each.samples_per_s for each in first.table if each.chosen]
    assert row.samples_per_s == rate


def test_remembered_engine_that_strays_is_dropped() -> None:
    """With weights that the remembered engine answers wrongly, it is refused and all is tried again."""
    choose(make_network(tamper(torch.float32, slowly)))
    wrong = make_network(tamper(torch.bfloat16, lambda logits: logits * 9))
    chosen = choose(wrong)
    assert not chosen.remembered and chosen.engine.precision == "fp32"
    assert "diverges" in chosen.table[0].refused
    assert choose(wrong).remembered


def test_another_question_is_another_memory() -> None:
    """What was found for one amount of work, form of view or wish is not used for another."""
    choose(make_network())
    assert not choose(make_network(), work_views=10**6).remembered
    assert not choose(make_network(), ask=Ask(features=("features",))).remembered
    assert not choose(make_network(), wanted=wanted(precision="bf16")).remembered
    assert choose(make_network()).remembered


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "null"])
def test_damaged_memory_is_ignored(cache: Path, text: str) -> None:
    """A memory cut short or of another form costs a new trial and is replaced."""
    cache.mkdir()
    (cache / "engines.json").write_text(text)
    assert not choose(make_network()).remembered
    assert choose(make_network()).remembered


@pytest.mark.parametrize("entry", [3, {}, {"engine": 1}, {"engine": {"precision": "fp7"}}, {"engine": {}}])
def test_senseless_entry_is_ignored(cache: Path, entry: object) -> None:
    """An entry that is no engine, or not one that may be taken, costs a new trial."""
    choose(make_network(), wanted=wanted(precision="bf16"))
    (key,) = json.loads((cache / "engines.json").read_text())
    (cache / "engines.json").write_text(json.dumps({key: entry}))
    chosen = choose(make_network(), wanted=wanted(precision="bf16"))
    assert not chosen.remembered and chosen.engine.precision == "bf16"


def test_unwritable_memory_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written a trial ends as well as elsewhere."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "file"))
    assert choose(make_network()).engine.settled


def test_fidelity_of_itself_is_perfect() -> None:
    """An engine compared with its own answers has no divergence and full agreement."""
    ask = Ask(features=("features",))
    teacher = engine_module.Teacher(make_network(), ask, CPU, TeacherEngineSection(batch_size=16))
    views = make_views(20)
    found = measure_fidelity(teacher, views, 16, teacher.answer(make_batch(views)))
    assert (found.kl, found.agreement, found.feature_error, found.steady, found.finite) == (0, 1, 0, True, True)


@pytest.mark.slow
def test_long_work_tries_everything() -> None:
    """With work without end compiled engines are tried as well, and the winner answers."""
    free = TeacherEngineSection.model_validate(dict.fromkeys(TeacherEngineSection.model_fields, AUTO))
    chosen = choose(make_network(), wanted=free, multiple_of=64)
    assert chosen.engine.settled and any(row.chosen for row in chosen.table)
    assert any(row.samples_per_s for row in rows_of(chosen, "compiled"))
