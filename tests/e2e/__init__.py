"""End-to-end proof inside a real Open WebUI: `python -m tests.e2e` from the top of the repository.

Starts Open WebUI and a stand-in for a model on this machine, loads both generated plugins and walks through what
people do with them, by its HTTP interface and in Chromium. Not collected by pytest: no file here is named `test_…`.
"""
