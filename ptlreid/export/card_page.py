"""The card as a page in Markdown, `<stem>.md`: for people, and for model hubs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def make_page(card: Mapping[str, Any], name: str) -> str:
    """The page of a card. `name`: of the graph's file."""
    sections = [
        [f"# {card['run']}", "", f"`{name}`: features for person re-identification, by ptlreid {card['version']}."],
        _describe_use(card),
        _describe_output(card),
        _describe_scores(card),
        _describe_thresholds(card),
        _describe_gate(card),
        _describe_training(card),
        ["## Use and limits", "", card["use"], "", card["limits"]],
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def make_hub_page(card: Mapping[str, Any], name: str) -> str:
    """The page with the heading that model hubs read, and how the files of a bundle are used."""
    heading = [
        "---",
        "license: other",
        "library_name: ptlreid",
        "pipeline_tag: image-feature-extraction",
        "tags: [person-reidentification, onnx]",
        "---",
    ]
    use = [
        "## How to use it",
        "",
        "- Without ptlreid: `pip install onnxruntime numpy pillow`, then `python example.py FIRST.jpg SECOND.jpg`.",
        f"- As a model: `ptlreid search QUERY.jpg --model {name} --gallery FOLDER`.",
        "- As a run: `ptlreid evaluate --run FOLDER --data NAME`, or to go on from it "
        "`ptlreid finetune --init FOLDER --data NAME`.",
    ]
    return "\n".join(heading) + "\n\n" + make_page(card, name) + "\n" + "\n".join(use) + "\n"


def _describe_use(card: Mapping[str, Any]) -> list[str]:
    image = card["input"]
    height, width = image["height"], image["width"]
    size = f"height {height}, width {width}"
    sizes = f"{height}, {width}, 3" if image["layout"] == "NHWC" else f"3, {height}, {width}"
    shape = f"`{image['name']}`: (batch, {sizes}) {image['dtype']}, RGB"
    if image["preprocessing"] == "graph":
        standardise = "Values are from 0 to 255. The graph standardises them: do not subtract or divide anything."
    else:
        mean, std = (", ".join(f"{value:g}" for value in image[key]) for key in ("mean", "std"))
        standardise = f"Divide pixels by 255, subtract the mean ({mean}) and divide by the deviation ({std}), in RGB."
    lines = ["## Input", "", f"- {shape}", f"- Resize the whole crop to {size}, {image['interpolation']}, antialiased."]
    lines.append(f"- {standardise}")
    if cameras := card["cameras"]:
        known = ", ".join(f"{row}: camera {one['camera']} of {one['data']}" for row, one in enumerate(cameras["names"]))
        unknown = len(cameras["names"])
        lines.append(f"- `{cameras['input']}`: (batch,) int64, the camera of each image: {known}; {unknown}: any other")
    elif card["camera"]:
        lines.append(f"- Only for images of camera {card['camera']}, whose statistics it has.")
    return lines


def _describe_output(card: Mapping[str, Any]) -> list[str]:
    output = card["output"]
    distance = "Euclidean distance" if card["metric"] == "euclidean" else "cosine distance, 1 - cos"
    parts = [
        "summed over the image and its mirror image" if output["flip"] else "of the image alone",
        "of length 1" if output["normalize"] else "not normalised",
    ]
    return ["## Output", "", f"`{output['name']}`: (batch, {output['width']}) float32, {', '.join(parts)}. {distance}."]


def _describe_scores(card: Mapping[str, Any]) -> list[str]:
    scores = card["scores"]
    intervals = scores.get("intervals")
    values = {"mAP": scores["mAP"], "CMC-1": scores["cmc"]["1"], "mINP": scores["mINP"]}
    ends = {"mAP": intervals["mAP"], "CMC-1": intervals["cmc"]["1"], "mINP": intervals["mINP"]} if intervals else {}
    rows = [[name, _percent(value), _interval(ends.get(name))] for name, value in values.items()]
    about = (
        f"Of the run on {scores['data']} (protocol {scores['protocol']}): {scores['queries']['valid']:,} queries, "
        f"{scores['gallery']['total']:,} gallery images, in percent; intervals are over identities."
    )
    return ["## Scores", "", about, "", *_table(["score", "value", "95% interval"], rows)]


def _describe_thresholds(card: Mapping[str, Any]) -> list[str]:
    found = card["thresholds"]
    if not found:
        return [
            "## Thresholds",
            "",
            "Not calibrated: `ptlreid calibrate --run RUN`, then export again.",
        ]
    rows = [
        [point["name"], f"{point['threshold']:.4f}", _percent(point.get("tar", point.get("dir")))]
        for point in (*found["operating_points"], *found["open_set"])
        if point["threshold"] is not None
    ]
    about = f"On {found['data']}, {found['metric']} distance: a pair is accepted if its distance is below."
    return ["## Thresholds", "", about, "", *_table(["name", "threshold", "TAR or DIR, percent"], rows)]


def _describe_gate(card: Mapping[str, Any]) -> list[str]:
    gate = card["gate"]
    gap, nearest = gate["features"], gate["nearest_changed"]
    lines = [
        f"Compared with the run on {gate['images']:,} images of {gate['data']}, in its own runtime:",
        "",
        f"- smallest cosine {gap['min_cosine']:.7f}, largest difference {gap['max_absolute']:.2g}",
        f"- mAP {_percent(gate['scores']['mAP']['before'])} before, {_percent(gate['scores']['mAP']['after'])} after",
        f"- another nearest image for {nearest['changed']:,} of {nearest['queries']:,} queries",
    ]
    lines += [
        f"- at the threshold {name}, {one['changed']:,} of {one['pairs']:,} decisions changed"
        for name, one in gate["decisions_changed"].items()
    ]
    return ["## Agreement", "", *lines]


def _describe_training(card: Mapping[str, Any]) -> list[str]:
    training, weights = card["training"], card["weights"]
    count = f" ({training['images']:,} images, {training['identities']:,} identities)" if training["images"] else ""
    return [
        "## Training",
        "",
        f"- Network {card['network']['backbone']}, method {training['method']}, from {training['init']}",
        f"- Data: {training['data']}{count}, {training['epochs']} epochs, loss {training['loss']}",
        f"- Licence of the weights it began with: {weights['licence']}. That of the images is the dataset's.",
        f"- Digests: weights {weights['digest']}, graph {card['digest']}",
    ]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows)]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _interval(ends: Sequence[float] | None) -> str:
    return f"{_percent(ends[0])} to {_percent(ends[1])}" if ends else "-"
