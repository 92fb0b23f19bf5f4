"""Several teachers that answer as one network.

Notation: members m with logits z_m and weights w_m; member m answers for the classes C_m. Every class c is answered by
at least one; its score is the weighted mean of theirs,

    l_c = sum_{m: c in C_m} w_m s_mc / sum_{m: c in C_m} w_m,

and the l are the logits that a student sees, at whatever temperature it asks for. What s_m is:

- a member with an output for every class: s_m = log softmax(z_m). Where all answer for all classes, l is the
  logarithmic opinion pool, the weighted geometric mean of the members' distributions (arXiv 1503.02531, section 1), at
  every temperature T: softmax(l / T) is proportional to prod_m softmax(z_m / T)^w_m, the w made to sum to 1.
- a member with outputs for its own classes only says how likely each is *given that it is one of them*. How likely
  that is, the members with all outputs say (their pool p): s_mc = log softmax(z_m)_c + log sum_{k in C_m} p_k.
- where no member has all outputs, nobody can say it: s_m = z_m less its mean. Logits of a network that knows what it
  sees lie far apart, so who is surer has more weight. Log-probabilities would give all members the same, sure or not.
  This takes members whose logits have like scales; labels, which would tell, a worker does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from stillhouse.models.network import Network


class Share(NamedTuple):
    """What a member has to say.

    Attributes:
        weight: above 0; only ratios matter.
        classes: numbers of the classes it answers for.
        own_outputs: whether its outputs are these classes, in this order; else it has an output for every class.
    """

    weight: float
    classes: tuple[int, ...]
    own_outputs: bool


class Ensemble(nn.Module):
    """A body: floats [B, *sample] (images: 0..1), before any member's own preprocessing -> logits [B, K] in fp32.

    Args:
        members: on one device; each answers [B, K], or [B, its classes].
        shares: of each member; every class is somebody's.
        classes: K.
    """

    share: torch.Tensor
    pool: torch.Tensor
    place: torch.Tensor

    def __init__(self, members: Sequence[Network], shares: Sequence[Share], classes: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.shares = tuple(shares)
        weight_M = torch.tensor([share.weight for share in shares], dtype=torch.float64)
        answers_MK = torch.zeros(len(shares), classes, dtype=torch.float64)
        place_MK = torch.full((len(shares), classes), -1)
        for row, share in enumerate(shares):
            own = torch.tensor(share.classes)
            answers_MK[row, own] = weight_M[row]
            place_MK[row] = torch.arange(classes)
            if share.own_outputs:
                # One column of zeros stands behind a member's own outputs, for the classes that it does not know.
                place_MK[row] = len(own)
                place_MK[row, own] = torch.arange(len(own))
        general_M = weight_M * torch.tensor([not share.own_outputs for share in shares])
        # Buffers, so that the digest of the weights tells who answers for what.
        self.register_buffer("share", (answers_MK / answers_MK.sum(0)).float())
        self.register_buffer("pool", (general_M / general_M.sum().clamp_min(1e-30)).float())
        self.register_buffer("place", place_MK)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        logits = [member(values).float() for member in self.members]
        if all(share.own_outputs for share in self.shares):
            scores = [each - each.mean(dim=1, keepdim=True) for each in logits]
        else:
            scores = [each.log_softmax(dim=1) for each in logits]
            if any(share.own_outputs for share in self.shares):
                scores = self._given_that(scores)
        return sum(
            (self._over_all(number, score) * self.share[number] for number, score in enumerate(scores)),
            start=torch.zeros((), device=values.device),
        )

    def _given_that(self, scores: list[torch.Tensor]) -> list[torch.Tensor]:
        """Add to a specialist's scores how likely its classes are, as the members with all outputs see it."""
        general = [number for number, share in enumerate(self.shares) if not share.own_outputs]
        pooled = torch.stack([scores[number] * self.pool[number] for number in general]).sum(0).log_softmax(dim=1)
        lifted = []
        for share, score, own_K in zip(self.shares, scores, self.share > 0, strict=True):
            theirs = torch.where(own_K, pooled, -torch.inf).logsumexp(dim=1, keepdim=True)
            lifted.append(score + theirs if share.own_outputs else score)
        return lifted

    def _over_all(self, number: int, score: torch.Tensor) -> torch.Tensor:
        """A member's scores [B, its outputs] -> [B, K], zero where it has none."""
        if not self.shares[number].own_outputs:
            return score
        padded = torch.cat([score, score.new_zeros(len(score), 1)], dim=1)
        return padded.index_select(1, self.place[number])


def parts(network: Network) -> list[Network]:
    """The networks that compute: an ensemble's members, else the network itself."""
    if not isinstance(network.body, Ensemble):
        return [network]
    return [member for member in network.body.members if isinstance(member, Network)]
