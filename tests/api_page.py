"""Generates docs/api.md from the docstrings of the public names: `python tests/api_page.py --write` updates it."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import ptlreid

PAGE = Path(__file__).parent.parent / "docs" / "api.md"

INTRODUCTION = """\
# Python API

Generated from the docstrings by `python tests/api_page.py --write`; a test checks that this page is up to date.

`import ptlreid` gives the names below and loads neither torch nor NumPy before one of them is used. Functions that \
train and evaluate take the [settings of the commands](commands.md) as keyword arguments, with the same names, \
defaults and errors, and resume or reuse existing runs as the commands do.

```python
import ptlreid

splits = ptlreid.prepare_dataset("synthetic", identities=32, cameras=2)
metrics = ptlreid.finetune("synthetic", recipe="small", backbone="resnet18", epochs=2)

extractor = ptlreid.load_extractor(metrics["run"])
query, gallery = extractor.extract(splits.query), extractor.extract(splits.gallery)
scores = ptlreid.evaluate(query, gallery, metric="cosine")
reranked = ptlreid.evaluate(query, gallery, rerank=True)
print(f"mAP {scores.mean_ap:.3f}, CMC-1 {scores.cmc[0]:.3f}, re-ranked mAP {reranked.mean_ap:.3f}")

mean_ap, cmc1 = ptlreid.compare(scores, reranked, query)
print(f"{mean_ap.value:+.3f}, 95% CI {mean_ap.interval.low:+.3f} to {mean_ap.interval.high:+.3f}")
```

An `Extractor` also takes paths, `(H, W, 3)` uint8 arrays and PIL images:

```python
features = extractor.extract([str(path) for path in splits.gallery.paths[:4]])
features.matrix.shape  # (4, 1024)
```
"""


def page() -> str:
    """The complete page."""
    functions = [name for name in ptlreid.__all__ if name[0].islower()]
    classes = [name for name in ptlreid.__all__ if name[0].isupper()]
    parts = [INTRODUCTION, "## Functions\n", *map(_function, functions), "## Values\n", *map(_class, classes)]
    return "\n".join(parts)


def _function(name: str) -> str:
    return (
        f"### {name}\n\n```text\n{name}{_signature(getattr(ptlreid, name))}\n```\n\n{_text(getattr(ptlreid, name))}\n"
    )


def _class(name: str) -> str:
    cls = getattr(ptlreid, name)
    parts = [f"### {name}\n\n{_text(cls)}\n"]
    if dataclasses.is_dataclass(cls):
        fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(cls) if not field.name.startswith("_"))
        parts.append(f"Fields: {fields}.\n")
    for key, member in vars(cls).items():
        value = getattr(member, "func", getattr(member, "fget", getattr(member, "__func__", member)))
        if key.startswith("_") or not inspect.isfunction(value) or not value.__doc__:
            continue
        shown = key if value is not member and not isinstance(member, classmethod) else f"{key}{_signature(value)}"
        parts.append(f"- `{shown}`: {_first_line(value)}")
    return "\n".join(parts) + "\n"


def _signature(function: Any) -> str:
    parameters = [one for one in inspect.signature(function).parameters.values() if one.name not in ("self", "cls")]
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in parameters]
    return re.sub(r"PosixPath\('(\w+)'\)", r"'\1'", str(inspect.Signature(bare)))


def _text(thing: Any) -> str:
    """The docstring, its paragraphs on one line each."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(thing.__doc__ or ""))


def _first_line(function: Any) -> str:
    return _text(function).split("\n")[0]


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
