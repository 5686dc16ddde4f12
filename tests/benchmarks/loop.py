"""The overhead of the training loop: its images per second relative to a bare PyTorch loop, and the cost of averages.

    OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 python tests/benchmarks/loop.py

Both train the same network on the same batches in memory, alternating in one process, so that a drift in the machine's
speed affects both. Ours takes uint8 images, standardises them, steps the schedule, switches the recording of the cells
and writes its history to a file; the bare loop takes standardised images and does nothing but the update. The ratio is
the median over pairs of turns; on a CPU, seconds are CPU time of the process, as others may use the machine.

With --ema-decay 0.999, our loop with averaged weights is compared with our loop without them. The seconds that the
average takes of a step are stated as well: on a machine that others use, they vary less than the ratio of two loops.

The two MALLOC settings make glibc keep freed memory. Without them, one of two networks in a process requests the memory
of its gradients from the system again at each step: 25 ms of page faults for ResNet-18+PTL, which neither has alone.
For the same reason the first steps of a turn are not counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles

import torch
from torch.nn import functional as F

from ptlreid import losses, models
from ptlreid.engine import optim, schedule
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.fit import Precision, train_epoch
from ptlreid.engine.history import History
from ptlreid.engine.recorder import Recorder
from ptlreid.images import Batch
from ptlreid.models import bconv
from ptlreid.models.average import Average
from ptlreid.network_types import NetworkSpec
from ptlreid.runs import RunFolder
from ptlreid.views import standardize

CLASSES, EPOCHS, UPDATES = 751, 50, 800
WARMUP_STEPS, TIMED_STEPS = 3, 5  # of a turn


def our_loop(
    spec: NetworkSpec,
    batches: list[Batch],
    folder: Path,
    device: torch.device,
    *,
    ema_decay: float = 0.0,
    averaging: list[float] | None = None,
) -> Callable[[], None]:
    """A function that runs one update as `ptlreid finetune` does; the seconds of each average go to `averaging`."""
    network = models.build(spec, seed=0).to(device)
    optimizer = optim.build_optimizer(
        "sgd",
        network,
        lr=0.001,
        momentum=0.9,
        nesterov=False,
        weight_decay=5e-4,
        amsgrad=False,
        new_lr_factor=1.0,
        layer_decay=1.0,
    )
    rates = schedule.build_schedule(
        optimizer,
        kind="step",
        updates_per_epoch=UPDATES,
        epochs=EPOCHS,
        warmup_epochs=0,
        decay_every=10,
        decay_at=[],
        decay_factor=0.1,
    )
    average = Average(network, decay=ema_decay) if ema_decay else None
    if average and averaging is not None:
        average.update_parameters = timed(average.update_parameters, averaging, device)
    training = Training(network, optimizer, rates, average=average)
    loss = losses.find("ce", {})
    recorder = Recorder(
        History(folder / "history.jsonl"),
        lambda *_, **__: None,
        RunFolder(folder),
        device,
        epochs=EPOCHS,
        updates=UPDATES,
        tensorboard=False,
    )
    steps = train_epoch(
        training,
        cycle(batches),
        torch.arange(CLASSES, device=device),
        lambda output, labels, images: loss(output, labels),
        precision=Precision(torch.bfloat16 if device.type == "cuda" else None, channels_last=False),
        accumulate=1,
        clip_grad=0.0,
    )

    def step() -> None:
        recorder.step(0, next(steps))
        bconv.watch_cells(network, False)

    return step


def bare_loop(spec: NetworkSpec, batches: list[Batch], device: torch.device) -> Callable[[], None]:
    """A function that runs one update and nothing else."""
    network = models.build(spec, seed=0).to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4, fused=True)
    inputs = cycle([(standardize(batch.images.to(device)), batch.rows.to(device)) for batch in batches])

    def step() -> None:
        images, labels = next(inputs)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = F.cross_entropy(network(images).logits["pid"], labels)
        loss.backward()
        optimizer.step()

    return step


def timed(call: Callable[..., None], seconds: list[float], device: torch.device) -> Callable[..., None]:
    """`call`, whose seconds are appended to `seconds`."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time

    def wrapped(*given: object) -> None:
        began = clock()
        call(*given)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - began)

    return wrapped


def time_turn(step: Callable[[], None], device: torch.device) -> float:
    """The median seconds of a step in one turn."""
    seconds: list[float] = []
    for _ in range(WARMUP_STEPS + TIMED_STEPS):
        timed(step, seconds, device)()
    return median(seconds[WARMUP_STEPS:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--no-ptl", action="store_true")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--ema-decay", type=float, default=0.0)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = NetworkSpec(options.backbone, not options.no_ptl, "slot", CLASSES, options.height, options.width)
    shape = (options.batch_size, options.height, options.width, 3)
    batches = [
        Batch(torch.randint(256, shape, dtype=torch.uint8), torch.randint(CLASSES, (options.batch_size,)))
        for _ in range(4)
    ]
    with tempfile.TemporaryDirectory() as folder:
        ours = our_loop(spec, batches, Path(folder), device)
        averaging: list[float] = []
        if options.ema_decay:
            (second := Path(folder) / "average").mkdir()
            other = our_loop(spec, batches, second, device, ema_decay=options.ema_decay, averaging=averaging)
            names = ("without average", "with average")
        else:
            other, names = bare_loop(spec, batches, device), ("ours", "bare")
        pairs = []
        for number in range(options.turns):
            both = (ours, other) if number % 2 else (other, ours)
            seconds = {step: time_turn(step, device) for step in both}
            pairs.append((seconds[ours], seconds[other]))
    mine, theirs = (options.batch_size / median(column) for column in zip(*pairs, strict=True))
    low, middle, high = quantiles([other / ours for ours, other in pairs], n=4)
    name = options.backbone if options.no_ptl else f"{options.backbone}+PTL"
    print(
        f"{name} {options.height}x{options.width}, batch {options.batch_size}, {device}: {names[0]} {mine:.1f}, "
        f"{names[1]} {theirs:.1f} images/s, step times {names[1]} / {names[0]} {middle:.3f} (quartiles {low:.3f} to "
        f"{high:.3f})"
    )
    if averaging:
        step, average = median(seconds for _, seconds in pairs), median(averaging)
        print(f"the average: {1000 * average:.1f} of {1000 * step:.0f} ms: ratio {step / (step - average):.3f}")


if __name__ == "__main__":
    main()
