"""How alive a codebook is: which of its codes are used, how evenly, and an alarm when it collapses."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CollapseConfig:
    """When a codebook counts as collapsed."""

    below: float = 0.05
    """Share of codes in use between two log lines, of those that its patches could have reached, under which a
    codebook is in danger."""
    patience: int = 3
    """Log lines in a row after which it is said, loudly."""
    stop: bool = False
    """Whether the run then ends."""


class CodebookCollapse(FloatingPointError):
    """A training that went wrong in a way that more steps will not mend."""


def usage(hits: Tensor) -> dict[str, float]:
    """Figures of one codebook from how often each code (K,) was assigned.

    Returns
    -------
    dict
        codes_in_use: share of the K codes with at least one hit. codes_reached: the same share of the codes that could
        have one, which are no more than there are hits. perplexity: exponential of the entropy of the code
        distribution, in codes, 1 to K. top10_share: share of all hits that go to the ten most frequent codes.
        Without hits, nothing.
    """
    total = hits.sum()
    if not total:
        return {}
    share = (hits / total).double()
    entropy = -torch.xlogy(share, share).sum()
    in_use = int((hits > 0).sum())
    return {
        "codes_in_use": in_use / len(hits),
        "codes_reached": in_use / min(len(hits), int(total)),
        "perplexity": math.exp(entropy.item()),
        "top10_share": share.topk(min(10, len(share))).values.sum().item(),
    }


class CollapseWatch:
    """Warn, or stop, when a codebook stays under a share of codes in use over several log lines.

    Parameters
    ----------
    config : CollapseConfig
    """

    def __init__(self, config: CollapseConfig) -> None:
        self._config = config
        self._in_danger: dict[str, int] = {}

    def recall(self, reached: Mapping[str, float]) -> None:
        """Count a look that was taken before the run was interrupted, without saying again what was said then."""
        for name, share in reached.items():
            self._in_danger[name] = self._in_danger.get(name, 0) + 1 if share < self._config.below else 0

    def look(self, reached: Mapping[str, float]) -> None:
        """Take each codebook's `codes_reached` since the last look, by the codebook's name.

        Raises
        ------
        CodebookCollapse
            If `stop` is set and a codebook has been under `below` for `patience` looks in a row.
        """
        self.recall(reached)
        for name, share in reached.items():
            if self._in_danger[name] >= self._config.patience:
                self._alarm(name, share)

    def _alarm(self, name: str, share: float) -> None:
        message = (
            f"the {name} codebook has collapsed: of the codes within its reach {share:.1%} are in use, too few for "
            f"{self._in_danger[name]} log lines in a row. What helps: --model.codebook_start kmeans with more steps "
            "before quantisation (--start.share), revival of dead codes (--model.revive_below 0.15), targets of unit "
            "variance (--model.waveform patch), a lower --losses.commitment, a lower --optim.lr."
        )
        if self._config.stop:
            raise CodebookCollapse(message)
        _log.warning("WARNING: %s", message)
