"""The second platform: guests stopped by PTRACE_SYSEMU, on python-ptrace. Portable and slow; good for bisecting.

Tour: ``tracee.py`` is one stopped host thread and what can be done to it; ``platform.py`` learns of stops and
makes processes. Guest processes are the same stub as on systrap, of which only single instructions are used.
"""
