"""Benchmarks: ours against the best honest rival, interleaved in one run, told as ratios."""
