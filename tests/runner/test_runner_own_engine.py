"""Workers of different engines side by side: each as near to fp32 as the recipe wants, and none passes for another."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from commandline import SCRIPT, shell

from stillhouse.data.open import open_data, survey
from stillhouse.foundation.errors import ModelError, UserError
from stillhouse.foundation.events import Event, FleetChanged
from stillhouse.foundation.files import sha256
from stillhouse.knowledge.ask import Ask
from stillhouse.models.weights import weights_bytes
from stillhouse.recipe.engines import TeacherEngineSection
from stillhouse.recipe.load import dump
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.answers import codec_of, identity_of
from stillhouse.runner.environment import resolve
from stillhouse.runner.gate import Gate
from stillhouse.runner.job import job_of, probe_of
from stillhouse.runner.materials import gather
from stillhouse.runner.networks import objective_of
from stillhouse.runner.own_engine import strays
from stillhouse.runner.run import run
from stillhouse.runner.worker import prepare
from stillhouse.teachers.engine import Teacher

from ..teachers.tiny_teacher import make_network, make_views
from .lessons import lesson, told
from .test_runner_fleet import PATIENCE_S, disturbed

FP32, BF16 = ("teacher.engine.precision=fp32",), ("teacher.engine.precision=bf16",)
IMPOSSIBLE = 1e-12


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Workers in this process set them."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def recipe_of(labels: Path, source: str = "inline", bound: float = 1e-3, epochs: int = 8, **fleet: Any) -> Recipe:
    """A run of a few hundred small questions, whose teacher answers in fp32."""
    section = {"workers": 1, "threads": 1, "device": "cpu", "engine": "own", **fleet}
    augmented = {"source": {"kind": "digits"}, "augment": {"pad_px": 1}}
    train = {"epochs": epochs, "batch_size": 120}
    recipe = lesson(labels, source, "conv", {"batch_size": 24}, train, data=augmented, fleet=section)
    return recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"divergence_max": bound})})


class Worker(NamedTuple):
    """What a gate looks at."""

    facts: Mapping[str, Any]
    proof: bytes


@dataclass(frozen=True)
class Scene:
    """What a run tells workers, and its gate."""

    job: dict[str, Any]
    gate: Gate
    warnings: list[str]

    def worker(self, *overrides: str) -> Worker:
        """What a worker with these overrides tells of itself, and shows."""
        served = prepare(self.job, overrides)
        return Worker(served.facts, bytes(served.proof))


def scene(folder: Path, recipe: Recipe) -> Scene:
    """A run up to the moment when workers come."""
    recipe = resolve(recipe)
    found = survey(recipe.data, recipe.seed)
    materials = gather(recipe, open_data(found, recipe.data, folder, lambda *_: None), None)
    teacher = materials.networks.teacher()
    ask = objective_of(materials.networks, materials.networks.student(0), teacher, 0).ask
    codec, content = codec_of(materials.networks, teacher, ask), weights_bytes(teacher)
    job = job_of(materials, ask, identity_of(materials, teacher, ask))
    warnings: list[str] = []
    bound = recipe.teacher.divergence_max if recipe.fleet.engine == "own" else None
    gate = Gate(teacher, ask, codec, materials.device, probe_of(materials), None, warnings.append, bound)
    return Scene(replace(job, weights={"content": content, "digest": sha256(content)}).as_json(), gate, warnings)


def test_different_engines_are_let_in(tmp_path: Path) -> None:
    """One in fp32, one in bf16: both get in, say what they are, and nobody is warned of last bits."""
    here = scene(tmp_path, recipe_of(tmp_path))
    plain, short = here.worker(*FP32), here.worker(*BF16)
    assert here.gate(*plain) is None and here.gate(*short) is None and here.warnings == []
    assert plain.facts["engine"].startswith("fp32") and short.facts["engine"].startswith("bf16")
    assert plain.proof != short.proof, "they are told apart by their answers"
    assert all("24 at once" in each.facts["engine"] for each in (plain, short)), "the run's group"


def test_where_all_are_the_same_they_are_not(tmp_path: Path) -> None:
    """Without it a worker with another engine is refused, and so is one that has its own where others don't."""
    here = scene(tmp_path, recipe_of(tmp_path, engine="same"))
    assert here.gate(*here.worker()) is None
    with pytest.raises(UserError, match=r"engine\.precision: fp32 there, bf16 here"):
        here.worker(*BF16)
    with pytest.raises(UserError, match=r"engine\.mixed"):
        here.worker("fleet.engine=own")
    with pytest.raises(UserError, match=r"engine\.mixed"):
        scene(tmp_path, recipe_of(tmp_path)).worker("fleet.engine=same")


