"""Pure tensor functions: the selective scan, in one dimension and in SS2D's four-direction form."""

from swin_umamba_nnunet.ops._glue import fuses_glue, selective_scan_2d_norm_gate
from swin_umamba_nnunet.ops._scan import selective_scan, selective_scan_2d
from swin_umamba_nnunet.ops._select import BACKENDS, PLAIN, BackendUnavailableError, backend_report, resolve_backend

__all__ = [
    "BACKENDS",
    "PLAIN",
    "BackendUnavailableError",
    "backend_report",
    "fuses_glue",
    "resolve_backend",
    "selective_scan",
    "selective_scan_2d",
    "selective_scan_2d_norm_gate",
]
