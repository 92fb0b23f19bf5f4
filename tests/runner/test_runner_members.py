"""Several teachers in a run: trained or given, inline, from a store or by workers, killed and resumed: one student."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import stillhouse
from stillhouse.data.open import open_data, survey
from stillhouse.foundation.errors import ModelError, RecipeError, RunDirError, UserError
from stillhouse.foundation.events import Evaluated, Event, FleetChanged
from stillhouse.knowledge.ask import Ask
from stillhouse.models.ensemble import Ensemble, parts
from stillhouse.models.weights import load_into, read_weights, weights_bytes, weights_digest
from stillhouse.recipe.architectures import Normalisation
from stillhouse.recipe.load import dump, validate
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.answers import identity_of
from stillhouse.runner.job import job_of
from stillhouse.runner.materials import gather
from stillhouse.runner.members import member_rows
from stillhouse.runner.networks import Networks, interface_of
from stillhouse.runner.plan import plan
from stillhouse.runner.run import resume, run
from stillhouse.runner.worker import prepare
from stillhouse.store.manifest import flat
from stillhouse.store.shelf import stores

from .conftest import TRAIN, values
from .lessons import counts, told, weights

FORKED = Path(__file__).with_name("forked.py")
ANY = Normalisation(mean=(0.3,), std=(0.4,))
CONV = {"arch": "resnet", "options": {"width": 4, "blocks": [1, 1]}}
MLP = {"arch": "mlp", "options": {"hidden": [32]}}


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report takes longer than the run."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))


def several(labels: Path | None = None, *, teacher: Any = None, **sections: Any) -> Recipe:
    """A run of two trained teachers, whose answers are kept in ``labels``, if anywhere."""
    members = [{"model": CONV}, {"model": MLP, "weight": 2, "classes": [*range(9)]}]
    kept = {"knowledge": {"source": "stored"}, "store": {"path": str(labels)}} if labels else {}
    plain = {"teacher": teacher or {"members": members, "train": dict(TRAIN)}, "control": {"seeds": 0}}
    return validate(values(**(plain | ({"knowledge": {"source": "inline"}} | kept) | sections)))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose two teachers answered inline; only to be read."""
    folder = tmp_path_factory.mktemp("several") / "run"
    run(several(), folder)
    return folder


def result_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def networks(recipe: Recipe) -> Networks:
    return Networks(recipe, interface_of(survey(recipe.data, recipe.seed), recipe), ANY, live=None)


def saved(path: Path, section: dict[str, Any], classes: int = 10) -> dict[str, Any]:
    """The model section with a weights file of its own, for so many classes."""
    made = networks(validate(values(student={"model": section, "train": TRAIN})))
    network = replace(made, interface=replace(made.interface, classes=classes)).student(0)
    path.write_bytes(weights_bytes(network))
    return {**section, "weights": str(path)}


def test_the_result_tells_of_all_and_of_each(undisturbed: Path) -> None:
    """Accuracy and costs are those of the whole; each member's own stand beside them."""
    teacher = result_of(undisturbed)["teacher"]
    conv, mlp = teacher["members"]
    assert (conv["classes"], conv["weight"], mlp["classes"], mlp["weight"]) == (10, 1, 9, 2)
    assert teacher["params"] == conv["params"] + mlp["params"] and teacher["macs"] == conv["macs"] + mlp["macs"]
    assert teacher["trained_here"] and conv["samples"] == result_of(undisturbed)["data"]["test"] > mlp["samples"]


def test_a_member_is_measured_at_its_own_work(tmp_path: Path, undisturbed: Path) -> None:
    """A member's accuracy is that of its choice among its own classes, on the test samples of these."""
    recipe = several(compute={"device": "cpu", "threads": 1})
    found = survey(recipe.data, recipe.seed)
    materials = gather(recipe, open_data(found, recipe.data, tmp_path, lambda name, done, count: None), None)
    teacher = materials.networks.teacher()
    load_into(teacher, read_weights(undisturbed / "weights" / "teacher.safetensors"), "the file")
    rows = member_rows(materials, teacher)
    (batch,) = list(materials.test())
    own = batch.targets < 9
    for row, part, those in zip(rows, parts(teacher.eval()), (own | True, own), strict=True):
        answers = part(batch.inputs)[those][:, : row["classes"]]
        assert row["accuracy"] == pytest.approx((answers.argmax(1) == batch.targets[those]).float().mean().item())
        assert row["samples"] == those.sum()
    assert rows == result_of(undisturbed)["teacher"]["members"]


