"""Preprocessing, taps and costs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stillhouse.foundation.errors import ModelError
from stillhouse.models.build import Interface, build, wrap
from stillhouse.models.cost import Cost, measure_cost
from stillhouse.models.network import Network
from stillhouse.models.taps import Taps, shapes
from stillhouse.recipe.architectures import ModelSection, Normalisation

GREY = Normalisation(mean=(0.5,), std=(0.25,))
RGB = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
IMAGE = Interface((1, 8, 8), True, 10)


def resnet() -> Network:
    return build(ModelSection(arch="resnet", options={"width": 4, "blocks": [1, 2]}), IMAGE, GREY, 1, "student")


def seen(inputs: torch.Tensor, normalisation: Normalisation, **wanted: object) -> torch.Tensor:
    """What a body sees of a raw batch."""
    image = inputs.dtype == torch.uint8
    network = wrap(nn.Identity(), Interface(tuple(inputs.shape[1:]), image, 1), normalisation, **wanted)  # type: ignore[arg-type]
    return network(inputs)


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_images_are_normalised() -> None:
    """A body sees (value / 255 - mean) / std, channel by channel."""
    raw = images(2, 3, 8, 8)
    for channel in range(3):
        plain = (raw[:, channel] / 255 - RGB.mean[channel]) / RGB.std[channel]
        torch.testing.assert_close(seen(raw, RGB)[:, channel], plain)


def test_grey_becomes_rgb() -> None:
    """A body for RGB sees a grey image three times, under the data's or its own normalisation."""
    raw = images(2, 1, 8, 8)
    torch.testing.assert_close(seen(raw, GREY, channels=3), ((raw / 255 - 0.5) / 0.25).repeat(1, 3, 1, 1))
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (RGB.mean, RGB.std))
    torch.testing.assert_close(seen(raw, RGB, channels=3), (raw / 255 - mean) / std)


def test_rgb_becomes_grey() -> None:
    """A body for grey sees the BT.601 luma, and the data's RGB statistics weighed the same way."""
    raw = images(2, 3, 8, 8)
    red, green, blue = (raw / 255).unbind(1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)
    torch.testing.assert_close(seen(raw, GREY, channels=1), (luma - 0.5) / 0.25)
    mean, std = 0.299 * 0.5 + 0.587 * 0.4 + 0.114 * 0.3, 0.299 * 0.2 + 0.587 * 0.25 + 0.114 * 0.5
    torch.testing.assert_close(seen(raw, RGB, channels=1), (luma - mean) / std)


@pytest.mark.parametrize("size_px", [(16, 16), (4, 6), (8, 8)])
def test_size_is_changed_with_antialias(size_px: tuple[int, int]) -> None:
    """A body sees its own size: bilinear with antialias, and untouched pixels where the size is right."""
    raw = images(2, 1, 8, 8)
    plain = (raw / 255 - 0.5) / 0.25
    if size_px != (8, 8):
        plain = F.interpolate(plain, size_px, mode="bilinear", antialias=True)
    torch.testing.assert_close(seen(raw, GREY, size_px=size_px), plain, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(), (4,), (4, 5), (4, 5, 6, 7)])
def test_float_data_is_only_normalised(shape: tuple[int, ...]) -> None:
    """Float data of any shape is normalised by one value, or by one for each of its first dimension."""
    raw = torch.randn(3, *shape)
    torch.testing.assert_close(seen(raw, GREY), (raw - 0.5) / 0.25)
    if shape:
        mean, std = torch.arange(4.0), torch.arange(1.0, 5.0)
        form = (1, 4, *[1] * (len(shape) - 1))
        each = Normalisation(mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        torch.testing.assert_close(seen(raw, each), (raw - mean.reshape(form)) / std.reshape(form))


def test_impossible_inputs_are_refused() -> None:
    """Statistics for other channels, other channel changes than grey and RGB, and resized float data are refused."""
    body = nn.Identity()
    with pytest.raises(ModelError, match="3 means and 3 deviations for 2 channels"):
        wrap(body, Interface((2, 8, 8), True, 1), RGB)
    with pytest.raises(ModelError, match="images of 4 channels can't become 3"):
        wrap(body, Interface((4, 8, 8), True, 1), RGB, channels=3)
    with pytest.raises(ModelError, match="size_px and channels are for images"):
        wrap(body, Interface((4,), False, 1), GREY, size_px=(8, 8))


def test_network_survives_other_formats() -> None:
    """Channels last, autocast and a cast to bfloat16 change the answer by rounding alone."""
    network, raw = resnet().eval(), images(4, 1, 8, 8)
    with torch.no_grad():
        plain = network(raw)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(network(raw).float(), plain, rtol=0.05, atol=0.05)
        network.to(memory_format=torch.channels_last)
        torch.testing.assert_close(network(raw.to(memory_format=torch.channels_last)), plain, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network.to(torch.bfloat16)(raw).float(), plain, rtol=0.05, atol=0.05)


def test_network_exports_with_its_preprocessing() -> None:
    """An exported network takes raw batches of any length and answers the same."""
    network, raw = resnet().eval(), images(4, 1, 8, 8)
    program = torch.export.export(network, (raw[:2],), dynamic_shapes=({0: torch.export.Dim("batch", max=64)},))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(raw), network(raw))


