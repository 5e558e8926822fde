"""The published ImageNet checkpoints of VMamba, as data, and what can go wrong between the name of one and its weights
in a network.  Imports no torch: the command line reads it too.

Source of the numbers: the releases of https://github.com/MzeroMiko/VMamba and its model table.  A hash is
`sha256_confirmed` once someone of this project has downloaded the file from `url` and computed it; until then size (if
known) and the full inventory of keys and shapes decide whether a file is accepted, and its hash is logged.
"""

from dataclasses import dataclass

from swin_umamba_nnunet._text import UserError


class WeightsError(UserError):
    """Base of this room's errors; its text is one message that says what was found, expected and to do."""

    exit_code = 1


class WeightsNotFoundError(WeightsError):
    """The weights are nowhere on this machine and could not be fetched either."""


class DownloadError(WeightsError):
    """The download failed or brought something else than the weights; nothing is left at the final name."""


class CheckpointError(WeightsError):
    """A file is not the checkpoint it should be: damaged, of another kind, or of another network."""


_RELEASES = "https://github.com/MzeroMiko/VMamba/releases/download"


@dataclass(frozen=True)
class Variant:
    """What tells one VMamba backbone from another.

    Attributes:
        depths: VSS blocks per stage.
        width: channels of the first stage; each further stage has twice as many.
        expand: width inside SS2D over width outside.
        d_state: states per channel of the selective scan.
        generation: 1 for the release that the papers' networks start from, 2 for the later block (no gate, an MLP, 3x3
            stem and downsampling) of the V2 networks.
    """

    depths: tuple[int, ...]
    width: int
    expand: int
    d_state: int
    generation: int

    @property
    def record(self) -> "WeightsRecord | None":
        """The published checkpoint of this backbone, or None."""
        return next((record for record in RECORDS if record.variant == self), None)

    def __str__(self) -> str:
        facts = (
            f"depths {','.join(map(str, self.depths))}, width {self.width}, expand {self.expand}, "
            f"d_state {self.d_state}, generation {self.generation}"
        )
        return f"{self.record.title} ({facts})" if self.record else f"a VMamba nobody published ({facts})"


@dataclass(frozen=True, kw_only=True)
class WeightsRecord:
    """One checkpoint file.

    Attributes:
        name: stable name in this package.
        title: the network, as its authors call it.
        file_name: file name in the release.
        urls: where it is downloaded from: in the release, and further ones, tried where an earlier one sends an error.
        size_bytes: exact size, or None where unknown.
        sha256: lower-case hex digest, or None where unknown.
        sha256_confirmed: whether a file with another digest is refused.
        top1_percent: ImageNet-1k accuracy its authors state.
        parameters_million: of the whole classifier.
        variant: the backbone.
        other_file_names: names under which the same weights circulate.
        image_channels, classes: of the classifier.
        licence: terms of the file.
    """

    name: str
    title: str
    file_name: str
    urls: tuple[str, ...]
    size_bytes: int | None = None
    sha256: str | None = None
    sha256_confirmed: bool = False
    top1_percent: float
    parameters_million: float
    variant: Variant
    other_file_names: tuple[str, ...] = ()
    image_channels: int = 3
    classes: int = 1000
    licence: str = "MIT"

    @property
    def file_names(self) -> tuple[str, ...]:
        """All accepted file names, the release's own first."""
        return (self.file_name, *self.other_file_names)

    @property
    def url(self) -> str:
        """The address in the release."""
        return self.urls[0]

    @property
    def size(self) -> str:
        """In words."""
        return f"{self.size_bytes:,} bytes" if self.size_bytes is not None else "size unknown"

    @property
    def trust(self) -> str:
        """How far the hash is to be trusted."""
        return "confirmed" if self.sha256_confirmed else "not confirmed"

    @property
    def description(self) -> str:
        """What to tell someone who has to get hold of the file: name, size, hash and how far to trust it."""
        return f"{self.file_name}, {self.size}, sha256 " + (
            f"{self.sha256} ({self.trust})" if self.sha256 else "unknown"
        )

    def verdict_on(self, sha256: str) -> str:
        """How the hash of a file compares with the one known, in a few words."""
        if self.sha256 is None:
            return "the registry has none to compare with"
        return f"{'equal to' if sha256 == self.sha256 else 'different from'} the registry's, which is {self.trust}"


