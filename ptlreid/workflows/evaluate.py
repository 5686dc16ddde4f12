"""`ptlreid evaluate`: a run and a data set to scores. A second time, nothing is decoded and torch is not imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ptlreid import cache
from ptlreid.config import EvaluateConfig
from ptlreid.models.weights import Saved, saved
from ptlreid.outputs import Readout
from ptlreid.progress import Progress
from ptlreid.records import Records, Splits
from ptlreid.retrieval import protocols
from ptlreid.retrieval.metrics import evaluate
from ptlreid.retrieval.protocols import Protocol
from ptlreid.retrieval.values import Features, Scores
from ptlreid.runs import RunFolder
from ptlreid.views import EvalView


@dataclass(frozen=True)
class Sides:
    """The two sides of a retrieval, and the protocol under which they are compared."""

    query: Features
    gallery: Features
    protocol: Protocol


def evaluate_run(run: RunFolder, splits: Splits, config: EvaluateConfig, progress: Progress) -> Scores:
    """The scores of the run's weights on the test set of `splits`, its features cached in the run folder.

    Raises `DataError` for a data set without a test set, `CheckpointError` for a run without weights.
    """
    return score(features_of(run, splits, config, progress), config)


def features_of(run: RunFolder, splits: Splits, config: EvaluateConfig, progress: Progress) -> Sides:
    """The features of the test set of `splits` by the run's weights, from its cache or extracted into it."""
    splits.require_test()
    weights = saved(run.weights(config.weights))
    source = cache.Source(weights, _readout(weights, config), EvalView(weights.spec.height, weights.spec.width))
    extract = _extractor(source, config, progress)

    def features(records: Records, part: str) -> Features:
        name = f"{splits.name.replace(':', '-')}.{part}.{config.weights}"
        file = run.features / f"{name}.h5"
        return cache.cached(file, source, records, lambda: extract(records, name), progress=progress)

    query, gallery = features(splits.query, "query"), features(splits.gallery, "gallery")
    return Sides(query, gallery, protocols.find(splits.protocol))


def score(sides: Sides, config: EvaluateConfig) -> Scores:
    """The scores of ranking the gallery for each query, as `config` asks."""
    return evaluate(sides.query, sides.gallery, sides.protocol, metric=config.metric, ap=config.ap)


def _readout(weights: Saved, config: EvaluateConfig) -> Readout:
    """The network's own way of reading features, changed by what was asked for."""
    asked = {name: getattr(config, name) for name in ("flip", "normalize", "amp")}
    return replace(weights.readout, **{name: value for name, value in asked.items() if value is not None})


def _extractor(source: cache.Source, config: EvaluateConfig, progress: Progress) -> Callable[[Records, str], Features]:
    """Extracts features with the network of `source`, which is built when it is first needed."""
    network = None

    def extract(records: Records, title: str) -> Features:
        nonlocal network
        from ptlreid import features
        from ptlreid.devices import check_amp, choose_device, choose_workers

        device = choose_device(config.device)
        check_amp(source.readout.amp, device)
        if network is None:
            network = source.saved.build().to(device)
        return features.extract(
            network,
            records,
            source.view,
            readout=source.readout,
            device=device,
            batch_size=config.batch_size,
            workers=choose_workers(config.workers, device),
            progress=progress,
            title=title,
        )

    return extract
