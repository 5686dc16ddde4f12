"""One typed model per command, the source of its options and of every default; read from and written to TOML."""

from ptlreid.settings.adapt import AdaptSettings
from ptlreid.settings.base import DataSettings, RootSettings, Settings, read_toml
from ptlreid.settings.calibrate import CalibrateSettings
from ptlreid.settings.chain import ChainSettings
from ptlreid.settings.demo import DemoSettings
from ptlreid.settings.distill import DistillSettings
from ptlreid.settings.embed import EmbedSettings
from ptlreid.settings.evaluate import EvaluateSettings, ExtractionSettings, default_evaluation
from ptlreid.settings.finetune import FinetuneSettings
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
    "ExtractionSettings",
    "FinetuneSettings",
    "OwnImagesSettings",
    "PackSettings",
    "RootSettings",
    "SearchSettings",
    "Settings",
    "SyntheticSettings",
    "default_evaluation",
    "read_toml",
]
