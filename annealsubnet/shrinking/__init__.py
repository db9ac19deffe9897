"""Shrinking: a physically smaller network instead of one with zeros."""

from annealsubnet.shrinking.shrink import shrink

__all__ = ["shrink"]
