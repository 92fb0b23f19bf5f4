"""How answers of teachers for different classes are best brought together, where no label says: why ``models.ensemble``
does what it does.

Small networks trained on some of the digits' classes each; their answers about held-out digits of all classes, brought
together by several rules. Accuracy, and nats of the right class (less is better), means over the seeds.

    python -m benchmarks.specialists
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from stillhouse.models.build import wrap
from stillhouse.models.ensemble import Ensemble, Share
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network
from stillhouse.models.zoo import resnet
from stillhouse.recipe.architectures import Normalisation, ResNetOptions

SEEDS, TRAIN, BATCH = 8, 1300, 32
AS_IT_IS = Normalisation(mean=(0.0,), std=(1.0,))
ALL = tuple(range(10))
HALVES = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))
SHARING = ((0, 1, 2, 3, 4, 5), (4, 5, 6, 7, 8, 9, 0))
SPECIAL = (1, 3, 8, 9)


def trained(inputs: Tensor, labels: Tensor, classes: tuple[int, ...], seed: int, epochs: int = 12) -> Network:
    """A network of so many outputs, trained on the samples of its classes alone."""
    number = torch.full((10,), -1)
    number[list(classes)] = torch.arange(len(classes))
    mine = torch.isin(labels, torch.tensor(classes)).nonzero().flatten()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = resnet.build(ResNetOptions(width=8, blocks=(1, 1)), 1, (8, 8), len(classes))
        optimiser = torch.optim.SGD(body.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=epochs * (len(mine) // BATCH))
        for _ in range(epochs):
            order = mine[torch.randperm(len(mine))]
            for rows in order[: len(mine) // BATCH * BATCH].split(BATCH):
                optimiser.zero_grad()
                F.cross_entropy(body(inputs[rows]), number[labels[rows]]).backward()
                optimiser.step()
                schedule.step()
    return wrap(body.eval(), Interface((1, 8, 8), False, len(classes)), AS_IT_IS)


def ours(members: Sequence[Network], classes: Sequence[tuple[int, ...]], inputs: Tensor) -> Tensor:
    """What the product makes of them."""
    shares = [Share(1.0, own, len(own) < 10) for own in classes]
    scores: Tensor = Ensemble(members, shares, 10).eval()(inputs)
    return scores


def spread(scores: Sequence[Tensor], classes: Sequence[tuple[int, ...]]) -> Tensor:
    """Members' scores [B, M, 10], NaN where one has none."""
    whole = torch.full((len(scores[0]), len(scores), 10), torch.nan)
    for at, (score, own) in enumerate(zip(scores, classes, strict=True)):
        whole[:, at, list(own)] = score
    return whole


def mean_of_logs(logits: Sequence[Tensor], classes: Sequence[tuple[int, ...]]) -> Tensor:
    """The plain mean of log-probabilities, each member's over its own classes."""
    return spread([each.log_softmax(1) for each in logits], classes).nanmean(1)


def fitted(logits: Sequence[Tensor], classes: Sequence[tuple[int, ...]]) -> Tensor:
    """Least squares in logit space (after arXiv 1904.06062): the second is moved to agree with the first on average."""
    whole = spread([each.log_softmax(1) for each in logits], classes)
    whole[:, 1] += (whole[:, 0] - whole[:, 1]).nanmean(1, keepdim=True)
    return whole.nanmean(1)


def told(scores: Tensor, labels: Tensor) -> Tensor:
    """Accuracy and nats."""
    right = (scores.argmax(1) == labels).float().mean()
    return torch.stack([right, F.cross_entropy(scores, labels)])


def one(seed: int, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Every rule at every set of members, for one seed."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    seen, held = order[:TRAIN], order[TRAIN:]
    found: dict[str, Tensor] = {}
    sets = {"halves": (HALVES, (12, 12)), "sharing": (SHARING, (12, 12)), "general": ((ALL, SPECIAL), (3, 12))}
    for name, (classes, epochs) in sets.items():
        made = [trained(inputs[seen], labels[seen], own, 10 * seed + at, epochs[at]) for at, own in enumerate(classes)]
        with torch.no_grad():
            logits = [member(inputs[held]) for member in made]
            rules: dict[str, Tensor] = {"mean of log-probabilities": mean_of_logs(logits, classes)}
            if name == "general":
                rules["the general one alone"] = logits[0]
            if name != "halves":
                rules["offsets fitted"] = fitted(logits, classes)
            rules["ours"] = ours(made, classes, inputs[held])
            found |= {f"{name}: {rule}": told(scores, labels[held]) for rule, scores in rules.items()}
    return found


def main() -> None:
    """Print a line for each rule."""
    torch.set_num_threads(1)
    pixels, classes = load_digits(return_X_y=True)
    inputs = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    rows = [one(seed, inputs, torch.tensor(classes)) for seed in range(SEEDS)]
    for name in rows[0]:
        accuracy, nats = torch.stack([row[name] for row in rows]).mean(0).tolist()
        print(f"{name:<40} accuracy {accuracy:.3f}  nats {nats:.3f}")


if __name__ == "__main__":
    main()
