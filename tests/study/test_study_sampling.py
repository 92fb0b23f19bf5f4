"""What is tried next, and the recipe that it makes."""

from __future__ import annotations

import json
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.exceptions import ExperimentalWarning

from stillhouse.foundation.errors import RecipeError
from stillhouse.recipe.load import validate
from stillhouse.recipe.recipe import Recipe
from stillhouse.recipe.search import SamplerSection
from stillhouse.study.sampling import Seen, distribution, drawn, label, plain, proposed
from stillhouse.study.space import augmentations, brought, check, corners, points_in, space_of, varied

SPACE: dict[str, Any] = {
    "student.model.arch": ["random_graph", "resnet"],
    "student.model.options.top.nodes": {"low": 3, "high": 6, "when": {"student.model.arch": "random_graph"}},
    "student.model.options.blocks": {"choices": [[1, 1], [2, 2]], "when": {"student.model.arch": ["resnet", "vgg"]}},
    "objective.kd.temperature": {"low": 1.0, "high": 20.0, "log": True},
    "objective.kd.weight": {"low": 0.0, "high": 1.0},
    "objective.cross_entropy": {"rest_of": "objective.kd.weight"},
    "student.train.batch_size": {"low": 16, "high": 128, "log": True},
}


KIND, MIX = "objective.kd.kind", "data.augment.mix"


def recipe(space: dict[str, Any] = SPACE, **search: Any) -> Recipe:
    """A search on digits."""
    return validate(
        {
            "data": {"source": {"kind": "digits"}},
            "teacher": {"model": {"arch": "vgg"}, "train": {"epochs": 2}},
            "student": {"model": {"arch": "random_graph"}, "train": {"epochs": 8}},
            "search": {"budget": {"params": 0.5}, "space": space, **search},
        }
    )


TPE, GP = SamplerSection(name="TPESampler"), SamplerSection(name="GPSampler")
BOTH = pytest.mark.parametrize("sampler", [TPE, GP], ids=["TPE", "GP"])


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**62))
def test_every_point_is_a_recipe(seed: int) -> None:
    """Values within their ranges, conditions kept, and the trial's recipe says them."""
    base = recipe()
    point = drawn(space_of(base), base, seed)
    assert point == drawn(space_of(base), base, seed)
    made = varied(base, point)
    assert made.search is None and made.student.model.arch == point["student.model.arch"]
    graph = made.student.model.arch == "random_graph"
    assert ("student.model.options.top.nodes" in point) == graph
    assert ("student.model.options.blocks" in point) != graph
    if graph:
        assert 3 <= made.student.model.options["top"]["nodes"] <= 6
    else:
        assert made.student.model.options["blocks"] in ([1, 1], [2, 2])
    assert made.objective.kd is not None and 1 <= made.objective.kd.temperature <= 20
    assert made.objective.kd.weight + made.objective.cross_entropy == pytest.approx(1)
    assert isinstance(made.student.train.batch_size, int) and 16 <= made.student.train.batch_size <= 128


@pytest.mark.parametrize("name", ["TPESampler", "RandomSampler", "GPSampler"])
def test_a_proposal_is_a_function_of_what_is_known(name: str) -> None:
    """The same trials and seed propose the same, though the sampler is made anew."""
    base = recipe()
    space, section = space_of(base), SamplerSection(name=name)
    seen = [Seen(drawn(space, base, seed), (seed / 20,)) for seed in range(14)]
    seen += [Seen(drawn(space, base, 77)), Seen(drawn(space, base, 78), (), {"latency_ms": 0.5}, failed=True)]
    first = proposed(space, base, seen, section, 5).point
    assert first == proposed(space, base, seen, section, 5).point
    varied(base, first)
    assert len({str(proposed(space, base, seen, section, seed)) for seed in range(4)}) > 1


@BOTH
def test_the_sampler_learns_what_is_good(sampler: SamplerSection) -> None:
    """Where high temperatures are better, it proposes higher ones than chance does."""
    base = recipe({"objective.kd.temperature": {"low": 0.0001, "high": 1.0}, "objective.kd.weight": [0.5, 1.0]})
    space = space_of(base)
    points = [drawn(space, base, seed) for seed in range(40)]
    seen = [Seen(point, (point["objective.kd.temperature"],)) for point in points]
    found = [proposed(space, base, seen, sampler, seed).point["objective.kd.temperature"] for seed in range(20)]
    chance = [drawn(space, base, 1000 + seed)["objective.kd.temperature"] for seed in range(20)]
    assert sum(found) / 20 > sum(chance) / 20 + 0.15


