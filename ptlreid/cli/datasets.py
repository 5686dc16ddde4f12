"""`ptlreid datasets`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import Json
from ptlreid.errors import OptionError

_FACTS = ("title", "variants", "citation", "licence", "terms", "note", "source", "protocol", "counts")


def datasets(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Describe this dataset.")] = None,
    json: Json = False,
) -> None:
    """List the supported datasets, or describe one.

    A description has the variants, the published counts, the source, the licence, and the paper to cite.
    """
    from ptlreid import datasets as known

    if name:
        facts = _describe(name)
        console.show_json(facts) if json else _show(facts)
        return
    one_name = {known.find(name).info.title: name for name in known.names()}  # each dataset once, by one of its names
    all_facts = [_describe(name) for name in one_name.values()]
    if json:
        console.show_json(all_facts)
        return
    rows = [(", ".join(one["names"]), one["title"], ", ".join(one["variants"])) for one in all_facts]
    console.show_rows("Datasets", ("names", "title", "variants"), rows)
    for one in all_facts:
        console.say(f"{one['title']}: {one['source']}")


def _describe(name: str) -> dict[str, Any]:
    """The description of the dataset called `name`, for JSON."""
    from ptlreid import datasets as known

    if known.is_path(name):
        raise OptionError(f"{name}: is a path, expected the name of a dataset. `ptlreid datasets` lists them.")
    info = known.find(name).info
    return {"names": list(info.names), **{fact: getattr(info, fact) for fact in _FACTS}}


def _show(facts: dict[str, Any]) -> None:
    for fact, value in facts.items():
        if fact == "counts":
            for variant, counts in value.items():
                numbers = ", ".join(f"{number:,} {what.replace('_', ' ')}" for what, number in counts.items())
                console.say(f"published counts{f' of {variant}' if variant else ''}: {numbers}")
        elif text := ", ".join(filter(None, value)) if isinstance(value, list | tuple) else value:
            console.say(f"{fact}: {text}")
