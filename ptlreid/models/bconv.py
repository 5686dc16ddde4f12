"""The BConv-Cell (paper section 2, Eq. 1): a convolution with gates and a latent state that outlives the mini-batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ptlreid import distributed
from ptlreid.errors import OptionError
from ptlreid.network_types import Memory


class BConvCell(nn.Module):
    """y = o ∘ tanh(C), with C = f ∘ C' + i ∘ tanh(candidate): the four gates are one convolution of the input.

    `memory` says what C' is in training: `slot`, the state of the same position in the batch before, (N, C, H, W);
    `mean`, one state for all, the mean of the batch before, (1, C, H, W), averaged over processes too; `none`,
    zero. C' is detached, so no gradient flows into an earlier batch. In eval mode C' is zero and the training
    state is left alone: the output depends on weights and input only.

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
        memory: Memory = "slot",
    ) -> None:
        super().__init__()
        self.memory = memory
        self.state: Tensor | None = None
        # Set for the batches whose gates are looked at (`watch`): their mean openings, (3,), input, forget, output.
        self.watched = False
        self.openings: Tensor | None = None
        # Rows: input, output, candidate, forget. Forget is last, as eval mode has nothing to forget.
        self.gates = nn.Conv2d(in_channels, 4 * channels, kernel_size, stride, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H', W') from (N, C_in, H, W): H' = H / stride, rounded up."""
        if not self.training:
            return self._from_zero(x)
        i, o, candidate, f = self.gates(x).chunk(4, dim=1)
        state = torch.sigmoid(i).float() * torch.tanh(candidate)
        if self.state is not None:
            self._check(state)
            state = torch.addcmul(state, torch.sigmoid(f), self.state)
        self._keep(state)
        if self.watched:
            self.openings = torch.stack([torch.sigmoid(gate.detach()).float().mean() for gate in (i, f, o)])
        return torch.sigmoid(o) * torch.tanh(state).to(o.dtype)

    def reset(self) -> None:
        """Start again from the zero state, as at the beginning of every epoch."""
        self.state = None

    def _from_zero(self, x: Tensor) -> Tensor:
        conv, rows = self.gates, 3 * self.gates.out_channels // 4
        assert conv.bias is not None
        gates = nn.functional.conv2d(x, conv.weight[:rows], conv.bias[:rows], conv.stride, conv.padding)
        i, o, candidate = gates.chunk(3, dim=1)
        return torch.sigmoid(o) * torch.tanh(torch.sigmoid(i) * torch.tanh(candidate))

    def _keep(self, state: Tensor) -> None:
        if self.memory == "slot":
            self.state = state.detach()
        elif self.memory == "mean":
            self.state = distributed.all_reduce_mean(state.detach().mean(dim=0, keepdim=True))

    def _check(self, state: Tensor) -> None:
        assert self.state is not None
        expected = (len(state) if self.memory == "slot" else 1, *state.shape[1:])
        if tuple(self.state.shape) != expected:
            raise OptionError(
                f"The latent state holds {tuple(self.state.shape)}, this batch needs {expected}. In training, "
                "batch and image size stay the same within an epoch: drop the last incomplete batch, or reset the "
                "memory first."
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
    """The latent states by the name of their cell; a cell in its zero state is not in it."""
    return {name: cell.state for name, cell in _cells(network) if cell.state is not None}


def load_memory_state(network: nn.Module, states: dict[str, Tensor]) -> None:
    """Put back what `memory_state` gave: each state goes to its cell's device, cells that are not named to zero."""
    for name, cell in _cells(network):
        state = states.get(name)
        cell.state = None if state is None else state.to(cell.gates.weight.device, torch.float32)


def watch_cells(network: nn.Module, watched: bool) -> None:
    """Whether the cells note how far their gates open in the next training batches, for `statistics`."""
    for _, cell in _cells(network):
        cell.watched = watched


def cell_statistics(network: nn.Module) -> dict[str, dict[str, float]]:
    """By the name of each cell that was watched, what the last watched batch left: plain numbers.

    `state_norm`: the root mean square of the latent state, 0 where none is carried; |state| may exceed 1, as each batch
    adds to it. `input`, `forget`, `output`: the gates' mean openings, in (0, 1).
    """
    found = {}
    for name, cell in _cells(network):
        if cell.openings is not None:
            gates = dict(zip(("input", "forget", "output"), cell.openings.tolist(), strict=True))
            norm = 0.0 if cell.state is None else float(cell.state.square().mean().sqrt())
            found[name] = {"state_norm": norm, **gates}
    return found


def _cells(network: nn.Module) -> Iterator[tuple[str, BConvCell]]:
    return ((name, module) for name, module in network.named_modules() if isinstance(module, BConvCell))
