"""The step that measures extraction: from JPEG files, from a pack, and the network alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import inputs
import numpy as np
import torch
from inputs import CLASSES, Size
from record import Record
from speed import time_calls

from ptlreid import datasets, models
from ptlreid.features import Extractor
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Silent
from ptlreid.records import Records
from ptlreid.settings import EvaluateSettings
from ptlreid.settings.prepare import PackSettings
from ptlreid.views import EvalView, standardize
from ptlreid.workflows.pack import pack


def extraction(size: Size, record: Record) -> None:
    """Images per second of extraction from files and from a pack, next to the rate of the network alone."""
    count, rows = (4, 24) if size.small else (512, 16_384)
    folder = inputs.write_dataset(size.folder / "files", train=2, test=count, height=128, width=64)
    dataset = datasets.find(str(folder))
    gallery = dataset.read(folder).gallery
    records = gallery.select(np.resize(np.arange(len(gallery)), rows))  # the same files many times, decoded every time
    height, width = (64, 32) if size.small else (256, 128)
    for source in ("files", "pack"):
        if source == "pack":
            pack(dataset, folder, PackSettings(height=height, width=width), Silent())
        for amp in [amp for amp in ("off", "bf16") if amp in size.precisions]:
            extractor = make_extractor(size, amp, (height, width))
            alone, found = network_rate(size, extractor), stream_rate(extractor, records)
            share = found["images_per_second"] / alone
            record.row(network=f"{size.network}+PTL", source=source, amp=amp, **found, network_alone=alone, share=share)
            if source == "pack" and not size.small:
                record.check(f"from a pack, amp {amp}, over the network alone", share, at_least=0.9)


def make_extractor(size: Size, amp: str, shape: tuple[int, int]) -> Extractor:
    """The extractor of a network with cells."""
    network = models.build(NetworkSpec(size.network, True, "slot", CLASSES, *shape), seed=0)
    settings = EvaluateSettings.resolve(None, device=size.device, amp=amp, batch_size=4 if size.small else 64)
    return Extractor.from_network(network, EvalView(*shape), settings)


def network_rate(size: Size, extractor: Extractor) -> float:
    """Images per second of the network on a batch that is on the device."""
    rng = np.random.default_rng(0)
    view, batch = extractor.view, extractor.batch_size
    images = torch.from_numpy(inputs.random_images(rng, batch, view.height, view.width)).to(size.device)
    network = extractor.network.eval()
    with torch.inference_mode():
        seconds = time_calls(
            lambda: network.features(standardize(images), extractor.readout), size, least=0.0 if size.small else 1.0
        )
    return batch / seconds["median"]


def stream_rate(extractor: Extractor, records: Records) -> dict[str, float]:
    """Images per second after the first batch, and the seconds until it."""
    began = time.perf_counter()
    done = times(extractor.stream(records))
    first_rows, first = next(done)
    *_, (rows, last) = done
    return {"images_per_second": (rows - first_rows) / (last - first), "first_batch_seconds": first - began}


def times(steps: Iterator[np.ndarray]) -> Iterator[tuple[int, float]]:
    """The rows so far and the time, after each step."""
    rows = 0
    for step in steps:
        rows += len(step)
        yield rows, time.perf_counter()
