"""CMC when the gallery holds one image of each identity, drawn at random: its exact expectation, or seeded draws."""

from __future__ import annotations

import numpy as np

from ptlreid.errors import OptionError
from ptlreid.records import DISTRACTOR


class SingleShotCMC:
    """Draws one gallery image of each identity for a query: uniformly, the query's own identity among its matches.

    This is the classic CUHK03 evaluation (Li et al., CVPR 2014). Other toolkits repeat the draw 10 or 100 times; the
    curve here is what these tend to. A distractor (pid 0) is no one in particular and always drawn.
    """

    def __init__(self, pids: np.ndarray, max_rank: int, *, repeats: int | None = None, seed: int = 0) -> None:
        """`pids`: (G,) of the gallery. `repeats`: None for the exact expectation, else the mean of so many draws.

        Draws depend on `seed` and the query's row, not on the order of evaluation.
        """
        if repeats is not None and repeats < 1:
            raise OptionError(f"{repeats} draws were asked for, expected 1 or more, or none for the exact expectation.")
        alone = -1 - np.arange(len(pids))  # labels that no person has
        self._people = np.unique(np.where(pids > DISTRACTOR, pids, alone), return_inverse=True)[1]
        self._max_rank = max_rank
        self._repeats = repeats
        self._seed = seed

    def curve(self, keys: np.ndarray, matches: np.ndarray, query_row: int) -> np.ndarray:
        """(R,) probabilities that a query meets its match within the first 1 .. R.

        `keys`: (G,), infinite where an image is absent. `matches`: all present columns of the query's identity.
        """
        own = int(self._people[matches[0]])
        ranked = np.argsort(keys, kind="stable")[: np.count_nonzero(keys < np.inf)]
        people = self._people[ranked]  # from the nearest image to the farthest
        if self._repeats is None:
            return self._expected(people, own)
        return self._sampled(people, own, self._repeats, np.random.default_rng((self._seed, query_row)))

    def _expected(self, people: np.ndarray, own: int) -> np.ndarray:
        sizes = np.bincount(people)
        total = np.zeros(self._max_rank)
        places = np.flatnonzero(people == own)
        for place in places:
            nearer = np.bincount(people[:place], minlength=len(sizes))
            nearer[own] = 0  # its other images are not drawn
            some = nearer > 0
            total += expected_curve(nearer[some] / sizes[some], self._max_rank)
        return np.minimum(total / len(places), 1)  # rounding may reach 1 + 1e-16

    def _sampled(self, people: np.ndarray, own: int, repeats: int, generator: np.random.Generator) -> np.ndarray:
        by_person = np.argsort(people, kind="stable")
        present, firsts, sizes = np.unique(people[by_person], return_index=True, return_counts=True)
        own_index = np.searchsorted(present, own)
        ranks = np.empty(repeats, dtype=np.int64)
        for repeat in range(repeats):
            drawn = by_person[firsts + (generator.random(len(sizes)) * sizes).astype(np.int64)]
            ranks[repeat] = 1 + np.count_nonzero(drawn < drawn[own_index])
        return np.asarray((ranks[:, None] <= np.arange(1, self._max_rank + 1)).mean(axis=0))


def expected_curve(shares: np.ndarray, max_rank: int) -> np.ndarray:
    """(R,) probabilities that fewer than 1 .. R of the other identities are drawn nearer than the match.

    `shares`: (I,) of the other identities, in (0, 1]: the share of its images that are nearer. Identities are drawn
    independently, so the number that is nearer is a sum of independent yes/no draws (Poisson binomial); its
    distribution grows by one identity at a time. No other identity nearer: all ones.
    """
    always = np.count_nonzero(shares >= 1)
    chances = np.zeros(max_rank)  # [n]: that n identities are nearer; beyond R it does not matter
    if always < max_rank:
        chances[always] = 1
        for share in shares[shares < 1]:
            chances[1:] = chances[1:] * (1 - share) + chances[:-1] * share
            chances[0] *= 1 - share
    return np.cumsum(chances)
