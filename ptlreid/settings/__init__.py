"""One typed model per command, the source of its options and of every default; read from and written to TOML.

Each module is imported when one of its names is first used: making the models of all commands takes a third of a
second.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptlreid.settings.adapt import AdaptSettings
    from ptlreid.settings.base import DataSettings, RootSettings, Settings, read_toml
    from ptlreid.settings.calibrate import CalibrateSettings
    from ptlreid.settings.chain import ChainSettings
    from ptlreid.settings.demo import DemoSettings
    from ptlreid.settings.distill import DistillSettings
    from ptlreid.settings.embed import EmbedSettings
    from ptlreid.settings.evaluate import EvaluateSettings, ExtractionSettings, default_evaluation
    from ptlreid.settings.export import ExportSettings
    from ptlreid.settings.finetune import FinetuneSettings
    from ptlreid.settings.graph import GraphSettings
    from ptlreid.settings.index import IndexSettings
    from ptlreid.settings.prepare import OwnImagesSettings, PackSettings, SyntheticSettings
    from ptlreid.settings.search import SearchSettings

__all__ = [
    "AdaptSettings",
    "CalibrateSettings",
    "ChainSettings",
    "DataSettings",
    "DemoSettings",
    "DistillSettings",
    "EmbedSettings",
    "EvaluateSettings",
    "ExportSettings",
    "ExtractionSettings",
    "FinetuneSettings",
    "GraphSettings",
    "IndexSettings",
    "OwnImagesSettings",
    "PackSettings",
    "RootSettings",
    "SearchSettings",
    "Settings",
    "SyntheticSettings",
    "default_evaluation",
    "read_toml",
]

_MODULES = {
    "adapt": ("AdaptSettings",),
    "base": ("DataSettings", "RootSettings", "Settings", "read_toml"),
    "calibrate": ("CalibrateSettings",),
    "chain": ("ChainSettings",),
    "demo": ("DemoSettings",),
    "distill": ("DistillSettings",),
    "embed": ("EmbedSettings",),
    "evaluate": ("EvaluateSettings", "ExtractionSettings", "default_evaluation"),
    "export": ("ExportSettings",),
    "finetune": ("FinetuneSettings",),
    "graph": ("GraphSettings",),
    "index": ("IndexSettings",),
    "prepare": ("OwnImagesSettings", "PackSettings", "SyntheticSettings"),
    "search": ("SearchSettings",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
