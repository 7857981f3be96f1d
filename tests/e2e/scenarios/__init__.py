"""What is proved, one module for each part; each has one public function, `play`, whose docstring is its heading."""
