"""Terminals. See tty(4), termios(3), pty(7).

Tour: ``ldisc.py`` is the line discipline, pure and synchronous, on the settings of ``termios.py``;
``erase.py`` its line editing and ``output.py`` its output side. ``tty.py`` is a terminal: a line discipline
with a session and a foreground group, and the file programs open; ``jobcontrol.py`` decides who may use it,
``ioctls.py`` answers its control calls. ``pty.py`` is the master side of a pseudo-terminal, ``devpts.py`` the
file system its slaves live in, ``host_tty.py`` a terminal that is one on the host. ``terminals.py`` holds
the terminals of one kernel and opens /dev/tty, /dev/console and /dev/ptmx.
"""
