"""The commands that put a run to use, as functions: `import ptlreid` exports them, as those of `ptlreid.api`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptlreid.progress import Progress, Silent
from ptlreid.runs import RunFolder, find_run
from ptlreid.settings import EmbedSettings

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
