"""The trainers of U-Mamba and of the same networks without Mamba layers, 2D and 3D; nnU-Net's recipe unchanged.

SGD from 1e-2 with polynomial decay over 1000 epochs, nnU-Net's loss and its deep supervision on every decoder step.
The authors predicted without mirroring at test time (`nnUNetv2_predict --disable_tta`).
"""

from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from swin_umamba_nnunet.networks import UMambaBot, UMambaEnc
from swin_umamba_nnunet.trainers.base import NetworkTrainer

_PLANNED = ("n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage_decoder")


class UMambaTrainer(NetworkTrainer):
    """Builds U-Mamba from the U-Net that nnU-Net planned: its stages, widths, kernels, strides and blocks.

    The plans of residual encoders (ResEnc) serve as well: their blocks per stage count as U-Mamba's, as they did in the
    authors' fork of nnU-Net.
    """

    dims = (2, 3)

    @classmethod
    def settings_from_plans(cls, configuration_manager: ConfigurationManager) -> dict[str, Any]:
        """Arguments of `UMambaBot` and `UMambaEnc`; the plans are only read.

        Raises:
            ValueError: plans for something that is no U-Net.
        """
        planned = configuration_manager.network_arch_init_kwargs
        blocks = planned.get("n_conv_per_stage", planned.get("n_blocks_per_stage"))
        missing = [name for name in _PLANNED if name not in planned]
        if blocks is None:
            missing.append("n_conv_per_stage")
        if missing:
            raise ValueError(
                f"{cls.__name__} builds its network from the plans of a U-Net, but these are for "
                f"{configuration_manager.network_arch_class_name} and lack {', '.join(missing)}; use plans of "
                "nnU-Net's own planners, as made by: nnUNetv2_plan_experiment -d DATASET"
            )
        settings = {name: planned[name] for name in _PLANNED}
        return {**settings, "n_conv_per_stage": blocks, "patch_size": configuration_manager.patch_size}


class nnUNetTrainerUMambaBot(UMambaTrainer):
    """U-Mamba_Bot, the authors' code as it is today: does a Mamba layer at the bottleneck help? (arXiv:2401.04722)."""

    network_class = UMambaBot


class nnUNetTrainerUMambaEnc(UMambaTrainer):
    """U-Mamba_Enc, the authors' code as it is today: do Mamba layers along the encoder help? (arXiv:2401.04722).

    A checkpoint fits the patch size it was trained with (see `UMambaEnc`).
    """

    network_class = UMambaEnc


class nnUNetTrainerUMambaBotPaper(UMambaTrainer):
    """U-Mamba_Bot of January 2024, the network that every published table calls U-Mamba_Bot (arXiv:2401.04722)."""

    network_class = UMambaBot
    network_settings = {"release": "2024-01"}


class nnUNetTrainerUMambaEncPaper(UMambaTrainer):
    """U-Mamba_Enc of January 2024, the network that every published table calls U-Mamba_Enc (arXiv:2401.04722)."""

    network_class = UMambaEnc
    network_settings = {"release": "2024-01"}


class nnUNetTrainerUMambaBotNoMamba(UMambaTrainer):
    """Control of nnUNetTrainerUMambaBot: how good is its network without the Mamba layer?

    What U-Mamba gains over this is due to its Mamba layers; what this gains over nnU-Net is due to the residual blocks.
    Bot and Enc differ in their Mamba layers only, so this is the same network as nnUNetTrainerUMambaEncNoMamba: one of
    the two will do as the control of both, and the difference between runs of the two is what chance alone does.
    """

    network_class = UMambaBot
    network_settings = {"mamba": False}


class nnUNetTrainerUMambaEncNoMamba(UMambaTrainer):
    """Control of nnUNetTrainerUMambaEnc: how good is its network without the Mamba layers?

    The same network as nnUNetTrainerUMambaBotNoMamba; see there.
    """

    network_class = UMambaEnc
    network_settings = {"mamba": False}
