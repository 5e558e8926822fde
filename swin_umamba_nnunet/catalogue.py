"""Which trainers there are, as data.  Imports no torch and no nnU-Net: the command line and the README read it too.

`trainers` generates its length variants from `LENGTHS`, and a test holds `TRAINERS` against the classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

FULL_LENGTH = 1000  # epochs of a training as the papers and nnU-Net define it


@dataclass(frozen=True)
class TrainerRecord:
    """One trainer.

    Attributes:
        name: class name, as given to `nnUNetv2_train -tr`.
        network: class in `swin_umamba_nnunet.networks`.
        paper: where it comes from.
        weights: name in `pretrained.registry` of the ImageNet weights its encoder starts from, None for random ones.
        deep_supervision: whether the coarser heads are trained too.
        scratch: name of the trainer that does the same without ImageNet weights (its own name if it needs none).
        parameters_million: of the network at 1 input channel and 14 classes.
        summary: what it is, in one line.
        dims: dimensions of the nnU-Net configurations it accepts.
    """

    name: str
    network: str
    paper: str
    weights: str | None
    deep_supervision: bool
    scratch: str
    parameters_million: float
    summary: str
    dims: tuple[int, ...] = (2,)

    @property
    def pretrained(self) -> bool:
        """Whether the encoder starts from ImageNet weights."""
        return self.weights is not None


@dataclass(frozen=True)
class LengthRecord:
    """One length variant, which exists for every trainer as NAME + `suffix`.

    Attributes:
        suffix: what is appended to the trainer's name.
        epochs: how many epochs it trains.
        schedule_epochs: over how many epochs the learning rate falls; more than `epochs` means stopping early.
        summary: what it is, in one line.
        settings: further class attributes of the variant (see `trainers.base.CLASS_SETTINGS`).
    """

    suffix: str
    epochs: int
    schedule_epochs: int
    summary: str
    settings: Mapping[str, int | float] = field(default_factory=lambda: MappingProxyType({}))


_PAPER = "Swin-UMamba, arXiv:2402.03302"

TRAINERS: tuple[TrainerRecord, ...] = (
    TrainerRecord(
        "nnUNetTrainerSwinUMamba", "SwinUMamba", _PAPER, "vmamba_tiny_v0", True, "nnUNetTrainerSwinUMambaScratch",
        59.889, "Swin-UMamba: VMamba-Tiny encoder from ImageNet, convolutional decoder",
    ),
    TrainerRecord(
        "nnUNetTrainerSwinUMambaD", "SwinUMambaD", _PAPER, "vmamba_tiny_v0", True, "nnUNetTrainerSwinUMambaDScratch",
        27.498, "Swin-UMamba-dagger: VMamba-Tiny encoder from ImageNet, Mamba decoder (the lighter network)",
    ),
    TrainerRecord(
        "nnUNetTrainerSwinUMambaScratch", "SwinUMamba", _PAPER, None, True, "nnUNetTrainerSwinUMambaScratch",
        59.889, "Swin-UMamba from random weights",
    ),
    TrainerRecord(
        "nnUNetTrainerSwinUMambaDScratch", "SwinUMambaD", _PAPER, None, False, "nnUNetTrainerSwinUMambaDScratch",
        27.498, "Swin-UMamba-dagger from random weights, without deep supervision",
    ),
)  # fmt: skip


def _scaled(epochs: int) -> LengthRecord:
    suffix = f"_{epochs}epoch" + ("" if epochs == 1 else "s")
    return LengthRecord(suffix, epochs, epochs, f"the whole schedule in {epochs} epoch" + ("" if epochs == 1 else "s"))


def _first(epochs: int) -> LengthRecord:
    summary = f"the {FULL_LENGTH}-epoch schedule, stopped after {epochs} epochs (the paper's protocol)"
    return LengthRecord(f"_first{epochs}", epochs, FULL_LENGTH, summary)


LENGTHS: tuple[LengthRecord, ...] = (
    *(_scaled(epochs) for epochs in (1, 5, 10, 20, 50, 100, 250, 350, 500)),
    *(_first(epochs) for epochs in (100, 250, 350)),
    LengthRecord(
        "_demo", 10, 10, "a few short epochs, for `swin-umamba demo` on a machine without a GPU",
        # a learning rate above the paper's 1e-4, which 150 steps from random weights would not get far with
        MappingProxyType(
            {"num_iterations_per_epoch": 20, "num_val_iterations_per_epoch": 3, "save_every": 1, "initial_lr": 5e-4}
        ),
    ),
)  # fmt: skip


def get_trainer(name: str) -> TrainerRecord:
    """The record of the trainer called `name`; a length variant gives that of the trainer it is a variant of.

    Raises:
        ValueError: no such trainer.
    """
    for record in TRAINERS:
        if name == record.name or name in (record.name + length.suffix for length in LENGTHS):
            return record
    known = ", ".join(record.name for record in TRAINERS)
    raise ValueError(f"no trainer is called {name!r}; choose one of {known}, or one of their length variants")


def trainer_names() -> tuple[str, ...]:
    """Every name that `nnUNetv2_train -tr` accepts from this package."""
    return tuple(record.name + suffix for record in TRAINERS for suffix in ("", *(item.suffix for item in LENGTHS)))
