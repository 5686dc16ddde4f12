"""Person re-identification with progressive transfer learning: train, distil, evaluate and search.

The names of `__all__` do what the commands do; docs/api.md describes them. Each is imported when it is first used, so
that `import ptlreid` loads neither torch nor NumPy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptlreid.api import (
        build_network,
        compare,
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
    from ptlreid.errors import PtlreidError
    from ptlreid.features import Extractor
    from ptlreid.records import Records, Splits
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
    "build_network",
    "compare",
    "distill",
    "evaluate",
    "evaluate_run",
    "finetune",
    "load_dataset",
    "load_extractor",
    "load_network",
    "open_run",
    "prepare_dataset",
    "read_features",
    "rerank",
    "transfer_chain",
    "write_features",
    "write_report",
]

# Where each name is, other than in `ptlreid.api`.
_HOMES = {
    "Extractor": "ptlreid.features",
    "Features": "ptlreid.retrieval.types",
    "PtlreidError": "ptlreid.errors",
    "Records": "ptlreid.records",
    "Retrieval": "ptlreid.retrieval.types",
    "RunFolder": "ptlreid.runs",
    "Scores": "ptlreid.retrieval.types",
    "Splits": "ptlreid.records",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # on demand: importlib.metadata takes longer than the command line to start
        from importlib.metadata import version

        return version("ptlreid")
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(_HOMES.get(name, "ptlreid.api")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
