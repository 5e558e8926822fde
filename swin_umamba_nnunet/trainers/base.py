"""What all trainers share: a network of this package inside nnU-Net's own training.

A trainer is one of these classes with a few class attributes.  `NetworkTrainer` keeps nnU-Net's recipe (U-Mamba's),
`recipes` has those of the VMamba networks.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from swin_umamba_nnunet.networks._base import unwrap
from swin_umamba_nnunet.ops import PLAIN, resolve_backend
from swin_umamba_nnunet.pretrained.registry import WeightsError
from swin_umamba_nnunet.trainers._checkpoints import CheckpointFileError, SafeCheckpoints
from swin_umamba_nnunet.trainers._checks import check_device, check_patch, told_alone
from swin_umamba_nnunet.trainers._loaders import WorkerDiedError
from swin_umamba_nnunet.trainers._replay import Replay, SeedError
from swin_umamba_nnunet.trainers._step import GuardedStep, NonFiniteError

# nnU-Net sets these on the instance; a class attribute of the same name in a trainer takes precedence.
CLASS_SETTINGS = (
    "num_epochs",
    "num_iterations_per_epoch",
    "num_val_iterations_per_epoch",
    "save_every",
    "initial_lr",
    "weight_decay",
    "enable_deep_supervision",
    "oversample_foreground_percent",
    "probabilistic_oversampling",
)

# Errors that end a training and are one sentence.
_FOR_THE_USER = (WeightsError, CheckpointFileError, NonFiniteError, SeedError, WorkerDiedError)

# Setting of every network, which a configuration in the plans may hold too (`swin-umamba plan` writes it there).
RECOMPUTE = "gradient_checkpointing"


class NetworkTrainer(Replay, SafeCheckpoints, GuardedStep, nnUNetTrainer):
    """Trains one of this package's networks inside stock nnU-Net, with nnU-Net's recipe.

    Subclasses set class attributes; besides those below and those of `GuardedStep` and `Replay`, any of
    `CLASS_SETTINGS`.  nnU-Net's own way of assigning them in `__init__` after `super().__init__(...)` works as well.

    Attributes:
        network_class: class in `swin_umamba_nnunet.networks`.
        network_settings: its keyword-only arguments; what a parent class sets stays in force unless it is set anew.
        dims: dimensions of the configurations it accepts.
        imagenet_weights: name of the weights its encoder starts from (see `pretrained.registry`), None for random ones.
        scratch_trainer: name of the trainer that does the same from random weights; "" if this one does.
        schedule_epochs: epochs over which the learning rate falls; None for `num_epochs`.
    """

    network_class: ClassVar[Any]
    network_settings: ClassVar[dict[str, Any]] = {}
    dims: ClassVar[tuple[int, ...]] = (2,)
    imagenet_weights: ClassVar[str | None] = None
    scratch_trainer: ClassVar[str] = ""
    schedule_epochs: ClassVar[int | None] = None

    enable_deep_supervision: bool = True

    # nnU-Net reads the names of these arguments to write them into checkpoints, so they are repeated here.
    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's default)
    ) -> None:
        """As nnU-Net's; refuses what cannot work before anything is written.

        Raises:
            ValueError: a configuration of other dimensions, an empty patch, or a scan backend or seed that is none.
            RuntimeError: a device that is not there, or that no scan backend (or not the one asked for) can run on.
        """
        with told_alone(ValueError, RuntimeError):
            patch_size = PlansManager(plans).get_configuration(configuration).patch_size
            check_patch(type(self).__name__, patch_size, configuration, self.dims)
            check_device(device, self.all_network_settings().get("backend"), self.scans())
            self.seed = self.asked_seed()
        super().__init__(plans, configuration, fold, dataset_json, device)
        for name in CLASS_SETTINGS:
            if hasattr(type(self), name):
                setattr(self, name, getattr(type(self), name))
        with told_alone(ValueError, RuntimeError):
            self.apply_precision()

    # ------------------------------------------------------------------------------------------------- network

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The network with its random initial values: for training and for prediction, no files touched.

        Raises:
            ValueError: a configuration of other dimensions, or an empty patch.
        """
        check_patch(cls.__name__, configuration_manager.patch_size, dims=cls.dims)
        planned = cls.settings_from_plans(configuration_manager)
        if configuration_manager.configuration.get(RECOMPUTE):
            planned = {**planned, RECOMPUTE: True}
        settings = {**planned, **cls.all_network_settings()}
        return cls.network_class(num_input_channels, num_output_channels, enable_deep_supervision, **settings)

    @classmethod
    def all_network_settings(cls) -> dict[str, Any]:
        """`network_settings` of this class over those of its parents: a subclass of a control stays one."""
        settings: dict[str, Any] = {}
        for each in reversed(cls.__mro__):
            settings.update(vars(each).get("network_settings", {}))
        return settings

    @classmethod
    def scans(cls) -> bool:
        """Whether there is a selective scan in the network; the controls without one need no backend."""
        settings = cls.all_network_settings()
        return settings.get("mamba", True) and settings.get("mixing", "scan") == "scan"

    @classmethod
    def settings_from_plans(cls, configuration_manager: ConfigurationManager) -> dict[str, Any]:
        """Keyword arguments of `network_class` that follow from the plans; none where it is always the same."""
        return {}

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        if not self.enable_deep_supervision:
            return None
        network = self.network
        if network is None:  # nobody in nnU-Net asks that early; only the strides matter: no memory, no initial values
            with torch.device("meta"):
                network = self.build_network_architecture(self.plans_manager, self.configuration_manager, 1, 2)
        return target_scales(self.configuration_manager.patch_size, unwrap(network).head_strides)

    # ------------------------------------------------------------------------------------------------- recipe

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """nnU-Net's SGD, and its polynomial decay over the schedule.

        Raises:
            ValueError: a training longer than its schedule, beyond which the polynomial is a complex number.
        """
        if self.num_epochs > self.schedule_length():
            raise ValueError(
                f"{type(self).__name__} has num_epochs = {self.num_epochs}, but its learning rate reaches zero after "
                f"schedule_epochs = {self.schedule_epochs}; set that to None for a schedule as long as the training"
            )
        self.exclude_idle_heads()
        optimizer, _ = super().configure_optimizers()
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.schedule_length())

    def schedule_length(self) -> int:
        """Epochs over which the learning rate falls."""
        return self.schedule_epochs or self.num_epochs

    def exclude_idle_heads(self) -> None:
        """Ask for no gradients of heads that no loss reaches: DistributedDataParallel would wait for them."""
        if not self.enable_deep_supervision:
            unwrap(self.network).decoder.seg_layers[:-1].requires_grad_(False)

    # ------------------------------------------------------------------------------------------------- log

    def run_training(self) -> None:
        """As nnU-Net's; what ends it with a sentence for the user is in the log too, and shown without a traceback.

        Raises:
            WeightsError, CheckpointFileError, NonFiniteError, SeedError, WorkerDiedError: each a SystemExit too, see
                `told_alone`.
        """
        with told_alone(*_FOR_THE_USER):
            try:
                super().run_training()
            except _FOR_THE_USER as error:
                if Path(self.log_file).is_file():  # a training that never started leaves none
                    self.print_to_log_file(f"ERROR: {error}", also_print_to_console=False)
                raise

    def on_train_start(self) -> None:
        """Says which scan backend runs, then as nnU-Net's."""
        self.prepare_weights()
        if self.scans():
            backend = resolve_backend(self.all_network_settings().get("backend"), self.device.type)
            self.print_to_log_file(f"Selective scan backend on {self.device.type}: {backend}")
            if backend in PLAIN:
                self.print_to_log_file(f"WARNING: {backend!r} is up to hundreds of times slower than the others")
        else:
            self.print_to_log_file("No selective scan in this network: it is a control")
        super().on_train_start()

    def prepare_weights(self) -> None:
        """What happens to the weights before anything else of a training; nothing here."""


def target_scales(patch_size: Sequence[int], strides: Sequence[int | Sequence[int]]) -> list[list[float]]:
    """Per-axis factors with which nnU-Net makes deep-supervision targets of exactly the heads' sizes.

    nnU-Net gives the target of an axis of H pixels round(H * factor) of them, but a head of stride s has ceil(H / s);
    the two differ where s does not divide H.  Hence the factor ceil(H / s) / H, which is 1 / s where s divides H.

    Args:
        patch_size: pixels per axis.
        strides: of each head, full resolution first; a number stands for the same along every axis.

    Returns:
        A factor per axis for each head.
    """
    per_axis = [(step,) * len(patch_size) if isinstance(step, int) else step for step in strides]
    return [[-(-size // step) / size for size, step in zip(patch_size, steps)] for steps in per_axis]
