"""Plans: the arithmetic of one fleet, and that no cheaper fleet was overlooked."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.runtime.scaling.plan import Job, Kind, beside, by_cost, cheapest, plan

CPU = Kind("cpu", rate=100.0, price=0.1, watts=50.0, available=20)
GPU = Kind("gpu", rate=900.0, price=0.6, watts=300.0, available=2)
JOB = Job(samples=36_000, epochs=10, views=4, rate=1000.0, inline_rate=250.0, price=1.0, watts=100.0)

KINDS = st.lists(
    st.builds(
        Kind,
        st.just("kind"),
        rate=st.integers(1, 40).map(float),
        price=st.integers(0, 4).map(float),
        watts=st.integers(0, 3).map(float),
        available=st.integers(0, 4),
    ),
    max_size=3,
)


def test_one_fleet() -> None:
    """Half the rate that students need: they starve half the time, no worker idles; stored epochs run at full speed."""
    row = next(row for row in plan([CPU], JOB) if row.workers == (("cpu", 5),))
    assert (row.throughput, row.starved_share, row.idle_share) == (500.0, 0.5, 0.0)
    assert row.seconds == 4 * 72 + 6 * 36
    assert row.cost == pytest.approx((5 * 0.1 * 288 + 1.0 * 504) / 3600)
    assert row.energy_wh == pytest.approx((5 * 50 * 288 + 100 * 504) / 3600)


def test_an_ample_fleet_idles() -> None:
    """More than students need does not make them faster."""
    row = plan([Kind("big", 4000.0, 1.0, 1.0, 1)], JOB)[-1]
    assert (row.throughput, row.starved_share, row.idle_share) == (1000.0, 0.0, 0.75)


def test_no_fleet_is_a_row_where_students_can_answer() -> None:
    """Alone they split their time: 1000 x 250 / 1250 units/s, and no worker is paid."""
    row = plan([CPU], JOB)[0]
    assert row.workers == () and row.throughput == 200.0 and row.starved_share == 0.8
    assert plan([], Job(10, 1, 1, 5.0)) == ()


def test_all_views_stored() -> None:
    """Where nothing is left to ask the fleet costs nothing, and students run at their own rate."""
    job = Job(samples=100, epochs=3, views=0, rate=10.0, price=3600.0)
    assert {(row.seconds, row.cost) for row in plan([CPU], job)} == {(30.0, 30.0)}


def test_the_cheapest_of_a_mix() -> None:
    """One GPU and one CPU worker feed the students for less than ten CPU workers or two GPUs."""
    rows = plan([CPU, GPU], JOB)
    chosen = cheapest(rows, JOB, share=1.0)
    assert chosen is not None and dict(chosen.workers) == {"cpu": 1, "gpu": 1}
    assert cheapest(plan([GPU], JOB), JOB, 0.9).workers == (("gpu", 1),)  # type: ignore[union-attr]


def test_without_prices_the_fewest_workers() -> None:
    """Where nothing has a price, no more workers are taken than give the wanted share."""
    free, job = Kind("cpu", 100.0, 0.0, 0.0, 20), Job(36_000, 10, 4, 1000.0)
    assert cheapest(plan([free], job), job, 0.75).count == 8  # type: ignore[union-attr]
    assert [row.count for row in by_cost(plan([free], job), job, 0.75)] == [8, 9, 10]


def test_fleets_one_worker_away() -> None:
    """One more of each kind, or one in place of another, as far as there are any."""
    row = next(row for row in plan([CPU, GPU], JOB) if dict(row.workers) == {"cpu": 1, "gpu": 1})
    near = [dict(each.workers) for each in beside(row, [CPU, GPU], JOB)]
    assert near == [{"cpu": 2, "gpu": 1}, {"cpu": 2}, {"cpu": 1, "gpu": 2}, {"gpu": 2}]
    scarce = Kind("gpu", rate=900.0, price=0.6, watts=300.0, available=1)
    assert [dict(each.workers) for each in beside(row, [CPU, scarce], JOB)] == near[:2]


def test_none_is_enough() -> None:
    """What can't be had is not promised."""
    assert cheapest(plan([Kind("cpu", 10.0, 0.1, 50.0, 3)], JOB), JOB, 0.5) is None


@given(KINDS, st.integers(1, 120).map(float), st.sampled_from([0.0, 1.0, 30.0]), st.sampled_from([0.3, 0.9, 1.0]))
def test_no_cheaper_fleet_is_overlooked(kinds: list[Kind], rate: float, price: float, share: float) -> None:
    """Against all fleets there are: what is chosen reaches the wanted share, and nothing that does costs less."""
    kinds = [Kind(str(n), each.rate, each.price, each.watts, each.available) for n, each in enumerate(kinds)]
    job = Job(3600, 1, 1, rate, price=price)
    costs = []
    for counts in itertools.product(*(range(kind.available + 1) for kind in kinds)):
        given_rate = sum(count * kind.rate for count, kind in zip(counts, kinds, strict=True))
        if given_rate >= share * rate:
            hourly = price + sum(count * kind.price for count, kind in zip(counts, kinds, strict=True))
            costs.append(hourly / min(rate, given_rate))
    rows = plan(kinds, job)
    chosen = cheapest(rows, job, share)
    assert (chosen is None) == (not costs)
    assert chosen is None or (chosen.cost == pytest.approx(min(costs)) and chosen.throughput >= share * rate - 1e-6)
    assert [row.throughput for row in rows] == sorted({row.throughput for row in rows})


@pytest.mark.parametrize("job", [Job(0, 1, 1, 1.0), Job(1, 0, 1, 1.0), Job(1, 1, 1, 0.0)])
def test_a_job_of_nothing(job: Job) -> None:
    """No samples, no epochs or no rate make no plan."""
    with pytest.raises(ValueError, match="positive"):
        plan([CPU], job)