def test_the_bound(tmp_path: Path) -> None:
    """An engine beyond it does not come: by itself, and, where it comes all the same, by the run's own look."""
    strict, loose = (scene(tmp_path, recipe_of(tmp_path, bound=bound)) for bound in (IMPOSSIBLE, 1e-3))
    with pytest.raises(ModelError, match=r"bf16.*diverges from fp32 by .* nats"):
        strict.worker(*BF16)
    refusal = strict.gate(*loose.worker(*BF16))
    assert refusal is not None and "its engine (bf16" in refusal and "divergence_max allows 1e-12" in refusal
    assert strict.gate(*loose.worker(*FP32)) is None
    plain = loose.worker(*FP32)
    nothing = np.full(len(plain.proof) // 4, np.nan, np.float32).tobytes()
    assert strict.gate(plain.facts, nothing) is not None
    refusal = strict.gate(plain.facts, plain.proof[1:])
    assert refusal is not None and f"{len(nothing)} are wanted" in refusal


def test_free_workers_find_one_that_keeps_to_it(tmp_path: Path) -> None:
    """Where nothing but fp32 is faithful enough, a worker that may choose takes that."""
    here = scene(tmp_path, recipe_of(tmp_path, bound=IMPOSSIBLE))
    found = here.worker()
    assert found.facts["engine"].startswith("fp32") and here.gate(*found) is None


def test_unsteady_engines_are_refused() -> None:
    """A teacher whose answers depend on their neighbours answers for nobody, however near to fp32."""

    def found(network: Any) -> str:
        device, ask = torch.device("cpu"), Ask(logits=True)
        teacher = Teacher(network, ask, device, TeacherEngineSection(batch_size=8))
        return strays(network, ask, device, teacher, make_views(8), 8, 1e-3)

    assert found(make_network()) == ""
    assert "depends on its place" in found(
        make_network(lambda features, logits: logits + 1e-4 * torch.arange(len(logits))[:, None] * torch.eye(5)[0])
    )


def test_mixed_answers_are_a_store_of_their_own(tmp_path: Path) -> None:
    """Neither reads what the other kept; the same again reads all; what it means for results is told."""
    labels = tmp_path / "labels"
    results = {}
    for name, engine in (("own", "own"), ("same", "same"), ("own-again", "own")):
        results[name] = run(recipe_of(labels, "stored", epochs=2, workers=0, engine=engine), tmp_path / name)
    hits = {name: result["store"]["hits"] for name, result in results.items()}
    assert hits == {"own": 0, "same": 0, "own-again": 2 * 1200}
    said = {name: any("depend on who answered what" in each for each in found["warnings"])
            for name, found in results.items()}  # fmt: skip
    assert said == {"own": True, "same": False, "own-again": True}


def test_what_the_student_answers_itself_keeps_to_it(tmp_path: Path) -> None:
    """The run's own engine is no exception."""
    recipe = recipe_of(tmp_path, bound=IMPOSSIBLE, workers=0)
    engine = recipe.teacher.engine.model_copy(update={"precision": "bf16"})
    recipe = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"engine": engine})})
    with pytest.raises(ModelError, match="student's process answers itself"):
        run(recipe, tmp_path / "run")


def test_chaos_promises_nothing_then(tmp_path: Path) -> None:
    """Identical weights can't be promised, so that nothing is run to compare them."""
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(recipe_of(tmp_path)))
    said = shell("chaos", path, "--out", tmp_path / "out")
    assert said.code == 2 and "--set fleet.engine=same" in said.err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_with_workers_of_two_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two join by hand, one forced to fp32 and one to bf16: both answer beside the run's own; the result names all."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))
    folder, helpers = tmp_path / "run", list[subprocess.Popen[str]]()

    def help_out(pids: list[int]) -> None:
        if not helpers:
            for forced in (*FP32, *BF16):
                command = [str(SCRIPT), "join", str(folder), "--set", "fleet.device=cpu", "--set", forced]
                helpers.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))

    def came(events: list[Event]) -> list[FleetChanged]:
        changes = told(events, FleetChanged)
        return [each for each in changes if each.kind == "joined" and each.worker.startswith("joined-")]

    result, events = disturbed(recipe_of(tmp_path), folder, help_out, lambda events: len(came(events)) == 2)
    for helper in helpers:
        _, words = helper.communicate(timeout=PATIENCE_S)
        assert helper.returncode == 0, words
    assert {each.facts["engine"].split()[0].strip(",") for each in came(events)} == {"fp32", "bf16"}
    assert {each.split()[0].strip(",") for each in result["engines"]["workers"]} >= {"fp32", "bf16"}
