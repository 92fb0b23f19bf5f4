"""Who goes on, and when: asynchronous successive halving."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from stillhouse.study.rungs import Job, Standing, next_job


def lived(trials: int, rungs: int, reduction: int, workers: int, seed: int, deaths: float = 0.0) -> list[Standing]:
    """A study to its end: workers take and finish jobs in any order, some die on the way, some trials fail."""
    chance = random.Random(seed)
    standings: dict[int, Standing] = {}
    busy: dict[int, Job] = {}
    for _ in range(10_000):
        job = None
        if len(busy) < workers and (job := next_job(list(standings.values()), busy, trials, rungs, reduction)):
            number = len(standings) if job.trial is None else job.trial
            standings.setdefault(number, Standing(number))
            assert number not in busy and len(standings[number].values) == job.rung
            assert not standings[number].ended
            busy[number] = job
        if job is None or chance.random() < 0.5:
            if not busy:
                assert job is None
                return list(standings.values())
            number = chance.choice(sorted(busy))
            del busy[number]
            if chance.random() < deaths:
                continue  # nothing is known of it: somebody does it again
            if chance.random() < 0.05:
                standings[number] = replace(standings[number], ended=True)
            else:
                reached = standings[number]
                values = (*reached.values, round(chance.random(), 2))
                standings[number] = replace(reached, values=values, ended=len(values) == rungs)
    raise AssertionError("the study does not end")


@given(
    st.integers(1, 40), st.integers(1, 5), st.integers(2, 4), st.integers(1, 8), st.integers(0, 99), st.floats(0, 0.5)
)
def test_a_study_ends_with_somebody_trained_to_the_end(
    trials: int, rungs: int, reduction: int, workers: int, seed: int, deaths: float
) -> None:
    """Whoever dies and fails: all trials are begun, none twice at a time, and one at least gets to the top."""
    standings = lived(trials, rungs, reduction, workers, seed, deaths)
    assert sum(bool(each.values) for each in standings) == trials
    reached = [sum(len(each.values) > rung for each in standings) for rung in range(rungs)]
    assert reached == sorted(reached, reverse=True)
    failed = [each for each in standings if each.ended and len(each.values) < rungs]
    if not failed:
        assert reached[-1] >= 1


@given(st.integers(1, 30), st.integers(2, 4), st.integers(2, 4), st.integers(0, 99))
def test_one_worker_promotes_only_the_best(trials: int, rungs: int, reduction: int, seed: int) -> None:
    """At the end who went on beyond a rung is no worse there than who was the best of those that did not, except
    early, when less was known.
    """
    standings = [each for each in lived(trials, rungs, reduction, 1, seed) if each.values]
    for rung in range(rungs - 1):
        there = sorted((each for each in standings if len(each.values) > rung), key=lambda each: -each.values[rung])
        on = [each for each in there if len(each.values) > rung + 1 or each.ended]
        if len(there) >= reduction:
            best = there[: len(there) // reduction]
            assert all(each in on for each in best)


def test_the_highest_rung_goes_first() -> None:
    """A trial that may go on does so before a new one begins; who is busy is left alone."""
    known = [Standing(0, (0.5, 0.6)), Standing(1, (0.7, 0.8)), Standing(2, (0.4,)), Standing(3, (0.3,))]
    assert next_job(known, (), 9, 3, 2) == Job(1, 2)
    assert next_job(known, (1,), 9, 3, 2) == Job(None, 0)
    assert next_job(known[2:], (), 9, 3, 2) == Job(2, 1)
    assert next_job([Standing(4)], (), 9, 3, 2) == Job(4, 0)
    assert next_job([Standing(4)], (4,), 9, 3, 2) == Job(None, 0)


def test_of_too_few_to_choose_from_the_best_goes_on() -> None:
    """The last trial standing is trained to the top, once nobody is busy any more."""
    one = [Standing(0, (0.5,)), Standing(1, ended=True)]
    assert next_job(one, (0,), 1, 3, 4) is None
    assert next_job(one, (), 1, 3, 4) == Job(0, 1)
    assert next_job([Standing(0, (0.5, 0.5, 0.5))], (), 1, 3, 4) is None
    at_the_top = Standing(0, (0.5, 0.5, 0.5), ended=True)
    assert next_job([at_the_top, Standing(1, (0.1,))], (), 2, 3, 4) is None
    assert next_job([Standing(1, (), ended=True)], (), 0, 3, 4) is None
