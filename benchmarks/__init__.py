"""The side-by-side runs: `make bench`, or `python -m benchmarks --help`.

`beds/` are the networks that are compared, `rows.py` what is measured on each, `rounds.py` the
order; `core.py` and `policy.py` measure the C library and the compiler without any network. All
of it becomes JSON lines (`lines.py`), and those a table and plots (`report.py`, `plot.py`).
"""
