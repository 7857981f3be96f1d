"""Random bytes, guided by what they reach in our code: what must hold of every text, found or made up."""
