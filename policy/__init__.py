"""Decides: limits, layers, signed policy files, and the effective limits that come out of them."""
