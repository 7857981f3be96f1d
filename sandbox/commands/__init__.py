"""One module for each command of `sandbox`, loaded only when it is called."""
