"""Models: built from a recipe, loaded, probed, measured. A network carries its own input normalisation."""
