"""A network as one graph, from images to features, for runtimes without ptlreid and without Python.

    graph = FeatureGraph(network, readout, norms=None, centres=None, image=card["input"], half=False)
    program = trace(graph)

In evaluation a BConv-Cell is a convolution with three gates, so no latent state is part of the graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ptlreid.card_schema import ImageInput
from ptlreid.models.camera_norm import CameraNorms
from ptlreid.models.network import Network
from ptlreid.network_types import Readout

IMAGES, CAMERA, FEATURES = "images", "camera", "features"  # the graph's inputs and its output
BATCH = "batch"  # the name of the number of images


class FeatureGraph(nn.Module):
    """(B, D) float32 features of B images, and of their cameras where `norms` holds the statistics of K cameras.

    `readout`: how they are read from the network. `centres`: (2, 1, D), subtracted from all features, see
    `Network.features`. `image`: the images that it takes, as on its card. `half`: weights and arithmetic are float16.

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
        image: ImageInput,
        half: bool,
    ) -> None:
        super().__init__()
        self.dtype = torch.float16 if half else torch.float32
        self.image = image
        reading = _Reading(network.eval().to(self.dtype), readout, norms, centres)
        self._reading = (reading,)  # not a submodule: its tensors are this module's buffers
        self._held = {name: name.removeprefix("network.").replace(".", "_") for name in reading.state_dict()}
        for name, tensor in reading.state_dict().items():
            self.register_buffer(self._held[name], tensor)
        mean, std = (torch.tensor(image[key]).view(3, 1, 1) for key in ("mean", "std"))
        self.register_buffer("standardize_shift", -mean / std)
        self.register_buffer("standardize_scale", 1 / (255 * std))

    @property
    def has_cameras(self) -> bool:
        """Whether the cameras of the images are an input: (B,) int64, K for one that is not known."""
        return self._reading[0].norms is not None

    def forward(self, images: Tensor, camera: Tensor | None = None) -> Tensor:
        if self.image["layout"] == "NHWC":
            images = images.permute(0, 3, 1, 2)
        if self.image["preprocessing"] == "graph":
            shift, scale = self.get_buffer("standardize_shift"), self.get_buffer("standardize_scale")
            images = torch.addcmul(shift, images.float(), scale)
        tensors = {name: self.get_buffer(held) for name, held in self._held.items()}
        features: Tensor = torch.func.functional_call(self._reading[0], tensors, (images.to(self.dtype), camera))
        return features


def trace(graph: FeatureGraph) -> ExportedProgram:
    """The graph as torch traces it, for any number of images."""
    batch = 2  # torch takes one image for a special case
    size = (graph.image["height"], graph.image["width"])
    shape = (*size, 3) if graph.image["layout"] == "NHWC" else (3, *size)
    images = torch.zeros(batch, *shape, dtype=getattr(torch, graph.image["dtype"]))
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
            return self.network.features(images, self.readout, self.centres)
        assert camera is not None, "a graph with statistics of cameras has their input"
        with self.norms.select(self.network, camera) as centres:
            return self.network.features(images, self.readout, centres)
