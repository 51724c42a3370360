"""The gofer: the only process that opens host files, and the file system that talks to it.

Tour: ``protocol.py`` is the wire format both ends share; ``server.py`` (with ``operations.py``, ``nodes.py``,
``hostcalls.py`` and ``confine.py``) runs as a process of its own; ``connection.py`` starts it and sends it
requests; ``client.py`` is the file system made of its answers, with ``inodes.py`` and ``directories.py``, and
``files.py`` reads and writes the descriptors it donates. The server's modules import little, because they
start with every sandbox.
"""
