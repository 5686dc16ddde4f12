"""`ptlreid prepare`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.check import count_parts, show_check, show_counts
from ptlreid.cli.datasets import datasets as list_datasets
from ptlreid.cli.options import Given, Json, from_settings
from ptlreid.cli.pack import pack_images, show_pack
from ptlreid.errors import OptionError
from ptlreid.settings import OwnImagesSettings, PackSettings, RootSettings, Settings, SyntheticSettings

if TYPE_CHECKING:
    from ptlreid.datasets import DatasetRef
    from ptlreid.records import Splits


@from_settings(SyntheticSettings, OwnImagesSettings, PackSettings, RootSettings)
def prepare(
    given: Given,
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="Dataset: its name, or `folder` for your own images.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--source", metavar="PATH", help="Its archive or folder; for `folder` also a CSV.")
    ] = None,
    variant: Annotated[str | None, typer.Option("--variant", metavar="NAME", help="The same as DATA:NAME.")] = None,
    *,
    check: Annotated[bool, typer.Option("--check", help="Check it afterwards, as `ptlreid check` does.")] = False,
    pack: Annotated[bool, typer.Option("--pack", help="Pack it afterwards, as `ptlreid pack` does.")] = False,
    list_names: Annotated[bool, typer.Option("--list", hidden=True, help="The same as `ptlreid datasets`.")] = False,
    json: Json = False,
) -> None:
    """Prepare a dataset: from its archive or folder, from your own images, or synthetic.

    Public datasets and your own images are read from --source. Synthetic datasets take --identities, --cameras,
    --images-per-camera, --height, --width and --seed; your own images --name, --test-share, --unlabelled and --seed; a
    pack its --height and --width. The same command again reuses a finished dataset, and resumes an interrupted one.

    Examples:
      ptlreid prepare market --source Market-1501-v15.09.15.zip
      ptlreid prepare folder --source my_crops --name lobby --check
      ptlreid prepare folder --source my_frames --name lobby --unlabelled
      ptlreid prepare synthetic-b --identities 32
    """
    from ptlreid import datasets

    if list_names:
        return list_datasets(json=json)
    if data is None:
        raise OptionError("No dataset given. Give its name, such as synthetic-b; `ptlreid datasets` lists all names.")
    root = Path(given.resolve(RootSettings, config=False).root)
    dataset = datasets.find(f"{data}:{variant}" if variant else data, root)
    if source:
        dataset, made = _prepare_source(dataset, source, root, given, pack=pack, json=json)
    elif (check or pack) and (dataset.folders(root)[0].exists() or not hasattr(dataset.module, "prepare")):
        made = {}  # what is there is checked or packed, and a public dataset that is not there is reported
    else:
        made = _make_synthetic(dataset, root, given, pack=pack)
    folder = dataset.folder(root)
    packed = _pack(dataset, folder, given, source) if pack else {}
    if check:
        return show_check(dataset, folder, {**made, **packed}, as_json=json)
    splits = dataset.read(folder)
    if json:
        console.show_json({"data": splits.name, "folder": str(folder), **made, **packed, **count_parts(splits)})
    else:
        _show(splits, folder, made, packed)


def _show(splits: Splits, folder: Path, made: Mapping[str, bool], packed: dict[str, Any]) -> None:
    show_counts(splits.name, count_parts(splits))
    if not splits.has_test:
        console.say("No test set: this dataset is for training only.")
    new = ("Rendered into" if made.get("rendered") else "Prepared in") if any(made.values()) else "Reused:"
    console.say(f"{new} {folder}")
    if packed:
        show_pack(packed)


def _prepare_source(
    dataset: DatasetRef, source: Path, root: Path, given: Given, *, pack: bool, json: bool
) -> tuple[DatasetRef, dict[str, bool]]:
    """The dataset, with the user's own images under their name, and whether it was prepared now."""
    from ptlreid import datasets
    from ptlreid.datasets import folder
    from ptlreid.workflows.prepare import prepare

    if dataset.path or not hasattr(dataset.module, "gather"):
        raise OptionError(f"{dataset.name} is not made from a --source. Give the name of a dataset, or `folder`.")
    own = _own_settings(dataset, source, given) if dataset.module is folder else None
    _refuse_others(dataset, given, *([OwnImagesSettings] if own else []), *([PackSettings] if pack else []))
    dataset = replace(dataset, name=own.name) if own and own.name else dataset
    progress = console.Reporter()
    if dataset.info.note:
        progress.note(dataset.info.note)
    try:
        return dataset, {"prepared": prepare(dataset, source, root, own, progress)}
    except datasets.FaultsError as error:
        if json:
            console.show_json({"data": dataset.name, "findings": [fault.describe() for fault in error.faults]})
        raise


def _own_settings(dataset: DatasetRef, source: Path, given: Given) -> OwnImagesSettings:
    """The settings of the user's own images, named by --name, by DATA if that is an earlier name, or by the source."""
    from ptlreid import datasets

    if dataset.unlabelled:
        raise OptionError(
            f"{dataset.name}{datasets.UNLABELLED} with --source: expected the name alone. Add --unlabelled if your "
            "images have no identities."
        )
    settings = given.resolve(OwnImagesSettings)
    known = datasets.names()
    called = source.resolve().name
    if not source.is_dir():
        called = called.removesuffix(source.suffix).removesuffix(".tar")
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", called)
    name = settings.name or (stem.lstrip("_.-") if dataset.name in known else dataset.name)
    if not name or name in known:
        raise OptionError(f"{name!r} cannot be the name of your images: it is taken. Choose another with --name.")
    return settings.model_copy(update={"name": name})


def _make_synthetic(dataset: DatasetRef, root: Path, given: Given, *, pack: bool) -> dict[str, bool]:
    """Render a synthetic dataset; for any other, check that it exists. `pack`: the options are those of the pack."""
    if hasattr(dataset.module, "prepare"):
        _refuse_others(dataset, given, PackSettings if pack else SyntheticSettings)
        settings = SyntheticSettings() if pack else given.resolve(SyntheticSettings)
        folder = dataset.folders(root)[0]
        return {"rendered": dataset.module.prepare(folder, dataset.variant, settings, console.Reporter())}
    if not any(folder.is_dir() for folder in dataset.folders(root)):
        if dataset.name == "folder":
            raise OptionError("Images of your own need --source: expected their folder, or a CSV. Give it.")
        raise OptionError(
            f"{dataset.info.title} is not in {root}: get it from {dataset.info.source}, and give its archive or "
            f"folder with --source, or put its folder at {dataset.folders(root)[0]}."
        )
    _refuse_others(dataset, given)
    return {"prepared": False}


def _pack(dataset: DatasetRef, folder: Path, given: Given, source: Path | None) -> dict[str, Any]:
    if not source:  # with a source, the other options and --config belong to the user's own images
        _refuse_others(dataset, given, PackSettings)
    return pack_images(dataset, folder, given.resolve(PackSettings, config=not source))


def _refuse_others(dataset: DatasetRef, given: Given, *models: type[Settings]) -> None:
    """Raise `OptionError` for an option that none of these `models` has."""
    known: tuple[type[Settings], ...] = (RootSettings, *models)
    allowed = {name for model in known for name in model.model_fields}
    for name, origin in given.origins.items():
        if name not in allowed:
            raise OptionError(
                f"{origin.split()[0]} does not apply to {dataset.name}. Leave it out; see `ptlreid prepare --help`."
            )
