"""Guest threads and processes: their lives, signals, waits and identities.

Tour: ``thread.py`` and ``process.py`` hold the state, ``run.py`` is the loop every guest thread is in
(wait for trap, dispatch, deliver signals, resume), ``block.py`` the one place where a guest thread waits.
"""
