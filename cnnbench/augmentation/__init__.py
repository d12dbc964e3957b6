"""What is done to training images, a draw of its own for every sample of a batch.

An augmentation either moves the window that is cut out of an image (`place`), which costs nothing since the window
is cut anyway, or changes the pixels of the batch (`paint`). They act in the order of their `order` fact:
crop 10, flip 20, jitter 30; then the batch is normalised.
"""
