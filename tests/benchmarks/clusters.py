"""Time and memory of clustering images without labels: Jaccard distances of all near pairs, then DBSCAN.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python tests/benchmarks/clusters.py 20000 100000
    ... --spread 2                      identities that overlap, so that encodings are longer and clusters fewer

Each size runs in a process of its own; memory is its peak, features included. Features are synthetic, 512-d, with 20
images of each identity: the centres and the images around them differ along 64 directions only, so that an image has
other identities near it, as in real features. The matrix product that the search for neighbours needs is timed alone,
on a tenth of the rows.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from time import perf_counter, process_time

import numpy as np
from sklearn.metrics import adjusted_rand_score

from ptlreid.retrieval.clustering import cluster
from ptlreid.retrieval.jaccard import jaccard_graph

_WIDTH, _DIRECTIONS, _IMAGES = 512, 64, 20
_BLOCK = 1024


def make_features(rows: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """(N, 512) float32, made in blocks so that no other memory is needed, and the identities, (N,)."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.standard_normal((_WIDTH, _DIRECTIONS)))[0].T.astype(np.float32)
    centres = rng.standard_normal((rows // _IMAGES, _DIRECTIONS), dtype=np.float32)
    pids = rng.permutation(np.arange(rows) % len(centres))
    matrix = np.empty((rows, _WIDTH), dtype=np.float32)
    for start in range(0, rows, _BLOCK):
        near = centres[pids[start : start + _BLOCK]]
        near += spread * rng.standard_normal(near.shape, dtype=np.float32)
        np.matmul(near, directions, out=matrix[start : start + _BLOCK])
    return matrix, pids


def run(rows: int, spread: float) -> None:
    matrix, pids = make_features(rows, spread)
    start = perf_counter()
    for first in range(0, rows // 10, _BLOCK):
        matrix[first : min(first + _BLOCK, rows // 10)] @ matrix.T
    product = 10 * (perf_counter() - start)
    start, cpu = perf_counter(), process_time()
    graph = jaccard_graph(matrix, k1=30, k2=6, radius=0.6, memory_budget=None)
    middle = perf_counter()
    labels = cluster(graph, radius=0.6, min_samples=4)
    end = perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{rows} x {_WIDTH}, spread {spread}: distances {middle - start:.1f} s ({(middle - start) / product:.2f} x the "
        f"product of {product:.1f} s), clusters {end - middle:.1f} s, CPU time {process_time() - cpu:.1f} s, peak "
        f"{peak / 1e9:.2f} GB\n"
        f"  {graph.nnz / rows:.1f} pairs per image, {labels.max() + 1} clusters, {(labels < 0).sum()} outliers, "
        f"adjusted Rand index {adjusted_rand_score(pids, labels):.3f}; load {os.getloadavg()[0]:.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[20_000, 100_000])
    parser.add_argument("--spread", type=float, default=0.8)
    options = parser.parse_args()
    if len(options.sizes) == 1:
        run(options.sizes[0], options.spread)
        return
    for size in options.sizes:
        subprocess.run([sys.executable, __file__, str(size), "--spread", str(options.spread)], check=True)


if __name__ == "__main__":
    main()
