"""The structures of faiss that an index may have: how each is made, how large it is, and how it is searched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ptlreid.errors import OptionError

Structure = Literal["ivfpq", "hnsw", "flat"]

_NEIGHBOURS = 32  # of an image in a graph, twice as many in its lowest layer
_TRAINING_ROWS = 39  # for each list, the fewest that faiss trains with without a warning
_CENTROIDS = 256  # of each byte of a code
_FEWEST_ROWS = _TRAINING_ROWS * _CENTROIDS
_MOST_LISTS = 65_536
_DEFAULT_CODE = 64


@dataclass(frozen=True)
class Plan:
    """How an index is made. `factory`: what faiss calls it. `training_rows`: images that it is trained with.

    `build_bytes`: memory at most while it is built, an estimate.
    """

    factory: str
    training_rows: int
    build_bytes: int


def import_faiss() -> Any:
    """The module faiss; `OptionError` where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise OptionError(
            "An index needs the package faiss, which is not installed. Install it with `pip install "
            "'ptlreid[index]'`, or search the shards themselves with `ptlreid search --gallery`."
        ) from None
    return faiss


def plan_structure(
    structure: Structure, rows: int, width: int, *, code_bytes: int | None, num_lists: int | None
) -> Plan:
    """The plan for so many images; `OptionError` where they are too few, or sizes do not fit."""
    if structure == "flat":
        return Plan("Flat", 0, 8 * width * rows)  # twice its size, as it grows by doubling
    if structure == "hnsw":
        return Plan(f"HNSW{_NEIGHBOURS},Flat", 0, rows * (8 * width + 4 * 2 * _NEIGHBOURS + 64))
    if rows < _FEWEST_ROWS:
        raise OptionError(
            f"kind = 'ivfpq': the shards hold {rows:,} images, expected at least {_FEWEST_ROWS:,} to train it. Use "
            "--kind flat."
        )
    code = code_bytes or default_code(width)
    if width % code:
        raise OptionError(
            f"code_bytes = {code}: expected a divisor of the width {width}, such as {default_code(width)}."
        )
    count = num_lists or min(_MOST_LISTS, 1 << int(math.log2(4 * math.sqrt(rows))))
    if _TRAINING_ROWS * count > rows:
        most = rows // _TRAINING_ROWS
        if num_lists:
            raise OptionError(f"num_lists = {num_lists:,}: expected at most {most:,}, one for {_TRAINING_ROWS} images.")
        count = 1 << int(math.log2(most))
    training = max(_FEWEST_ROWS, _TRAINING_ROWS * count)
    filled, trained = 3 * rows * (code + 8) // 2, 8 * width * (training + count)
    # The lists are compared one by one: a graph of 8,192 of them (_HNSW32) reached 744, of features in many directions.
    # "np": without training for polysemous codes, which takes seconds for each byte, and which no search here uses.
    return Plan(f"IVF{count},PQ{code}np", training, max(filled, trained) + 4 * width * count)


def default_code(width: int) -> int:
    """The largest divisor of the width that is at most a quarter of it, and at most 64; at least 1."""
    return max(one for one in range(1, min(_DEFAULT_CODE, max(1, width // 4)) + 1) if width % one == 0)


def make_graph(plan: Plan, sample: np.ndarray, width: int, seed: int) -> Any:
    """The empty index, trained with the (T, D) float32 `sample`."""
    faiss = import_faiss()
    graph = faiss.index_factory(width, plan.factory, faiss.METRIC_L2)
    if not graph.is_trained:
        graph.cp.seed = graph.pq.cp.seed = seed & 0x7FFFFFFF
        graph.train(sample)
    return graph


def list_efforts(graph: Any) -> list[int]:
    """What a search may visit, ascending: lists of IVF, candidates in a graph; 1 where nothing is left out."""
    if hasattr(graph, "nlist"):
        return [1 << power for power in range(graph.nlist.bit_length())]
    return [1 << power for power in range(8, 14)] if hasattr(graph, "hnsw") else [1]


def search_graph(graph: Any, matrix: np.ndarray, *, count: int, effort: int, allowed: np.ndarray | None) -> np.ndarray:
    """(Q, count) int64: rows near each query by the index's own distances, -1 where it finds no more.

    `matrix`: (Q, D) float32. `allowed`: which rows may be found, bit by bit from the lowest of each byte; None: all.
    """
    faiss = import_faiss()
    selector = None if allowed is None else faiss.IDSelectorBitmap(allowed)
    if hasattr(graph, "nlist"):
        parameters = faiss.SearchParametersIVF(nprobe=min(effort, graph.nlist), sel=selector)
    elif hasattr(graph, "hnsw"):
        parameters = faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
    else:
        parameters = faiss.SearchParameters(sel=selector)
    _, rows = graph.search(np.ascontiguousarray(matrix), count, params=parameters)
    return np.asarray(rows)
