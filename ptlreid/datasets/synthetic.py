"""Synthetic pedestrians: three sites in the layout of Market-1501, rendered from a seed."""

from __future__ import annotations

from pathlib import Path

from ptlreid.datasets import market
from ptlreid.datasets.reader import DatasetInfo, Reject, refuse
from ptlreid.errors import OptionError
from ptlreid.files import atomic_folder
from ptlreid.locks import wait_for_lock
from ptlreid.progress import Progress, Silent
from ptlreid.records import Splits
from ptlreid.settings import SyntheticSettings

INFO = DatasetInfo(
    title="Synthetic sites a, b and c",
    names={"synthetic": "a", "synthetic-a": "a", "synthetic-b": "b", "synthetic-c": "c"},
    variants=("a", "b", "c"),
    folders=("synthetic-{variant}",),
    citation="Made by ptlreid itself",
    licence="MIT, as ptlreid; the images show no real people.",
    source="ptlreid prepare synthetic",
    protocol="market",
)

SETTINGS = "synthetic.toml"


def read(folder: Path, variant: str, reject: Reject = refuse) -> Splits:
    """The splits of the prepared site in `folder`; faults as in `market.read`."""
    return market.read(folder, "", reject).rename(f"synthetic-{variant}")


def prepare(folder: Path, variant: str, settings: SyntheticSettings, progress: Progress | None = None) -> bool:
    """Render the site into `folder`; False where that was done before, with the same settings.

    Raises `OptionError` when the folder was rendered with other settings, or not by ptlreid: nothing in it is touched.
    """
    if _is_rendered(folder, settings):
        return False
    progress = progress or Silent()
    with wait_for_lock(folder, progress):
        if not _is_rendered(folder, settings):  # another process may have done it meanwhile
            _render(folder, variant, settings, progress)
            return True
    return False


def _is_rendered(folder: Path, settings: SyntheticSettings) -> bool:
    """Whether `folder` holds a site of these settings; `OptionError` where it holds anything else."""
    recorded = folder / SETTINGS
    if recorded.is_file():
        changed = SyntheticSettings.resolve(recorded).differences(settings)
        if changed:
            raise OptionError(
                f"{folder} was rendered with other settings ({'; '.join(changed)}): expected the same ones. "
                "Remove that folder, or choose another --root."
            )
        return True
    if folder.exists():
        raise OptionError(
            f"{folder} was not rendered by ptlreid: expected no such folder. Move it, or choose another --root."
        )
    return False


def _render(folder: Path, variant: str, settings: SyntheticSettings, progress: Progress) -> None:
    from ptlreid.datasets._synthetic import SITES, render_site

    options = settings.model_dump()
    with atomic_folder(folder) as temporary, progress.task(f"render {folder.name}", None) as advance:
        render_site(SITES[variant], temporary, **options, progress=lambda done, total: advance(done, total=total))
        (temporary / SETTINGS).write_text(settings.to_toml(), encoding="utf-8")
