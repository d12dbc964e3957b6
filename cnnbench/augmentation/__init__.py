"""What is done to training images, a draw of its own for every sample of a batch.

An augmentation moves the window that is cut out of an image (`sample_crop`), which costs nothing since the window is
cut anyway, or makes it out of the whole image (`resize`), or changes the pixels of the batch (`apply`), or blends
samples of the normalised batch (`mix`). They act in the order of their `order` fact: crops from 10, flips from 20,
rotations from 24, colours from 30, blur and noise from 34, occlusion from 40, mixing from 50.
"""
