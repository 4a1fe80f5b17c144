"""The rendered birds: their shapes, their pictures, and the data set made of them."""
