"""What is put into stock verl 0.5.0, and the only package that imports verl."""
