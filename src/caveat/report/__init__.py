"""The report: a record as one self-contained HTML page. It imports no torch.

`page` renders; `figures` are the charts, `verdict` the words, `payload` the numbers that the page's script needs,
`terms` the explanations, `shown` the one way a number is written.
"""

from caveat.report.page import render, write

__all__ = ["render", "write"]
