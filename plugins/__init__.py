"""Open WebUI's side: the tool, the function, and the flattener that makes single files of them."""
