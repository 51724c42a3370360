"""The default platform: guest processes whose every system call traps into shared memory.

Tour: ``layout.h`` is what both sides agree on; ``stub.c`` the code in the guest process; ``filter.py`` what
its seccomp filter lets through; ``host.c`` our side's C; ``platform.py`` pumps traps and makes processes;
``context.py`` is one guest thread; ``space.py`` guest memory; ``slots.py`` hands out shared memory.
"""
