"""Which backend computes the selective scan on which device, and whether it computes it right."""

import logging
import time
from typing import Any

from swin_umamba_nnunet._distribution import repository
from swin_umamba_nnunet.cli._doctor.section import Section

logger = logging.getLogger(__name__)


def backends() -> Section:
    """Per device: the backend that runs, why the others do not, and a short test of values and gradients."""
    section = Section("backends")
    try:
        import torch

        from swin_umamba_nnunet import ops
        from tests.speed.ops import ALLOWED_ERROR
    except ImportError as error:
        section.problems.append(f"the networks cannot be imported: {error}")
        return section
    for device, called in _devices().items():
        report = ops.backend_report(torch.device(device).type)
        chosen = None
        try:
            chosen = ops.resolve_backend(None, torch.device(device).type)
        except (ops.BackendUnavailableError, ValueError) as error:
            if str(error) not in section.problems:
                section.problems.append(str(error))
        tests = {name: _tested(name, device) for name, state in report.items() if state == "available"}
        section.data[device] = {"runs": chosen, "states": report, "self_test": tests}
        section.lines.append(f"  on {called}: " + (f"{chosen} runs" if chosen else "none runs"))
        for name, state in report.items():
            section.lines.append(f"    {name:<10} {state}" + (f"; {_told(tests[name])}" if name in tests else ""))
            if name in tests and tests[name].get("ok") is False:
                section.problems.append(
                    f"the backend {name} fails its test on {called} ({_told(tests[name])}); please report this "
                    f"{_where()}with the output of `swin-umamba doctor --json`, and name another one in "
                    "SWIN_UMAMBA_BACKEND till then"
                )
    section.lines.append(
        f"  (test: largest relative L2 error of output and all gradients, float32 against float64; up to "
        f"{ALLOWED_ERROR:g} is right)"
    )
    return section


def _devices() -> dict[str, str]:
    """Every device that the scan could run on, as torch names it, and what people call it."""
    import torch

    devices = {"cpu": "cpu"}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        gpu = torch.cuda.get_device_properties(index)  # each may be of another architecture
        devices[f"cuda:{index}"] = f"cuda:{index} ({gpu.name}, compute capability {gpu.major}.{gpu.minor})"
    if torch.backends.mps.is_available():
        devices["mps"] = "mps"
    return devices


def _where() -> str:
    address = repository()
    return f"at {address} " if address else ""


def _tested(backend: str, device: str) -> dict[str, Any]:
    """Error of a backend against the float64 reference, on a small uneven image."""
    from tests.speed.ops import ALLOWED_ERROR, worst_error

    if device == "mps":
        return {"ok": None, "message": "not tested: this device has no float64 to compare with"}
    began = time.monotonic()
    try:
        error = worst_error(backend, device)
    except Exception as failure:  # whatever a compiler or a driver raises is the finding
        logger.debug("self-test of %s on %s", backend, device, exc_info=True)
        reason = (str(failure).strip() or "no message").splitlines()[0]
        return {"ok": False, "message": f"{type(failure).__name__}: {reason}"}
    seconds = time.monotonic() - began
    return {"ok": bool(error <= ALLOWED_ERROR), "relative_l2_error": float(error), "seconds": round(seconds, 2)}


def _told(test: dict[str, Any]) -> str:
    if "message" in test:
        return str(test["message"])
    verdict = "right" if test["ok"] else "WRONG"
    return f"{verdict}, error {test['relative_l2_error']:.1e} ({test['seconds']:.1f} s)"
