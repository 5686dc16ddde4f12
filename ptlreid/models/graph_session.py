"""An ONNX graph in onnxruntime: from pixels to features, in the batch size and layout that the graph wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid.card_schema import ImageInput
from ptlreid.errors import DataError, OptionError
from ptlreid.file_kinds import printable


@dataclass(frozen=True)
class GraphSpec:
    """How a graph is run. `camera_input`: the name of its second input, if it has one, for the rows of cameras.

    `num_cameras`: the row for an unknown camera. `batch`: the only batch size that it is run in, None for any. `width`:
    of its features, None before a trial. `weight_bytes`: of all its weights. `half`: whether it computes in float16.
    """

    path: Path
    image: ImageInput
    camera_input: str | None
    num_cameras: int
    batch: int | None
    width: int | None
    weight_bytes: int
    half: bool


# What a graph returns for the tensors at its inputs, by name.
Call = Callable[[dict[str, Any]], np.ndarray]


class GraphSession:
    """A graph that is loaded. `spec`: how it is run. It has the width and the modes of a network: one, evaluation."""

    training = False

    def __init__(self, spec: GraphSpec, call: Call) -> None:
        """`call`: the graph in its runtime, such as `load_onnx` returns it."""
        self.spec, self._call = spec, call
        self._constants = _make_constants(spec.image)

    @property
    def feature_width(self) -> int:
        """The width of its features."""
        return self.spec.width or 0

    def eval(self) -> None:
        """Nothing: it is always in eval mode."""

    def train(self, mode: bool) -> None:
        """Nothing: it is always in eval mode."""

    def run(self, images: np.ndarray, cameras: np.ndarray | None = None) -> np.ndarray:
        """(B, D) float32 features of B >= 1 images, (B, H, W, 3) uint8 RGB. `cameras`: (B,), their rows; None: unknown.

        In a graph of one batch size, the last images are repeated until it is full. `DataError` if the graph returns
        something else, or fails.
        """
        size = self.spec.batch or len(images)
        parts = [
            self._run_batch(images[at : at + size], None if cameras is None else cameras[at : at + size], size)
            for at in range(0, len(images), size)
        ]
        return np.concatenate(parts)

    def _run_batch(self, images: np.ndarray, cameras: np.ndarray | None, size: int) -> np.ndarray:
        rows = np.arange(size).clip(max=len(images) - 1)
        try:
            features = self.compute(
                images if size == len(images) else images[rows], None if cameras is None else cameras[rows]
            )
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - onnxruntime's own exceptions have no common class
            raise DataError(
                f"{self.spec.path}: onnxruntime stopped ({printable(str(error))}): expected features of {size} images. "
                "Export the model again, or choose another --batch-size."
            ) from None
        if features.shape != (size, self.spec.width):
            raise DataError(
                f"{self.spec.path}: returned an array of shape {features.shape} for {size} images: expected ({size}, "
                f"{self.spec.width}). Export the model again with one feature vector for each image."
            )
        return np.asarray(features[: len(images)], dtype=np.float32)

    def compute(self, images: np.ndarray, cameras: np.ndarray | None = None) -> np.ndarray:
        """What the graph returns for (B, H, W, 3) uint8 RGB images, as it is; onnxruntime's exceptions if it fails."""
        feeds: dict[str, Any] = {self.spec.image["name"]: self._prepare(images)}
        if self.spec.camera_input is not None:
            unknown = np.full(len(images), self.spec.num_cameras)
            feeds[self.spec.camera_input] = (unknown if cameras is None else cameras).astype(np.int64)
        return np.asarray(self._call(feeds))

    def _prepare(self, images: np.ndarray) -> np.ndarray:
        """The input of (B, H, W, 3) uint8 RGB images."""
        pixels = images
        if self.spec.image["preprocessing"] == "caller":
            shift, scale = self._constants
            pixels = np.multiply(images, scale, dtype=np.float32)
            pixels += shift
        if self.spec.image["color"] == "BGR":
            pixels = pixels[..., ::-1]
        if self.spec.image["layout"] == "NCHW":
            pixels = pixels.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(pixels, dtype=self.spec.image["dtype"])


def load_onnx(path: Path, threads: int, device: str) -> Call:
    """An ONNX graph in onnxruntime. `threads`: on a CPU. `device`: `cpu` or `cuda:N`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # of five levels, the highest: errors are raised as well
    options.add_session_config_entry("session.load_model_format", "ONNX")  # whatever the file is called
    session = onnxruntime.InferenceSession(path.resolve(), options, providers=_providers(device))
    return lambda feeds: session.run(None, feeds)[0]


def choose_graph_device(name: str) -> str:
    """The device called `name`, as `devices.choose_device`; `auto` is a CPU where onnxruntime cannot use the GPU.

    `OptionError` for another device that it cannot use.
    """
    import onnxruntime

    from ptlreid.devices import choose_device

    device = choose_device(name)
    if device.type == "cpu":
        return "cpu"
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return str(device)
    if name == "auto":
        return "cpu"
    raise OptionError(
        f"--device {name}: the installed onnxruntime cannot use it: expected cpu, or cuda with the package "
        "onnxruntime-gpu. Choose another device."
    )


def _providers(device: str) -> list[Any]:
    if not device.startswith("cuda"):
        return ["CPUExecutionProvider"]
    number = device.partition(":")[2] or "0"
    # Float32 is IEEE float32, as in `devices.float32_arithmetic`.
    return [("CUDAExecutionProvider", {"device_id": number, "use_tf32": "0"}), "CPUExecutionProvider"]


def _make_constants(image: ImageInput) -> tuple[np.ndarray, np.ndarray]:
    """What is added to pixels after they are multiplied by the second, (3,) float32 each."""
    mean, std = np.array(image["mean"], dtype=np.float32), np.array(image["std"], dtype=np.float32)
    return -mean / std, 1 / (255 * std)
