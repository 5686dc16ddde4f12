"""The exponential moving average (EMA) of a network's weights over the updates of its training."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ptlreid.models.bconv import reset_memory
from ptlreid.models.network import Network


class Average(AveragedModel):
    """The average of `network`, at first equal to it: in eval mode, with zero latent states.

    `state_dict()` is all that a checkpoint needs. The average is on the network's device, the count of updates on the
    CPU, so that no update waits for a GPU.
    """

    n_averaged: Tensor

    def __init__(self, network: Network, *, decay: float) -> None:
        super().__init__(network)
        self._decay = decay
        self.n_averaged = torch.ones((), dtype=torch.long, device="cpu")  # the initial weights are the first average
        self.eval().requires_grad_(False)
        reset_memory(self)  # the copy has those of the network in training

    @property
    def network(self) -> Network:
        """The network with the averaged weights."""
        assert isinstance(self.module, Network)
        return self.module

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Average the weights of `model` in; called after each update of them.

        The n-th call, from 1, leaves min(decay, (1 + n) / (10 + n)) of the average (the `num_updates` rule of
        TensorFlow's ExponentialMovingAverage), so that the initial weights do not count for long. Batch-norm statistics
        are averaged as weights are: those of the last weights describe the maps of other weights. Whole numbers, such
        as the index tables of some transformers, are copied.
        """
        updates = int(self.n_averaged)
        average_in = get_ema_multi_avg_fn(min(self._decay, (1 + updates) / (10 + updates)))
        tensors = (chain(one.parameters(), one.buffers()) for one in (self.module, model))
        pairs = list(zip(*tensors, strict=True))
        weights = [pair for pair in pairs if pair[0].is_floating_point()]
        average_in([average for average, _ in weights], [value for _, value in weights], updates)
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)
        self.n_averaged += 1
