"""The images that an ONNX graph takes: from its card, or else from the graph and the settings, or assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptlreid.card_schema import Card, ImageInput
from ptlreid.errors import DataError, OptionError
from ptlreid.models.camera_statistics import GraphCameras
from ptlreid.models.graph_checks import GraphTensor
from ptlreid.settings import GraphSettings
from ptlreid.settings.fields import MAX_PIXELS
from ptlreid.views import MEAN, STD

CARD_ADVICE = "Export the graph again, or remove the card and state its input with options."
_DTYPES = ("float32", "float16", "uint8")
_IMAGE_RANK = 4


def card_path(path: Path) -> Path:
    """Where the card of a graph is, if it has one."""
    return path.with_suffix(".json")


def require_one(path: Path, tensors: Sequence[GraphTensor], what: str) -> GraphTensor:
    """The only one of the tensors, which messages call `what`; `DataError` if there are others, or none."""
    if len(tensors) != 1:
        raise DataError(
            f"{path}: has {len(tensors)} {what}s ({'; '.join(map(str, tensors[:6]))}): expected one. Cut the "
            "graph with onnx.utils.extract_model."
        )
    return tensors[0]


def find_inputs(
    path: Path, inputs: Sequence[GraphTensor], card: Card | None
) -> tuple[GraphTensor, GraphCameras | None]:
    """The input of images, and that of cameras if the card states one."""
    stated = card["cameras"] if card else None
    cameras = (
        GraphCameras([(one["data"], one["camera"]) for one in stated["names"]], stated["input"]) if stated else None
    )
    left = [one for one in inputs if not (cameras and one.name == cameras.input)]
    if cameras and len(left) == len(inputs):
        raise DataError(f"{card_path(path)}: no input of the graph is called {cameras.input!r}. {CARD_ADVICE}")
    image = require_one(path, left, "image input")
    if image.dtype not in _DTYPES or (image.shape is not None and len(image.shape) != _IMAGE_RANK):
        raise DataError(
            f"{path}: its input is {image}: expected images, (batch, 3, height, width) or (batch, height, width, 3), "
            f"as {', '.join(_DTYPES)}. Export it from images to features."
        )
    return image, cameras


def read_image(
    path: Path, tensor: GraphTensor, card: Card | None, settings: GraphSettings
) -> tuple[ImageInput, dict[str, str]]:
    """The input of images, and where each fact comes from."""
    if card:
        image = card["input"]
        _compare(path, tensor, image)
        _refuse_contradictions(path, settings, image)
        return image, dict.fromkeys(image, "card")
    layout = _find_layout(path, tensor)
    shape = tensor.shape or (None,) * _IMAGE_RANK
    stated = dict(zip(("height", "width"), shape[2:] if layout == "NCHW" else shape[1:3], strict=True))
    origins = {"name": "graph", "layout": "graph", "dtype": "graph", "preprocessing": "graph"}
    origins["interpolation"] = "default"
    sizes = {}
    for side, size in stated.items():
        sizes[side] = _choose_size(path, side, size, getattr(settings, side))
        origins[side] = "graph" if size else f"--{side}"
    values: dict[str, Any] = {"mean": list(MEAN), "std": list(STD), "color": "RGB"}
    given = {"mean": settings.mean, "std": settings.std, "color": _color(settings)}
    inside = tensor.dtype == "uint8"
    if inside and (settings.mean or settings.std):
        raise OptionError(
            f"--mean, --std: {path} takes pixels as uint8, and standardises them itself: expected none. Leave them out."
        )
    for name, value in given.items():
        origins[name] = "default" if value is None else "--bgr" if name == "color" else f"--{name}"
        values[name] = values[name] if value is None else value
    if inside:
        origins |= {"mean": "graph", "std": "graph"}
    described: Any = {
        **{"name": tensor.name, "layout": layout, "dtype": tensor.dtype, **sizes, **values},
        "interpolation": "bilinear",
        "preprocessing": "graph" if inside else "caller",
    }
    return described, origins


def _color(settings: GraphSettings) -> str | None:
    return None if settings.bgr is None else "BGR" if settings.bgr else "RGB"


def _find_layout(path: Path, tensor: GraphTensor) -> str:
    if tensor.shape and tensor.shape[1] == 3:
        return "NCHW"
    if tensor.shape and tensor.shape[3] == 3:
        return "NHWC"
    raise DataError(
        f"{path}: its input is {tensor}: expected 3 channels, second or last. Export it with their number fixed."
    )


def _choose_size(path: Path, side: str, stated: int | None, given: int | None) -> int:
    if stated is None and given is None:
        raise OptionError(
            f"{path}: takes images of any {side}: expected that which it was trained with. Give --height and --width."
        )
    if stated is not None and given not in (None, stated):
        raise OptionError(f"--{side} {given}: {path} takes images of {side} {stated} only. Leave it out.")
    size = stated or given or 0
    if size > MAX_PIXELS:
        raise DataError(
            f"{path}: takes images of {side} {size:,}: expected at most {MAX_PIXELS:,}. Give another model."
        )
    return size


def _compare(path: Path, tensor: GraphTensor, image: ImageInput) -> None:
    """`DataError` where the card's input is not that of the graph."""
    size = (image["height"], image["width"])
    shape = (3, *size) if image["layout"] == "NCHW" else (*size, 3)
    stated = tensor.shape[1:] if tensor.shape else (None,) * 3
    same = tensor.name == image["name"] and tensor.dtype == image["dtype"]
    same &= image["preprocessing"] == "graph" or image["dtype"] != "uint8"
    if not same or any(one not in (None, other) for one, other in zip(stated, shape, strict=True)):
        found = GraphTensor(image["name"], image["dtype"], (None, *shape))
        raise DataError(
            f"{card_path(path)}: states the input {found}, {image['preprocessing']}'s preprocessing, but the graph has "
            f"{tensor}: expected the same. {CARD_ADVICE}"
        )


def _refuse_contradictions(path: Path, settings: GraphSettings, image: ImageInput) -> None:
    given = {name: getattr(settings, name) for name in ("height", "width", "mean", "std")} | {"color": _color(settings)}
    stated: Mapping[str, Any] = {**image}
    for name, value in given.items():
        if value not in (None, stated[name]):
            option = "bgr" if name == "color" else name
            raise OptionError(
                f"--{option}: the card {card_path(path)} states {name} {stated[name]}: expected the same. Leave it "
                "out, or remove a wrong card."
            )


def describe_defaults(image: ImageInput, origins: Mapping[str, str]) -> str | None:
    """What is assumed about mean, std and colour order, in words; None if they are stated."""
    words = {name: ",".join(f"{value:g}" for value in image[name]) for name in ("mean", "std")}
    words |= {"color": image["color"]}
    assumed = [f"{name} {value}" for name, value in words.items() if origins[name] == "default"]
    if not assumed:
        return None
    return f"without a card, assuming {', '.join(assumed)}; --mean, --std and --bgr change it"
