"""Cross-batch memory: a contrastive loss against a queue of embeddings (Wang et al., CVPR 2020, arXiv 1912.06798).

Embeddings change slowly from batch to batch, so that those of earlier batches can stand for present ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from ptlreid.distributed import gather_batch

if TYPE_CHECKING:
    from torch import Tensor

    from ptlreid.network_types import Output

_EMPTY = -1  # the label of a place of the queue without an embedding


class Settings(BaseModel):
    """Settings of cross-batch memory. Size, weight and margin are those of the authors' code for a contrastive loss.

    So is the start, in its configuration for 35,000 updates. There the queue is empty until then.
    """

    xbm_size: int = Field(8192, ge=1, le=1_000_000, description="Embeddings in the queue of XBM.")
    xbm_start: int = Field(
        1000, ge=0, le=1_000_000_000, description="Batches that fill the queue before its term is used."
    )
    xbm_margin: float = Field(
        0.5, ge=-1, le=1, description="Cosine from which on XBM pushes images of different identities apart."
    )
    xbm_weight: float = Field(1.0, ge=0, le=1000, description="Weight of the term of XBM.")


def new_state(output: Output, *, xbm_size: int, **_: object) -> dict[str, Tensor]:
    """An empty queue for each of `output.metric`, the labels of its places, and the number of batches so far."""
    import torch

    device = output.embedding.device
    queues = {f"queue.{name}": (xbm_size, part.shape[1]) for name, part in output.metric.items()}
    return {
        **{key: torch.zeros(shape, device=device) for key, shape in queues.items()},
        "labels": torch.full((xbm_size,), _EMPTY, device=device),
        "batches": torch.zeros((), dtype=torch.int64, device=device),
    }


def loss(
    output: Output,
    labels: Tensor,
    state: dict[str, Tensor],
    *,
    xbm_size: int,
    xbm_start: int,
    xbm_margin: float,
    xbm_weight: float,
) -> dict[str, Tensor]:
    """`xbm`: the weighted mean of `contrast` over `output.metric`, a scalar; 0 in the first `xbm_start` batches.

    `labels`: (B,). The batch, that of all processes, enters the queue before it is compared; of a batch of more than
    `xbm_size` images, the last do.
    """
    import torch
    from torch.nn import functional as F

    labels = gather_batch(labels)
    state["labels"] = _push(labels, state["labels"])
    state["batches"] = state["batches"] + 1
    terms = []
    for name, part in output.metric.items():
        vectors = F.normalize(gather_batch(part).float(), dim=1)
        queue = state[f"queue.{name}"] = _push(vectors.detach(), state[f"queue.{name}"])
        terms.append(contrast(vectors, labels, queue, state["labels"], xbm_margin))
    # Not by an if, which would wait for a GPU; a dry run has no number to compare.
    term = torch.where(state["batches"] > xbm_start, torch.stack(terms).mean(), 0)
    return {"xbm": xbm_weight * term}


def contrast(vectors: Tensor, labels: Tensor, queue: Tensor, queue_labels: Tensor, margin: float) -> Tensor:
    """The contrastive loss of (B, width) L2-normalised vectors against a (Q, width) queue that ends with them.

    With cosines s, it is the mean of 1 - s over pairs of one identity, plus the mean of s - margin over those pairs of
    two identities where it is above 0, as in pytorch-metric-learning; 0 where there are no such pairs. The authors sum
    over the pairs of an anchor. An image is no pair with its own place in the queue. No gradient reaches the queue.
    """
    import torch

    from ptlreid.devices import without_autocast

    with without_autocast(vectors.device):
        cosines = vectors @ queue.T  # (B, Q)
    same = labels[:, None] == queue_labels
    image = torch.arange(len(labels), device=labels.device)
    place = torch.arange(len(queue), device=labels.device)
    own = image[:, None] - len(labels) == place - len(queue)
    near = _mean(1 - cosines, same & ~own)
    return near + _mean(cosines - margin, ~same & (queue_labels != _EMPTY) & (cosines > margin))


def _mean(costs: Tensor, pairs: Tensor) -> Tensor:
    """The mean over the `pairs`, 0 if there are none; both (B, Q)."""
    return costs.masked_fill(~pairs, 0).sum() / pairs.sum().clamp(min=1)


def _push(new: Tensor, queue: Tensor) -> Tensor:
    """The queue with the `new` rows at its end; as many leave it at the other."""
    import torch

    return torch.cat([queue[len(new) :], new[-len(queue) :]])
