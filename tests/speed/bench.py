"""`swin-umamba bench networks`: which measurements, in which order, and what is said about them."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from tests.speed.clock import Clock
from tests.speed.materialised import pipelines
from tests.speed.models import NETWORKS
from tests.speed.networks import STEP_CONVENTION, Builder, Setting, measure, set_up_like_nnunet
from tests.speed.record import (
    COMPILED,
    CORE,
    EAGER,
    FUSED,
    GRAPH,
    INFERENCE,
    MAMBA_SSM,
    OWN,
    SAVED,
    STEP,
    Figure,
    check_folder,
    new_document,
)
from tests.speed.saved import saved_figures
from tests.speed.scans import STAGES, Stage
from tests.speed.session import Job, run_jobs
from tests.speed.table import markdown

DTYPES = ("float16", "bfloat16", "float32")
PIPELINES = {"fused": FUSED, "own": OWN, "mamba_ssm": MAMBA_SSM}
PASSES = {"step": STEP, "inference": INFERENCE}
MODES = {"eager": EAGER, "compiled": COMPILED, "graph": GRAPH}
SECONDS_TO_COMPILE = 150.0  # a compilation may take so long, and cannot be interrupted in an orderly way


@dataclass(frozen=True)
class NetworkOptions:
    """What `bench networks` measures; () and None stand for what suits the device.

    Attributes:
        device: "cpu" or "cuda"; None for CUDA where there is one.
        networks: of `models.NETWORKS`.
        batches: images per call.
        sizes: side of the square images in pixels.
        dtypes: of `DTYPES`.
        passes, pipelines, modes: keys of the tables above.
        seconds: for each figure, beyond warming up and five calls.
        budget: seconds after which no measurement begins; None for no end.
        threads: of the CPU.
    """

    device: str | None = None
    networks: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()
    pipelines: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    seconds: float = 0.3
    budget: float | None = None
    threads: int | None = None

    def resolved(self) -> "NetworkOptions":
        """With everything filled in.

        Raises:
            ValueError: options that make no sense, or that cannot run here.
        """
        cuda_here = torch.cuda.is_available()
        if self.device == "cuda" and not cuda_here:
            raise ValueError("--device cuda: torch finds no CUDA device here; use --device cpu")
        if min((1, *self.batches, *self.sizes)) < 1 or self.seconds < 0 or (self.threads or 1) < 1:
            raise ValueError("--batch, --size and --threads must be at least 1, --seconds at least 0")
        for option, values, known in (
            ("--networks", self.networks, NETWORKS), ("--dtype", self.dtypes, DTYPES),
            ("--passes", self.passes, PASSES), ("--pipelines", self.pipelines, PIPELINES),
            ("--modes", self.modes, MODES),
        ):  # fmt: skip
            unknown = [value for value in values if value not in known]
            if unknown:
                raise ValueError(f"{option} {' '.join(unknown)}: choose from {', '.join(known)}")
        device = self.device or ("cuda" if cuda_here else "cpu")
        cuda = device == "cuda"
        if "graph" in self.modes and not cuda:
            raise ValueError("--modes graph: CUDA graphs need a CUDA device; choose eager or compiled")
        here = pipelines(device)
        absent = [name for name in self.pipelines if PIPELINES[name] not in here]
        if absent:
            raise ValueError(f"--pipelines {' '.join(absent)} cannot run on {device}; `swin-umamba doctor` says why")
        return replace(
            self, device=device, networks=self.networks or NETWORKS,
            batches=self.batches or ((12, 30) if cuda else (1,)), sizes=self.sizes or ((320, 256) if cuda else (64,)),
            dtypes=self.dtypes or (DTYPES[:2] if cuda else DTYPES[2:]), passes=self.passes or tuple(PASSES),
            pipelines=self.pipelines or tuple(name for name, each in PIPELINES.items() if each in here),
            modes=self.modes or (tuple(MODES) if cuda else ("eager",)),
        )  # fmt: skip


def settings(options: NetworkOptions) -> list[Setting]:
    """Every combination that makes sense, in order of interest.

    Eager before compiled, which takes minutes; first one image at a time, which is what prediction without mirroring
    does, where there is a GPU.  Other pipelines are compared eagerly, CUDA graphs at one image only: larger batches are
    not bound by launches.
    """
    chosen = []
    alone = (1,) if options.device == "cuda" and 1 not in options.batches else ()
    for mode, batch, size, dtype, network, pipeline, passes in itertools.product(
        options.modes, (*alone, *options.batches), options.sizes, options.dtypes, options.networks, options.pipelines,
        options.passes,
    ):  # fmt: skip
        setting = Setting(network, batch, (size, size), getattr(torch, dtype), PASSES[passes], PIPELINES[pipeline],
                          MODES[mode])  # fmt: skip
        comparing = setting.pipeline != FUSED
        if batch in alone and (comparing or setting.passes != INFERENCE):
            continue
        if setting.makes_sense and not (comparing and mode != "eager") and not (mode == "graph" and batch > 1):
            chosen.append(setting)
    return chosen


def network_jobs(clock: Clock, builder: Builder, chosen: Sequence[Setting]) -> list[Job]:
    """A job per setting."""

    def run_one(setting: Setting) -> list[Figure]:
        return [measure(clock, setting, builder)]

    return [Job(s.figure(), partial(run_one, s), SECONDS_TO_COMPILE if s.mode == COMPILED else 10.0) for s in chosen]


def saved_jobs(device: str) -> list[Job]:
    """What each stage of a network keeps for backward, in the setting of the targets; nothing is computed for it."""
    stages = [Stage(12, (320, 320), stride, channels, torch.float16) for stride, channels in STAGES]
    return [Job(stage.figure(CORE, FUSED, SAVED), partial(saved_figures, device, stage), 2.0) for stage in stages]


def run(options: NetworkOptions, file: Path | None = None, say: Callable[[str], None] = print) -> int:
    """Measure and report.

    Args:
        options: what.
        file: where the JSON goes, rewritten after every figure; None for nowhere.
        say: gets the lines for the reader.

    Returns:
        0; 1 if nothing could be measured; 130 if it was interrupted.

    Raises:
        ValueError: options that make no sense, or a file that cannot be written.
    """
    options = options.resolved()
    check_folder(file)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = options.device or "cpu"
    set_up_like_nnunet(device)
    clock = Clock(device, options.budget, options.seconds)
    document = new_document("bench networks", device, asdict(options))
    chosen = settings(options)
    jobs = [*saved_jobs(device), *network_jobs(clock, Builder(), chosen)]
    say(f"{document['device']['name']}, torch {torch.__version__}")
    say(f"{len(chosen)} measurements of networks; Ctrl-C ends it and keeps what there is\n{STEP_CONVENTION}\n")
    finished = run_jobs(jobs, clock, document, file, say)
    say("\n" + markdown(document))
    if file:
        say(f"written to {file}; `swin-umamba bench report {file} --plot FILE.png` draws it")
    if not finished:
        return 130
    return 0 if any(not figure.problem for figure in document["figures"]) else 1
