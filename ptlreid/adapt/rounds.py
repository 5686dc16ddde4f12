"""The epochs of an adaptation: each clusters the features of the teacher, and trains against a memory of the clusters.

Cluster contrast: Dai et al., ACCV 2022. The teacher is the average of the weights over the updates (Tarvainen and
Valpola, NeurIPS 2017, in ReID since Ge et al., ICLR 2020). Its features are read with the statistics of each camera.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptlreid import distributed
from ptlreid.adapt.camera_pass import collect_cameras
from ptlreid.adapt.cluster_files import write_clusters
from ptlreid.adapt.memory import ClusterMemory, MemoryOptions, build_memory, restore_memory
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.fit import Step
from ptlreid.engine.job import EpochPlan
from ptlreid.features import Extractor
from ptlreid.models.average import Average
from ptlreid.models.camera_norm import normalising_by_camera
from ptlreid.models.camera_statistics import CameraStatistics
from ptlreid.models.network import Network
from ptlreid.network_types import Output
from ptlreid.progress import Progress
from ptlreid.records import Records
from ptlreid.retrieval.cluster_statistics import ClusterStatistics, measure_clusters
from ptlreid.runs import RunFolder
from ptlreid.samplers import sample_groups
from ptlreid.settings import AdaptSettings, default_evaluation
from ptlreid.views import EvalView

_TEACHER, _MEMORY = "teacher.", "memory."  # of names in the extra state of a training


@dataclass
class Rounds:
    """Makes the plan of each epoch of one run.

    `settings`: with an image size. `site`: the unlabelled images; `labelled`: those trained along, whose rows follow
    them. The teacher and the memory are in the extra state of the training.
    """

    settings: AdaptSettings
    site: Records
    labelled: Records | None
    run: RunFolder
    progress: Progress
    _teacher: Average | None = None

    def plan_epoch(self, training: Training, device: torch.device) -> EpochPlan | None:
        """The plan of the next epoch, or of the rest of the current one; None if there are no two clusters.

        The rest of an epoch needs neither features nor clusters: its memory is in the extra state.
        """
        teacher, clusters = self._find_teacher(training), None
        if training.step:
            state = {name: training.extra[_MEMORY + name] for name in ("entries", "labels", "cameras", "centres")}
            memory, centres = restore_memory(state, self._options, device), state["centres"].to(device)
        else:
            features, embeddings, means = self._extract(teacher.network)
            labels = distributed.run_on_main(lambda: self._cluster(features, training.epoch))
            before = training.extra.get(_MEMORY + "labels")
            previous = None if before is None else before[: len(self.site)].cpu().numpy()
            clusters = measure_clusters(labels, self._cameras[: len(self.site)], previous)
            self._note(training.epoch, clusters)
            if clusters.clusters < 2:
                return None
            memory = build_memory(embeddings, self._with_identities(labels), self._cameras, self._options, device)
            centres = torch.from_numpy(means).to(device)
        self._publish(training, teacher, memory, centres)

        def objective(output: Output, rows: Tensor, images: Tensor) -> dict[str, Tensor]:
            embedding = output.embedding - centres[memory.cameras[rows]]
            terms = memory.terms(embedding, rows)
            memory.update(embedding, rows)
            return terms

        def context(rows: Tensor) -> AbstractContextManager[None]:
            return normalising_by_camera(training.network, memory.cameras[rows.to(device)])

        def after_update(step: Step) -> None:
            if not step.skipped:
                teacher.update_parameters(training.network)
            self._publish(training, teacher, memory, centres)

        batches = self._sample(memory.labels.cpu().numpy(), training.epoch)
        return EpochPlan(batches, objective, context, after_update, clusters.describe() if clusters else {})

    def teacher(self, training: Training) -> tuple[Network, CameraStatistics]:
        """The averaged network of the training, with batch-norm statistics of the site, and those of its cameras."""
        network = self._find_teacher(training).network
        return network, collect_cameras(self.extractor(network), self.site)

    def extractor(self, network: Network, cameras: CameraStatistics | None = None) -> Extractor:
        """The extractor of the features that are clustered."""
        chosen = self.settings
        assert chosen.height is not None and chosen.width is not None, "set by resolve_settings"
        view = EvalView(chosen.height, chosen.width, chosen.interpolation)
        return Extractor.from_network(network, view, default_evaluation(chosen), cameras)

    @property
    def _options(self) -> MemoryOptions:
        chosen = self.settings
        return MemoryOptions(
            temperature=chosen.temperature,
            momentum=chosen.memory_momentum,
            proxies=chosen.proxies,
            inter_weight=chosen.inter_weight,
            hard_negatives=chosen.hard_negatives,
            outliers=chosen.outliers == "instances",
        )

    @property
    def _cameras(self) -> np.ndarray:
        """(N,) int64: the number of each image's camera, from 0, over all datasets."""
        records = self.site if self.labelled is None else self.site.join(self.labelled)
        names = [f"{source}\0{camid}" for source, camid in zip(records.sources, records.camids, strict=True)]
        return np.unique(names, return_inverse=True)[1].astype(np.int64)

    def _find_teacher(self, training: Training) -> Average:
        """The teacher of the training, built or restored when it is first needed."""
        if self._teacher is None:
            self._teacher = Average(training.network, decay=self.settings.ema)
            extra = training.extra.items()
            saved = {name.removeprefix(_TEACHER): value for name, value in extra if name.startswith(_TEACHER)}
            if saved:
                self._teacher.load_state_dict(saved)
        return self._teacher

    def _publish(self, training: Training, teacher: Average, memory: ClusterMemory, centres: Tensor) -> None:
        """Set the extra state of the training, which the next checkpoint saves."""
        state = {"entries": memory.entries, "labels": memory.labels, "cameras": memory.cameras, "centres": centres}
        training.extra = {_TEACHER + name: value for name, value in teacher.state_dict().items()}
        training.extra |= {_MEMORY + name: value for name, value in state.items()}

    def _extract(self, network: Network) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The features of the site's images, the embeddings of all images, and the mean embedding of each camera.

        All are read with the camera statistics of the images' dataset. The mean of its camera is already subtracted
        from an embedding, as it will be in training.
        """
        features, embeddings = np.empty(0), []
        means = np.empty((int(self._cameras.max()) + 1, network.feature_width), dtype=np.float32)
        numbers = np.split(self._cameras, [len(self.site)])
        for part, number in ((self.labelled, numbers[1]), (self.site, numbers[0])):  # the site's statistics stay
            if part is None:
                continue
            cameras = collect_cameras(self.extractor(network), part)
            means[number] = cameras.centres[0][cameras.find_rows(part.sources, part.camids)]
            extractor = self.extractor(network, cameras)
            plain = replace(extractor, readout=replace(extractor.readout, flip=False, normalize=False))
            embeddings.append(plain.extract(part).matrix)
            if part is self.site:
                same = plain.readout == extractor.readout
                features = embeddings[-1] if same else extractor.extract(part).matrix
        return features, np.concatenate(embeddings[::-1]), means

    def _cluster(self, features: np.ndarray, epoch: int) -> np.ndarray:
        """(N,) the clusters of the site's images, -1 for outliers, which are also written to the run folder."""
        from ptlreid.retrieval.clustering import cluster  # SciPy, scikit-learn
        from ptlreid.retrieval.jaccard import jaccard_graph

        chosen = self.settings
        options: dict[str, Any] = {"k1": chosen.k1, "k2": chosen.k2, "memory_budget": chosen.budget_bytes}
        graph = jaccard_graph(features, radius=chosen.radius, **options)
        labels = cluster(graph, radius=chosen.radius, min_samples=chosen.min_samples)
        write_clusters(self.run.clusters(epoch), self.site, features, labels)
        return labels

    def _with_identities(self, labels: np.ndarray) -> np.ndarray:
        """The clusters of the site, then the identities of the labelled images, numbered from where these end."""
        if self.labelled is None:
            return labels
        return np.concatenate([labels, labels.max() + 1 + self.labelled.labels()])

    def _sample(self, labels: np.ndarray, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch: each has images of the site or of the labelled dataset, as batch norm sees it."""
        chosen, site = self.settings, len(self.site)
        size = chosen.images_per_identity
        rng = np.random.default_rng((chosen.seed, epoch))
        total, own = len(labels) // chosen.batch_size, site // chosen.batch_size
        batches = []
        for rows, count in ((np.arange(site), own), (np.arange(site, len(labels)), total - own)):
            if not count:
                continue
            groups = _group(rows, labels[rows])
            if chosen.outliers == "instances":  # K different ones: K copies of one would be the same image
                alone = rng.permutation(rows[labels[rows] < 0])
                groups += [alone[at : at + size] for at in range(0, len(alone), size)]
            batches += sample_groups(groups, count, chosen.batch_size // size, size, rng)
        return [batches[at] for at in rng.permutation(len(batches))]

    def _note(self, epoch: int, clusters: ClusterStatistics) -> None:
        """Note the clusters of an epoch, and in the first, last and a failed one, what is doubtful about them."""
        self.progress.note(
            f"epoch {epoch + 1}: {_count(clusters.clusters, 'cluster')} of {_count(clusters.images, 'image')}, "
            f"{_count(clusters.outliers, 'outlier')}"
        )
        failed = clusters.clusters < 2
        for warning in clusters.warnings() if failed or epoch in (0, self.settings.epochs - 1) else ():
            self.progress.note(warning)
        if failed:
            kept = f"after epoch {epoch}" if epoch else "of the run, as --method cameras keeps them"
            self.progress.note(f"No two clusters to train on: training ends here, with the weights {kept}.")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _group(rows: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """The rows of each label, in its order, without -1."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    return np.split(rows[order], np.flatnonzero(np.diff(labels[order])) + 1)