def test_each_teacher_has_its_weights_and_all_have_one_file(undisturbed: Path) -> None:
    """A phase for each member, from initial weights of its own, and one file of the whole, which the digest is of."""
    folder = undisturbed / "weights"
    each = [read_weights(folder / f"teacher-{number}.safetensors") for number in range(2)]
    whole = read_weights(folder / "teacher.safetensors")
    for number, state in enumerate(each):
        assert all(torch.equal(whole[f"body.members.{number}.{name}"], value) for name, value in state.items())
    network = networks(several()).teacher()
    network.load_state_dict(whole)
    assert weights_digest(network) == result_of(undisturbed)["digests"]["teacher_weights"]


def test_twins_differ() -> None:
    """Two members of one architecture start from different weights, and the same each time."""
    twins = several(teacher={"members": [{"model": MLP}, {"model": MLP}], "train": dict(TRAIN)})
    first, second = parts(networks(twins).teacher())
    assert weights_digest(first) != weights_digest(second)
    assert [weights_digest(each) for each in parts(networks(twins).teacher())] == [
        weights_digest(first),
        weights_digest(second),
    ]


def test_a_store_gives_the_same_student(tmp_path: Path, undisturbed: Path) -> None:
    """Kept answers of several teachers make the student that the teachers themselves make, and are asked once."""
    labels = tmp_path / "labels"
    assert weights(run(several(labels), tmp_path / "first")) == weights(result_of(undisturbed))
    assert weights(run(several(labels), tmp_path / "again")) == weights(result_of(undisturbed))
    assert counts(tmp_path / "again", "student")["misses"] == 0
    (shelved,) = stores(labels)
    assert shelved.manifest is not None
    assert shelved.manifest.identity.parts["teacher"]["arch"] == "resnet + mlp"
    known = flat(shelved.manifest.identity.parts)
    assert (known["teacher.members.0.arch"], known["teacher.members.1.options.hidden"]) == ("resnet", [32])


def test_other_weights_of_members_are_another_store(tmp_path: Path) -> None:
    """Who has how much to say is part of whose answers a store holds."""
    labels = tmp_path / "labels"
    for number, weight in enumerate((1, 3)):
        members = [{"model": CONV}, {"model": MLP, "weight": weight}]
        run(several(labels, teacher={"members": members, "train": dict(TRAIN)}), tmp_path / str(number))
    assert len(list(stores(labels))) == 2


def test_workers_give_the_same_student(tmp_path: Path, undisturbed: Path) -> None:
    """Workers load all members, and the student has the very weights of the run whose teachers answered inline."""
    events: list[Event] = []
    fleet = {"workers": 2, "threads": 1, "device": "cpu", "without_teachers": "stop", "patience_s": 60}
    result = run(several(fleet=fleet), tmp_path / "run", [events.append])
    assert weights(result) == weights(result_of(undisturbed))
    assert [each for each in told(events, FleetChanged) if each.kind == "joined"]


