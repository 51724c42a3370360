"""Builds the C parts; everything else is in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["asyncsentry/platforms/build_native.py:ffibuilder"])
