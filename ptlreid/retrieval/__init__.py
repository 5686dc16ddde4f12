"""Exact retrieval within a memory budget: rank a gallery for every query, and score the ranking.

`types` holds the values passed between steps, `protocols` the rules of an evaluation, `distance` the streamed
distances, `metrics` ranks and scores, `single_shot` the classic CUHK03 curve, `ranklist` the nearest images; `rerank`
and `expansion` are optional steps before scoring, `bootstrap` after it. NumPy and SciPy only: no network, no torch.
"""
