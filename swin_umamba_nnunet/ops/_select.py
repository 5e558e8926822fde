"""Which backend runs: an explicit choice, else the first of a priority list that can; the choice is logged once."""

import builtins
import contextlib
import functools
import importlib
import logging
import math
import os
from unittest import mock

import torch

logger = logging.getLogger(__name__)

BACKENDS = ("triton", "mamba_ssm", "numba", "portable", "reference")
PLAIN = ("portable", "reference")  # ordinary tensor operations: any device, float64, autograd; slow
ENVIRONMENT_VARIABLE = "SWIN_UMAMBA_BACKEND"

# The plain ones are absent on purpose: many times slower, they have to be asked for by name.
_AUTOMATIC = {"cuda": ("triton", "mamba_ssm"), "cpu": ("numba",), "mps": ("numba",), "meta": ("numba",)}

# What torch.export puts functions of its own in the place of while it traces, where numba looks for Python's
_OWN = [(owner, name, getattr(owner, name)) for owner, name in ((builtins, "max"), (builtins, "min"), (math, "pow"))]


class BackendUnavailableError(RuntimeError):
    """A backend was asked for that cannot run here, or none can; the message says why and what to do."""


@torch.compiler.assume_constant_result
def _resolve_backend(requested: str | None, device_type: str) -> str:
    """Name of the backend that will run on `device_type`.

    Args:
        requested: one of `BACKENDS`, or None to follow `SWIN_UMAMBA_BACKEND` and then the priority list of the device.
        device_type: `torch.device.type` of the tensors ("cpu", "cuda", ...).

    Raises:
        ValueError: the name (or the environment variable) is no backend.
        BackendUnavailableError: the backend asked for cannot run there, or no fast backend can.
    """
    source = "the argument `backend`"
    if requested is None:
        requested = os.environ.get(ENVIRONMENT_VARIABLE) or None
        source = f"the environment variable {ENVIRONMENT_VARIABLE}"
    if requested is None or requested == "auto":
        return _automatic(device_type)
    if requested not in BACKENDS:
        raise ValueError(
            f"{source} names the backend {requested!r}, which does not exist; choose one of "
            f"{', '.join(BACKENDS)}, or leave it out for an automatic choice"
        )
    reason = unavailable_reason(requested, device_type)
    if reason is not None:
        raise BackendUnavailableError(
            f"the backend {requested!r} was asked for by {source} but cannot run on {device_type!r} tensors: {reason}"
        )
    _log_once(requested, device_type, f"asked for by {source}")
    return requested


# torch 2.4's compiler stores the constant as a global under the function's own name: not one that anybody calls.
resolve_backend = _resolve_backend


@functools.cache
def unavailable_reason(backend: str, device_type: str) -> str | None:
    """None if `backend` can run on `device_type`, else one clause that says why it cannot."""
    if backend in PLAIN:
        return None
    try:
        with contextlib.ExitStack() as stack:
            for each in _OWN:
                stack.enter_context(mock.patch.object(*each))
            module = importlib.import_module(f"swin_umamba_nnunet.ops._{backend}")
    except ImportError as error:
        return f"{error} (not part of this installation)"
    except Exception as error:  # numba compiles while it is imported, and what fails there is a reason like any other
        return f"it could not be loaded ({type(error).__name__}: {error})"
    reason: str | None = module.unavailable_reason(device_type)
    return reason


def backend_report(device_type: str) -> dict[str, str]:
    """`{backend: "available" or the reason why it is not}` for tensors on `device_type`."""
    return {name: unavailable_reason(name, device_type) or "available" for name in BACKENDS}


@functools.cache
def _automatic(device_type: str) -> str:
    candidates = _AUTOMATIC.get(device_type, ())
    reasons: list[str] = []
    for name in candidates:
        reason = unavailable_reason(name, device_type)
        if reason is None:
            _log_once(name, device_type, "; ".join(["chosen automatically", *reasons]))
            return name
        reasons.append(f"{name}: {reason}")
    raise BackendUnavailableError(
        f"no fast selective-scan backend can run on {device_type!r} tensors"
        + (f" ({'; '.join(reasons)})" if reasons else "")
        + f". Move the network to a CPU, or set {ENVIRONMENT_VARIABLE}=reference if hundreds of times slower will do"
    )


@functools.cache
def _log_once(backend: str, device_type: str, why: str) -> None:
    logger.info("selective scan on %s: backend %r (%s)", device_type, backend, why)
