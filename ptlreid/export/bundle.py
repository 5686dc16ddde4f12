"""A bundle: a run as one folder that can be put on a model hub, and be used without ptlreid."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from ptlreid.export.card import last_names
from ptlreid.files import file_digest
from ptlreid.json_files import CONTENT, write_json
from ptlreid.models.camera_statistics import cameras_file
from ptlreid.runs import RunFolder

_EXAMPLE = '''"""The distance of two images: python example.py FIRST SECOND. Needs onnxruntime, numpy and pillow."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

folder = Path(__file__).parent
card = json.loads((folder / "{card}").read_text())
session = onnxruntime.InferenceSession(folder / "{graph}", providers=["CPUExecutionProvider"])
size = (card["input"]["width"], card["input"]["height"])
filter = Image.Resampling[card["input"]["interpolation"].upper()]
images = np.stack([np.asarray(Image.open(path).convert("RGB").resize(size, filter)) for path in sys.argv[1:3]])
if card["input"]["preprocessing"] == "caller":
    images = (images / 255 - card["input"]["mean"]) / card["input"]["std"]
if card["input"]["layout"] == "NCHW":
    images = images.transpose(0, 3, 1, 2)
inputs = {{card["input"]["name"]: np.ascontiguousarray(images, dtype=card["input"]["dtype"])}}
if card["cameras"]:  # cameras that are not known
    inputs[card["cameras"]["input"]] = np.full(2, len(card["cameras"]["names"]), dtype=np.int64)
first, second = session.run(None, inputs)[0].astype(np.float64)
if card["metric"] == "cosine":
    print(1 - first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
else:
    print(np.linalg.norm(first - second))
'''


_PLACES = {"init", "data", "run", "teacher", "with"}  # settings that may be paths


def copy_run(run: RunFolder, folder: Path, weights: str, scores: Mapping[str, Any]) -> None:
    """Copy what makes `folder` a run to go on from: weights, settings, training set, scores, cameras and thresholds.

    `scores`: of these `weights`, which become the run's last and only ones. Settings lose what is about the machine
    that trained it, such as folders.
    """
    file = run.find_weights(weights)
    shutil.copyfile(file, folder / "weights.safetensors")
    if (cameras := cameras_file(file)).is_file():
        shutil.copyfile(cameras, folder / "cameras.safetensors")
    for one in (run.data, run.thresholds):
        if one.is_file():
            shutil.copyfile(one, folder / one.name)
    if run.metrics.is_file():
        metrics = json.loads(run.metrics.read_bytes())
        kept = {key: value for key, value in metrics.items() if key not in ("averaged", "averaged_digest", CONTENT)}
        if weights != "last":
            kept |= {key: scores[key] for key in kept.keys() & scores.keys()} | {"weights_digest": file_digest(file)}
        write_json(folder / run.metrics.name, kept)
    settings = run.settings()
    values = settings.model_dump(exclude_none=True, by_alias=True, exclude={*settings.MACHINE, "ema_decay"})
    for key in _PLACES & values.keys():
        values[key] = last_names(values[key])
    (folder / "config.toml").write_text(tomli_w.dumps(values), encoding="utf-8")


def write_example(folder: Path, graph: str) -> None:
    """Write `example.py`, which compares two images with the graph called `graph`."""
    text = _EXAMPLE.format(graph=graph, card=Path(graph).with_suffix(".json").name)
    (folder / "example.py").write_text(text, encoding="utf-8")
