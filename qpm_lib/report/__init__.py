"""The report of a run: static pages, readable offline."""

from qpm_lib.report.build import build_report, comparison_rows
from qpm_lib.report.gallery import make_gallery

__all__ = ["build_report", "comparison_rows", "make_gallery"]
