"""`policy lint`: what is wrong, useless or unwise in policy files and the variables beside them."""