def test_it_learns_from_all_rungs_what_they_foretell() -> None:
    """Where the higher rung says the contrary of the lower one, the lower one's values mean the contrary."""
    base = recipe({"objective.kd.weight": {"low": 0.0, "high": 1.0}})
    space = space_of(base)
    points = [drawn(space, base, seed) for seed in range(60)]
    misled = [Seen(point, (point["objective.kd.weight"],)) for point in points]
    told = [Seen(p, (p["objective.kd.weight"], -p["objective.kd.weight"])) for p in points[:25]] + misled[25:]
    before = [proposed(space, base, misled, TPE, seed).point["objective.kd.weight"] for seed in range(15)]
    after = [proposed(space, base, told, TPE, seed).point["objective.kd.weight"] for seed in range(15)]
    assert sum(before) / 15 > 0.6 > 0.4 > sum(after) / 15


@BOTH
def test_what_is_not_allowed_is_avoided(sampler: SamplerSection) -> None:
    """Trials beyond a limit have no value, and still teach the sampler where not to go."""
    base = recipe({"objective.kd.weight": {"low": 0.0, "high": 1.0}})
    space = space_of(base)
    points = [drawn(space, base, seed) for seed in range(40)]
    seen = [
        Seen(p, (), {"latency_ms": w - 0.3}, failed=True) if w > 0.3 else Seen(p, (0.5,), {"latency_ms": w - 0.3})
        for p in points
        for w in [p["objective.kd.weight"]]
    ]
    found = [proposed(space, base, seen, sampler, seed).point["objective.kd.weight"] for seed in range(20)]
    unlimited = [Seen(each.point, each.values or (0.9,)) for each in seen]
    without = [proposed(space, base, unlimited, sampler, seed).point["objective.kd.weight"] for seed in range(20)]
    assert sum(each <= 0.35 for each in found) >= 14 > 6 >= sum(each <= 0.35 for each in without)


@BOTH
def test_a_lead_that_was_lost_draws_nobody(sampler: SamplerSection) -> None:
    """Trials that led early and then diverged are bad, whatever they had before."""
    base = recipe({"objective.kd.weight": {"low": 0.0, "high": 1.0}})
    space = space_of(base)
    points = [drawn(space, base, seed) for seed in range(40)]
    weights = [point["objective.kd.weight"] for point in points]
    lost = [Seen(p, (w,), failed=w > 0.5) for p, w in zip(points, weights, strict=True)]
    kept = [Seen(p, (w,)) for p, w in zip(points, weights, strict=True)]
    after, before = (
        [proposed(space, base, seen, sampler, seed).point["objective.kd.weight"] for seed in range(15)]
        for seen in (lost, kept)
    )
    assert sum(before) / 15 > sum(after) / 15 + 0.2


def test_optuna_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """No line of its own comes between those of a run, and its verbosity is as it was."""
    base = recipe()
    before = optuna.logging.get_verbosity()
    drawn(space_of(base), base, 3)
    proposed(space_of(base), base, [Seen(drawn(space_of(base), base, 1), (0.1,))], SamplerSection(name="GPSampler"), 1)
    assert capfd.readouterr() == ("", "") and optuna.logging.get_verbosity() == before


