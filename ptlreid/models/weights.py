"""ptlreid's weights files: tensors, with a description from which the network is rebuilt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptlreid import models
from ptlreid.errors import CheckpointError, DataError
from ptlreid.files import atomic_write, file_digest
from ptlreid.json_files import parse_json
from ptlreid.network_types import NetworkSpec, Readout
from ptlreid.schemas import WeightsDescription

if TYPE_CHECKING:
    from ptlreid.models.network import Network

_METADATA_KEY = "ptlreid"  # of the description in a safetensors header
_REWRITE = "Remove the file and repeat the command that trained the run: it writes the file again."


@dataclass(frozen=True)
class WeightsFile:
    """A weights file and its description. Only `build` imports torch."""

    path: Path
    spec: NetworkSpec
    readout: Readout
    digest: str

    def build(self) -> Network:
        """The network with these weights, on the CPU, in eval mode."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        network = models.build(self.spec, seed=0)
        expected = {name: tensor.dtype for name, tensor in network.state_dict().items()}
        try:
            tensors = load_file(self.path)
            if {name: tensor.dtype for name, tensor in tensors.items()} != expected:  # torch would convert them
                raise TypeError
            network.load_state_dict(tensors)
        except (OSError, RuntimeError, TypeError, SafetensorError):
            raise CheckpointError(
                f"{self.path}: its tensors do not fit the network that it describes. {_REWRITE}"
            ) from None
        return network.eval()


def save(network: Network, spec: NetworkSpec, path: Path) -> None:
    """Write the network's weights and description to a safetensors file, atomically."""
    from safetensors.torch import save as serialise

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    description = {"network": spec.describe(), "readout": network.readout.describe()}
    content = serialise(tensors, metadata={_METADATA_KEY: json.dumps(description, sort_keys=True)})
    with atomic_write(path, len(content)) as temporary:
        temporary.write_bytes(content)


def read_weights_header(path: Path) -> WeightsFile:
    """The description of the weights in `path`; `CheckpointError` if the file is incomplete or another program's."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Finish the run first, or choose another run.")
    try:
        with safe_open(path, framework="np") as file:
            description = (file.metadata() or {}).get(_METADATA_KEY)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a complete safetensors file ({error}). Train the run again.") from None
    if description is None:
        raise CheckpointError(f"{path}: weights of another program. Fine-tune from them with --init {path}.")
    try:
        content = parse_json(
            description.encode(), WeightsDescription, f"{path}: describes an unknown network", _REWRITE
        )
    except DataError as error:
        raise CheckpointError(str(error)) from None
    return WeightsFile(path, NetworkSpec(**content["network"]), Readout(**content["readout"]), file_digest(path))
