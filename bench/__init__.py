"""What calls, start-up and memory cost: natively, in asyncsentry and in its peers, in one interleaved run.

`python -m bench` (or `make bench`) writes ``results.md`` and ``comparison.svg``. ``calls.c`` times calls inside
whatever runs it; ``systems.py`` says how each system runs a command; ``measure.py`` interleaves them;
``footprint.py`` measures a sandbox from outside; ``report.py`` and ``chart.py`` write what was found.
"""
