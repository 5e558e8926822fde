"""The report of a benchmark: tables, charts and a checklist in one HTML file, with CSV and LaTeX beside it.

    files = write_report(Path("bench"), Path("bench/report"))

Reads the benchmark's folder only, and works while cells are missing or have failed: it says which.
"""

from swin_umamba_nnunet.benchmark.report.analysis import ReportOptions
from swin_umamba_nnunet.benchmark.report.build import write_report

__all__ = ["ReportOptions", "write_report"]
