"""Which trainers and networks there are, as data.  Imports no torch and no nnU-Net: the command line and the README
read it too.

`trainers` generates its classes from `TRAINERS` and `LENGTHS`; tests hold both against the networks and README.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from swin_umamba_nnunet._text import did_you_mean, plural

FULL_LENGTH = 1000  # epochs of a training as most of the papers and nnU-Net define it
# nnU-Net's plans -> its planner that makes them
PLANNERS = {
    "nnUNetPlans": "ExperimentPlanner",
    "nnUNetResEncUNetPlans": "ResEncUNetPlanner",
    "nnUNetResEncUNetMPlans": "nnUNetPlannerResEncM",
    "nnUNetResEncUNetLPlans": "nnUNetPlannerResEncL",
    "nnUNetResEncUNetXLPlans": "nnUNetPlannerResEncXL",
}


@dataclass(frozen=True)
class NetworkRecord:
    """One network.

    Attributes:
        name: class in `swin_umamba_nnunet.networks`.
        title: what its authors call it.
        paper: where it comes from.
        summary: what it is, in one sentence.
        from_plans: whether nnU-Net's plans decide about stages, widths and kernels; else it is always the same.
        deviations: in what it differs from the authors' published code or paper, a sentence each.
    """

    name: str
    title: str
    paper: str
    summary: str
    from_plans: bool = False
    deviations: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainerRecord:
    """One trainer.

    Attributes:
        name: class name, as given to `nnUNetv2_train -tr`.
        network: name of its `NetworkRecord`.
        weights: name in `pretrained.registry` of the ImageNet weights its encoder starts from, None for random ones.
        deep_supervision: whether the coarser heads are trained too.
        scratch: name of the trainer that does the same without ImageNet weights (its own name if it needs none).
        parameters_million: of the network at 1 input channel and 14 classes; where it is built from plans, at 2D plans
            of seven stages for patches of 320x320 (the papers' AbdomenMR).
        summary: what it is, in one line.
        epochs: of a whole training.
        dims: dimensions of the nnU-Net configurations it accepts.
        control_of: name of the trainer this one is a control of: the same but for one part, None if it is none.
        settings: keyword arguments of the network (see `trainers.base.NetworkTrainer.network_settings`).
        notes: what the docstring of its class says besides the summary.
    """

    name: str
    network: str
    weights: str | None
    deep_supervision: bool
    scratch: str
    parameters_million: float
    summary: str
    epochs: int = FULL_LENGTH
    dims: tuple[int, ...] = (2,)
    control_of: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    notes: str = ""

    @property
    def pretrained(self) -> bool:
        """Whether the encoder starts from ImageNet weights."""
        return self.weights is not None


@dataclass(frozen=True)
class LengthRecord:
    """One length variant: a trainer's NAME + `suffix`.

    Attributes:
        suffix: what is appended to the trainer's name.
        epochs: how many epochs it trains.
        stops_early: whether the learning rate falls over the trainer's whole length nevertheless; such a variant exists
            only for trainers that are longer.
        summary: what it is, in one line; `{whole}` stands for the trainer's whole length.
        settings: further class attributes of the variant (see `trainers.base.CLASS_SETTINGS`).
    """

    suffix: str
    epochs: int
    stops_early: bool
    summary: str
    settings: Mapping[str, int | float] = field(default_factory=dict, hash=False)


_SWIN_UMAMBA_PAPER = "Swin-UMamba, arXiv:2402.03302"

_VM_UNET_PAPER = "VM-UNet, arXiv:2402.02491"

_U_MAMBA_PAPER = "U-Mamba, arXiv:2401.04722"

_VMAMBA_PAPER = "VMamba, arXiv:2401.10166, and Swin-UMamba, arXiv:2402.03302"

_TWO_RELEASES = "Two forms: the authors' code since March 2024, and (Paper) that of January 2024, as in the tables."

_UNPUBLISHED = "Not published by anyone else that we know of: Swin-UMamba's topology on VMamba's later blocks."

_ANY_SIZE = "Images of any size: padded with zeros at the bottom and right to the stride, the result cropped back."

NETWORKS: tuple[NetworkRecord, ...] = (
    NetworkRecord(
        "SwinUMamba",
        "Swin-UMamba",
        _SWIN_UMAMBA_PAPER,
        "VMamba encoder behind a convolution stem, residual convolution blocks in skips and decoder.",
        deviations=("Version 2 of the paper (March 2024); version 1 had no deepest decoder stage.", _ANY_SIZE),
    ),
    NetworkRecord(
        "SwinUMambaD",
        "Swin-UMamba-dagger",
        _SWIN_UMAMBA_PAPER,
        "VMamba encoder on 4x4 patches of the image, decoder of the same blocks.",
        deviations=(
            "The patch embedding's bias starts from PyTorch's default instead of zero.",
            "ImageNet weights of the patch embedding are adapted to the image's channels instead of left out.",
            _ANY_SIZE,
        ),
    ),
    NetworkRecord(
        "VMUNet",
        "VM-UNet",
        _VM_UNET_PAPER,
        "VMamba encoder on 4x4 patches of the image, decoder of the same blocks, skips added; a single head.",
        deviations=(
            "The published settings (27.43 M parameters), not the defaults of the authors' class (44.27 M).",
            "ImageNet weights of the patch embedding are adapted to images of neither one nor three channels.",
            "Trained with nnU-Net's loss, gradient clipping and augmentation instead of the authors'.",
            _ANY_SIZE,
        ),
    ),
    NetworkRecord(
        "SwinUMambaV2",
        "Swin-UMamba on VMamba's second generation",
        _VMAMBA_PAPER,
        "Second-generation VMamba encoder on the image, residual convolution blocks in skips and decoder.",
        deviations=(
            _UNPUBLISHED,
            "No 7x7 stem of its own: VMamba's stem gives the map at stride 2, so all 272 ImageNet tensors are used.",
            _ANY_SIZE,
        ),
    ),
    NetworkRecord(
        "SwinUMambaDV2",
        "Swin-UMamba-dagger on VMamba's second generation",
        _VMAMBA_PAPER,
        "Second-generation VMamba encoder (one state, no gate, an MLP) on the image, decoder of the same blocks.",
        deviations=(
            _UNPUBLISHED,
            "The first convolution's bias starts from PyTorch's default instead of zero.",
            "ImageNet weights of the first convolution are adapted to the image's channels.",
            _ANY_SIZE,
        ),
    ),
    NetworkRecord(
        "UMambaBot",
        "U-Mamba_Bot",
        _U_MAMBA_PAPER,
        "nnU-Net's U-Net with residual blocks, and a Mamba layer at the bottleneck.",
        from_plans=True,
        deviations=(_TWO_RELEASES, _ANY_SIZE),
    ),
    NetworkRecord(
        "UMambaEnc",
        "U-Mamba_Enc",
        _U_MAMBA_PAPER,
        "nnU-Net's U-Net with residual blocks, and Mamba layers through the encoder.",
        from_plans=True,
        deviations=(
            _TWO_RELEASES,
            "Images larger than the training patch are refused where channels are the tokens.",
            _ANY_SIZE,
        ),
    ),
)


# No paper trains Swin-UMamba on other encoders than Tiny, so their recipe is unchanged.  DropPath is the one setting
# that a deeper encoder must not inherit from Tiny (0.2): it gets the rate of the ImageNet training its weights are from
# (as the names of the published files say), which VMamba's authors also keep where they train their second generation
# for segmentation.  Dagger's decoder is the paper's and starts from random weights, so its rate stays 0.2.
_SMALL = {"depths": (2, 2, 27, 2), "width": 96, "drop_path_rate": 0.3}
_BASE = {"depths": (2, 2, 27, 2), "width": 128, "drop_path_rate": 0.6}
_DECODER = {"decoder_drop_path_rate": 0.2}

# Within a block of a NoScan network, information travels no further than the 3x3 convolution carries it.  Projections,
# convolutions, gates, norms and ImageNet weights stay, and so does everything around the blocks.
_NO_SCAN = {"mixing": "skip"}

_NEEDS_SCANS = (
    "Does the network need its scans?  Or do gated convolutions in their places, all other parts and ImageNet weights\n"
    "do the work?  Those weights were trained with the scans in place; the Scratch trainer asks without that handicap."
)

_AS_WIDE = "Its decoder (and the stem, where Swin-UMamba has one of its own) is 4/3 as wide as with Tiny."

_VM_UNETS_RECIPE = (
    "Optimiser, learning rate and number of epochs are the authors'; loss, gradient clipping, mirroring and all else\n"
    "are nnU-Net's (see `trainers.recipes.VMUNetTrainer`)."
)

_NEEDS_MAMBA = (
    "How good is the network without its Mamba layers?  What U-Mamba gains over this is due to its Mamba layers; what\n"
    "this gains over nnU-Net is due to the residual blocks.  Bot and Enc differ in their Mamba layers only, so their\n"
    "controls are one network: either will do for both, and what two runs of it differ in is what chance alone does."
)


def _u_mamba(
    form: str, parameters_million: float, summary: str, settings: Mapping[str, Any], notes: str = ""
) -> TrainerRecord:
    name, network = f"nnUNetTrainerUMamba{form}", f"UMamba{form[:3]}"
    control_of = f"nnUNetTrainer{network}" if "mamba" in settings else None
    return TrainerRecord(
        name, network, None, True, name, parameters_million, summary, FULL_LENGTH, (2, 3), control_of, settings, notes
    )


def _swin_umamba(
    network: str,
    variant: str,
    weights: str,
    parameters_million: float,
    summary: str,
    settings: Mapping[str, Any],
    notes: str = "",
) -> tuple[TrainerRecord, TrainerRecord]:
    """The pretrained trainer of a variant, and the one from random weights."""
    supervised = not network.startswith("SwinUMambaD")  # the authors' dagger from scratch is not, nor are its relatives
    how = "from random weights" + ("" if supervised else ", without deep supervision")
    name, control_of = f"nnUNetTrainer{network}{variant}", f"nnUNetTrainer{network}" if settings is _NO_SCAN else None
    pretrained = TrainerRecord(
        name,
        network,
        weights,
        True,
        f"{name}Scratch",
        parameters_million,
        f"{summary}, from ImageNet",
        control_of=control_of,
        settings=settings,
        notes=notes,
    )
    return pretrained, replace(
        pretrained,
        name=f"{name}Scratch",
        weights=None,
        deep_supervision=supervised,
        summary=f"{summary}, {how}",
        control_of=control_of and f"{control_of}Scratch",
    )


TRAINERS: tuple[TrainerRecord, ...] = (
    *_swin_umamba(
        "SwinUMamba",
        "",
        "vmamba_tiny_v0",
        59.889,
        "Swin-UMamba with a VMamba-Tiny encoder and a convolutional decoder",
        {},
    ),
    *_swin_umamba(
        "SwinUMambaD",
        "",
        "vmamba_tiny_v0",
        27.498,
        "Swin-UMamba-dagger with a VMamba-Tiny encoder and a Mamba decoder (the lighter network)",
        {},
    ),
    TrainerRecord(
        "nnUNetTrainerVMUNet",
        "VMUNet",
        "vmamba_small_v0",
        False,
        "nnUNetTrainerVMUNetScratch",
        27.428,
        "VM-UNet: encoder and decoder from VMamba-Small's ImageNet weights",
        epochs=300,
        notes=f"VMamba-Tiny's are taken too, where SWIN_UMAMBA_WEIGHTS names that file.\n{_VM_UNETS_RECIPE}",
    ),
    TrainerRecord(
        "nnUNetTrainerVMUNetScratch",
        "VMUNet",
        None,
        False,
        "nnUNetTrainerVMUNetScratch",
        27.428,
        "VM-UNet from random weights",
        epochs=300,
        notes=_VM_UNETS_RECIPE,
    ),
    _u_mamba("Bot", 47.533, "U-Mamba_Bot as its authors' code is today: one Mamba layer, at the bottleneck", {}),
    _u_mamba(
        "Enc",
        47.016,
        "U-Mamba_Enc as its authors' code is today: Mamba on every second encoder stage (3D: all)",
        {},
        "A checkpoint fits the patch size it was trained with (see `UMambaEnc`).",
    ),
    _u_mamba(
        "BotPaper",
        63.344,
        "U-Mamba_Bot as in January 2024: the network of the published tables",
        {"release": "2024-01"},
    ),
    _u_mamba(
        "EncPaper",
        67.333,
        "U-Mamba_Enc as in January 2024: the network of the published tables",
        {"release": "2024-01"},
    ),
    _u_mamba("BotNoMamba", 45.837, "control: U-Mamba_Bot without its Mamba layer", {"mamba": False}, _NEEDS_MAMBA),
    _u_mamba("EncNoMamba", 45.837, "control: U-Mamba_Enc without its Mamba layers", {"mamba": False}, _NEEDS_MAMBA),
    *_swin_umamba("SwinUMamba", "Small", "vmamba_small_v0", 81.413, "Swin-UMamba with a VMamba-Small encoder", _SMALL),
    *_swin_umamba(
        "SwinUMambaD",
        "Small",
        "vmamba_small_v0",
        49.022,
        "Swin-UMamba-dagger with a VMamba-Small encoder",
        _SMALL | _DECODER,
    ),
    *_swin_umamba(
        "SwinUMamba", "Base", "vmamba_base_v0", 142.364, "Swin-UMamba with a VMamba-Base encoder", _BASE, _AS_WIDE
    ),
    *_swin_umamba(
        "SwinUMambaD",
        "Base",
        "vmamba_base_v0",
        84.523,
        "Swin-UMamba-dagger with a VMamba-Base encoder",
        _BASE | _DECODER,
        _AS_WIDE,
    ),
    *_swin_umamba(
        "SwinUMambaV2", "", "vmamba_tiny_v2", 67.228, "Swin-UMamba with VMamba's second generation (Tiny)", {}
    ),
    *_swin_umamba(
        "SwinUMambaDV2",
        "",
        "vmamba_tiny_v2",
        35.692,
        "Swin-UMamba-dagger with second-generation blocks in encoder (Tiny) and decoder",
        {},
    ),
    *_swin_umamba(
        "SwinUMamba",
        "NoScan",
        "vmamba_tiny_v0",
        55.108,
        "control: Swin-UMamba with every scan replaced by its skip term",
        _NO_SCAN,
        _NEEDS_SCANS,
    ),
    *_swin_umamba(
        "SwinUMambaD",
        "NoScan",
        "vmamba_tiny_v0",
        21.802,
        "control: dagger with every scan replaced by its skip term",
        _NO_SCAN,
        _NEEDS_SCANS,
    ),
)


def _scaled(epochs: int) -> LengthRecord:
    said = plural(epochs, "epoch")
    return LengthRecord(f"_{said.replace(' ', '')}", epochs, False, f"the whole schedule in {said}")


def _first(epochs: int) -> LengthRecord:
    summary = f"the schedule of {{whole}} epochs, stopped after {epochs} (the Swin-UMamba paper's protocol)"
    return LengthRecord(f"_first{epochs}", epochs, True, summary)


LENGTHS: tuple[LengthRecord, ...] = (
    *(_scaled(epochs) for epochs in (1, 5, 10, 20, 50, 100, 250, 350, 500)),
    *(_first(epochs) for epochs in (100, 250, 350)),
    LengthRecord(
        "_demo",
        10,
        False,
        "a few short epochs, for `swin-umamba demo` on a machine without a GPU",
        # a learning rate above the papers' 1e-4, which 200 steps from random weights would not get far with
        {"num_iterations_per_epoch": 20, "num_val_iterations_per_epoch": 3, "save_every": 1, "initial_lr": 5e-4},
    ),
)


def lengths_of(trainer: TrainerRecord) -> tuple[LengthRecord, ...]:
    """The length variants that exist for `trainer`."""
    return tuple(length for length in LENGTHS if not (length.stops_early and length.epochs >= trainer.epochs))


def get_trainer(name: str) -> TrainerRecord:
    """The record of the trainer called `name`; a length variant gives that of the trainer it is a variant of.

    Raises:
        ValueError: no such trainer.
    """
    for record in TRAINERS:
        if name == record.name or name in (record.name + length.suffix for length in lengths_of(record)):
            return record
    hint = suggestion(name, 3, before="; ")
    raise ValueError(f"no trainer is called {name!r}; `swin-umamba list` shows them all{hint}")


def suggestion(name: str, most: int = 1, before: str = "") -> str:
    """A question for the trainers that `name` may have been meant for, the likeliest first; see `did_you_mean`."""
    return did_you_mean(
        name,
        trainer_names(),
        most=most,
        before=before,
        key=lambda each: each.lower().removeprefix("nnunettrainer"),  # all their names begin alike
    )


def get_network(name: str) -> NetworkRecord:
    """The record of the network class called `name`.

    Raises:
        ValueError: no such network.
    """
    for record in NETWORKS:
        if name == record.name:
            return record
    raise ValueError(f"no network is called {name!r}; known: {', '.join(record.name for record in NETWORKS)}")


def how_to_plan(dataset: object, plans: str, configuration: str) -> str:
    """What to run for plans that are missing, as the end of a sentence."""
    what = f"-d {dataset} -c {configuration}"
    if planner := PLANNERS.get(plans):
        return f"run   nnUNetv2_plan_and_preprocess {what}" + f" -pl {planner}" * (plans != "nnUNetPlans")
    return (
        f"run   swin-umamba plan {what} --patch-size H W -o {plans}   or   nnUNetv2_plan_and_preprocess {what} -pl "
        f"PLANNER -overwrite_plans_name {plans}{did_you_mean(plans, PLANNERS, before='; ')}"
    )


def trainer_names() -> tuple[str, ...]:
    """Every name that `nnUNetv2_train -tr` accepts from this package."""
    return tuple(
        record.name + suffix for record in TRAINERS for suffix in ("", *(item.suffix for item in lengths_of(record)))
    )
