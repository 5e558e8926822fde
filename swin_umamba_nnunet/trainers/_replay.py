"""Trainings that can be repeated: with a seed, a training is a function of the seed and its data, bit for bit.

Whatever is drawn comes from numbers of its own: the seed, what is drawn, the process of a training on several GPUs, and
which of them it is.  So are drawn the initial weights, batch j of the training or of the validation, and DropPath in
epoch e.  No generator carries anything from one to the next: the number of workers is of no consequence, and a training
that goes on from a checkpoint, which is of the end of an epoch, draws what it would have drawn without a break.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform

from swin_umamba_nnunet import settings
from swin_umamba_nnunet.trainers._loaders import EndingLoaders, OrderedLoader

CHECKPOINT_KEY = "seed"
# What is drawn, the second of always four numbers: to numpy's SeedSequence fewer are as many with zeros at the end.
WEIGHTS, EPOCH, TRAINING, VALIDATION = range(4)


class SeedError(RuntimeError):
    """A training is to go on with another seed than it began with."""


def seed_generators(*numbers: int, seed_torch: Callable[[int], Any] = torch.manual_seed) -> None:
    """Seed Python's, numpy's and torch's generators from the numbers, torch's on every device unless told otherwise."""
    words = np.random.SeedSequence(numbers).generate_state(4)
    random.seed(words.tobytes())
    np.random.seed(words)  # noqa: NPY002 (nnU-Net's augmentation draws from the global generator)
    seed_torch(int(words[0]) << 32 | int(words[1]))


@contextlib.contextmanager
def drawn_from(*numbers: int) -> Iterator[None]:
    """Whatever is drawn on the CPU follows from the numbers; afterwards the generators are as they were."""
    on_cpu = torch.default_generator
    before = random.getstate(), np.random.get_state(), on_cpu.get_state()  # noqa: NPY002
    seed_generators(*numbers, seed_torch=on_cpu.manual_seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        on_cpu.set_state(before[2])


def fix_kernels() -> None:
    """Have cuDNN take deterministic algorithms, and none by its stopwatch; nnU-Net sets the opposite.

    `torch.use_deterministic_algorithms` is left alone: it refuses cross-entropy on images, whose gradient does not
    depend on the order in which its loss is added up.
    """
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


class NumberedBatches:
    """A data loader whose batch j is drawn from the numbers and j, in whatever process it is made.

    Args:
        loader: makes one batch after the other.
        numbers: see `drawn_from`.
        first: number of the first batch.
        workers: among how many processes it is divided: number w makes the batches first + w, first + w + workers, ...
    """

    def __init__(self, loader: Any, numbers: tuple[int, ...], first: int, workers: int = 1) -> None:
        self.loader, self.numbers, self.first, self.workers, self._next = loader, numbers, first, workers, first
        self.transforms = getattr(loader, "transforms", None)
        for transform in _all(self.transforms):
            # batchgenerators' blur takes one of two ways by its stopwatch, which differ in their last bits
            if getattr(transform, "benchmark", False):
                transform.benchmark = False  # type: ignore[attr-defined]

    def set_thread_id(self, number: int) -> None:
        """Called by batchgenerators in worker `number`."""
        torch.set_num_threads(1)  # a forked process that starts more may wait for them for ever
        self.loader.set_thread_id(number)
        self._next = self.first + number

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker: several add up in another order
        try:
            with drawn_from(*self.numbers, self._next):
                batch = next(self.loader)
        finally:
            torch.set_num_threads(threads)
        self._next += self.workers
        return batch


def _all(transforms: Any) -> Iterator[BasicTransform]:
    """A transform, or several, with those that they hold."""
    if isinstance(transforms, BasicTransform):
        yield transforms
        transforms = list(vars(transforms).values())
    if isinstance(transforms, list | tuple):
        for each in transforms:
            yield from _all(each)


class Replay(EndingLoaders):
    """The part of a trainer that draws what it draws from its seed.  Does nothing where `seed` is None.

    Attributes:
        seed: 0 or more, of everything that is drawn; None, nnU-Net's behaviour, for another training each time.
    """

    seed: int | None = None

    _seed_before: tuple[int | None, ...] = ()  # of the training that this one continues

    @classmethod
    def asked_seed(cls) -> int | None:
        """That of SWIN_UMAMBA_SEED, or else of the class.

        Raises:
            ValueError: it is none.
        """
        said = settings.number("SWIN_UMAMBA_SEED")
        if cls.seed is not None and (type(cls.seed) is not int or cls.seed < 0):
            raise ValueError(f"{cls.__name__} has seed = {cls.seed!r}; set it to a whole number, 0 or more, or to None")
        return cls.seed if said is None else said

    @property
    def replays(self) -> bool:
        """Whether this training, once it has begun, can be repeated."""
        loaders = (self.dataloader_train, self.dataloader_val)
        batches = (getattr(loader, "generator", getattr(loader, "data_loader", None)) for loader in loaders)
        return self.seed is not None and all(isinstance(each, NumberedBatches) for each in batches)

    def initialize(self) -> None:
        """As nnU-Net's."""
        weights = contextlib.nullcontext() if self.seed is None else drawn_from(self.seed, WEIGHTS, 0, 0)
        with weights:
            super().initialize()  # type: ignore[misc]

    def augmenters(self) -> dict[str, Callable[..., Any]]:
        """As without a seed, or those of numbered batches, in their order."""
        if self.seed is None:
            return super().augmenters()
        seed, kinds = self.seed, iter((TRAINING, VALIDATION))  # the order in which nnU-Net makes them

        def numbered(loader: Any, workers: int = 1) -> NumberedBatches:
            kind = next(kinds)
            per_epoch = self.num_iterations_per_epoch if kind == TRAINING else self.num_val_iterations_per_epoch
            # nnU-Net throws the first batch away, whether the training begins or goes on
            return NumberedBatches(loader, (seed, kind, self.local_rank), self.current_epoch * per_epoch, workers)

        def one_by_one(data_loader: Any, transform: Any) -> SingleThreadedAugmenter:
            return SingleThreadedAugmenter(numbered(data_loader), transform)

        def in_order(
            data_loader: Any, transform: Any, num_processes: int, num_cached: int, **how: Any
        ) -> OrderedLoader:
            batches = numbered(data_loader, num_processes)
            return OrderedLoader(batches, transform, num_processes, max(1, num_cached // num_processes), **how)

        return {"SingleThreadedAugmenter": one_by_one, "NonDetMultiThreadedAugmenter": in_order}

    def on_train_start(self) -> None:
        """As nnU-Net's; says what the seed is, and what it does.

        Raises:
            SeedError: the training began with another seed.
        """
        self.settle_seed()
        super().on_train_start()  # type: ignore[misc]
        if self.seed is None:
            return
        self.print_to_log_file(
            f"Seed {self.seed}: initial weights, batches and DropPath follow from it; the same data, versions, machine "
            f"and number of threads ({torch.get_num_threads()}) give the same weights again"
        )
        if self.device.type == "cuda":
            fix_kernels()
            self.print_to_log_file("cuDNN takes deterministic algorithms and no benchmark mode")
        if not self.replays:
            self.print_to_log_file(
                f"WARNING: {type(self).__name__} makes its data loaders otherwise than nnU-Net does, so that its "
                "batches do not follow from the seed: this training cannot be repeated"
            )

    def settle_seed(self) -> None:
        """A training that goes on keeps the seed it began with, whether one is set now or not.

        Raises:
            SeedError: another one is.
        """
        for before in self._seed_before:
            if before is None and self.seed is not None:
                self.print_to_log_file(
                    f"WARNING: this training began without a seed and goes on so; seed {self.seed} is left aside"
                )
            elif self.seed not in (None, before):
                raise SeedError(
                    f"this training began with seed {before}, but seed {self.seed} is set (SWIN_UMAMBA_SEED, or `seed` "
                    f"of {type(self).__name__}); continue it without one, or train anew without --c"
                )
            self.seed = before

    def on_train_epoch_start(self) -> None:
        """As nnU-Net's; what the network draws follows from seed and epoch."""
        if self.seed is not None:
            seed_generators(self.seed, EPOCH, self.local_rank, self.current_epoch)
        super().on_train_epoch_start()  # type: ignore[misc]

    # --------------------------------------------------------------------------------------------- checkpoints

    def additions(self) -> dict[str, Any]:
        """The seed, if there is one."""
        return {**super().additions(), **({} if self.seed is None else {CHECKPOINT_KEY: self.seed})}  # type: ignore[misc]

    def adopt_checkpoint(self, checkpoint: dict) -> None:
        """Remember the seed with which the training began."""
        super().adopt_checkpoint(checkpoint)  # type: ignore[misc]
        self._seed_before = (checkpoint.get(CHECKPOINT_KEY),)
