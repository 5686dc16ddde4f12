"""The settings of the losses, declared in each loss file, added to the settings of fine-tuning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any, TypeVar

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from ptlreid import plugins
from ptlreid.errors import OptionError
from ptlreid.settings.base import DataSettings
from ptlreid.settings.fields import Option, join_choices

# By name, not by an import: losses are above settings in rank, and no file but its own names a loss. Loss files import
# no torch at their top.
LOSSES = "ptlreid.losses"

# Sums that had a name of their own in version 0.1.
_SUMS = {"ce-triplet": "ce+triplet"}

M = TypeVar("M", bound=DataSettings)


def with_loss_settings(model: type[M]) -> type[M]:
    """The model with the settings of all losses as fields. Losses that share a setting must declare it identically."""
    fields: dict[str, FieldInfo] = {}
    owners: dict[str, list[str]] = {}
    for loss, module in _losses().items():
        for name, field in _own_settings(module).items():
            identical = repr(fields.setdefault(name, field)) == repr(field)
            assert identical, f"{loss} and {owners[name]} declare {name} differently"
            owners.setdefault(name, []).append(loss)
    extra: dict[str, Any] = {
        name: (
            Annotated[field.annotation, *field.metadata, Option(panel="Loss settings")],
            Field(field.default, description=f"{field.description} Losses: {', '.join(owners[name])}."),
        )
        for name, field in fields.items()
    }
    return create_model(model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__, **extra)


def name_sum(loss: str) -> str:
    """The current name of a loss or of a sum of losses."""
    return "+".join(_SUMS.get(part, part) for part in loss.split("+"))


def unused_settings(loss: object, keys: Iterable[str]) -> set[str]:
    """The `keys` that are settings of other losses only, not of those in the sum `loss`; none for an unknown loss."""
    losses = _losses()
    parts = name_sum(loss).split("+") if isinstance(loss, str) else []
    if not parts or not losses.keys() >= set(parts):
        return set()
    return (loss_settings() & set(keys)) - {name for part in parts for name in _own_settings(losses[part])}


def loss_names() -> list[str]:
    """The names of all losses."""
    return plugins.names(import_module(LOSSES))


def loss_settings() -> set[str]:
    """The names of the settings of all losses."""
    return {name for module in _losses().values() for name in _own_settings(module)}


def check_loss(loss: str, given: Iterable[str], batch_size: int, images_per_identity: int) -> None:
    """Raise `OptionError` for `given` settings of other losses than the sum `loss`, and for batches it cannot use.

    An unknown loss is not reported here.
    """
    losses, parts = _losses(), loss.split("+")
    if len(set(parts)) < len(parts):
        raise OptionError(f"loss = {loss!r}: expected different losses. Leave out the one that is there twice.")
    for name in sorted(unused_settings(loss, given)):
        owners = [other for other, module in losses.items() if name in _own_settings(module)]
        raise OptionError(
            f"{name} is not a setting of the loss {loss!r}: expected loss = {join_choices(owners)}. Leave {name} "
            "out, or choose one of them with --loss."
        )
    compares = any(getattr(losses.get(part), "NEEDS_POSITIVES", False) for part in parts)
    if compares and not 2 <= images_per_identity <= batch_size // 2:
        raise OptionError(
            f"loss = {loss!r} compares images within a batch: expected at least two identities with at least two "
            f"images each, not images_per_identity = {images_per_identity} with batch_size = {batch_size}. Use "
            "--images-per-identity 4 with --batch-size 16 or more, or --loss ce."
        )


def _losses() -> dict[str, ModuleType]:
    return plugins.load_all(import_module(LOSSES))


def _own_settings(loss: ModuleType) -> Mapping[str, FieldInfo]:
    return loss.Settings.model_fields if hasattr(loss, "Settings") else {}
