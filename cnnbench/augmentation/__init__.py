"""Data augmentation of training batches, with independent random draws for every sample.

An augmentation chooses where the crop lies in its image (`sample_crop`, free of cost since every batch is cropped
anyway), makes the crop from the whole image (`resize`), changes pixels (`apply`), or mixes samples of the normalised
batch (`mix`). They run in the order of their `order` fact: crops from 10, flips from 20, rotations from 24, colours
from 30, blur and noise from 34, occlusion from 40, mixing from 50.
"""
