"""Enforces: runs code in a gVisor box under the effective limits that `policy` decided."""
