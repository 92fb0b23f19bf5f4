"""Students that Ray Train starts, as their run meets them; Ray Train is played."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stillhouse.foundation.errors import FleetError
from stillhouse.foundation.stamp import code_stamp
from stillhouse.runtime.local.channel import Channel
from stillhouse.runtime.local.frames import PROTOCOL
from stillhouse.runtime.tcp_door import reached

# ray.train warns of what ray itself does
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")]
ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
pytest.importorskip("pandas", reason="the extra 'ray' is not installed")

Come = Callable[..., None]


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Come]]:
    """A group of one, and who comes to its door with a stamp."""
    from stillhouse.runtime import ray_group

    over, configs, channels = threading.Event(), list[Any](), list[Channel]()

    class Trainer:
        def __init__(self, learn: object, *, train_loop_config: Any, **_: object) -> None:
            configs.append(train_loop_config)

        def fit(self) -> None:
            over.wait(60)

    def come(**facts: str) -> None:
        connection = reached(configs[0]["address"])
        assert connection is not None
        channels.append(Channel(connection))
        hello = {"do": "hello", "protocol": PROTOCOL, "token": configs[0]["token"], "group": "g", "rank": 0, "size": 1}
        channels[-1].send({**hello, **facts})

    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(ray_group, "TorchTrainer", Trainer)
    found = ray_group.RayGroup(1, 1, {"CPU": 1.0}, lambda line: 0, lambda message: None)
    try:
        yield found, come
    finally:
        over.set()
        found.close()
        for channel in channels:
            channel.close()


def test_a_student_of_the_same_code_comes_in(group: tuple[Any, Come]) -> None:
    """Its group is whole, and given to the run."""
    found, come = group
    come(code=code_stamp())
    assert list(found.gather(lambda: None).names) == ["g/0"]


@pytest.mark.parametrize("code", [{}, {"code": "9.9 (other)"}])
def test_a_student_of_other_code_ends_the_run(group: tuple[Any, Come], code: dict[str, str]) -> None:
    """Their gradients would be mixed; Ray Train would start the same one again, so that a person has to act."""
    found, come = group
    come(**code)
    with pytest.raises(FleetError, match=r"there stillhouse is .*install the very same on all machines"):
        found.gather(lambda: None)
