"""The report of a run: static pages, readable offline."""

from qpm_lib.report.build import build_report
from qpm_lib.report.gallery import make_gallery
from qpm_lib.report.index import comparison_rows
from qpm_lib.report.pages import write_page
from qpm_lib.report.side_by_side import write_side_by_side
from qpm_lib.report.slides import slides_html

__all__ = ["build_report", "comparison_rows", "make_gallery", "slides_html", "write_page", "write_side_by_side"]
