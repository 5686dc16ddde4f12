"""The commands that put a run to use, as functions: `import ptlreid` exports them, as those of `ptlreid.api`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptlreid.progress import Progress, Silent
from ptlreid.runs import RunFolder, find_run
from ptlreid.settings import EmbedSettings, IndexSettings, SearchSettings

_RUNS = Path("runs")


def embed(
    source: Path | str | Sequence[Path | str],
    run: RunFolder | Path | str,
    out: Path | str,
    *,
    runs: Path | str = _RUNS,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Writes the features of any images: a folder, a list, files or a prepared dataset. Same as `ptlreid embed --json`.

    `source`: one or several. For images in memory, see `load_extractor`.
    """
    from ptlreid.workflows.embed import embed

    chosen = EmbedSettings.resolve(None, **settings)
    folder = run if isinstance(run, RunFolder) else find_run(Path(runs), str(run))
    sources = [source] if isinstance(source, str | Path) else source
    return embed(list(map(str, sources)), folder, chosen, Path(out), progress or Silent(), listed=b"")


def search(
    query: Path | str | Sequence[Path | str],
    gallery: Path | str,
    run: RunFolder | Path | str,
    *,
    runs: Path | str = _RUNS,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """The nearest gallery images of each query, and whether they are matches. Same as `ptlreid search --json`.

    `query`: an image, a folder or a list, one or several. `gallery`: a folder, a list, a feature file, or the folder of
    an index, see `build_index`. For features without a run, see `search_features`.
    """
    from ptlreid.workflows.search import search_run

    chosen = SearchSettings.resolve(None, **settings)
    folder = run if isinstance(run, RunFolder) else find_run(Path(runs), str(run))
    queries = [query] if isinstance(query, str | Path) else query
    return search_run(list(map(str, queries)), folder, str(gallery), chosen, progress or Silent(), listed=b"")


def search_features(
    features: Path | str, gallery: Path | str | None = None, *, progress: Progress | None = None, **settings: Any
) -> dict[str, Any]:
    """The same for the images in a feature file of any program, as queries, in another one or in the same."""
    from ptlreid.workflows.search import search_files

    chosen = SearchSettings.resolve(None, **settings)
    target = None if gallery is None else Path(gallery)
    return search_files([], Path(features), target, chosen, progress or Silent())


def build_index(
    shards: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Builds an index of one or more folders of shards; what it is and finds. Same as `ptlreid index build --json`."""
    from ptlreid.workflows.index import build_index

    folders = [shards] if isinstance(shards, str | Path) else shards
    chosen = IndexSettings.resolve(None, **settings)
    return build_index([Path(one) for one in folders], Path(out), chosen, progress or Silent())
