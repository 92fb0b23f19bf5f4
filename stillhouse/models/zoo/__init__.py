"""Small networks for inputs of 8x8 to 32x32 pixels, one file each: ``build(options, channels, size_px, classes)``."""
