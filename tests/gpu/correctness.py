"""The steps that compare results: a GPU with float64 on the CPU, precisions, latent states, and compiled networks."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import inputs
import numpy as np
import torch
from inputs import Size, distance
from record import Record
from torch.nn import functional as F

from ptlreid import models
from ptlreid.devices import choose_amp, float32_arithmetic
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.job import TrainingJob
from ptlreid.errors import OptionError
from ptlreid.features import Extractor
from ptlreid.losses import find
from ptlreid.models.bconv import memory_state
from ptlreid.settings import EvaluateSettings
from ptlreid.views import EvalView, standardize

UPDATES = 6
# Bounds of relative errors, ‖value − reference‖ / ‖reference‖, against float64 on the CPU. On a CPU, the features of
# ResNet-50 and DenseNet-161 with cells have 5e-7 in float32; with inputs and weights of each layer rounded as on a GPU,
# 6e-4 in TF32 and fp16, and 6e-3 in bf16. Some of a GPU's float32 convolutions are a little coarser (Winograd).
FLOAT32, COARSER = 3e-5, 10.0
HALF = {"bf16": 0.05, "fp16": 0.01}
# Random weights make gradients sensitive: those of float32 on a CPU have 5e-3 to 1e-2 for batches of 8.
GRADIENT = 0.1


def features(size: Size, record: Record) -> None:
    """Features called float32 are IEEE float32; those in TF32, bf16 and fp16 are as coarse as they should be."""
    for backbone in size.networks:
        job = inputs.make_job(backbone, device=size.device, batch_size=size.batch_size)
        images = list(inputs.random_images(np.random.default_rng(1), 6, job.spec.height, job.spec.width))
        reference = reference_features(job, images)
        # torch's own default is TF32 in convolutions: the extractor has to set it.
        errors = {amp: distance(extract(job, images, amp), reference) for amp in size.precisions}
        record.row(network=f"{backbone}+PTL", **errors)
        record.check(f"{backbone}+PTL, float32", errors["off"], at_most=FLOAT32)
        if "tf32" in errors:
            coarser = errors["tf32"] / errors["off"]
            record.check(f"{backbone}+PTL, error of TF32 over that of float32", coarser, at_least=COARSER)
        for amp in errors.keys() & HALF.keys():
            record.check(f"{backbone}+PTL, {amp}", errors[amp], at_most=HALF[amp])
    note_left_out(size, record)


def note_left_out(size: Size, record: Record) -> None:
    """Say which precisions the device does not have."""
    left_out = [amp for amp in ("tf32", "bf16", "fp16") if amp not in size.precisions]
    if left_out:
        record.note(f"without {', '.join(left_out)}: they need another device")


def reference_features(job: TrainingJob, images: list[np.ndarray]) -> torch.Tensor:
    """The features in float64 on the CPU."""
    network = models.build(job.spec, seed=0).double().eval()
    with torch.inference_mode():
        return network.features(standardize(torch.from_numpy(np.stack(images))).double())


def extract(job: TrainingJob, images: list[np.ndarray], amp: str) -> np.ndarray:
    """The features from the project's extractor, on the job's device."""
    settings = EvaluateSettings.resolve(None, device=job.settings.device, amp=amp, batch_size=4)
    view = EvalView(job.spec.height, job.spec.width)
    return Extractor.from_network(models.build(job.spec, seed=0), view, settings).extract(images).matrix


def losses(size: Size, record: Record) -> None:
    """Convolutions and their gradients, then the loss of an update and its gradient, against float64 on the CPU."""
    exact = layer_results("cpu", torch.float64)
    errors = {}
    for amp in ("off", "tf32"):
        with float32_arithmetic(tf32=amp == "tf32"):
            found = layer_results(size.device, torch.float32)
        errors[amp] = [distance(*pair) for pair in zip(found, exact, strict=True)]
    for name, error, other in zip(LAYER_RESULTS, errors["off"], errors["tf32"], strict=True):
        record.check(f"{name}, float32", error, at_most=FLOAT32)
        if "tf32" in size.precisions:
            record.check(f"{name}, error of TF32 over that of float32", other / error, at_least=COARSER)
    for backbone in size.networks:
        make_job = partial(inputs.make_job, backbone, device=size.device, batch_size=min(8, size.batch_size))
        loss, gradient = reference_update(make_job())
        for amp in [amp for amp in size.precisions if amp != "fp16"]:  # its gradients are scaled
            loss_error, gradient_error = first_update(make_job(amp=amp), loss, gradient)
            record.row(network=f"{backbone}+PTL", amp=amp, loss=loss_error, gradient=gradient_error)
            if amp == "off":
                record.check(f"{backbone}+PTL, loss, float32", loss_error, at_most=FLOAT32)
                record.check(f"{backbone}+PTL, gradient, float32", gradient_error, at_most=GRADIENT)
    note_left_out(size, record)


LAYER_RESULTS = ("convolution", "gradient of its input", "gradient of its weights", "matrix product")


def layer_results(device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """A convolution of random numbers, the gradients of its input and of its weights, and a matrix product."""
    numbers = torch.Generator().manual_seed(0)
    shapes = ((8, 64, 32, 16), (64, 64, 3, 3), (8, 64, 32, 16), (512, 512))
    maps, weights, towards, matrix = (
        torch.randn(shape, generator=numbers, dtype=torch.float32).to(device, dtype) for shape in shapes
    )
    maps.requires_grad_()
    weights.requires_grad_()
    result = F.conv2d(maps, weights, padding=1)
    return [result, *torch.autograd.grad(result, (maps, weights), towards), matrix @ matrix]


def reference_update(job: TrainingJob) -> tuple[float, torch.Tensor]:
    """Loss and gradient of the first update, in float64 on the CPU by a loop of its own."""
    (batch,) = inputs.make_batches(job, 1)
    network = models.build(job.spec, job.settings.seed).double().train()
    images = standardize(batch.images).double()
    labels = torch.from_numpy(job.splits.train.labels())[batch.rows]
    terms = find(job.settings.loss, job.settings.model_dump())(network(images), labels)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    return loss.item(), gradients(network)


def first_update(job: TrainingJob, loss: float, gradient: torch.Tensor) -> tuple[float, float]:
    """The errors of loss and gradient of the first update of the training loop, without scaling of the loss."""
    with inputs.arithmetic_of(job):
        training = inputs.start(job)
        steps = inputs.updates(job, training, inputs.make_batches(job, 1))
        found = inputs.total(next(steps))  # the gradient is there until the next update
    return abs(found - loss) / abs(loss), distance(gradients(training.network), gradient)


def gradients(network: torch.nn.Module) -> torch.Tensor:
    """All gradients as one vector, on the CPU."""
    found = [one.grad for one in network.parameters() if one.grad is not None]
    return torch.cat([gradient.detach().cpu().double().flatten() for gradient in found])


def precision(size: Size, record: Record) -> None:
    """Training in bf16 and fp16: finite losses near those of float32; float32 weights and latent states."""
    batch = size.batch_size
    for memory in ("slot", "mean", "none"):
        for amp in size.precisions:
            job = inputs.make_job(size.network, device=size.device, batch_size=batch, memory=memory, amp=amp)
            training = inputs.start(job)
            with inputs.arithmetic_of(job):
                found = inputs.losses(job, training, UPDATES)
            if amp == "off":
                exact = found[0]
            name = f"{memory}, {amp}"
            record.check(f"{name}: largest loss", float(np.max(found)), at_most=10 * exact)  # nan if one is
            record.check(f"{name}: first loss against float32's", abs(found[0] - exact) / exact, at_most=0.05)
            record.expect(f"{name}: types of weights and states", types(training), {"torch.float32"})
            record.expect(f"{name}: images in a state", state_sizes(training), STATES[memory](batch))
            record.row(memory=memory, amp=amp, first=found[0], last=found[-1], scale=training.scaler.get_scale())
    if not size.cuda:
        record.expect("bf16 on a CPU is refused", is_refused("bf16"), True)
    note_left_out(size, record)


STATES = {"slot": lambda batch: {batch}, "mean": lambda batch: {1}, "none": lambda batch: set()}


def types(training: Training) -> set[str]:
    """The types of weights and latent states."""
    tensors: list[Any] = [*training.network.parameters(), *memory_state(training.network).values()]
    return {str(tensor.dtype) for tensor in tensors}


def state_sizes(training: Training) -> set[int]:
    """The number of images that the latent states belong to."""
    return {len(state) for state in memory_state(training.network).values()}


def is_refused(amp: str) -> bool:
    """Whether a precision cannot be chosen on a CPU."""
    try:
        choose_amp(amp, torch.device("cpu"))
    except OptionError:
        return True
    return False


def compiled(size: Size, record: Record) -> None:
    """A compiled network has the losses of the same network; the seconds of its first update."""
    backend = "inductor" if size.cuda else "eager"
    for amp, bound in (("off", 1e-3), ("bf16", 3e-2)):
        if amp not in size.precisions:
            continue
        job = inputs.make_job(size.network, device=size.device, batch_size=size.batch_size, amp=amp)
        with inputs.arithmetic_of(job):
            plain = inputs.losses(job, inputs.start(job), UPDATES)
            training = inputs.start(job)
            forward = torch.compile(training.network, backend=backend)
            steps = inputs.updates(job, training, inputs.make_batches(job, UPDATES), forward)
            began = time.perf_counter()
            ours = [inputs.total(next(steps))]
            seconds = time.perf_counter() - began
            ours += map(inputs.total, steps)
        name = f"{size.network}+PTL, {amp}"
        record.check(f"{name}: first loss", abs(ours[0] - plain[0]) / plain[0], at_most=bound)
        record.check(f"{name}: loss of update {UPDATES}", abs(ours[-1] - plain[-1]) / plain[-1], at_most=10 * bound)
        record.row(network=f"{size.network}+PTL", amp=amp, backend=backend, first_seconds=seconds)
