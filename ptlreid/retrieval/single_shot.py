"""CMC with one randomly sampled gallery image per identity: its exact expectation, or the mean of seeded samples."""

from __future__ import annotations

import numpy as np

from ptlreid.errors import OptionError


class SingleShotCMC:
    """The CMC of a query with one uniformly sampled gallery image per identity, the query's own from its matches.

    This is the classic CUHK03 evaluation (Li et al., CVPR 2014). Other toolkits sample 10 or 100 times; the expectation
    is the limit of their curves. A distractor (pid -2) counts as an identity of its own, so it is always sampled.
    """

    def __init__(self, pids: np.ndarray, max_rank: int, *, samples: int | None, seed: int) -> None:
        """`pids`: (G,) of the gallery. `samples`: the number to average over; None for the exact expectation.

        Samples depend on `seed` and the query's row, not on the order of evaluation.
        """
        if samples is not None and samples < 1:
            raise OptionError(f"{samples} samples: expected 1 or more, or none for the exact expectation.")
        unique = -1 - np.arange(len(pids))  # labels that no identity has
        self._identities = np.unique(np.where(pids >= 0, pids, unique), return_inverse=True)[1]
        self._max_rank = max_rank
        self._samples = samples
        self._seed = seed

    def curve(self, keys: np.ndarray, matches: np.ndarray, query_row: int) -> np.ndarray:
        """(R,) probabilities that the query's match is within the first 1 .. R.

        `keys`: (G,), infinite where an image is absent. `matches`: all present columns of the query's identity.
        """
        own = int(self._identities[matches[0]])
        ranked = np.argsort(keys, kind="stable")[: np.count_nonzero(keys < np.inf)]
        identities = self._identities[ranked]  # from the nearest image to the farthest
        if self._samples is None:
            return self._expect(identities, own)
        return self._sample(identities, own, self._samples, np.random.default_rng((self._seed, query_row)))

    def _expect(self, identities: np.ndarray, own: int) -> np.ndarray:
        sizes = np.bincount(identities)
        total = np.zeros(self._max_rank)
        positions = np.flatnonzero(identities == own)
        for position in positions:
            nearer = np.bincount(identities[:position], minlength=len(sizes))
            nearer[own] = 0  # its other images are not sampled
            present = nearer > 0
            total += expected_curve(nearer[present] / sizes[present], self._max_rank)
        return np.minimum(total / len(positions), 1)  # rounding may reach 1 + 1e-16

    def _sample(self, identities: np.ndarray, own: int, samples: int, generator: np.random.Generator) -> np.ndarray:
        by_identity = np.argsort(identities, kind="stable")
        present, firsts, sizes = np.unique(identities[by_identity], return_index=True, return_counts=True)
        own_index = np.searchsorted(present, own)
        ranks = np.empty(samples, dtype=np.int64)
        for sample in range(samples):
            sampled_ranks = by_identity[firsts + (generator.random(len(sizes)) * sizes).astype(np.int64)]
            ranks[sample] = 1 + np.count_nonzero(sampled_ranks < sampled_ranks[own_index])
        return np.asarray((ranks[:, None] <= np.arange(1, self._max_rank + 1)).mean(axis=0))


def expected_curve(shares: np.ndarray, max_rank: int) -> np.ndarray:
    """(R,) probabilities that fewer than 1 .. R of the other identities are sampled nearer than the match.

    `shares`: (I,) of the other identities, in (0, 1]: the fraction of an identity's images that are nearer. Sampling is
    independent between identities, so the number of nearer ones is a sum of independent Bernoulli variables (Poisson
    binomial); its distribution is built one identity at a time. Without a nearer identity: all ones.
    """
    always = np.count_nonzero(shares >= 1)
    probabilities = np.zeros(max_rank)  # [n]: of n nearer identities, n < R
    if always < max_rank:
        probabilities[always] = 1
        for share in shares[shares < 1]:
            probabilities[1:] = probabilities[1:] * (1 - share) + probabilities[:-1] * share
            probabilities[0] *= 1 - share
    return np.cumsum(probabilities)