# Of each generation; Swin-UMamba's README fetches the first's file names from an older release, which is tried second.
_TAGS = {1: ("%23v0cls", "%2320240218"), 2: ("%23v2cls",)}


def _record(name: str, title: str, file_name: str, variant: Variant, **values) -> WeightsRecord:
    urls = tuple(f"{_RELEASES}/{tag}/{file_name}" for tag in _TAGS[variant.generation])
    return WeightsRecord(name=name, title=title, file_name=file_name, urls=urls, variant=variant, **values)


RECORDS: tuple[WeightsRecord, ...] = (
    _record(
        "vmamba_tiny_v0",
        "VMamba-Tiny (first release)",
        "vssmtiny_dp01_ckpt_epoch_292.pth",
        Variant((2, 2, 9, 2), 96, 2, 16, 1),
        # Size and hash are second-hand (other projects publish them); nobody here has downloaded the file.
        size_bytes=91_649_482,
        sha256="dbc0cc4f5ec0e45db5fba7c939d2c7d9b617e891ac10766912a8d604c37c5e47",
        top1_percent=82.2,
        parameters_million=22.893,
        other_file_names=("vmamba_tiny_e292.pth",),
    ),
    _record(
        "vmamba_small_v0",
        "VMamba-Small (first release)",
        "vssmsmall_dp03_ckpt_epoch_238.pth",
        Variant((2, 2, 27, 2), 96, 2, 16, 1),
        top1_percent=83.5,
        parameters_million=44.417,
        other_file_names=("vmamba_small_e238_ema.pth",),  # VM-UNet's copy, Zenodo record 13743856
    ),
    _record(
        "vmamba_base_v0",
        "VMamba-Base (first release)",
        "vssmbase_dp06_ckpt_epoch_241.pth",
        Variant((2, 2, 27, 2), 128, 2, 16, 1),
        top1_percent=83.7,
        parameters_million=76.254,
    ),
    _record(
        "vmamba_tiny_v2",
        "VMamba-Tiny (second generation)",
        "vssm1_tiny_0230s_ckpt_epoch_264.pth",
        Variant((2, 2, 8, 2), 96, 1, 1, 2),
        top1_percent=82.6,
        parameters_million=30.249,
    ),
    _record(
        "vmamba_small_v2",
        "VMamba-Small (second generation)",
        "vssm_small_0229_ckpt_epoch_222.pth",
        Variant((2, 2, 15, 2), 96, 2, 1, 2),
        top1_percent=83.6,
        parameters_million=50.148,
    ),
    _record(
        "vmamba_base_v2",
        "VMamba-Base (second generation)",
        "vssm_base_0229_ckpt_epoch_237.pth",
        Variant((2, 2, 15, 2), 128, 2, 1, 2),
        top1_percent=83.9,
        parameters_million=88.558,
    ),
)

# Which checkpoint a network starts from; network names as in remap_authors_state_dict.
WEIGHTS_OF_NETWORK = {"swin_umamba": "vmamba_tiny_v0", "swin_umamba_d": "vmamba_tiny_v0", "vm_unet": "vmamba_small_v0"}

# What it takes as well, but only where the user points at that very file: never because it happens to lie in a folder.
ALTERNATIVES_OF_NETWORK = {"vm_unet": ("vmamba_tiny_v0",)}


def get_record(name: str) -> WeightsRecord:
    """The record called `name`, or the one that the network called `name` starts from.

    Raises:
        ValueError: no such name.
    """
    wanted = WEIGHTS_OF_NETWORK.get(name, name)
    for record in RECORDS:
        if record.name == wanted:
            return record
    known = ", ".join([record.name for record in RECORDS] + list(WEIGHTS_OF_NETWORK))
    raise ValueError(f"no ImageNet weights are called {name!r}; known: {known}")


def accepted_records(name: str) -> tuple[WeightsRecord, ...]:
    """As `get_record`, followed by what that network takes as well, from a file that the user points at.

    Raises:
        ValueError: no such name.
    """
    return tuple(map(get_record, (name, *ALTERNATIVES_OF_NETWORK.get(name, ()))))