def test_a_choice_of_lists_is_a_choice() -> None:
    """Optuna knows plain values only."""
    base = recipe()
    point = {"student.model.arch": "resnet", "student.model.options.blocks": [1, 1], "objective.cross_entropy": 0.5}
    assert plain(point, space_of(base)) == {"student.model.arch": "resnet", "student.model.options.blocks": "[1, 1]"}
    assert label(0.5) == 0.5 and label(None) is None


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"objective.kd.weight": [0.5]}, "nothing varies"),
        ({"objective.kd.wait": [0.5, 0.9]}, "unknown key 'objective.kd.wait'.*\n.*at objective.kd.wait: 0.5"),
        ({"student.train.batch_size": [0, 2]}, "student.train.batch_size.*must be greater than 0"),
        ({"student.train.epochs": [1, 2]}, "'student.train.epochs' can't vary: trials share"),
        ({"data.views": [1, 2]}, "'data.views' can't vary: trials share the teacher's answers"),
        ({"objective.features": [[], []]}, "the same choice"),
        ({"student.model.options.top.nodes": {"low": 2, "high": 4}}, "depth has 3 stages, but top only 2 nodes"),
        ({"fleet.workers": [1, 2]}, "'fleet.workers' can't vary"),
        ({"objective.kd.weight": {"low": 0.9, "high": 0.1}}, "low 0.9 is above high 0.1"),
        ({"objective.kd.weight": {"low": 0, "high": 1, "log": True}}, "log: low must be above 0, not 0"),
        ({"objective.kd.weight": [1, 1]}, "the same choice stands there twice"),
        ({"objective.kd.weight": []}, "at least 1"),
        (
            {"student.model.options.top": [{"nodes": 3}, {"nodes": 4}], "student.model.options.top.nodes": [5, 6]},
            "'student.model.options.top.nodes' is a part of 'student.model.options.top'",
        ),
        ({"student.model.options.params": [5000, 6000]}, "search.budget.params says it"),
        (
            {"objective.kd.weight": {"low": 0, "high": 1, "when": {"student.model.arch": "resnet"}}},
            "'objective.kd.weight' never varies: its 'when' asks for student.model.arch: 'resnet'",
        ),
        (
            {"student.model.arch": ["vgg", "random_graph"]}
            | {"student.model.options.blocks": {"choices": [[0], [1]], "when": {"student.model.arch": "vgg"}}},
            "options of vgg: 'blocks.0': Input should be greater than 0",
        ),
        ({"objective.kd.weight": {"low": 0, "high": 1, "when": {"objective.kd.weight": 1}}}, "depends on itself"),
        (
            {
                "objective.kd.weight": {"low": 0, "high": 1, "when": {"objective.kd.temperature": 1}},
                "objective.kd.temperature": {"low": 1, "high": 2, "when": {"objective.kd.weight": 1}},
            },
            "depend on each other",
        ),
    ],
)
def test_a_space_without_sense_is_refused(space: dict[str, Any], words: str) -> None:
    """Before anything is trained, with the key."""
    with pytest.raises(RecipeError, match=words):
        check(recipe(space))


def test_samplers_are_checked() -> None:
    """An unknown name, an option that it does not take."""
    base = recipe()
    with pytest.raises(RecipeError, match="'TPSampler': did you mean 'TPESampler'"):
        proposed(space_of(base), base, [], SamplerSection(name="TPSampler"), 1)
    with pytest.raises(RecipeError, match=r"TPESampler.*unexpected keyword argument 'gama'"):
        proposed(space_of(base), base, [], SamplerSection(name="TPESampler", options={"gama": 2}), 1)
    with pytest.raises(RecipeError, match="leave 'seed' out"):
        proposed(space_of(base), base, [], SamplerSection(name="TPESampler", options={"seed": 2}), 1)
    seen = [Seen(drawn(space_of(base), base, seed), (0.1,)) for seed in range(3)]
    with pytest.raises(RecipeError, match=r"search\.sampler: TPESampler refuses"):
        proposed(space_of(base), base, seen, SamplerSection(name="TPESampler", options={"n_startup_trials": "ten"}), 1)


