"""One typed model per command: every default lives here, once. To and from TOML."""

from ptlreid.config.chain import ChainConfig
from ptlreid.config.demo import DemoConfig
from ptlreid.config.distill import DistillConfig
from ptlreid.config.evaluate import EvaluateConfig
from ptlreid.config.finetune import FinetuneConfig
from ptlreid.config.prepare import OwnDataConfig, SyntheticConfig
from ptlreid.config.settings import DataSettings, Settings, read_toml

__all__ = [
    "ChainConfig",
    "DataSettings",
    "DemoConfig",
    "DistillConfig",
    "EvaluateConfig",
    "FinetuneConfig",
    "OwnDataConfig",
    "Settings",
    "SyntheticConfig",
    "read_toml",
]
