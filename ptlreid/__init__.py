"""Person re-identification with progressive transfer learning: train, distil, evaluate and search.

The public names mirror the commands; docs/api.md describes them. Each is imported on first use, so that
`import ptlreid` loads neither torch nor NumPy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptlreid.api import (
        adapt_run,
        build_network,
        compare,
        compare_methods,
        distill,
        evaluate,
        evaluate_run,
        finetune,
        load_dataset,
        load_extractor,
        load_network,
        open_run,
        prepare_dataset,
        read_features,
        rerank,
        transfer_chain,
        write_features,
        write_report,
    )
    from ptlreid.api_models import open_model
    from ptlreid.api_search import build_index, embed, search, search_features
    from ptlreid.api_thresholds import calibrate_run, find_threshold
    from ptlreid.errors import PtlreidError
    from ptlreid.features import Extractor
    from ptlreid.records import Records, Splits
    from ptlreid.retrieval.seeds import summarize_seeds
    from ptlreid.retrieval.types import Features, Retrieval, Scores
    from ptlreid.runs import RunFolder

__all__ = [
    "Extractor",
    "Features",
    "PtlreidError",
    "Records",
    "Retrieval",
    "RunFolder",
    "Scores",
    "Splits",
    "adapt_run",
    "build_index",
    "build_network",
    "calibrate_run",
    "compare",
    "compare_methods",
    "distill",
    "embed",
    "evaluate",
    "evaluate_run",
    "find_threshold",
    "finetune",
    "load_dataset",
    "load_extractor",
    "load_network",
    "open_model",
    "open_run",
    "prepare_dataset",
    "read_features",
    "rerank",
    "search",
    "search_features",
    "summarize_seeds",
    "transfer_chain",
    "write_features",
    "write_report",
]

# The modules of the names that `ptlreid.api` does not define.
_MODULES = {
    "Extractor": "ptlreid.features",
    "Features": "ptlreid.retrieval.types",
    "PtlreidError": "ptlreid.errors",
    "Records": "ptlreid.records",
    "Retrieval": "ptlreid.retrieval.types",
    "RunFolder": "ptlreid.runs",
    "Scores": "ptlreid.retrieval.types",
    "Splits": "ptlreid.records",
    "build_index": "ptlreid.api_search",
    "calibrate_run": "ptlreid.api_thresholds",
    "embed": "ptlreid.api_search",
    "find_threshold": "ptlreid.api_thresholds",
    "open_model": "ptlreid.api_models",
    "search": "ptlreid.api_search",
    "search_features": "ptlreid.api_search",
    "summarize_seeds": "ptlreid.retrieval.seeds",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # on demand: importing importlib.metadata takes longer than starting the command line
        from importlib.metadata import version

        return version("ptlreid")
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(_MODULES.get(name, "ptlreid.api")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
