"""``teacher.engine: auto`` where a store that another engine filled is there already."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stillhouse.foundation.errors import ModelError
from stillhouse.foundation.events import EngineTried, Event, PhaseStarted, SourceMeasured
from stillhouse.recipe.engines import TeacherEngineSection
from stillhouse.recipe.load import load
from stillhouse.runner.run import resume, run
from stillhouse.store.folder import views_in
from stillhouse.store.label_store import open_folder, open_store
from stillhouse.store.manifest import Identity

from .automatic import Crash, written
from .lessons import SEEN, Asked, damage, lesson, only_store, told, weights

pytestmark = pytest.mark.usefixtures("not_drawn")


def refilled(labels: Path, engine: TeacherEngineSection) -> None:
    """Turn the only store in a folder into one that another engine filled with the same rows."""
    folder = only_store(labels)
    with open_folder(folder) as source:
        manifest = source.manifest
        identity = Identity(**{**manifest.identity.parts, "engine": engine.model_dump(mode="json")})
        with open_store(labels, identity, manifest.fields, manifest.samples) as target:
            for view in views_in(folder):
                for rows in source.scan(range(source.samples), view):
                    ids = rows.sample_ids[rows.found]
                    target.write(ids, np.full(len(ids), view), rows.payload[rows.found])
    shutil.rmtree(folder)


class TestAStoreThatIsThere:
    """``teacher.engine: auto`` where a store differs in its engine only."""

    FP16 = TeacherEngineSection(precision="fp16", channels_last=True, batch_size=512)

    @pytest.fixture
    def filled(self, tmp_path: Path) -> str:
        """All answers of the plain engine are in ``store``; the digest of the student."""
        return weights(run(lesson(tmp_path / "store", "offline"), tmp_path / "filling"))

    def test_its_engine_is_taken(self, tmp_path: Path, filled: str, forbidden: Callable[[], None]) -> None:
        """The engine that filled a store is taken without a trial, and everything is read."""
        forbidden()
        events: list[Event] = []
        result = run(lesson(tmp_path / "store", engine="auto"), tmp_path / "run", [events.append])
        assert weights(result) == filled and result["store"]["misses"] == 0
        (taken,) = told(events, EngineTried)
        assert taken.chosen and "filled with all answers" in taken.engine
        assert written(tmp_path / "run")[0]["teacher"]["engine"] == TeacherEngineSection().model_dump(mode="json")

    @pytest.mark.parametrize(("divergence_max", "taken"), [(1e-3, True), (1e-15, False)])
    def test_it_is_as_near_as_the_recipe_wants(self, tmp_path: Path, divergence_max: float, taken: bool) -> None:
        """A store full of bf16 answers is read where that is near enough to fp32, and not where it isn't."""
        run(lesson(tmp_path / "store", "offline", engine={"precision": "bf16"}), tmp_path / "filling")
        recipe = lesson(tmp_path / "store", engine="auto")
        teacher = recipe.teacher.model_copy(update={"divergence_max": divergence_max})
        events: list[Event] = []
        run(recipe.model_copy(update={"teacher": teacher}), tmp_path / "run", [events.append])
        assert any("filled with all answers" in each.engine for each in told(events, EngineTried)) == taken
        assert (written(tmp_path / "run")[0]["teacher"]["engine"]["precision"] == "bf16") == taken

    @pytest.mark.parametrize("source", ["stored", "auto", "offline"])
    def test_an_engine_that_is_not_to_be_had_here(
        self, tmp_path: Path, filled: str, forbidden: Callable[[], None], source: str
    ) -> None:
        """A store that a GPU filled whole teaches on a CPU: nothing is tried, nothing asked."""
        refilled(tmp_path / "store", self.FP16)
        forbidden()
        with Asked() as asked:
            result = run(lesson(tmp_path / "store", source, engine="auto"), tmp_path / "run")
        assert weights(result) == filled and result["store"]["misses"] == 0 and asked.views == 0
        assert written(tmp_path / "run")[0]["teacher"]["engine"] == self.FP16.model_dump(mode="json")

    def test_crash_under_such_an_engine(self, tmp_path: Path, filled: str) -> None:
        """A run on such a store is resumed like any other, and its recipe.yaml runs again."""
        refilled(tmp_path / "store", self.FP16)

        def listener(event: Event) -> None:
            if isinstance(event, PhaseStarted) and event.phase == "student":
                raise Crash

        with pytest.raises(Crash):
            run(lesson(tmp_path / "store", engine="auto"), tmp_path / "run", [listener])
        assert weights(resume(tmp_path / "run")) == filled
        assert weights(run(load(tmp_path / "run" / "recipe.yaml"), tmp_path / "again")) == filled

    def test_reading_is_never_measured_against_what_can_not_answer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However slow the disk, ``source: auto`` does not wake a teacher that this machine can't run."""
        train = {"epochs": 6, "batch_size": 80}
        plain = weights(run(lesson(tmp_path / "store", "offline", train=train), tmp_path / "filling"))
        refilled(tmp_path / "store", self.FP16)
        now = [0.0]

        def clock() -> float:
            now[0] += 1.0
            return now[0]

        monkeypatch.setattr("stillhouse.knowledge.stored.time.perf_counter", clock)
        events: list[Event] = []
        recipe = lesson(tmp_path / "store", "auto", engine="auto", train=train)
        assert weights(run(recipe, tmp_path / "run", [events.append])) == plain
        assert not told(events, SourceMeasured)

    def test_one_row_is_missing(self, tmp_path: Path, filled: str, trials: list[str]) -> None:
        """Where such a store lacks a row, ``auto`` tries engines; a recipe that names its engine is told why not."""
        refilled(tmp_path / "store", self.FP16)
        with Asked() as asked:
            run(lesson(tmp_path / "none", "inline"), tmp_path / "keys")
        damage(only_store(tmp_path / "store"), 1, [next(sample for sample, view in asked.keys if view == 1)], "bit")
        engine = self.FP16.model_dump(mode="json")
        with pytest.raises(ModelError, match=r"teacher\.engine: fp16 .*not all is answered yet"):
            run(lesson(tmp_path / "store", engine=engine), tmp_path / "fixed")
        result = run(lesson(tmp_path / "store", engine="auto"), tmp_path / "run")
        assert trials == ["answers"] and result["store"]["misses"] == SEEN

    def test_what_the_recipe_fixes_is_kept(self, tmp_path: Path, filled: str, trials: list[str]) -> None:
        """A store whose engine is not what the recipe fixes is left; one of another teacher too."""
        engine = {**dict.fromkeys(TeacherEngineSection.model_fields, "auto"), "batch_size": 32}
        run(lesson(tmp_path / "store", engine=engine), tmp_path / "run")
        run(lesson(tmp_path / "store", kind="conv", engine="auto"), tmp_path / "other")
        assert trials == ["answers", "answers"]