def test_a_worker_elsewhere_takes_one_file(tmp_path: Path, undisturbed: Path) -> None:
    """Where the run's files are not, a copy of its weights/teacher.safetensors is all members; another is refused."""
    files = [saved(tmp_path / f"{number}.safetensors", section) for number, section in enumerate((CONV, MLP))]
    members = [{"model": files[0]}, {"model": files[1], "weight": 2, "classes": [*range(9)]}]
    recipe, ask = several(teacher={"members": members}), Ask(logits=True)
    found = survey(recipe.data, recipe.seed)
    materials = gather(recipe, open_data(found, recipe.data, tmp_path, lambda name, done, count: None), None)
    teacher = materials.networks.teacher()
    load_into(teacher, read_weights(undisturbed / "weights" / "teacher.safetensors"), "the file")
    job = job_of(materials, ask, identity_of(materials, teacher, ask)).as_json()
    copied = tmp_path / "copy.safetensors"
    copied.write_bytes((undisturbed / "weights" / "teacher.safetensors").read_bytes())
    for file in files:
        Path(file["weights"]).unlink()
    there = tuple(f"teacher.members.{number}.model.weights={copied}" for number in range(2))
    assert json.loads(json.dumps(prepare(job, there, copied).facts))["reads"] == "own"
    with pytest.raises(RecipeError, match=r"members.0.model.weights': .* does not exist"):
        prepare(job, (), copied)
    state = read_weights(copied)
    state["body.share"] = state["body.share"].flip(0)
    safetensors.torch.save_file(state, copied)
    with pytest.raises(UserError, match=r"another teacher than the run's: teacher.weights"):
        prepare(job, there, copied)


