"""Samples, splits, views and order. Only ``batch`` and ``stream`` import torch, so that ``check`` need not."""
