"""The commands as functions, for notebooks and scripts. `import ptlreid` exports them, each imported on first use.

Settings are keyword arguments with the names and defaults of the commands' options (docs/commands.md), such as
`metric="cosine"`; an unknown one is an `OptionError`. `root` and `runs` are the folders of datasets and of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptlreid import datasets, evaluation, models
from ptlreid.api_models import open_model
from ptlreid.errors import OptionError
from ptlreid.features import Extractor
from ptlreid.models.pretrained import init_digests
from ptlreid.models.weights import WeightsFile, read_weights_header
from ptlreid.progress import Progress, Silent
from ptlreid.records import Splits
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.bootstrap import Difference, score_differences
from ptlreid.retrieval.protocols import find_protocol
from ptlreid.retrieval.seeds import MethodDifference, method_differences
from ptlreid.retrieval.types import Features, Retrieval, Scores
from ptlreid.runs import RunFolder, find_run, name_run
from ptlreid.settings import (
    AdaptSettings,
    ChainSettings,
    DistillSettings,
    EvaluateSettings,
    FinetuneSettings,
    OwnImagesSettings,
    RootSettings,
    SyntheticSettings,
)
from ptlreid.settings.evaluate import CompareSettings
from ptlreid.settings.report import ReportSettings

if TYPE_CHECKING:
    from ptlreid.models.network import Network

_RUNS = Path("runs")


def prepare_dataset(
    data: str,
    source: Path | str | None = None,
    *,
    root: Path | str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Splits:
    """The splits of a dataset, prepared below `root`: from `source`, its archive or folder, or rendered.

    An existing dataset is reused. `folder` with `name="lobby"` in `settings` makes a dataset of your own images. Same
    as `ptlreid prepare`.
    """
    from ptlreid.datasets import folder
    from ptlreid.workflows.prepare import prepare

    root_folder, progress = _root(root), progress or Silent()
    dataset = datasets.find(data, root_folder)
    if source is not None:
        own = OwnImagesSettings.resolve(None, **settings) if dataset.module is folder else None
        dataset = replace(dataset, name=own.name) if own and own.name else dataset
        prepare(dataset, Path(source), root_folder, own, progress)
    elif hasattr(dataset.module, "prepare"):
        rendered = SyntheticSettings.resolve(None, **settings)
        dataset.module.prepare(dataset.folders(root_folder)[0], dataset.variant, rendered, progress)
    elif settings:
        raise OptionError(f"{', '.join(settings)}: apply to synthetic datasets and to a source. Give a source.")
    return dataset.read(dataset.folder(root_folder))


def load_dataset(name: str, *, root: Path | str | None = None) -> Splits:
    """The splits of a dataset below `root`: by name (`market`, `market+duke`) or by the path of its folder."""
    return datasets.load(name, _root(root))


def build_network(backbone: str, num_classes: int, **settings: Any) -> Network:
    """A new network on the CPU, initialised from `init` (`imagenet`, `none` or a weights file).

    `settings`: those of `ptlreid finetune`, such as `ptl=False`, `memory`, `height`, `width`, `init` and `seed`.
    """
    from ptlreid.engine.job import resolve_size
    from ptlreid.models import pretrained

    chosen = resolve_size(FinetuneSettings.resolve(None, backbone=backbone, **settings))
    network = models.build(chosen.network(num_classes), chosen.seed)
    if chosen.init == "imagenet":
        pretrained.load_imagenet(network, chosen.backbone)
    elif chosen.init != "none":
        pretrained.load_file(network, Path(chosen.init), chosen.backbone)
    return network


def load_network(source: RunFolder | Path | str, *, runs: Path | str = _RUNS) -> Network:
    """The network of a run, by name or folder, or of one of ptlreid's weights files: on the CPU, in eval mode."""
    return _weights(source, Path(runs)).build()


