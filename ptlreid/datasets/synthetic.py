"""Drawn people before drawn cameras: three sites in the layout of Market-1501, made from a seed."""

from __future__ import annotations

from pathlib import Path

from ptlreid.datasets import market
from ptlreid.datasets._alone import alone
from ptlreid.datasets.reader import DatasetInfo, Reject, refuse
from ptlreid.errors import OptionError
from ptlreid.files import atomic_folder
from ptlreid.progress import Progress, Silent
from ptlreid.records import Splits
from ptlreid.settings import SyntheticSettings

INFO = DatasetInfo(
    title="Synthetic sites a, b and c",
    names={"synthetic": "a", "synthetic-a": "a", "synthetic-b": "b", "synthetic-c": "c"},
    variants=("a", "b", "c"),
    folders=("synthetic-{variant}",),
    citation="Made by ptlreid itself",
    licence="MIT, as ptlreid; nobody is on these images.",
    source="ptlreid prepare synthetic",
    protocol="market",
)

SETTINGS = "synthetic.toml"


def read(folder: Path, variant: str, reject: Reject = refuse) -> Splits:
    """The splits of the prepared site in `folder`; faults as in `market.read`."""
    return market.read(folder, "", reject).rename(f"synthetic-{variant}")


def prepare(folder: Path, variant: str, config: SyntheticSettings, progress: Progress | None = None) -> bool:
    """Draw the site into `folder`; whether anything had to be drawn.

    A folder that was made with the same settings is left as it is. Raises `OptionError` when it was made with
    others: nothing in it is touched.
    """
    if _is_made(folder, config):
        return False
    progress = progress or Silent()
    with alone(folder, progress):
        if not _is_made(folder, config):  # nor was made meanwhile
            _draw(folder, variant, config, progress)
            return True
    return False


def _is_made(folder: Path, config: SyntheticSettings) -> bool:
    made = folder / SETTINGS
    if made.is_file():
        changed = SyntheticSettings.resolve(made).differences(config)
        if changed:
            raise OptionError(
                f"{folder} was drawn with other settings ({'; '.join(changed)}). Remove that folder, "
                "or give another --root."
            )
        return True
    if folder.exists():
        raise OptionError(f"{folder} exists and was not drawn by ptlreid. Move it, or give another --root.")
    return False


def _draw(folder: Path, variant: str, config: SyntheticSettings, progress: Progress) -> None:
    from ptlreid.datasets._synthetic import SITES, draw_site

    options = config.model_dump()
    with atomic_folder(folder) as temporary, progress.task(f"draw {folder.name}", None) as advance:
        draw_site(SITES[variant], temporary, **options, progress=lambda done, total: advance(done, total=total))
        (temporary / SETTINGS).write_text(config.to_toml(), encoding="utf-8")