def proposals(name: str, count: int, space: dict[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
    """One after the other, each valued; whatever the sampler remembers went through a file."""
    base = recipe(space or NUMBERS)
    seen, shared, section = list[Seen](), dict[str, Any](), SamplerSection(name=name, options=options)
    for number in range(count):
        found = proposed(space_of(base), base, seen, section, number, shared)
        own, shared = json.loads(json.dumps([found.own, found.shared]))
        seen.append(Seen(found.point, (found.point["objective.kd.weight"],), own=own))
    return [dict(each.point) for each in seen]


NUMBERS = {
    "objective.kd.weight": {"low": 0.0, "high": 1.0},
    "objective.kd.temperature": {"low": 1.0, "high": 20.0, "log": True},
}


def test_a_grid_is_walked_through_once() -> None:
    """Whatever order it is walked in, that stays the same from proposal to proposal."""
    space = {key: [0.0, 1.0] if key == "objective.kd.weight" else [1.0, 2.0] for key in NUMBERS}
    seen = proposals("GridSampler", 4, space, search_space=space)
    assert len({tuple(each.values()) for each in seen}) == 4


def test_a_default_space_has_a_cell_for_each_stage() -> None:
    """At least."""
    base = recipe({})
    model = base.student.model.model_copy(update={"options": {"depth": [1, 1, 1, 1]}})
    deep = base.model_copy(update={"student": base.student.model_copy(update={"model": model})})
    assert [space_of(each)["student.model.options.top.nodes"].low for each in (base, deep)] == [3, 4]
    check(deep)


def test_a_sequence_is_the_samplers_own() -> None:
    """A sampler that counts what it proposed goes on counting, though it is made anew each time."""
    with pytest.warns(ExperimentalWarning):
        theirs = optuna.create_study(sampler=optuna.samplers.QMCSampler(seed=0))
    wanted = []
    for _ in range(9):
        trial = theirs.ask({key: distribution(space_of(recipe(NUMBERS))[key]) for key in NUMBERS})
        wanted.append(trial.params)
        theirs.tell(trial, 0.0)
    assert proposals("QMCSampler", 9)[1:] == wanted[1:], "the first is drawn before the space is known"


@pytest.mark.parametrize(
    ("name", "options"),
    [("NSGAIISampler", {"population_size": 6}), ("CmaEsSampler", {"popsize": 6}), ("BruteForceSampler", {})],
)
def test_samplers_that_remember_learn(name: str, options: dict[str, Any]) -> None:
    """Populations and distributions survive from proposal to proposal: later ones are better, each time the same."""
    if name == "CmaEsSampler":
        pytest.importorskip("cmaes")
    if name == "BruteForceSampler":
        base = recipe({"objective.kd.weight": [0.1, 0.5, 0.9], "objective.kd.temperature": [1.0, 2.0]})
        seen: list[Seen] = []
        for number in range(6):
            found = proposed(space_of(base), base, seen, SamplerSection(name=name), number)
            seen.append(Seen(found.point, (0.5,), own=found.own))
        assert len({str(each.point) for each in seen}) == 6, "each point once"
        return
    found_points = proposals(name, 48, **options)
    assert found_points == proposals(name, 48, **options)
    values = [each["objective.kd.weight"] for each in found_points]
    assert sum(values[36:]) > sum(values[:12]) + 1


def test_corners_show_every_choice() -> None:
    """Each value of each key is there once at least, where its condition lets it."""
    base = recipe()
    found = corners(space_of(base), base)
    resnets = [each for each in found if each["student.model.arch"] == "resnet"]
    assert [1, 1] in [each["student.model.options.blocks"] for each in resnets]
    assert [2, 2] in [each["student.model.options.blocks"] for each in resnets]
    assert {each["student.model.arch"] for each in found} == {"random_graph", "resnet"}
    assert {each["objective.kd.weight"] for each in found} == {0.0, 1.0}


def test_the_recipe_stands_at_a_point_of_its_own() -> None:
    """Its own values, brought into their ranges; what it does not have is taken from elsewhere."""
    space = {
        "student.model.options.top.nodes": {"low": 4, "high": 6},
        "student.model.options.operation": ["separable", "inverted"],
        "objective.kd.temperature": {"low": 1.0, "high": 20.0, "log": True},
        "objective.kd.weight": {"low": 0.0, "high": 0.5},
        "objective.cross_entropy": {"rest_of": "objective.kd.weight"},
        "student.model.options.blocks": {"choices": [[1], [2]], "when": {"student.model.arch": "vgg"}},
    }
    base = recipe(space)
    spare = {"student.model.options.operation": "inverted"}
    assert brought(space_of(base), base, {}, spare) == {
        "student.model.options.top.nodes": 4,
        "student.model.options.operation": "inverted",
        "objective.kd.temperature": 4.0,
        "objective.kd.weight": 0.5,
        "objective.cross_entropy": 0.5,
    }
    other = {"student.model.options.top.nodes": 9, "objective.kd.weight": 0.25, "student.model.arch": "vgg"}
    found = brought(space_of(base), base, {**other, "student.model.options.operation": "separable"}, spare)
    assert [found["student.model.options.top.nodes"], found["objective.kd.weight"]] == [6, 0.25]
    assert found["objective.cross_entropy"] == 0.75 and found["student.model.options.operation"] == "separable"


@pytest.mark.parametrize("kinds", [["kl", "dkd", "dist"], ["dkd", "dist", "kl"]])
def test_values_that_never_go_together_are_refused(kinds: list[str]) -> None:
    """In whatever order they stand; a condition keeps them apart."""
    mixes = [None, {"kind": "mixup"}]
    with pytest.raises(RecipeError, match=r"dkd is about the one label(.|\n)*at objective.kd.kind: dkd, data"):
        check(recipe({KIND: kinds, MIX: mixes}))
    check(recipe({KIND: kinds, MIX: {"choices": mixes, "when": {KIND: ["kl", "dist"]}}}))


def test_augmentations_are_counted_once() -> None:
    """Of all that trials may have; what is not there has the recipe's own value."""
    space = {MIX: [None, {"kind": "mixup"}], "data.augment.pad_px": [0, 1]}
    assert len(augmentations(recipe(space))) == 4
    held = {KIND: ["kl", "dkd"], MIX: {"choices": [None, {"kind": "mixup"}], "when": {KIND: "kl"}}}
    assert len(augmentations(recipe(held))) == 2
    assert len(augmentations(recipe())) == 1


def test_all_points_are_known_where_that_can_be() -> None:
    """Of choices and whole numbers, also where a key depends on others; a number without steps leaves it open."""
    whole = {"low": 2, "high": 5}
    deep = {"choices": [[1, 1], [2, 2]], "when": {"student.model.arch": "resnet"}}
    arches = {"student.model.arch": ["random_graph", "resnet"], "student.model.options.blocks": deep}
    for space, count in (
        ({"objective.kd.weight": [0.1, 0.5, 1.0], "objective.cross_entropy": {"rest_of": "objective.kd.weight"}}, 3),
        ({**arches, "student.model.options.width": whole}, 12),
        ({"student.model.options.width": {**whole, "when": {"student.model.arch": "resnet"}}, **arches}, 9),
        ({"objective.kd.weight": {"low": 0.5, "high": 0.5}, "objective.kd.temperature": [1.0, 2.0]}, 2),
    ):
        base = recipe(space)
        found = points_in(space_of(base), base, count)
        assert found is not None and len(found) == count
        assert points_in(space_of(base), base, count - 1) is None
        random = [drawn(space_of(base), base, seed) for seed in range(200)]
        assert all(each in found for each in random) and all(each in random for each in found)
    base = recipe({"objective.kd.weight": {"low": 0.0, "high": 1.0}})
    assert points_in(space_of(base), base, 10**6) is None


def test_the_default_space_fits_the_recipe() -> None:
    """Rates are those of its optimiser; what asks nobody has no temperature."""
    rate = "student.train.optimizer.learning_rate"
    for optimizer, own in (({"kind": "sgd"}, 0.1), ({"kind": "adamw"}, 0.001)):
        base = recipe({})
        train = base.student.train.model_validate({"epochs": 8, "optimizer": optimizer})
        base = base.model_copy(update={"student": base.student.model_copy(update={"train": train})})
        found = space_of(base)
        assert brought(found, base, {}, drawn(found, base, 0))[rate] == own
        assert "objective.kd.temperature" in found and "student.model.options.growth" in found
    asked = recipe({"objective.kd.temperature": [2.0, 4.0]})
    with pytest.raises(
        RecipeError, match=r"'objective.kd.temperature' varies, but objective.kd asks the teacher nothi"
    ):
        check(asked.model_copy(update={"objective": asked.objective.model_copy(update={"kd": None})}))
    alone = base.model_copy(update={"objective": base.objective.model_copy(update={"kd": None})})
    assert space_of(alone).keys() == {key for key in space_of(base) if not key.startswith("objective.")}
    check(alone)
