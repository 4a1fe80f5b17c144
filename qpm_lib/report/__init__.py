"""The report of a run: static pages, readable offline."""

from qpm_lib.report.build import build_report
from qpm_lib.report.gallery import make_gallery
from qpm_lib.report.index import comparison_rows

__all__ = ["build_report", "comparison_rows", "make_gallery"]
