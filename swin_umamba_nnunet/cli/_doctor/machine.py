"""Versions, devices, and the settings that come from the environment."""

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

from swin_umamba_nnunet import __version__, _autoregister
from swin_umamba_nnunet.cli._doctor.section import Section, can_be_written
from swin_umamba_nnunet.settings import MEANINGS

# distribution -> whether nothing works without it
PACKAGES = {
    "nnunetv2": True, "torch": True, "numba": True, "numpy": True, "dynamic_network_architectures": True,
    "SimpleITK": True, "matplotlib": True, "triton": False, "mamba-ssm": False, "causal-conv1d": False,
    "nilearn": False, "h5py": False, "surface-distance": False, "MedPy": False,
}  # fmt: skip
_NNUNET_MINIMUM = (2, 8)  # the first that looks for trainers in nnUNet_extTrainer

_FOLDERS = {
    "nnUNet_raw": "the folder your datasets are in",
    "nnUNet_preprocessed": "a folder on a fast disk, for what nnU-Net makes of them",
    "nnUNet_results": "a folder for trained models",
}
_OTHERS = (
    _autoregister.VARIABLE, "nnUNet_compile", "nnUNet_def_n_proc", "nnUNet_n_proc_DA", "OMP_NUM_THREADS",
    "NUMBA_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "XDG_CACHE_HOME",
)  # fmt: skip
_PROXIES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY")  # may hold a password: never shown


def versions() -> Section:
    """Installed packages, and those that are missing or of a version that cannot work."""
    found = {name: _version(name) for name in PACKAGES}
    section = Section(
        "versions",
        {
            "swin_umamba_nnunet": __version__, "python": platform.python_version(), "platform": platform.platform(),
            "executable": sys.executable, **found,
        },
        [f"  swin_umamba_nnunet {__version__} on Python {platform.python_version()}, {platform.platform()}", ""],
    )  # fmt: skip
    width = max(map(len, PACKAGES))
    section.lines += [
        f"  {name:<{width}}  {version or 'not installed' + ('' if PACKAGES[name] else ' (optional)')}"
        for name, version in found.items()
    ]
    for name, version in found.items():
        if version is None and PACKAGES[name]:
            section.problems.append(f"{name} is missing; install this package again with pip, which brings it")
    nnunet, torch = found["nnunetv2"], found["torch"]
    if nnunet is not None and _numbers(nnunet) < _NNUNET_MINIMUM:
        section.problems.append(
            f"nnunetv2 {nnunet} does not look for trainers outside of itself, 2.8 and later do: "
            'pip install -U "nnunetv2>=2.8"'
        )
    if torch is not None and _numbers(torch)[:2] == (2, 9):
        section.problems.append(
            f"torch {torch} computes 3D convolutions under mixed precision several times slower than other versions "
            'and is excluded by nnU-Net and by this package: pip install "torch!=2.9.*"'
        )
    return section


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+")[0].split(".")
    return tuple(int(part) for part in parts[:2] if part.isdecimal())


def devices() -> Section:
    """CPU and GPUs as torch sees them."""
    section = Section("devices")
    try:
        import torch
    except ImportError as error:
        section.problems.append(f"torch cannot be imported: {error}")
        return section
    cores, threads = os.cpu_count(), torch.get_num_threads()
    gpus = []
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        memory, capability = properties.total_memory / 2**30, f"{properties.major}.{properties.minor}"
        gpus.append({"name": properties.name, "memory_gib": round(memory, 1), "capability": capability})
    mps = bool(torch.backends.mps.is_available())
    section.data = {
        "cpu_cores": cores, "torch_threads": threads, "gpus": gpus, "torch_cuda": torch.version.cuda, "mps": mps,
    }  # fmt: skip
    section.lines = [f"  CPU   {cores} cores, torch uses {threads} threads"]
    for index, gpu in enumerate(gpus):
        size = f"{gpu['memory_gib']} GiB, compute capability {gpu['capability']}"
        section.lines.append(f"  CUDA  {index}: {gpu['name']}, {size}")
    if not gpus:
        section.lines.append("  CUDA  no GPU found")
        if shutil.which("nvidia-smi"):
            built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
            section.problems.append(
                f"there is an NVIDIA driver here, but torch {torch.__version__} ({built}) finds no GPU; if nvidia-smi "
                "shows one, install the torch that suits its driver (pytorch.org, Get Started)"
            )
    if mps:
        section.lines.append("  MPS   Apple GPU")
    if not gpus:
        section.missing.append(
            f"there is no NVIDIA GPU: nnUNetv2_train and nnUNetv2_predict need `-device {'mps' if mps else 'cpu'}`; on "
            "a CPU a training of full length takes weeks (`swin-umamba list` has short variants)"
        )
    return section


def environment() -> Section:
    """The variables that change what this package and nnU-Net do."""
    values = {name: os.environ.get(name) or None for name in (*MEANINGS, *_FOLDERS, *_OTHERS)}
    values |= {name: "set" for name in _PROXIES if os.environ.get(name)}
    section = Section("environment", dict(values))
    width = max(map(len, values))
    for name, value in values.items():
        said = value or "not set"
        if name in MEANINGS:
            said += f"   ({MEANINGS[name]})"
        elif name in _FOLDERS:
            remark, need = _folder(name, value)
            said += remark
            section.missing += [need] if need else []
        elif value is None:
            continue
        section.lines.append(f"  {name:<{width}}  {said}")
    unset = [name for name in _OTHERS if values[name] is None]
    section.lines.append(f"  not set: {', '.join(unset)}" if unset else "")
    return section


def _folder(name: str, value: str | None) -> tuple[str, str | None]:
    """A remark on one of nnU-Net's folders, and what a training needs of it, None if it is as it should be."""
    if value is None:
        return "; nnU-Net's commands need it", f"{name} is not set: export it with the path of {_FOLDERS[name]}"
    absent, need = not os.path.isdir(value), None
    if name == "nnUNet_raw" and absent:
        need = f"{name} is {value}, and there is no such folder: put your datasets there"
    elif name != "nnUNet_raw" and not can_be_written(Path(value)):
        need = f"{name} is {value}, which cannot be written: name another folder"
    return " (no such folder yet)" if absent else "", need
