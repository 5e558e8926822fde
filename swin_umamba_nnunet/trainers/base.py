"""Behaviour of all trainers.  A trainer is this class with a few class attributes; see `leaves`."""

from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from swin_umamba_nnunet.ops import resolve_backend
from swin_umamba_nnunet.trainers._checks import check_device, check_patch
from swin_umamba_nnunet.trainers._imagenet import ImageNetStart
from swin_umamba_nnunet.trainers._network import drop_gradients, target_scales, unwrap
from swin_umamba_nnunet.trainers._schedule import CosineSchedule, default_frozen_epochs

GRADIENT_CLIP = 12.0  # nnU-Net's, which the papers keep

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


class MambaTrainer(ImageNetStart, nnUNetTrainer):
    """Trains one of this package's 2D networks the way its paper does, inside stock nnU-Net.

    Subclasses set class attributes; besides those below, any of `CLASS_SETTINGS`.  nnU-Net's own way of assigning them
    in `__init__` after `super().__init__(...)` works as well.

    Attributes:
        network_class: class in `swin_umamba_nnunet.networks`.
        network_settings: its keyword-only arguments.
        imagenet_weights: name of the weights its encoder starts from (see `pretrained.registry`), None for random ones.
        scratch_trainer: name of the trainer that does the same from random weights.
        schedule_epochs: epochs over which the learning rate falls; None for `num_epochs`.
        betas, eps, final_lr: of AdamW and of the cosine.
        frozen_epochs: epochs in which a pretrained encoder is held; None for the rule in `_schedule`.
    """

    network_class: ClassVar[Any]
    network_settings: ClassVar[dict[str, Any]] = {}
    imagenet_weights: ClassVar[str | None] = None
    scratch_trainer: ClassVar[str] = ""
    schedule_epochs: ClassVar[int | None] = None
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    eps: ClassVar[float] = 1e-5
    final_lr: ClassVar[float] = 1e-6
    frozen_epochs: ClassVar[int | None] = None

    initial_lr: float = 1e-4
    weight_decay: float = 0.05
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
            ValueError: a configuration that is not 2D, an empty patch, or a scan backend that does not exist.
            RuntimeError: a device that is not there, or that no scan backend (or not the one asked for) can run on.
        """
        patch_size = PlansManager(plans).get_configuration(configuration).patch_size
        check_patch(type(self).__name__, patch_size, configuration)
        check_device(device, self.network_settings.get("backend"))
        super().__init__(plans, configuration, fold, dataset_json, device)
        for name in CLASS_SETTINGS:
            if hasattr(type(self), name):
                setattr(self, name, getattr(type(self), name))

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
            ValueError: a configuration that is not 2D, or an empty patch.
        """
        check_patch(cls.__name__, configuration_manager.patch_size)
        settings = cls.network_settings
        return cls.network_class(num_input_channels, num_output_channels, enable_deep_supervision, **settings)

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        if not self.enable_deep_supervision:
            return None
        network = self.network
        if network is None:  # nobody in nnU-Net asks that early; the channel counts do not matter for the answer
            network = self.build_network_architecture(self.plans_manager, self.configuration_manager, 1, 2)
        return target_scales(self.configuration_manager.patch_size, unwrap(network).deep_supervision_scales)

    # ------------------------------------------------------------------------------------------------- recipe

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, CosineSchedule]:
        """AdamW on every parameter alike, and a cosine over `schedule_epochs`."""
        if not self.enable_deep_supervision:
            # Heads that no loss reaches: DistributedDataParallel, built after this, would wait for their gradients.
            unwrap(self.network).decoder.seg_layers[:-1].requires_grad_(False)
        optimizer = torch.optim.AdamW(
            self.network.parameters(), self.initial_lr, self.betas, self.eps, self.weight_decay
        )  # fmt: skip
        return optimizer, CosineSchedule(optimizer, self.initial_lr, self._schedule_epochs(), self.final_lr)

    def _schedule_epochs(self) -> int:
        return self.schedule_epochs or self.num_epochs

    def encoder_frozen_until(self) -> int:
        """Epoch from which on the encoder is trained; 0 without ImageNet weights."""
        if self.imagenet_weights is None:
            return 0
        return default_frozen_epochs(self._schedule_epochs()) if self.frozen_epochs is None else self.frozen_epochs

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's step; in the first epochs without the gradients of the frozen part of the encoder.

        Follows from `current_epoch` alone, so that a resumed training freezes what an uninterrupted one would.
        """
        if self.current_epoch >= self.encoder_frozen_until():
            return super().train_step(batch)
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        if isinstance(target, list):
            target = [each.to(self.device, non_blocking=True) for each in target]
        else:
            target = target.to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            loss: torch.Tensor = self.loss(self.network(data), target)
        scaler = self.grad_scaler
        (loss if scaler is None else scaler.scale(loss)).backward()
        # Before unscaling and clipping: neither their overflow nor their norm counts.
        drop_gradients(unwrap(self.network).freezable_parameters())
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_CLIP)
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        return {"loss": loss.detach().cpu().numpy()}

    # ------------------------------------------------------------------------------------------------- log

    def on_train_start(self) -> None:
        """Says which scan backend runs, brings the ImageNet weights in where they belong, then as nnU-Net's."""
        backend = resolve_backend(self.network_settings.get("backend"), self.device.type)
        self.start_from_imagenet()
        self.print_to_log_file(f"Selective scan backend on {self.device.type}: {backend}")
        if backend == "reference":
            self.print_to_log_file("WARNING: 'reference' is a plain loop, hundreds of times slower than the others")
        super().on_train_start()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        frozen = self.encoder_frozen_until()
        if self.current_epoch < frozen:
            self.print_to_log_file(f"The encoder is held until epoch {frozen} (all but its patch embedding)")
