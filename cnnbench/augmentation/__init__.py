"""What is done to training images, a draw of its own for every sample of a batch.

An augmentation moves the window that is cut out of an image (`place`), which costs nothing since the window is cut
anyway, or makes it out of the whole image (`resize`), or changes the pixels of the batch (`paint`), or blends samples
of the normalised batch (`mix`). They act in the order of their `order` fact: windows from 10, mirror images from 20,
turns from 24, colours from 30, grain from 34, covered parts from 40, blends from 50.
"""