def load_extractor(source: RunFolder | Path | str, *, runs: Path | str = _RUNS, **settings: Any) -> Extractor:
    """The `Extractor` of a run, by name or folder, of one of ptlreid's weights files or of an ONNX model.

    `settings`: those of `ptlreid evaluate`, such as `device`, `batch_size`, `flip` and `normalize`.
    """
    chosen = EvaluateSettings.resolve(None, **settings)
    if isinstance(source, RunFolder) or str(source).endswith(".onnx"):
        return Extractor.from_run(source if isinstance(source, RunFolder) else open_model(source, runs=runs), chosen)
    return Extractor.from_weights(_weights(source, Path(runs)), chosen)


def open_run(name: Path | str, *, runs: Path | str = _RUNS) -> RunFolder:
    """The run called `name` below `runs`, or at the path `name`."""
    return find_run(Path(runs), str(name))


def finetune(
    data: str,
    *,
    name: str | None = None,
    runs: Path | str = _RUNS,
    recipe: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """The metrics of a training run, resumed or reused if it exists. Same as `ptlreid finetune --json`.

    The run is in the folder `runs / metrics["run"]`. For several seeds, call it for each, and give the results to
    `summarize_seeds`.
    """
    from ptlreid.workflows.finetune import finetune

    chosen = FinetuneSettings.resolve(None, recipe=recipe, progress=progress, data=data, **settings)
    depends = init_digests(chosen.init, Path(runs))
    splits, run = load_dataset(data, root=chosen.root), name_run(Path(runs), name, chosen)
    return finetune(chosen, splits, run, progress or Silent(), depends=depends)


def adapt_run(
    run: str,
    data: str,
    *,
    name: str | None = None,
    runs: Path | str = _RUNS,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """The metrics of `run` adapted to `data`. Same as `ptlreid adapt --json`, with settings `method_` and `with_`."""
    from ptlreid.adapt.source import resolve_settings
    from ptlreid.workflows.adapt import adapt

    chosen = resolve_settings(partial(AdaptSettings.resolve, None, run=run, data=data, **settings), Path(runs))
    splits, folder = load_dataset(data, root=chosen.root), name_run(Path(runs), name, chosen)
    return adapt(chosen, splits, folder, progress or Silent())


def distill(
    teacher: str | None = None,
    *,
    name: str | None = None,
    runs: Path | str = _RUNS,
    recipe: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """The metrics of a student of the run `teacher`, by default the newest finished PTL run. Same as `ptlreid distill`.

    λ of Eq. 4 is the setting `lambda_`.
    """
    from ptlreid.transfer.distillation import resolve_settings
    from ptlreid.workflows.distill import distill

    progress = progress or Silent()
    resolve = partial(DistillSettings.resolve, None, recipe=recipe, **{"teacher": teacher, **settings})
    chosen = resolve_settings(resolve, Path(runs), progress)
    splits, run = load_dataset(chosen.data, root=chosen.root), name_run(Path(runs), name, chosen)
    return distill(chosen, splits, run, progress)


def transfer_chain(
    *data: str,
    name: str | None = None,
    runs: Path | str = _RUNS,
    recipe: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """The stages of a network fine-tuned on several datasets in order, and its scores on all after each stage."""
    from ptlreid.transfer.chain_folder import ChainFolder
    from ptlreid.workflows.chain import run_chain

    chosen = ChainSettings.resolve(None, recipe=recipe, progress=progress, chain=list(data), **settings)
    return run_chain(chosen, ChainFolder.named(Path(runs), name, chosen), progress or Silent())


def evaluate(query: Features, gallery: Features, **settings: Any) -> Scores:
    """The scores of ranking `gallery` for every query: `mean_ap`, `cmc`, `mean_inp`, and all of them per query.

    `settings`: those of `ptlreid evaluate`, such as `metric`, `rerank`, `ap`, `protocol` (by default market's) and
    `memory_budget`.
    """
    chosen = EvaluateSettings.resolve(None, **settings)
    protocol = find_protocol(chosen.protocol or evaluation.PROTOCOL_OF_FILES)
    return evaluation.evaluate(Retrieval(query, gallery, protocol), chosen)


def evaluate_run(
    run: RunFolder | Path | str,
    data: str | None = None,
    *,
    runs: Path | str = _RUNS,
    progress: Progress | None = None,
    **settings: Any,
) -> Scores:
    """The scores of a run on a dataset, by default the one it was trained on; features are cached in the run folder."""
    chosen = EvaluateSettings.resolve(None, **settings)
    folder = run if isinstance(run, RunFolder) else open_run(run, runs=runs)
    splits = load_dataset(data or folder.settings().data, root=chosen.root)
    return evaluation.evaluate_run(folder, splits, chosen, progress or Silent())


def rerank(query: Features, gallery: Features, **settings: Any) -> np.ndarray:
    """(Q, G) float32 k-reciprocal re-ranked distances, infinite for junk (Zhong et al., CVPR 2017).

    `settings`: `rerank_k1`, `rerank_k2`, `rerank_lambda` and `memory_budget` of `ptlreid evaluate`. The result takes
    4 · Q · G bytes, which `evaluate(..., rerank=True)` does not need.
    """
    chosen = EvaluateSettings.resolve(None, rerank=True, **settings)
    ranking = evaluation.rank(Retrieval(query, gallery, find_protocol(evaluation.PROTOCOL_OF_FILES)), chosen)
    distances = np.empty((len(query), len(gallery)), dtype=np.float32)
    for block in ranking.blocks:
        for row in block.rows:
            distances[row] = block.keys_of(row)
    return distances


def compare(first: Scores, second: Scores, query: Features, **settings: Any) -> tuple[Difference, Difference]:
    """The differences of mAP and of CMC-1, second minus first, each with its 95% CI (bootstrap over identities).

    Both must be scores of the same `query`. `settings`: `bootstrap` (resamples) and `seed` of `ptlreid compare`.
    """
    chosen = CompareSettings.resolve(None, **settings)
    mean_ap, cmc1 = score_differences(first, second, query.pids, resamples=chosen.bootstrap, seed=chosen.seed)
    return mean_ap, cmc1


def compare_methods(
    first: Sequence[Scores], second: Sequence[Scores], query: Features, **settings: Any
) -> tuple[MethodDifference, MethodDifference]:
    """The differences of mAP and of CMC-1 of two methods, second minus first, with 95% CIs over seeds and identities.

    `first`, `second`: the scores of each seed, in the same order, all of the same `query`. `settings`: as for
    `compare`.
    """
    chosen = CompareSettings.resolve(None, **settings)
    mean_ap, cmc1 = method_differences(first, second, query.pids, resamples=chosen.bootstrap, seed=chosen.seed)
    return mean_ap, cmc1


def write_report(
    names: str | Sequence[str],
    *,
    runs: Path | str = _RUNS,
    out: Path | str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Path:
    """The HTML report on a run, on several runs compared, or on a chain. Same as `ptlreid report`."""
    from ptlreid.workflows.report import report

    chosen, target = ReportSettings.resolve(None, **settings), Path(out) if out else None
    given = [names] if isinstance(names, str) else list(names)
    return report(given, Path(runs), chosen, progress or Silent(), out=target)[0]


def read_features(file: Path | str) -> Features:
    """The features in an HDF5 or .npz file, written by ptlreid or any other program: docs/file-formats.md."""
    return feature_files.read(Path(file))


def write_features(features: Features, file: Path | str) -> None:
    """Writes the features to an HDF5 file, atomically."""
    feature_files.write(Path(file), features, {}, dtype="float32")


def _root(root: Path | str | None) -> Path:
    return Path(root) if root is not None else Path(RootSettings().root)


def _weights(source: RunFolder | Path | str, runs: Path) -> WeightsFile:
    if isinstance(source, RunFolder):
        return read_weights_header(source.weights())
    file = Path(source)
    return read_weights_header(file if file.is_file() else find_run(runs, str(source)).weights())
