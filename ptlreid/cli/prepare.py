"""`ptlreid prepare`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptlreid.cli import console, options
from ptlreid.errors import OptionError
from ptlreid.settings import DataSettings, OwnImagesSettings, Settings, SyntheticSettings
from ptlreid.settings.prepare import PackSettings

if TYPE_CHECKING:
    from ptlreid.datasets import DatasetRef
    from ptlreid.records import Splits

_SHOWN_OF_A_KIND = 20


def _size(side: str) -> Any:
    """The option for the height or the width of images."""
    drawn, packed = (model.model_fields[side].default for model in (SyntheticSettings, PackSettings))
    return typer.Option(help=f"Image {side} in pixels: drawn ({drawn}), or with --pack packed ({packed}).")


def prepare(
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="Dataset, by name; `folder` for own images.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="What it is made of: its archive or folder; for `folder` a CSV too.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Look for everything that is wrong; decodes all.")] = False,
    pack: Annotated[bool, typer.Option("--pack", help="Resize all images once, into one file that is read.")] = False,
    variant: Annotated[str | None, typer.Option(help="The same as :VARIANT after the name.")] = None,
    name: Annotated[str | None, options.option(OwnImagesSettings, "name")] = None,
    test_share: Annotated[float | None, options.option(OwnImagesSettings, "test_share")] = None,
    identities: Annotated[int | None, options.option(SyntheticSettings, "identities")] = None,
    cameras: Annotated[int | None, options.option(SyntheticSettings, "cameras")] = None,
    images_per_camera: Annotated[int | None, options.option(SyntheticSettings, "images_per_camera")] = None,
    height: Annotated[int | None, _size("height")] = None,
    width: Annotated[int | None, _size("width")] = None,
    seed: Annotated[int | None, options.option(SyntheticSettings, "seed")] = None,
    config: options.ConfigFile = None,
    root: options.Root = None,
    list_names: Annotated[bool, typer.Option("--list", help="List the datasets that are known.")] = False,
    json: options.Json = False,
) -> None:
    """Make a dataset ready under the root: from an archive or a folder (--source), or drawn. --check verifies it."""
    given = locals()

    from ptlreid import datasets

    if list_names:
        _show_names(as_json=json)
        return
    if data is None:
        raise OptionError("Which dataset? Give its name, such as synthetic-b, or --list to see all names.")
    place = Path(root or DataSettings().root)
    found = datasets.find(f"{data}:{variant}" if variant else data, place)
    if source:
        found, made = _from_source(found, source, place, given)
    else:
        made = {} if check or pack else _drawn_or_there(found, place, given)
    folder = found.folder(place)
    packing = _packed(found, folder, given) if pack else {}
    if check:
        _show_check(found, folder, {**made, **packing}, as_json=json)
        return
    splits = found.read(folder)
    if json:
        console.show_json({"data": splits.name, "folder": str(folder), **made, **packing, **_numbers(splits)})
        return
    _show_numbers(splits.name, _numbers(splits))
    if not splits.has_test:
        console.say("Without a test set: it can be trained on, and nothing is scored on it.")
    new = ("Drawn into" if made.get("drawn") else "Prepared in") if any(made.values()) else "Reused:"
    console.say(f"{new} {folder}")
    if pack:
        console.say(f"{'Packed into' if packing['packed'] else 'Reused:'} {packing['pack']}")


def _from_source(
    found: DatasetRef, source: Path, root: Path, given: Mapping[str, Any]
) -> tuple[DatasetRef, dict[str, bool]]:
    """The dataset, under the name that own images get, and whether it had to be made."""
    from ptlreid.datasets import folder
    from ptlreid.workflows.prepare import prepare

    if found.path or not hasattr(found.module, "gather"):
        raise OptionError(f"{found.name} is not made from a --source. Give the name of a dataset, or `folder`.")
    own = _own_settings(found, source, given) if found.module is folder else None
    _refuse_others(found, given, *([OwnImagesSettings] if own else []), *([PackSettings] if given["pack"] else []))
    found = replace(found, name=own.name) if own and own.name else found
    progress = console.Reporter()
    if found.info.note:
        progress.note(found.info.note)
    return found, {"prepared": prepare(found, source, root, own, progress)}


def _own_settings(found: DatasetRef, source: Path, given: Mapping[str, Any]) -> OwnImagesSettings:
    """The settings of own images: their name is --name, the one they have, or that of the source."""
    from ptlreid import datasets

    settings = options.settings(OwnImagesSettings, given)
    known = datasets.names()
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", source.resolve().name.removesuffix(source.suffix).removesuffix(".tar"))
    name = settings.name or (stem.lstrip("_.-") if found.name in known else found.name)
    if not name or name in known:
        raise OptionError(f"{name!r} cannot be the name of your images: it is taken. Give them another with --name.")
    return settings.model_copy(update={"name": name})


def _drawn_or_there(found: DatasetRef, root: Path, given: Mapping[str, Any]) -> dict[str, bool]:
    """Draw a synthetic site; of any other dataset, see that it is there."""
    if hasattr(found.module, "prepare"):
        _refuse_others(found, given, SyntheticSettings)
        settings = options.settings(SyntheticSettings, given)
        return {"drawn": found.module.prepare(found.folders(root)[0], found.variant, settings, console.Reporter())}
    _refuse_others(found, given)
    if not any(folder.is_dir() for folder in found.folders(root)):
        raise OptionError(
            f"{found.info.title} cannot be made here: get it from {found.info.source}, and give its archive or "
            f"folder with --source, or put its folder at {found.folders(root)[0]}."
        )
    return {"prepared": False}


def _packed(found: DatasetRef, folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The pack's file, and how many images had to be packed."""
    from ptlreid.workflows.pack import pack

    if not given["source"]:  # else --config is of own images
        _refuse_others(found, given, PackSettings)
    file = None if given["source"] else given["config"]
    made = pack(found, folder, options.settings(PackSettings, {**given, "config": file}), console.Reporter())
    return {"pack": str(made.file), "packed": made.new}


