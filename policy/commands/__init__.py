"""One module for each command of `policy`, loaded only when it is called."""
