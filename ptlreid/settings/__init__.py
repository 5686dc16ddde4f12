"""One typed model per command: every default lives here, once. To and from TOML."""

from ptlreid.settings.base import DataSettings, Settings, read_toml
from ptlreid.settings.chain import ChainSettings
from ptlreid.settings.demo import DemoSettings
from ptlreid.settings.distill import DistillSettings
from ptlreid.settings.evaluate import EvaluateSettings
from ptlreid.settings.finetune import FinetuneSettings
from ptlreid.settings.prepare import OwnImagesSettings, SyntheticSettings

__all__ = [
    "ChainSettings",
    "DataSettings",
    "DemoSettings",
    "DistillSettings",
    "EvaluateSettings",
    "FinetuneSettings",
    "OwnImagesSettings",
    "Settings",
    "SyntheticSettings",
    "read_toml",
]
