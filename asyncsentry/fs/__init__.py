"""Files: everything a guest reaches through a descriptor or a path.

Tour: a *path* is walked (``path.py``) over *dentries* (``dentry.py``), which name *inodes*
(``inode.py``) and hang in *mounts* (``mount.py``); opening one gives a *file* (``file.py``, Linux's
open file description), which a descriptor table (``fdtable.py``) numbers. Each file system is one
module or folder that subclasses :class:`~asyncsentry.fs.inode.Inode` and
:class:`~asyncsentry.fs.file.File`. Permission checks live in the walk, never in a file system.
"""
