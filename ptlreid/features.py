"""From images to features: the `Extractor`, in one process or in several that share the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptlreid import distributed
from ptlreid.errors import DataError
from ptlreid.models.camera_statistics import CameraStatistics, GraphCameras, read_cameras
from ptlreid.models.graph_file import GraphFile, check_graph_settings
from ptlreid.models.graph_folder import ModelFolder
from ptlreid.models.graph_session import GraphSession, choose_graph_device
from ptlreid.models.weights import WeightsFile, read_weights_header
from ptlreid.network_types import Readout
from ptlreid.progress import Progress
from ptlreid.records import JUNK, Records
from ptlreid.retrieval.types import Features
from ptlreid.settings import ExtractionSettings
from ptlreid.views import EvalView

if TYPE_CHECKING:
    import torch

    from ptlreid.devices import Placement
    from ptlreid.models.camera_norm import CameraNorms
    from ptlreid.models.network import Network
    from ptlreid.runs import RunFolder


@dataclass(frozen=True)
class Extractor:
    """Turns images into features.

    `model`: a weights file, whose network is built on first use; a network; or an ONNX graph. `readout`: how features
    are read from it (flip, L2 normalisation). `view`: the preprocessing of images. Features depend on these and the
    image alone, not on `device`, `batch_size`, `workers`, order or earlier training, up to float32 rounding: the order
    of summation may change with the batch size. `cameras`: statistics of cameras; an image of one of them is normalised
    by its own, any other image by the network's, and the mean feature of its camera is subtracted from its own (before
    L2 normalisation).
    """

    model: WeightsFile | Network | GraphFile
    readout: Readout
    view: EvalView
    device: str
    batch_size: int
    workers: int | None
    cameras: CameraStatistics | GraphCameras | None = None

    @classmethod
    def from_run(cls, run: RunFolder, settings: ExtractionSettings) -> Extractor:
        """The extractor of the run's weights, see `from_weights`; of a model's graph, see `from_graph`."""
        if isinstance(run, ModelFolder):
            return cls.from_graph(run.graph, settings)
        return cls.from_weights(read_weights_header(run.find_weights(settings.weights)), settings)

    @classmethod
    def from_weights(cls, weights: WeightsFile, settings: ExtractionSettings) -> Extractor:
        """The extractor of a weights file; `settings` may override how the network's features are read.

        Statistics of cameras next to the file are used. Raises `CheckpointError` if they are damaged.
        """
        view = EvalView(weights.spec.height, weights.spec.width, weights.spec.interpolation)
        readout = _readout(weights.readout, settings)
        cameras = read_cameras(weights.path, weights.digest) if settings.cameras else None
        return cls(weights, readout, view, settings.device, settings.batch_size, settings.workers, cameras)

    @classmethod
    def from_network(
        cls, network: Network, view: EvalView, settings: ExtractionSettings, cameras: CameraStatistics | None = None
    ) -> Extractor:
        """The extractor of a network in memory, which stays on the device of `settings`."""
        readout = _readout(network.readout, settings)
        return cls(network, readout, view, settings.device, settings.batch_size, settings.workers, cameras)

    @classmethod
    def from_graph(cls, graph: GraphFile, settings: ExtractionSettings) -> Extractor:
        """The extractor of an ONNX graph; `settings` may add to what the graph does itself, and not undo it.

        Raises `OptionError` for settings that the graph cannot follow.
        """
        check_graph_settings(graph, settings)
        readout = _readout(graph.readout, settings)
        return cls(graph, readout, graph.view, settings.device, settings.batch_size, settings.workers, graph.cameras)

    @property
    def digest(self) -> str:
        """The digest of the weights file or of the graph."""
        assert isinstance(self.model, WeightsFile | GraphFile), "a network in memory has no digest"
        return self.model.digest

    @cached_property
    def placement(self) -> Placement:
        """The device and the loader processes; `OptionError` for a device that is not available."""
        from ptlreid.devices import choose_placement

        device = choose_graph_device(self.device) if isinstance(self.model, GraphFile) else self.device
        return choose_placement(device, amp=self.readout.amp, workers=self.workers)

    @cached_property
    def network(self) -> Network | GraphSession:
        """The network on its device, or the graph, loaded by onnxruntime with as many threads as torch has."""
        place = self.placement
        if isinstance(self.model, GraphFile):
            import torch

            return self.model.open(torch.get_num_threads(), str(place.device))
        network = self.model.build() if isinstance(self.model, WeightsFile) else self.model
        return network.to(place.device)

    @cached_property
    def norms(self) -> CameraNorms | None:
        """The statistics of cameras on the network's device, with its weights as they are at the first use."""
        network = self.network
        if not isinstance(self.cameras, CameraStatistics) or isinstance(network, GraphSession):
            return None
        from ptlreid.models.camera_norm import CameraNorms

        return CameraNorms.of(network, self.cameras)

    def extract(self, images: Records | Sequence[Any], *, progress: Progress | None = None) -> Features:
        """The (N, D) float32 features of N images, row i from image i; with several processes, each gets all rows.

        `images`: `Records`, or a sequence of paths, of (H, W, 3) uint8 RGB arrays or of PIL images, which get pid -1
        (unknown) and camera 0; arrays and PIL images are named by position, such as `#3`.
        """
        if isinstance(images, Records):
            records, steps = images, self.stream(images, progress=progress)
        else:
            from_files = all(isinstance(image, str | Path) for image in images)
            paths = [Path(image) if from_files else Path(f"#{row}") for row, image in enumerate(images)]
            records = Records.make(paths, [JUNK] * len(paths), [0] * len(paths), source="")
            steps = self.stream(records, progress=progress) if from_files else self._stream_arrays(images)
        matrix = np.empty((len(records.paths), self.network.feature_width), dtype=np.float32)
        done = 0
        for rows in steps:
            matrix[done : done + len(rows)] = rows
            done += len(rows)
        names = np.array([str(path) for path in records.paths], dtype=object)
        return Features(matrix, records.pids, records.camids, names, records.clothes)

    def stream(self, records: Records, *, start: int = 0, progress: Progress | None = None) -> Iterator[np.ndarray]:
        """The features of the images from row `start` on, in order: (B, D) float32, one step at a time.

        Several processes share each step, and each gets all of its features; if one of them cannot read an image, all
        raise its `DataError`. Afterwards, the network is back in the mode it was in.
        """
        from ptlreid.images import load_batches

        ranks, rank = (distributed.world_size(), distributed.rank()) if distributed.active() else (1, 0)
        rows, size = np.arange(start, len(records)), self.batch_size * ranks
        steps = [rows[at : at + size] for at in range(0, len(rows), size)]
        local_steps = [part for part in (np.array_split(step, ranks)[rank] for step in steps) if len(part)]
        cameras = self.cameras.find_rows(records.sources, records.camids) if self.cameras else None
        mode = self.network.training
        self.network.eval()
        place = self.placement
        batches = load_batches(
            records.paths, self.view, local_steps, workers=place.workers, pin_for=place.device, progress=progress
        )
        try:
            for step in steps:
                outcome: np.ndarray | DataError
                try:
                    batch = next(batches) if rank < len(step) else None
                    rows = batch.rows.numpy() if batch else np.arange(0)
                    known = cameras[rows] if cameras is not None else None
                    outcome = self._forward(batch.images if batch else None, known)
                except DataError as error:
                    outcome = error
                parts = distributed.all_gather(outcome) if ranks > 1 else [outcome]
                for part in parts:
                    if isinstance(part, DataError):
                        raise part
                yield np.concatenate([part for part in parts if isinstance(part, np.ndarray)])
        finally:
            batches.close()
            self.network.train(mode)

    def run_batch(self, images: np.ndarray) -> np.ndarray:
        """(B, D) float32 features of B images of the view's size, (B, H, W, 3) uint8, in one call, without cameras."""
        import torch

        self.network.eval()
        return self._forward(torch.from_numpy(images))

    def _stream_arrays(self, images: Sequence[Any]) -> Iterator[np.ndarray]:
        """The features of arrays and PIL images, one step at a time; processes do not share the work."""
        import torch

        from ptlreid.views import decode, resize

        mode = self.network.training
        self.network.eval()
        try:
            for at in range(0, len(images), self.batch_size):
                pixels = [decode(image) for image in images[at : at + self.batch_size]]
                yield self._forward(torch.from_numpy(resize(pixels, self.view)))
        finally:
            self.network.train(mode)

    def _forward(self, images: torch.Tensor | None, cameras: np.ndarray | None = None) -> np.ndarray:
        """(B, D) float32 features of (B, H, W, 3) uint8 images; (0, D) for None. `cameras`: (B,), their rows."""
        import torch

        from ptlreid.devices import fixed_sizes
        from ptlreid.views import standardize

        network = self.network
        if images is None:
            return np.empty((0, network.feature_width), np.float32)
        if isinstance(network, GraphSession):
            return self._run_graph(network, images.numpy(), cameras)
        device = self.placement.device
        # An incomplete batch, often the only one, is not worth timing.
        sizes = fixed_sizes(device) if len(images) == self.batch_size else nullcontext()
        with torch.inference_mode(), sizes:
            standardized = standardize(images.to(device, non_blocking=True))
            if self.norms is None:
                return np.asarray(network.features(standardized, self.readout).cpu().numpy())
            unknown = np.full(len(images), self.norms.num_cameras)
            with self.norms.select(network, unknown if cameras is None else cameras) as centres:
                features = network.features(standardized, self.readout, centres)
                return np.asarray(features.cpu().numpy())

    def _run_graph(self, graph: GraphSession, images: np.ndarray, cameras: np.ndarray | None) -> np.ndarray:
        """As `_forward`: what the graph does not do itself, flip and L2-normalisation, is done here."""
        features = graph.run(images, cameras)
        if self.readout.flip and not self.model.readout.flip:
            features = features + graph.run(images[:, :, ::-1], cameras)
        if self.readout.normalize and not self.model.readout.normalize:
            lengths = np.linalg.norm(features, axis=1, keepdims=True)
            features = features / np.maximum(lengths, np.float32(1e-12))  # a zero vector stays zero
        return features


def _readout(own: Readout, settings: ExtractionSettings) -> Readout:
    """The network's own readout, overridden by the `settings` that are not None."""
    overrides = {name: getattr(settings, name) for name in ("flip", "normalize", "amp")}
    return replace(own, **{name: value for name, value in overrides.items() if value is not None})
