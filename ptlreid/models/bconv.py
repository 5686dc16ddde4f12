"""The BConv-Cell (paper section 2, Eq. 1): a gated convolution whose latent state persists across mini-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ptlreid import distributed
from ptlreid.errors import OptionError
from ptlreid.models.initialisation import kaiming
from ptlreid.network_types import Memory


class BConvCell(nn.Module):
    """y = o ∘ tanh(C), with C = f ∘ C' + i ∘ tanh(candidate): the four gates are one convolution of the input.

    `memory` defines C' in training: `slot`, the state of the same position in the previous batch, (N, C, H, W);
    `mean`, one state for all positions, the mean over the previous batch, (1, C, H, W), averaged over processes too;
    `none`, zero. C' is detached, so no gradient flows into an earlier batch. In eval mode C' is zero and the training
    state is not touched: the output depends on weights and input only.

    The state is float32 even under autocast. It is neither parameter nor buffer: it moves with the module, but is
    saved with the training state (`memory_state`) and not with the weights.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        memory: Memory,
    ) -> None:
        super().__init__()
        self.memory = memory
        self.state: Tensor | None = None
        # Set for batches whose gates are recorded (`watch_cells`): mean activations (3,) of input, forget and output.
        self.watched = False
        self.mean_gates: Tensor | None = None
        # Output channels: input, output, candidate, forget. Forget is last, so that eval mode can skip it.
        self.gates = kaiming(nn.Conv2d(in_channels, 4 * channels, kernel_size, stride, padding=kernel_size // 2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H', W') from (N, C_in, H, W): H' = H / stride, rounded up."""
        if not self.training:
            # With a zero state there is nothing to forget, so that gate is not computed.
            conv, rows = self.gates, 3 * self.gates.out_channels // 4
            assert conv.bias is not None
            gates = nn.functional.conv2d(x, conv.weight[:rows], conv.bias[:rows], conv.stride, conv.padding)
            i, o, candidate = gates.chunk(3, dim=1)
            return torch.sigmoid(o) * torch.tanh(torch.sigmoid(i) * torch.tanh(candidate))
        i, o, candidate, f = self.gates(x).chunk(4, dim=1)
        state = torch.sigmoid(i).float() * torch.tanh(candidate)
        if self.state is not None:
            self._check_shape(state)
            state = torch.addcmul(state, torch.sigmoid(f), self.state)
        self._store(state)
        if self.watched:
            self.mean_gates = torch.stack([torch.sigmoid(gate.detach()).float().mean() for gate in (i, f, o)])
        return torch.sigmoid(o) * torch.tanh(state).to(o.dtype)

    def reset(self) -> None:
        """Set the state to zero, as at the start of every epoch."""
        self.state = None

    def _store(self, state: Tensor) -> None:
        if self.memory == "slot":
            self.state = state.detach()
        elif self.memory == "mean":
            self.state = distributed.all_reduce_mean(state.detach().mean(dim=0, keepdim=True))

    def _check_shape(self, state: Tensor) -> None:
        assert self.state is not None
        expected = (len(state) if self.memory == "slot" else 1, *state.shape[1:])
        if tuple(self.state.shape) != expected:
            raise OptionError(
                f"Latent state of shape {tuple(self.state.shape)}: this batch needs {expected}. Keep batch and image "
                "size the same within a training epoch: drop the last incomplete batch, or reset the memory first."
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BConvCell:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.state is not None:
            self.state = fn(self.state).float()
        return self


def reset_memory(network: nn.Module) -> None:
    """Set the latent states of all cells to zero."""
    for _, cell in _cells(network):
        cell.reset()


def memory_state(network: nn.Module) -> dict[str, Tensor]:
    """The latent states by the name of their cell, without those that are zero."""
    return {name: cell.state for name, cell in _cells(network) if cell.state is not None}


def gather_memory_state(network: nn.Module) -> dict[str, Tensor]:
    """`memory_state` of the batch over all processes, on the CPU; empty on all but the main process."""
    parts = distributed.gather({name: state.cpu() for name, state in memory_state(network).items()})
    return {
        name: torch.cat([part[name] for part in parts]) if cell.memory == "slot" else parts[0][name]
        for name, cell in _cells(network)
        if parts and name in parts[0]
    }


def load_memory_state(network: nn.Module, states: dict[str, Tensor]) -> None:
    """Restore this process's part of the states that `gather_memory_state` returned, by any number of processes.

    Cells that are not in `states` are set to zero.
    """
    for name, cell in _cells(network):
        state = states.get(name)
        if state is not None:
            state = distributed.own_part(state) if cell.memory == "slot" else state
            state = state.to(cell.gates.weight.device, torch.float32)
        cell.state = state


def watch_cells(network: nn.Module, watched: bool) -> None:
    """Switch recording of the gates in the next training batches on or off, for `cell_statistics`."""
    for _, cell in _cells(network):
        cell.watched = watched


def cell_statistics(network: nn.Module) -> dict[str, dict[str, float]]:
    """Statistics of the last watched batch over all processes, by the name of each watched cell.

    `state_norm`: the root mean square of the latent state, 0 with memory `none`; |state| may exceed 1, as each batch
    adds to it. `input`, `forget`, `output`: the mean activations of the gates, in (0, 1).
    """
    statistics = {}
    for name, cell in _cells(network):
        if cell.mean_gates is not None:
            square = torch.zeros_like(cell.mean_gates[0]) if cell.state is None else cell.state.square().mean()
            means = distributed.all_reduce_mean(torch.stack([square, *cell.mean_gates]))
            names = ("state_norm", "input", "forget", "output")
            statistics[name] = dict(zip(names, [*means[:1].sqrt().tolist(), *means[1:].tolist()], strict=True))
    return statistics


def _cells(network: nn.Module) -> Iterator[tuple[str, BConvCell]]:
    return ((name, module) for name, module in network.named_modules() if isinstance(module, BConvCell))
