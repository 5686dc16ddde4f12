"""`ptlreid evaluate`: a run and a dataset to scores. A second time, nothing is decoded and torch is not imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ptlreid import cache, distributed
from ptlreid.errors import DataError
from ptlreid.models.weights import read_weights_header
from ptlreid.progress import Progress
from ptlreid.records import DISTRACTOR, Records, Splits
from ptlreid.retrieval import feature_files, protocols
from ptlreid.retrieval.distance import Block, Stream, blocks
from ptlreid.retrieval.expansion import expand
from ptlreid.retrieval.metrics import evaluate_blocks
from ptlreid.retrieval.protocols import Protocol
from ptlreid.retrieval.types import Features, Scores
from ptlreid.runs import RunFolder
from ptlreid.settings import EvaluateSettings
from ptlreid.views import EvalView


@dataclass(frozen=True)
class Sides:
    """The two sides of a retrieval, and the protocol under which they are compared."""

    query: Features
    gallery: Features
    protocol: Protocol


def evaluate_run(run: RunFolder, splits: Splits, config: EvaluateSettings, progress: Progress) -> Scores:
    """The scores of the run's weights on the test set of `splits`, its features cached in the run folder.

    Joined processes extract together; the main one scores, and all get the scores. Raises `DataError` for a dataset
    without a test set, `CheckpointError` for a run without weights.
    """
    sides = features_of(run, splits, config, progress)
    return distributed.run_on_main(lambda: score(sides, config))


def features_of(run: RunFolder, splits: Splits, config: EvaluateSettings, progress: Progress) -> Sides:
    """The features of the test set of `splits` by the run's weights, from its cache or extracted into it."""
    splits.require_test()
    protocol = protocols.find(config.protocol or splits.protocol)
    source = source_of(run, config)
    extractor = _extractor(source, config, progress)

    def features(part: str, records: Records) -> Features:
        extract = extractor(records)
        return cache.load_or_extract(cache_file(run, splits, part, config), source, records, extract, progress=progress)

    return Sides(features("query", splits.query), features("gallery", splits.gallery), protocol)


def features_in(query: Path, gallery: Path, config: EvaluateSettings) -> Sides:
    """The two sides from feature files of any program; `DataError` names the file, and the row, that is at fault."""
    protocol = protocols.find(config.protocol or "market")
    sides = Sides(feature_files.read(query), feature_files.read(gallery), protocol)
    for file, side in ((query, sides.query), (gallery, sides.gallery)):
        if not len(side):
            raise DataError(f"{file}: holds no features, expected one image or more. Make it again.")
    if sides.query.width != sides.gallery.width:
        raise DataError(
            f"{query} has features of width {sides.query.width}, {gallery} of width {sides.gallery.width}. "
            "Extract both with the same weights."
        )
    nobody = np.flatnonzero(sides.query.pids == DISTRACTOR)
    if len(nobody):
        raise DataError(
            f"{query}: row {nobody[0]} ({sides.query.paths[nobody[0]]}): pid 0, which is no person here but a "
            f"distractor, and can be nobody's query ({len(nobody)} rows). Where people count from 0, add 1 to the pids "
            "of both files; otherwise leave these queries out."
        )
    return sides


def score(sides: Sides, config: EvaluateSettings) -> Scores:
    """The scores of ranking the gallery for each query, as `config` asks."""
    sides = expanded(sides, config)
    return score_blocks(distances(sides, config), sides, config)


def score_blocks(source: Iterable[Block], sides: Sides, config: EvaluateSettings) -> Scores:
    """As `score`, from the `distances` between the two sides."""
    query, gallery, protocol = sides.query, sides.gallery, sides.protocol
    return evaluate_blocks(
        source, query, gallery, protocol, ap=config.ap, draws=config.single_shot_samples, seed=config.seed
    )


def expanded(sides: Sides, config: EvaluateSettings) -> Sides:
    """The two sides, the queries expanded where `config` asks for it."""
    if not config.expand:
        return sides
    query = expand(
        sides.query,
        sides.gallery,
        size=config.expand,
        alpha=config.expand_alpha,
        memory_budget=config.budget_bytes,
        device=_ranked_on(config),
    )
    return replace(sides, query=query)


def distances(sides: Sides, config: EvaluateSettings) -> Stream:
    """The distances of all pairs as `config` asks for them, re-ranked or not, in blocks: see `Stream`."""
    query, gallery, budget, device = sides.query, sides.gallery, config.budget_bytes, _ranked_on(config)
    if not config.rerank:
        return Stream(lambda: blocks(query, gallery, metric=config.metric, memory_budget=budget, device=device))
    from ptlreid.retrieval.rerank import rerank  # SciPy

    k1, k2, weight = config.rerank_k1, config.rerank_k2, config.rerank_lambda
    return rerank(query, gallery, k1=k1, k2=k2, weight=weight, memory_budget=budget, device=device)


def source_of(run: RunFolder, config: EvaluateSettings) -> cache.Source:
    """What the features of the run are made with, as `config` asks: the network's own readout where it does not."""
    weights = read_weights_header(run.weights(config.weights))
    asked = {name: getattr(config, name) for name in ("flip", "normalize", "amp")}
    readout = replace(weights.readout, **{name: value for name, value in asked.items() if value is not None})
    return cache.Source(weights, readout, EvalView(weights.spec.height, weights.spec.width), config.dtype)


def cache_file(run: RunFolder, splits: Splits, part: str, config: EvaluateSettings) -> Path:
    """Where the features of the `query` or `gallery` of `splits` are cached."""
    return run.features / f"{splits.name.replace(':', '-')}.{part}.{config.weights}.h5"


def _ranked_on(config: EvaluateSettings) -> str:
    # To look for a GPU takes importing torch, which lasts longer than most rankings: one that is named is used.
    return config.device if config.device.startswith("cuda") else "cpu"


def _extractor(
    source: cache.Source, config: EvaluateSettings, progress: Progress
) -> Callable[[Records], cache.Extract]:
    """Extracts features with the network of `source`, which is built when it is first needed."""
    network = None

    def of(records: Records) -> cache.Extract:
        def extract(start: int) -> Iterator[np.ndarray]:
            nonlocal network
            from ptlreid import features
            from ptlreid.devices import check_amp, choose_device, choose_workers

            device = choose_device(config.device)
            check_amp(source.readout.amp, device)
            network = network or source.saved.build().to(device)
            return features.stream(
                network,
                records,
                source.view,
                readout=source.readout,
                device=device,
                batch_size=config.batch_size,
                workers=choose_workers(config.workers, device),
                start=start,
                progress=progress,
            )

        return extract

    return of