def test_a_run_resumes_between_its_teachers(tmp_path: Path, undisturbed: Path) -> None:
    """Weights that were lost or damaged after the end of a training are made again, to the same bits."""
    folder = tmp_path / "run"
    run(several(), folder)
    for name in ("result.json", "weights/student.safetensors", "weights/teacher-1.safetensors"):
        (folder / name).unlink()
    whole = folder / "weights" / "teacher.safetensors"
    whole.write_bytes(whole.read_bytes()[:-1])
    assert result_of(undisturbed)["digests"] == resume(folder)["digests"]
    assert whole.read_bytes() == (undisturbed / "weights" / "teacher.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["told", "weights written"])
def test_sigkill_at_every_step(tmp_path: Path, undisturbed: Path, how: str) -> None:
    """Killed at every step of both teachers, after each one's weights and those of both: the same bits."""
    path, folder = tmp_path / "several.yaml", tmp_path / "run"
    path.write_text(dump(several()))
    command = [sys.executable, str(FORKED), str(path), str(folder), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["digest"] == weights(result_of(undisturbed)) and found["leftovers"] == []
    assert found["kills"] >= (11 if how == "weights written" else 20)


def test_given_teachers(tmp_path: Path, undisturbed: Path) -> None:
    """The same teachers by their weights files make the same student; nothing is trained but it."""
    members = [
        {"model": {**section, "weights": str(undisturbed / "weights" / f"teacher-{number}.safetensors")}, **rest}
        for number, (section, rest) in enumerate(((CONV, {}), (MLP, {"weight": 2, "classes": [*range(9)]})))
    ]
    events: list[Event] = []
    result = run(several(teacher={"members": members}), tmp_path / "run", [events.append])
    assert result["digests"]["teacher_weights"] == result_of(undisturbed)["digests"]["teacher_weights"]
    assert weights(result) == weights(result_of(undisturbed)) and not result["teacher"]["trained_here"]
    assert told(events, Evaluated)[0].phase == "teacher"
    (tmp_path / "run" / "result.json").unlink()
    other = saved(tmp_path / "other.safetensors", CONV)
    (tmp_path / "run" / "recipe.yaml").write_text(
        (tmp_path / "run" / "recipe.yaml").read_text().replace(members[0]["model"]["weights"], other["weights"])
    )
    with pytest.raises(RunDirError, match=r"teacher.members.0.model.weights"):
        resume(tmp_path / "run")


def test_a_specialist_with_outputs_of_its_own(tmp_path: Path) -> None:
    """A network of three outputs answers for three classes by name, beside one for all."""
    special = {"model": saved(tmp_path / "s.safetensors", MLP, classes=3), "classes": ["7", 1, 9], "outputs": "own"}
    teacher = {"members": [{"model": saved(tmp_path / "g.safetensors", CONV)}, special]}
    made = networks(several(teacher=teacher)).teacher()
    assert isinstance(made.body, Ensemble) and made.body.shares[1].classes == (7, 1, 9)
    result = run(several(teacher=teacher), tmp_path / "run")
    assert [each["classes"] for each in result["teacher"]["members"]] == [10, 3]
    lines = [how for what, how in plan(several(teacher=teacher), tmp_path / "other") if what == "teacher"]
    assert len(lines) == 2 and "for 3 classes; given: weights" in lines[1]


def test_what_does_not_fit_is_told_by_the_members_number(tmp_path: Path) -> None:
    """Wrong widths and classes that the data don't have end the run before anything is trained, and leave nothing."""
    three, ten = saved(tmp_path / "3.safetensors", MLP, classes=3), saved(tmp_path / "10.safetensors", CONV)
    for member, story in (
        ({"model": three}, r"teacher.members.1 model mlp: .* trained for 3 classes, here they are 10"),
        (
            {"model": three, "classes": [0, 1], "outputs": "own"},
            r"members.1 .* 3 classes, here they are 2: .*outputs: own says that it has 2",
        ),
    ):
        with pytest.raises(ModelError, match=story):
            run(several(teacher={"members": [{"model": ten}, member]}), tmp_path / "run")
    wrong = several(teacher={"members": [{"model": ten, "classes": [0]}, {"model": ten, "classes": [10]}]})
    for refuse in (lambda: run(wrong, tmp_path / "run"), lambda: plan(wrong, tmp_path / "run")):
        with pytest.raises(RecipeError, match=r"members.1.classes: there is no class 10: the data have 10, 0 to 9"):
            refuse()
    assert not (tmp_path / "run").exists()


def test_activations_of_a_member(tmp_path: Path) -> None:
    """A feature term names a member's module; one that is not there is told with the nearest."""

    def asking(name: str) -> Recipe:
        student = {"model": {"arch": "resnet", "options": {"width": 2, "blocks": [1, 1]}}, "train": dict(TRAIN)}
        return several(student=student, objective={"features": [{"teacher": name, "student": "stage1"}]})

    run(asking("members.0.body.stage1"), tmp_path / "run")
    with pytest.raises(ModelError, match=r"no module 'members.0.stage1': did you mean 'members.0.body.stage1'"):
        run(asking("members.0.stage1"), tmp_path / "other")


class Vectors:
    """60 samples of 12 numbers in three classes."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.targets = [int(label) for label in random.integers(0, 3, 60)]
        self.rows = random.normal(size=(60, 12)).astype(np.float32) + np.array(self.targets, np.float32)[:, None]

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.rows[index], self.targets[index]


def module(outputs: int, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, outputs))


def test_modules_from_python(tmp_path: Path) -> None:
    """A list of modules is a teacher; ``members`` says what each has to say; other modules are refused on a resume."""
    sections: dict[str, Any] = {"train": {"epochs": 1, "batch_size": 16}, "control": {"seeds": 0}}
    teachers = [module(3, 1), module(2, 2)]
    entries = [{"weight": 2}, {"classes": [2, 0], "outputs": "own"}]
    done = stillhouse.distill(teachers, module(3, 3), Vectors(), members=entries, out=tmp_path / "a", **sections)
    assert [each["classes"] for each in done.result["teacher"]["members"]] == [3, 2]
    (tmp_path / "a" / "result.json").unlink()
    other = [teachers[0], module(2, 4)]
    again = {"members": entries, "out": tmp_path / "a", "resume": True}
    with pytest.raises(RunDirError, match=re.escape("teacher.members.1.model.live")):
        stillhouse.distill(other, module(3, 3), Vectors(), **again, **sections)
    twins = [module(3, 1), module(3, 2)]
    done = stillhouse.distill(twins, module(3, 3), Vectors(), out=tmp_path / "b", **sections)
    assert [each["weight"] for each in done.result["teacher"]["members"]] == [1, 1]
    with pytest.raises(RecipeError, match="members has 1 entries for 2 teachers"):
        stillhouse.distill(twins, module(3, 3), Vectors(), members=[{}], out=tmp_path / "c", **sections)
