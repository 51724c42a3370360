"""/proc: the kernel's state as a tree of files. See proc(5).

Tour: ``base.py`` has the file system and what it asks of the kernel; ``root.py`` the top directory;
``system.py`` the files about the machine; ``process.py`` the directory of a process or thread, with its
text rendered in ``status.py`` and ``misc.py``, its descriptors in ``fd.py`` and its memory in
``memory.py``; ``mounts.py`` the tables of mounts; ``sys.py`` the parameters; ``net.py`` the network tables.
"""
