"""A network as one graph, from images to features, for runtimes without ptlreid and without Python.

    graph = FeatureGraph(network, readout, norms=None, centres=None, preprocessing=True, half=False)
    program = trace(graph, height=256, width=128)

In evaluation a BConv-Cell is a convolution with three gates, so no latent state is part of the graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ptlreid.models.camera_norm import CameraNorms
from ptlreid.models.network import Network
from ptlreid.network_types import Readout
from ptlreid.views import MEAN, STD

IMAGES, CAMERA, FEATURES = "images", "camera", "features"  # the graph's inputs and its output
BATCH = "batch"  # the name of the number of images


class FeatureGraph(nn.Module):
    """(B, D) float32 features of B images, and of their cameras where `norms` holds the statistics of K cameras.

    `readout`: how they are read from the network. `centres`: (2, 1, D), subtracted from all features, see
    `Network.features`. `preprocessing`: images are (B, H, W, 3) uint8 RGB, and standardised in the graph; without it
    they are (B, 3, H, W) float32, standardised. `half`: weights and arithmetic are float16.

    The network's tensors are held under names without dots: torch writes the graph as Python code, in which a part of a
    name such as `global` would be a keyword.
    """

    def __init__(
        self,
        network: Network,
        readout: Readout,
        *,
        norms: CameraNorms | None,
        centres: Tensor | None,
        preprocessing: bool,
        half: bool,
    ) -> None:
        super().__init__()
        self.dtype = torch.float16 if half else torch.float32
        self.preprocessing = preprocessing
        reading = _Reading(network.eval().to(self.dtype), readout, norms, centres)
        self._reading = (reading,)  # not a submodule: its tensors are this module's buffers
        self._held = {name: name.removeprefix("network.").replace(".", "_") for name in reading.state_dict()}
        for name, tensor in reading.state_dict().items():
            self.register_buffer(self._held[name], tensor)
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        self.register_buffer("standardize_shift", -mean / std)
        self.register_buffer("standardize_scale", 1 / (255 * std))

    @property
    def has_cameras(self) -> bool:
        """Whether the cameras of the images are an input: (B,) int64, K for one that is not known."""
        return self._reading[0].norms is not None

    def forward(self, images: Tensor, camera: Tensor | None = None) -> Tensor:
        if self.preprocessing:
            shift, scale = self.get_buffer("standardize_shift"), self.get_buffer("standardize_scale")
            images = torch.addcmul(shift, images.float(), scale).permute(0, 3, 1, 2)
        tensors = {name: self.get_buffer(held) for name, held in self._held.items()}
        features: Tensor = torch.func.functional_call(self._reading[0], tensors, (images.to(self.dtype), camera))
        return features


def trace(graph: FeatureGraph, *, height: int, width: int) -> ExportedProgram:
    """The graph as torch traces it, for any number of images of this size."""
    batch = 2  # torch takes one image for a special case
    if graph.preprocessing:
        images = torch.zeros(batch, height, width, 3, dtype=torch.uint8)
    else:
        images = torch.zeros(batch, 3, height, width)
    given, sizes = {IMAGES: images}, {IMAGES: {0: Dim(BATCH)}}
    if graph.has_cameras:
        given[CAMERA], sizes[CAMERA] = torch.zeros(batch, dtype=torch.int64), {0: Dim(BATCH)}
    with torch.no_grad():
        return torch.export.export(graph.eval(), (), given, dynamic_shapes=sizes, strict=False)


class _Reading(nn.Module):
    """A network as a function from standardised images and cameras to features."""

    def __init__(self, network: Network, readout: Readout, norms: CameraNorms | None, centres: Tensor | None) -> None:
        super().__init__()
        self.network, self.readout, self.norms, self.centres = network, readout, norms, centres

    def forward(self, images: Tensor, camera: Tensor | None) -> Tensor:
        if self.norms is None:
            return self.network.read(images, self.readout, self.centres)
        assert camera is not None, "a graph with statistics of cameras has their input"
        with self.norms.select(self.network, camera) as centres:
            return self.network.read(images, self.readout, centres)
