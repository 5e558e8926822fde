"""What all tests share."""

# ruff: noqa: E402
import contextlib
import gc
import importlib.abc
import locale
import os
import signal
import sys

# before torch starts threads: a worker has one core, and where nnU-Net takes all, waiting for a thread costs no time
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

from tests import warm

# Workers of pytest-xdist, and jobs a shell runs in the background, ignore Ctrl-C; what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


class CompiledOnce(importlib.abc.MetaPathFinder):
    """The CPU kernels are compiled by the warm process; workers that come too early wait for them."""

    def find_spec(self, name, path=None, target=None):
        if name == "swin_umamba_nnunet.ops._numba":
            with warm.lock(os.environ[warm.SHARED]):
                pass


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Files are UTF-8: some library sets the process's locale to ASCII on the way, for all tests that come later."""
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")


def pytest_configure(config):
    """What pytest-xdist, where it is there, would do otherwise: order files anew, and a warm process per worker."""
    config.option.loadscopereorder = False
    if hasattr(config, "workerinput"):
        if warm.AVAILABLE:
            sys.meta_path.insert(0, CompiledOnce())
    elif getattr(config.option, "dist", "no") != "no":
        os.environ[warm.SHARED] = warm.warm_python()


def pytest_collection_modifyitems(items):
    """Long files first, so that no worker is left with one, then rooms from the last (trainers) to the first (cli).

    Tests marked `gpu` are skipped where there is none, those marked `kernels` where there is no interpreter either.
    """
    import torch  # here and below: the process that distributes tests to workers does without

    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path in long, str(item.path)), reverse=True)
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    gpu = torch.cuda.is_available() and not interpreted
    why = {
        "gpu": None if gpu else "needs a CUDA device, without Triton's interpreter",
        "kernels": None if gpu or interpreted else "no CUDA device; test_in_the_interpreter runs this one on the CPU",
    }
    for item in items:
        for reason in (why.get(mark.name) for mark in item.iter_markers()):
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish():
    """A full collection of garbage looks at a million objects of libraries otherwise, half a second each time."""
    gc.freeze()


@pytest.fixture(params=["SwinUMamba", "SwinUMambaD"])
def network_class(request):
    """Each segmentation network's class in turn."""
    from swin_umamba_nnunet import networks

    return getattr(networks, request.param)


@pytest.fixture
def tiny_network(network_class):
    """A function (input_channels, num_classes, deep_supervision, **settings) -> a small network, seeded, stride 32."""
    import torch

    def build(input_channels=1, num_classes=3, deep_supervision=False, **settings):
        torch.manual_seed(0)
        return network_class(
            input_channels,
            num_classes,
            deep_supervision,
            **{"depths": (1, 1, 2, 1), "width": 16, "d_state": 4} | settings,
        )

    return build


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """The package installed (editable), nnU-Net's folders, and a tiny dataset preprocessed in them."""
    from tests.workspace import make_workspace  # here: `make gpu-check` runs tests where nnU-Net's libraries are not

    return make_workspace(tmp_path_factory)


@pytest.fixture(scope="session")
def warm_python():
    """Path of an interpreter that starts warm, with this checkout (`tests/warm.py`)."""
    return warm.warm_python()


@pytest.fixture
def set_threads():
    """A function (number of torch's threads); afterwards they are as many as before."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
