"""Datasets, replay and their transforms: arrays in, arrays out."""
