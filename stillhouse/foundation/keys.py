"""A key says which picture is meant, everywhere: (sample id, view), both counted from 0."""

from __future__ import annotations

PLAIN = -1
"""The view number of a sample as it is, without augmentation."""