def _refuse_others(found: DatasetRef, given: Mapping[str, Any], *settings: type[Settings]) -> None:
    """Raise `OptionError` for an option that is of none of these `settings`: it has no meaning here."""
    allowed = {name for one in settings for name in one.model_fields}
    for name in {**OwnImagesSettings.model_fields, **SyntheticSettings.model_fields}:
        if given[name] is not None and name not in allowed:
            flag = "--" + name.replace("_", "-")
            raise OptionError(f"{flag} has no meaning for {found.name}. Leave it out; see `ptlreid prepare --help`.")


def _show_check(found: DatasetRef, folder: Path, made: Mapping[str, Any], *, as_json: bool) -> None:
    """Show what a check found, and end with exit code 1 if any of it is serious."""
    from ptlreid.workflows.check import check

    report = check(found, folder, console.Reporter())
    if as_json:
        console.show_json({"data": found.name, "variant": found.variant, **made, **report.describe()})
    else:
        _show_numbers(found.name, report.parts)
        shown: Counter[str] = Counter()
        for fault in report.faults:
            shown[fault.kind] += 1
            if shown[fault.kind] <= _SHOWN_OF_A_KIND:
                console.say(f"{'serious' if fault.serious else 'minor'}, {fault.kind}: {fault}")
        for kind in (kind for kind in shown if shown[kind] > _SHOWN_OF_A_KIND):
            console.say(f"{kind}: {shown[kind] - _SHOWN_OF_A_KIND:,} more, which --json lists.")
        console.say(f"{len(report.faults):,} faults, {report.num_serious:,} of them serious: {folder}")
    if report.num_serious:
        raise typer.Exit(1)


def _numbers(splits: Splits) -> dict[str, dict[str, int]]:
    return dict(zip(("train", "query", "gallery"), (part.count() for part in splits.parts), strict=True))


def _show_numbers(title: str, parts: Mapping[str, Mapping[str, int]]) -> None:
    columns = ("images", "identities", "cameras")
    rows = [[name, *(str(part[column]) for column in columns)] for name, part in parts.items()]
    console.show_rows(title, ("", *columns), rows)


def _show_names(*, as_json: bool) -> None:
    """Each dataset once: its names and variants, then where it comes from; as JSON, all that is known of it."""
    from ptlreid import datasets

    abouts = {datasets.find(name).info.title: datasets.find(name).info for name in datasets.names()}
    facts = ("title", "variants", "citation", "licence", "terms", "note", "source", "protocol", "counts")
    if as_json:
        shown = ({"names": list(one.names), **{fact: getattr(one, fact) for fact in facts}} for one in abouts.values())
        console.show_json(list(shown))
        return
    rows = [(", ".join(about.names), title, ", ".join(about.variants)) for title, about in abouts.items()]
    console.show_rows("Datasets", ("names", "title", "variants"), rows)
    for title, about in abouts.items():
        console.say(f"{title}: {about.source}")
