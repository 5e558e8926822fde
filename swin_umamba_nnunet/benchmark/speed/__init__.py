"""Speed and memory of scans, SS2D blocks and whole networks, on a GPU by its own clock, on a CPU as ratios.

`record.py` is what is written down, `clock.py` how time is taken; `scans.py`, `networks.py` (built by `models.py`) and
`saved.py` are what is measured, `session.py` a list of measurements of which any may fail, `bench.py` what
`swin-umamba bench networks` puts on that list.  `targets.py`, `table.py` and `plot.py` make something of the figures
afterwards, without torch.
"""
