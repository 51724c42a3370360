"""linux/xattr.h and linux/limits.h: extended attributes, xattr(7)."""

from struct import Struct

XATTR_CREATE = 1
XATTR_REPLACE = 2
XATTR_NAME_MAX = 255
XATTR_SIZE_MAX = 65536
XATTR_LIST_MAX = 65536
XATTR_ARGS = Struct("<QII")
"""``struct xattr_args`` of setxattrat(2): value, size, flags."""