def test_taps_read_what_a_pass_made() -> None:
    """Taps give each module's own output, forget it when read, and leave no hook when closed."""
    network, raw = resnet().eval(), images(2, 1, 8, 8)
    with torch.no_grad(), Taps(network, ["stage2", "head", "stage2"]) as taps:
        logits = network(raw)
        read = taps.read()
        assert list(read) == ["stage2", "head"]
        assert read["head"] is logits
        stage1 = network.body.get_submodule("stage1")(network.body.get_submodule("stem")(network.preprocess(raw)))
        assert torch.equal(network.body.get_submodule("stage2")(stage1), read["stage2"])
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(ModelError, match="nothing was seen at 'stage2'"):
        taps.read()


def test_taps_carry_gradients() -> None:
    """A loss on a tapped activation reaches the weights before it, and only those."""
    network = resnet()
    with Taps(network, ["stage1"]) as taps:
        network(images(4, 1, 8, 8))
        taps.read()["stage1"].square().sum().backward()
    assert network.body.get_submodule("stem.0.0").weight.grad is not None
    assert network.body.get_submodule("head").weight.grad is None


def test_taps_work_in_a_compiled_network() -> None:
    """Taps opened before the first compiled call see every call's activations."""
    network, raw = resnet().eval(), images(2, 1, 8, 8)
    compiled = torch.compile(network, backend="eager")
    with torch.no_grad(), Taps(network, ["stage1"]) as taps:
        for batch in (raw, 255 - raw):
            compiled(batch)
            first = taps.read()["stage1"]
            network(batch)
            assert torch.equal(first, taps.read()["stage1"])


def test_tap_shapes() -> None:
    """Shapes of taps are told without a batch dimension, and the network's modes stay."""
    network = resnet()
    found = shapes(network, ["stem", "stage2.0", "head"], IMAGE)
    assert found == {"stem": (4, 8, 8), "stage2.0": (8, 4, 4), "head": (10,)}
    assert all(module.training for module in network.modules())


def test_taps_that_can_not_be() -> None:
    """An unknown module is refused with the nearest name, one that puts out a tuple by its name."""
    with pytest.raises(ModelError, match=r"Sequential has no module 'stage3': did you mean 'stage[12]'"):
        Taps(resnet(), ["stage3"])
    with pytest.raises(ModelError, match="known here: flatten, head"):
        Taps(resnet(), ["qqqqqq"])
    recurrent = wrap(nn.Sequential(nn.LSTM(4, 3)), Interface((5, 4), False, 3), GREY)
    with pytest.raises(ModelError, match="'0' puts out tuple"):
        shapes(recurrent, ["0"], Interface((5, 4), False, 3))


def test_cost_of_a_net_counted_by_hand() -> None:
    """Parameters, multiply-adds, bytes and peak memory agree with a count by hand; modes and threads are restored."""
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 10))
    interface = Interface((1, 8, 8), False, 10)
    network = wrap(body, interface, GREY)
    body[0].eval()
    threads = torch.get_num_threads()
    cost = measure_cost(network, interface, batch_size=2)
    params = (4 * 9 + 4) + (256 * 10 + 10)
    weight_bytes = 4 * (params + 2)  # and one mean, one deviation
    # Alive at the last layer, for each sample: raw input, normalised input, feature maps, logits.
    alive_bytes = 2 * 4 * (64 + 64 + 256 + 10)
    assert cost == Cost(params, 64 * 4 * 9 + 256 * 10, weight_bytes, weight_bytes + alive_bytes, cost.latency_ms)
    assert 0 < cost.latency_ms < 100
    assert torch.get_num_threads() == threads
    assert [network.training, body[0].training, body[2].training] == [True, False, True]


def test_peak_memory_forgets_what_died() -> None:
    """A chain of layers of one width needs the memory of two, however long it is."""
    interface = Interface((1000,), False, 1000)

    def activation_bytes(layers: int) -> int:
        cost = measure_cost(wrap(nn.Sequential(*[nn.ReLU()] * layers), interface, GREY), interface)
        return cost.peak_bytes - cost.bytes

    assert activation_bytes(30) == activation_bytes(3) < 5 * 4000
