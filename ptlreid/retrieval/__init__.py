"""Ranking a gallery for every query, and scoring the ranking: exact, streamed, within a memory budget.

`values` holds what travels, `protocols` the rules, `distance` the streamed matrix products, `metrics` the ranks and
scores, `single_shot` the classic CUHK03 curve, `ranklist` the nearest images, `rerank` and `expansion` what
may come before scoring. NumPy and SciPy only; torch is imported where a GPU is asked for.
"""
