"""The rules, one in each module."""
