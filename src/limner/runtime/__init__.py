"""Runs bundles: engines, tiles, painters and their benchmark. Never imports torch."""
